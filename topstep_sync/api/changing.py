"""Cancelling and changing orders that exist.

A cancellation may be repeated: the second finds nothing left to cancel. A change may not, for it would undo whatever
came in between; when its reply is lost the order is read back and compared.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final

from msgspec import UNSET

from topstep_sync.api.lookup import Lookup
from topstep_sync.api.results import CancelResult, Change, ModifyResult
from topstep_sync.api.seam import Call
from topstep_sync.clock import Clock, Waitable
from topstep_sync.config import OrderConfig
from topstep_sync.errors import Fate, OrderNotFound, OrderRejected, OrderStateUnknown, TopstepError
from topstep_sync.http.routes import Priority
from topstep_sync.messages import ByOrder, ModifyOrder, Reply
from topstep_sync.models import Contract, Order, OrderStatus, given

CANCEL: Final = "/api/Order/cancel"
MODIFY: Final = "/api/Order/modify"
DAY: Final = 86400.0  # how far back an order is searched where the gateway cannot look up a single one

log = logging.getLogger("topstep_sync.orders")


class Changer:
    """Thread-safe."""

    def __init__(self, call: Call, lookup: Lookup, config: OrderConfig, clock: Clock, closed: Waitable) -> None:
        self._call = call
        self._lookup = lookup
        self._config = config
        self._clock = clock
        self._closed = closed

    def cancel(self, account_id: int, order_id: int, timeout: float | None) -> CancelResult:
        """The order does not work any more; the result says whether that was our doing."""
        request = ByOrder(account_id=account_id, order_id=order_id)
        error = self._attempt(CANCEL, request, timeout)
        if error is None:
            return _cancelled(account_id, order_id, Change.DONE, None)
        if not _open_question(error):
            raise error
        lost = error.fate is Fate.UNKNOWN
        for order in self._read_back(account_id, order_id, error):
            if not order.status.working:
                done = order.status is OrderStatus.CANCELLED
                change = Change.TOO_LATE if not done else Change.DONE if lost else Change.ALREADY
                return _cancelled(account_id, order_id, change, order)
            if not lost and order.status is not OrderStatus.PENDING_CANCELLATION:
                raise error
            if lost and order.status is not OrderStatus.PENDING_CANCELLATION:
                again = self._attempt(CANCEL, request, timeout)
                if again is None:  # what was read is from before
                    return _cancelled(account_id, order_id, Change.DONE, None)
        if not lost:
            raise error
        raise self._unknown("the cancellation", order_id, CANCEL, error) from error

    def modify(
        self, request: ModifyOrder, contract: Contract | None, trail_ticks: int | None, timeout: float | None
    ) -> ModifyResult:
        """The order is as *request* says.

        Args:
            contract: what prices are compared with; `None` where the request has none.
            trail_ticks: the distance that the request's `trail_price` should come to, where that is known.
        """
        error = self._attempt(MODIFY, request, timeout)
        if error is None:
            return ModifyResult(order_id=request.order_id, account_id=request.account_id, change=Change.DONE)
        if error.fate is not Fate.UNKNOWN:
            if type(error) in (OrderNotFound, OrderRejected):
                self._explain(error, request.account_id, request.order_id)
            raise error
        for order in self._read_back(request.account_id, request.order_id, error):
            matches = _matches(order, request, contract, trail_ticks)
            if matches or not order.status.working:
                return ModifyResult(
                    order_id=request.order_id,
                    account_id=request.account_id,
                    change=Change.DONE if matches else Change.TOO_LATE,
                    order=order,
                )
        raise self._unknown("the change", request.order_id, MODIFY, error) from error

    def _attempt(self, path: str, request: Any, timeout: float | None) -> TopstepError | None:
        try:
            self._call(path, request, Reply, priority=Priority.URGENT, must_try=path == CANCEL, timeout=timeout)
        except TopstepError as error:
            return error
        return None

    def _read_back(self, account_id: int, order_id: int, error: TopstepError) -> Iterator[Order]:
        """The order as it stands now, and again at each look until the horizon.

        Raises:
            OrderNotFound: the gateway says that there is no such order, and a look-up agrees.
        """
        for delay in (0.0, *self._config.verify_seconds):
            if self._clock.wait(self._closed, delay):
                return
            try:
                order = self._lookup.by_id(account_id, order_id, self._clock.epoch() - DAY)
            except TopstepError as trouble:
                log.info("! order %s cannot be read back: %s", order_id, trouble)
                continue
            if order is not None:
                yield order
            elif isinstance(error, OrderNotFound):
                error.add_note(f"order {order_id} is not there")
                raise error

    def _explain(self, error: TopstepError, account_id: int, order_id: int) -> None:
        """*error* says how the order stands, where that can be found out."""
        try:
            order = self._lookup.by_id(account_id, order_id, self._clock.epoch() - DAY)
        except TopstepError:
            return
        error.add_note(f"order {order_id} is {'not there' if order is None else order.status.name}")

    def _unknown(self, what: str, order_id: int, path: str, error: TopstepError) -> OrderStateUnknown:
        return OrderStateUnknown(
            f"{what} of order {order_id} may or may not have been carried out ({error}); look with orders.get",
            since=self._clock.epoch(),
            last_error=f"{type(error).__name__}: {error}",
            endpoint=path,
        )


def _open_question(error: TopstepError) -> bool:
    """Whether reading the order back says more than *error*: it may have ended, or been cancelled, before."""
    return error.fate is Fate.UNKNOWN or type(error) in (OrderNotFound, OrderRejected)


def _cancelled(account_id: int, order_id: int, change: Change, order: Order | None) -> CancelResult:
    status = order.status if order is not None and not order.status.working else OrderStatus.CANCELLED
    shown = UNSET if order is None else order
    return CancelResult(order_id=order_id, account_id=account_id, change=change, status=status, order=shown)


def _matches(order: Order, request: ModifyOrder, contract: Contract | None, trail_ticks: int | None) -> bool:
    """Whether *order* is as *request* wants it; prices in whole ticks, the trail as the distance that it reads as."""
    if given(request.size) and order.size != request.size:
        return False
    if given(request.trail_price):
        if not given(order.trail_distance) or trail_ticks is None:
            return False
        if abs(int(order.trail_distance or 0)) != trail_ticks:
            return False
    return all(_same(getattr(order, name), getattr(request, name), contract) for name in ("limit_price", "stop_price"))


def _same(there: Any, wanted: Any, contract: Contract | None) -> bool:
    if not given(wanted):
        return True
    assert contract is not None, "a change of prices knows its contract"
    return given(there) and contract.ticks(there) == contract.ticks(wanted)
