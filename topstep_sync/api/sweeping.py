"""Getting out: cancelling everything, closing everything, and saying plainly what could not be done.

Nothing here waits for one order while others burn: calls go out side by side with short timeouts, and what they came
to is not believed but read back, round after round, until it is so or the time is up. All of it has priority 0, for
which the rate limiter keeps permits back, and passes an open breaker.
"""

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from topstep_sync.api.changing import CANCEL
from topstep_sync.api.lookup import Lookup
from topstep_sync.api.positions import CLOSE, PositionsApi
from topstep_sync.api.results import Failure, Report
from topstep_sync.api.seam import Call, patience
from topstep_sync.clock import Clock, Deadline, Waitable
from topstep_sync.errors import Fate, NotSent, OrderNotFound, PositionNotFound, TopstepError
from topstep_sync.http.routes import Priority
from topstep_sync.messages import ByOrder, ClosePosition, Reply
from topstep_sync.models import Order, OrderStatus, Position, Record

SIDE_BY_SIDE: Final = 8
ROUND: Final = (0.1, 0.25, 0.5, 1.0)  # seconds between rounds; the last one repeats
GRACE: Final = 0.5  # seconds after the deadline in which what had been begun may still be sent
SETTLING: Final = 2.0  # GUESS: seconds until a confirmed close shows in the positions

log = logging.getLogger("topstep_sync.orders")


class Sweeper:
    """Thread-safe.

    Args:
        horizon: seconds after which a close whose reply was lost is taken as not carried out. A close carries no tag:
            sent twice too soon it would open the opposite position.
    """

    def __init__(
        self,
        call: Call,
        lookup: Lookup,
        positions: PositionsApi,
        *,
        horizon: float,
        clock: Clock,
        closed: Waitable,
    ) -> None:
        self.call = call
        self.lookup = lookup
        self.positions = positions
        self.horizon = horizon
        self.clock = clock
        self.closed = closed

    def cancel_all(self, account_id: int, contract_id: str | None, timeout: float) -> Report:
        """No order of the account (and contract) works any more, or the report says which do."""
        return _Sweep(self, account_id, contract_id, timeout, closes=False).run()

    def flatten(self, account_id: int, timeout: float) -> Report:
        """The account has no working order and no position, or the report says which it has."""
        return _Sweep(self, account_id, None, timeout, closes=True).run()


class Work(NamedTuple):
    """One call that is to be made."""

    what: str
    key: int | str
    """Order id, or contract id of a position."""
    path: str
    request: Record


