"""`session.contracts`."""

import sys
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Final

from topstep_sync.api import months
from topstep_sync.api.arguments import contract_name
from topstep_sync.api.seam import Call, present
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.errors import ContractNotFound, InvalidRequest
from topstep_sync.messages import AvailableContracts, ContractById, ContractReply, ContractsReply, SearchContracts
from topstep_sync.models import Contract
from topstep_sync.tables import Rows

SEARCH: Final = "/api/Contract/search"
BY_ID: Final = "/api/Contract/searchById"
AVAILABLE: Final = "/api/Contract/available"

# GUESS: seconds a contract is remembered. Tick size and value never change; the active month does, four times a year.
REMEMBERED: Final = 6 * 3600.0


class LiveDataWarning(UserWarning):
    """`live=True` came back empty: practice and evaluation accounts have no live data, and the gateway does not say."""


class ExpiredMonthWarning(UserWarning):
    """A history came back empty because the gateway keeps no bars shorter than an hour for a month that has expired."""


PACKAGE: Final = str(Path(__file__).parent.parent)


def warn(text: str, category: type[Warning]) -> None:
    """A warning that points at the line that called this library, not at one within it."""
    frame: FrameType | None = sys._getframe()
    depth = 0
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, category, stacklevel=depth + 1)


def warn_live(what: str) -> None:
    """Say what the gateway does not: that its silence is the answer to ``live=True``."""
    warn(
        f"{what} with live=True came back empty: practice and evaluation accounts (simulated=true) have no live data "
        "subscription, and the gateway does not say so; use live=False",
        LiveDataWarning,
    )


class ContractsApi:
    """Futures contracts. Thread-safe."""

    def __init__(self, call: Call, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._call = call
        self._clock = clock
        self._lock = threading.Lock()  # guards _known
        self._known: dict[str, tuple[Contract, float]] = {}

    def search(self, text: str, *, live: bool = False) -> Rows[Contract]:
        """Contracts whose name resembles *text*, 20 at most (the gateway's limit, and it does not page)."""
        if not isinstance(text, str) or not text.strip():
            raise InvalidRequest(f"text is {text!r}; expected part of a contract's name, such as 'MNQ'")
        reply = self._call(SEARCH, SearchContracts(search_text=text, live=live), ContractsReply)
        return self._answer(reply, SEARCH, live)

    def available(self, *, live: bool = False) -> Rows[Contract]:
        """Every contract that can be traded now, one month each."""
        return self._answer(self._call(AVAILABLE, AvailableContracts(live=live), ContractsReply), AVAILABLE, live)

    def get(self, contract_id: str | Contract, *, refresh: bool = False) -> Contract:
        """One contract by its exact id, expired months too. Remembered for some hours; *refresh* asks again.

        Raises:
            ContractNotFound: there is none with this id.
        """
        name = contract_name(contract_id)
        known = None if refresh else self._recall(name)
        if known is not None:
            return known
        reply = self._call(BY_ID, ContractById(contract_id=name), ContractReply)
        contract: Contract = present(reply.contract, BY_ID, "contract")
        self._remember([contract])
        return contract

    def front_month(self, symbol: str, *, live: bool = False) -> Contract:
        """The nearest active month of a product, by its exact name: platform (``ENQ``) or exchange (``NQ``).

        Raises:
            ContractNotFound: there is none; the message lists what resembles it.
        """
        try:
            return months.front(self.search(symbol, live=live), symbol)
        except ContractNotFound:  # the search is fuzzy and shows 20 at most
            return months.front(self.available(live=live), symbol)

    def earlier(self, contract: Contract, count: int) -> Rows[Contract]:
        """The months of the same product among the *count* calendar months before, oldest first."""
        found = []
        for name in months.earlier(contract.id, count):
            try:
                found.append(self.get(name))
            except ContractNotFound:
                continue
        return Rows(found[::-1], of=Contract)

    def _answer(self, reply: ContractsReply, path: str, live: bool) -> Rows[Contract]:
        found: Rows[Contract] = Rows(present(reply.contracts, path, "contracts"), of=Contract)
        self._remember(found)
        if live and not found:
            warn_live(path)
        return found

    def _recall(self, name: str) -> Contract | None:
        with self._lock:
            contract, at = self._known.get(name, (None, 0.0))
        return contract if self._clock.monotonic() < at + REMEMBERED else None

    def _remember(self, contracts: list[Contract]) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._known.update((contract.id, (contract, now)) for contract in contracts)
