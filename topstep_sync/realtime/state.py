"""The accounts, orders and positions as last known; a fact that never changes, replaced by a newer one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from topstep_sync.errors import InvalidRequest
from topstep_sync.models import Account, Contract, Order, Position

_EMPTY: Final[Mapping[int, Account]] = MappingProxyType({})


class TradingState(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent view, published by one reference assignment: reading it takes no lock and no request."""

    accounts: Mapping[int, Account] = _EMPTY
    """By id."""
    orders: Mapping[int, Order] = MappingProxyType({})
    """Orders that may still fill, by id."""
    positions: Mapping[tuple[int, str], Position] = MappingProxyType({})
    """Open positions, by account id and contract id."""
    as_of: float = 0.0
    """When the last change came in, in seconds since 1970; 0.0 while nothing is known."""
    reconciled: bool = False
    """Whether it agrees with a snapshot taken since the connection was last lost."""

    def position(self, account_id: int | Account, contract_id: str | Contract) -> Position | None:
        """The open position of an account in a contract, each given by its id or as such; `None` when it is flat.

        Raises:
            InvalidRequest: one of them is something else, of which nothing could be known.
        """
        account, contract = getattr(account_id, "id", account_id), getattr(contract_id, "id", contract_id)
        if type(account) is not int or type(contract) is not str:
            raise InvalidRequest(
                f"no position of {account_id!r} in {contract_id!r} can be; expected an account and a contract, "
                "or ids such as 536 and CON.F.US.MNQ.Z26"
            )
        return self.positions.get((account, contract))

    def __repr__(self) -> str:
        sizes = f"{len(self.accounts)} accounts, {len(self.orders)} working orders, {len(self.positions)} positions"
        return f"TradingState({sizes}, {'reconciled' if self.reconciled else 'not reconciled'})"
