"""Waiting for an order to end: by hub event where a stream is open, else by polling within the rate limit."""

import logging
from typing import Final

from topstep_sync.api.changing import DAY
from topstep_sync.api.lookup import Lookup
from topstep_sync.api.seam import Ears, Listen, heard
from topstep_sync.clock import Clock, Deadline, Waitable
from topstep_sync.errors import OrderStillWorking, SessionClosed, TopstepError
from topstep_sync.events import Event, OrderEvent
from topstep_sync.http.routes import Priority
from topstep_sync.models import Order

# Seconds between two looks. Ten waiters that poll take 120 calls a minute of the 200 that there are.
FIRST: Final = 0.5
GROWTH: Final = 1.5
LONGEST: Final = 5.0
# Seconds between two looks where the hub would tell: only a lost event makes them necessary.
HEARING: Final = 15.0

log = logging.getLogger("topstep_sync.orders")


class Waiter:
    """Thread-safe."""

    def __init__(self, lookup: Lookup, clock: Clock, listen: Listen, closed: Waitable) -> None:
        self._lookup = lookup
        self._clock = clock
        self._listen = listen
        self._closed = closed

    def wait(self, account_id: int, order_id: int, timeout: float | None) -> Order:
        """The order, once it does not work any more: filled, cancelled, expired or rejected.

        Raises:
            OrderStillWorking: it does after *timeout* seconds.
            SessionClosed: the session was closed meanwhile.
        """
        deadline = Deadline(timeout, self._clock)
        seen: Order | None = None

        def ended(event: Event) -> Order | None:
            nonlocal seen
            if isinstance(event, OrderEvent) and (event.data.account_id, event.data.id) == (account_id, order_id):
                seen = event.data
                return None if seen.status.working else seen
            return None

        with heard(self._listen, account_id) as source:
            ears = Ears(source, self._clock, self._closed)
            delay = 0.0
            while True:
                order = ears.hear(min(delay, deadline.remaining()), ended)
                if order is None and not self._closed.is_set():
                    order = seen = self._look(account_id, order_id) or seen
                if order is not None and not order.status.working:
                    return order
                if self._closed.is_set():
                    raise SessionClosed(f"the session was closed while order {order_id} was waited for")
                if deadline.expired:
                    raise still_working(order_id, timeout, seen)
                delay = HEARING if ears.listening else min(LONGEST, max(FIRST, delay * GROWTH))

    def _look(self, account_id: int, order_id: int) -> Order | None:
        try:
            return self._lookup.by_id(account_id, order_id, self._clock.epoch() - DAY, Priority.NORMAL)
        except TopstepError as error:
            log.info("! order %s cannot be read: %s", order_id, error)
            return None


def still_working(order_id: int, timeout: float | None, seen: Order | None) -> OrderStillWorking:
    how = "was not to be seen" if seen is None else f"is still {seen.status.name}"
    return OrderStillWorking(f"order {order_id} {how} after {timeout} s", order=seen)
