"""`session.positions`.

Closing carries no tag and is not idempotent: sent twice, it could open the opposite position. So it is sent once, and
when its reply is lost the positions are read back and compared.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from msgspec.structs import replace

from topstep_sync.api.arguments import account_number, contract_name, whole
from topstep_sync.api.results import Change, CloseResult, Report
from topstep_sync.api.seam import Call, patience, present
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline, Signal, Waitable
from topstep_sync.config import OrderConfig
from topstep_sync.errors import Fate, InvalidRequest, OrderStateUnknown, PositionNotFound, TopstepError
from topstep_sync.http.routes import Priority
from topstep_sync.messages import ByAccount, ClosePosition, PartialClosePosition, PositionsReply, Reply
from topstep_sync.models import Account, Contract, Position, Record
from topstep_sync.tables import Rows

SEARCH_OPEN: Final = "/api/Position/searchOpen"
CLOSE: Final = "/api/Position/closeContract"
PARTIAL_CLOSE: Final = "/api/Position/partialCloseContract"

log = logging.getLogger("topstep_sync.orders")


class Sweep(Protocol):
    """Cancels every working order of an account and contract; `Sweeper.cancel_all` is one."""

    def __call__(self, account_id: int, contract_id: str | None, timeout: float) -> Report: ...


class PositionsApi:
    """Open positions, one row per account and contract. Thread-safe."""

    def __init__(
        self,
        call: Call,
        *,
        config: OrderConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
        closed: Waitable | None = None,
    ) -> None:
        self._call = call
        self._config = config or OrderConfig()
        self._clock = clock
        self._closed = closed or Signal()
        self.sweep: Sweep | None = None
        """What cancels orders; the assembly puts it here, because it needs this room itself."""

    def search_open(self, account_id: int | Account) -> Rows[Position]:
        """The account's open positions."""
        request = ByAccount(account_id=account_number(account_id))
        found = present(self._call(SEARCH_OPEN, request, PositionsReply).positions, SEARCH_OPEN, "positions")
        return Rows(found, of=Position)

    def urgent(self, account_id: int, deadline: Deadline | None = None) -> list[Position]:
        """The same with priority 0, past the breaker, and with little patience: for whoever wants out.

        Args:
            deadline: by when all must be done; the call takes at most half of what is left.
        """
        reply = self._call(
            SEARCH_OPEN,
            ByAccount(account_id=account_id),
            PositionsReply,
            priority=Priority.URGENT,
            must_try=True,
            timeout=patience(deadline, 0.5),
        )
        return list(present(reply.positions, SEARCH_OPEN, "positions"))

    def close(
        self,
        account_id: int | Account,
        contract_id: str | Contract,
        *,
        cancel_orders: bool = False,
        timeout: float | None = None,
    ) -> CloseResult:
        """The account has no position in the contract, at the market's price.

        Args:
            cancel_orders: cancel what still works in the contract afterwards. The gateway may leave protective orders
                behind, and an orphan that fills opens a new position.
            timeout: seconds for the call.

        Raises:
            OrderStateUnknown: whether it was closed cannot be found out; read `search_open` before anything else.
            OrderRejected: the gateway refused it.
        """
        account, contract = account_number(account_id), contract_name(contract_id)
        change = self._send(
            CLOSE, ClosePosition(account_id=account, contract_id=contract), timeout, lambda p: p is None
        )
        result = CloseResult(account_id=account, contract_id=contract, change=change, position=None)
        return self._swept(result) if cancel_orders else result

    def close_part(
        self, account_id: int | Account, contract_id: str | Contract, size: int, *, timeout: float | None = None
    ) -> CloseResult:
        """*size* contracts of the position are closed, at the market's price.

        Raises:
            InvalidRequest: less than *size* is open; nothing was closed.
            PositionNotFound: nothing is open.
            OrderStateUnknown: whether it was closed cannot be found out; read `search_open` before anything else.
        """
        account, contract, wanted = account_number(account_id), contract_name(contract_id), whole(size, "size")
        before = self._find(account, contract)
        if before is None:
            raise PositionNotFound(f"account {account} has no position in {contract}; nothing was sent", fate=NOT_SENT)
        if wanted > before.size:
            raise InvalidRequest(f"size is {wanted}; the position has {before.size}")
        left = before.size - wanted

        def carried_out(now: Position | None) -> bool:
            return (now is None and left == 0) or (now is not None and now.type is before.type and now.size == left)

        request = PartialClosePosition(account_id=account, contract_id=contract, size=wanted)
        change = self._send(PARTIAL_CLOSE, request, timeout, carried_out)
        position = replace(before, size=left) if left else None
        return CloseResult(account_id=account, contract_id=contract, change=change, position=position)

    def _send(
        self, path: str, request: Record, timeout: float | None, carried_out: Callable[[Position | None], bool]
    ) -> Change:
        try:
            self._call(path, request, Reply, priority=Priority.URGENT, must_try=True, timeout=timeout)
        except PositionNotFound:
            if path == CLOSE:
                return Change.ALREADY
            raise
        except TopstepError as error:
            if error.fate is not Fate.UNKNOWN:
                raise
            log.warning("! %s: %s; comparing positions", path, type(error).__name__)
            self._compare(request, carried_out, path, error)
        return Change.DONE

    def _compare(
        self, request: Record, carried_out: Callable[[Position | None], bool], path: str, error: TopstepError
    ) -> None:
        """Returns once the position is as it should be after the call."""
        account, contract = request.account_id, request.contract_id  # type: ignore[attr-defined]
        seen = "the position was not read back"
        for now in self._reads(account, contract):
            if carried_out(now):
                return
            seen = "it is flat" if now is None else f"it is {now.type.name} {now.size}"
        raise OrderStateUnknown(
            f"closing {contract} may or may not have been carried out, and may still be ({error}); {seen}",
            since=self._clock.epoch(),
            last_error=f"{type(error).__name__}: {error}",
            endpoint=path,
        ) from error

    def _reads(self, account_id: int, contract_id: str) -> Iterator[Position | None]:
        for delay in self._config.verify_seconds:
            if self._clock.wait(self._closed, delay):
                return
            try:
                yield self._find(account_id, contract_id)
            except TopstepError as error:
                log.info("! positions cannot be read back: %s", error)

    def _find(self, account_id: int, contract_id: str) -> Position | None:
        return next((p for p in self.urgent(account_id) if p.contract_id == contract_id and p.size), None)

    def _swept(self, result: CloseResult) -> CloseResult:
        assert self.sweep is not None, "the assembly gives this room its sweeper"
        report = self.sweep(result.account_id, result.contract_id, SWEEP_TIMEOUT)
        verified, position = report.verified, result.position
        try:
            position = self._find(result.account_id, result.contract_id)
        except TopstepError as error:  # it was closed; that must not look like a failure
            log.warning("! positions cannot be read back after the sweep: %s", error)
            verified = False
        return replace(
            result, cancelled=report.cancelled, position=position, orders_left=report.orders_left, swept=verified
        )


NOT_SENT: Final = Fate.NOT_SENT
SWEEP_TIMEOUT: Final = 10.0  # GUESS: seconds to cancel a handful of orders and see that they are gone