class _Sweep:
    """One sweep. Written only by the thread that runs it; what runs side by side gives back values."""

    def __init__(
        self, owner: Sweeper, account_id: int, contract_id: str | None, timeout: float, *, closes: bool
    ) -> None:
        self._owner = owner
        self._deadline = Deadline(timeout, owner.clock)
        self._lookup = owner.lookup.within(self._deadline)
        self._account_id = account_id
        self._contract_id = contract_id
        self._closes = closes
        self._orders: list[Order] = []
        self._positions: list[Position] = []
        self._unread: set[str] = set()  # what did not answer when it was read last
        self._cancelled: dict[int, None] = {}
        self._closed: dict[str, None] = {}
        self._failures: dict[str, str] = {}
        self._not_before: dict[str, float] = {}

    def run(self) -> Report:
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="topstep-sweep") as pool:
            for number in itertools.count():
                self._read(pool)
                if not (self._orders or self._positions or self._unread):
                    break
                pause = ROUND[min(number, len(ROUND) - 1)]
                if not self._deadline.allows(pause) or self._owner.closed.is_set():
                    break
                self._do(pool, self._cancellations())
                self._owner.clock.wait(self._owner.closed, pause)
        return self._report()

    def _read(self, pool: ThreadPoolExecutor) -> None:
        """What is there; positions are closed. What cannot be read is not known, and not taken as empty."""
        orders = pool.submit(self._lookup.working_seen, self._account_id, self._contract_id)
        if self._closes:
            self._read_positions(pool.submit(self._owner.positions.urgent, self._account_id, self._deadline))
            # Before the orders are known: an endpoint that hangs must not keep a position open.
            self._do(pool, self._closings())
        self._orders, trouble = orders.result()
        self._known("reading the orders", trouble)
        if self._closes and not (self._orders or self._positions or self._unread):
            # An order that filled between the two readings is in neither; once no order works, the positions stand.
            self._read_positions(pool.submit(self._owner.positions.urgent, self._account_id, self._deadline))

    def _read_positions(self, found: Future[list[Position]]) -> None:
        try:
            # A row without contracts is a position that has been closed; the user hub is known to send them.
            self._positions, trouble = [position for position in found.result() if position.size], None
        except TopstepError as error:
            self._positions, trouble = [], error
        self._known("reading the positions", trouble)

    def _known(self, what: str, trouble: TopstepError | None) -> None:
        self._unread.discard(what)
        self._failures.pop(what, None)
        if trouble is not None:
            self._unread.add(what)
            self._failures[what] = f"{type(trouble).__name__}: {trouble}"

    def _do(self, pool: ThreadPoolExecutor, calls: Iterator[Work]) -> None:
        work = list(calls)
        for item, error in zip(work, pool.map(self._send, work), strict=True):
            self._note(item, error)

    def _cancellations(self) -> Iterator[Work]:
        orders = [order for order in self._orders if order.status is not OrderStatus.PENDING_CANCELLATION]
        # A leg that waits for its entry goes with it; what its own cancellation does is not documented.
        for order in [order for order in orders if order.status is not OrderStatus.SUSPENDED] or orders:
            request = ByOrder(account_id=self._account_id, order_id=order.id)
            yield Work(f"cancelling order {order.id}", order.id, CANCEL, request)

    def _closings(self) -> Iterator[Work]:
        now = self._owner.clock.monotonic()
        for position in self._positions:
            if self._not_before.get(position.contract_id, now) <= now:
                request = ClosePosition(account_id=self._account_id, contract_id=position.contract_id)
                yield Work(f"closing {position.contract_id}", position.contract_id, CLOSE, request)

    def _send(self, work: Work) -> TopstepError | None:
        if self._owner.clock.monotonic() > self._deadline.at + GRACE:
            return NotSent("the time was up before its turn came")
        timeout = patience(self._deadline)
        try:
            self._owner.call(work.path, work.request, Reply, priority=Priority.URGENT, must_try=True, timeout=timeout)
        except TopstepError as error:
            return error
        return None

    def _note(self, work: Work, error: TopstepError | None) -> None:
        if error is None:
            self._failures.pop(work.what, None)
        elif not isinstance(error, (OrderNotFound, PositionNotFound)):
            self._failures[work.what] = f"{type(error).__name__}: {error}"
            log.warning("! %s: %s", work.what, error)
        lost = error is not None and error.fate is Fate.UNKNOWN
        if isinstance(work.key, int):
            if error is None:
                self._cancelled[work.key] = None
        elif error is None or lost:
            self._closed[work.key] = None
            self._not_before[work.key] = self._owner.clock.monotonic() + (self._owner.horizon if lost else SETTLING)

    def _report(self) -> Report:
        left = {order.id for order in self._orders}
        held = {position.contract_id for position in self._positions}
        done = not (left or held or self._unread)
        return Report(
            account_id=self._account_id,
            cancelled=tuple(order_id for order_id in self._cancelled if order_id not in left),
            closed=tuple(contract_id for contract_id in self._closed if contract_id not in held),
            orders_left=tuple(self._orders),
            positions_left=tuple(self._positions),
            failures=() if done else tuple(Failure(what=w, error=e) for w, e in self._failures.items()),
            verified=not self._unread,
        )
