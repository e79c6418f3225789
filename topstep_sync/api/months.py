"""Contract months: which contract is the front one, and which came before it.

Ids are opaque by contract, but they have kept one form: ``CON.F.US.<ROOT>.<month letter><two digits>``. It is used
here to guess ids, which are then asked for; an id in another form simply has no neighbours.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from topstep_sync.errors import ContractNotFound
from topstep_sync.models import Contract

LETTERS: Final = "FGHJKMNQUVXZ"  # January to December, the same at every exchange

_ID: Final = re.compile(rf"(?P<head>.+\.)(?P<root>[^.]+)\.(?P<letter>[{LETTERS}])(?P<year>\d\d)")
_NAME: Final = re.compile(rf"(?P<root>.+?)[{LETTERS}]\d{{1,2}}")


class Month(NamedTuple):
    """An expiry month."""

    year: int
    month: int

    @property
    def before(self) -> "Month":
        return Month(self.year - 1, 12) if self.month == 1 else Month(self.year, self.month - 1)


def month_of(contract_id: str) -> Month | None:
    """The expiry month in an id; `None` for an id of another form."""
    found = _ID.fullmatch(contract_id)
    return None if found is None else Month(2000 + int(found["year"]), LETTERS.index(found["letter"]) + 1)


def id_of(contract_id: str, month: Month) -> str | None:
    """The id of the same product in another month."""
    found = _ID.fullmatch(contract_id)
    if found is None:
        return None
    return f"{found['head']}{found['root']}.{LETTERS[month.month - 1]}{month.year % 100:02}"


def roots(contract: Contract) -> set[str]:
    """What the product is called: by the platform (``ENQ``), and by the exchange (``NQ``)."""
    name = _NAME.fullmatch(contract.name)
    return {contract.symbol_id.rpartition(".")[2].upper(), (name["root"] if name else contract.name).upper()}


def front(found: Iterable[Contract], symbol: str) -> Contract:
    """The nearest active month of the product called *symbol*.

    Raises:
        ContractNotFound: there is none.
    """
    wanted = symbol.strip().upper()
    candidates = [contract for contract in found if wanted in roots(contract)]
    active = [contract for contract in candidates if contract.active_contract]
    if not active:
        seen = ", ".join(sorted(contract.id for contract in candidates)) or "nothing of that name"
        raise ContractNotFound(f"no active contract of {symbol!r}; found: {seen}")
    return min(active, key=lambda contract: month_of(contract.id) or Month(9999, 1))


def earlier(contract_id: str, count: int) -> Iterator[str]:
    """Ids of the *count* months before, latest first."""
    month = month_of(contract_id)
    for _ in range(count if month else 0):
        assert month is not None
        month = month.before
        neighbour = id_of(contract_id, month)
        assert neighbour is not None
        yield neighbour
