"""The right to send one call, and what its holder says of it afterwards."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import msgspec

from topstep_sync.http.line import Waiter


class Home(Protocol):
    """What a permit needs of the lane that gave it out. All but `lock` is guarded by it."""

    name: str
    lock: threading.Lock
    calm: bool
    """A completion is nothing but a stamp."""
    busy: deque[float]
    now: Callable[[], float]

    # Each returns whom to wake once the lock is free.
    def finished(self, permit: "Permit") -> Waiter | None: ...
    def refunded(self, permit: "Permit") -> Waiter | None: ...
    def gave_up(self, permit: "Permit") -> Waiter | None: ...
    def throttled(self, permit: "Permit", retry_after: float | None) -> Waiter | None: ...


class Permit(msgspec.Struct, eq=False, gc=False):  # made twice as quickly as a class of Python's own
    """The right to send one call. What became of it is said once; whatever is said later is ignored. Thread-safe.

    As a context manager: leaving the block is `done`, leaving it by an exception `gave_up`, unless something was said.
    """

    _lane: Home | None  # guarded by the lane's lock; None once something was said
    granted: float
    """Instant of the grant, in seconds of the limiter's clock."""

    @property
    def probe(self) -> bool:
        """Whether it goes alone: everybody else waits for what becomes of it."""
        return False

    @property
    def waited(self) -> float:
        """Seconds that the caller waited for it."""
        return 0.0

    @property
    def open(self) -> bool:
        """Whether nothing has been said yet."""
        return self._lane is not None

    def done(self) -> None:
        """The reply is complete: the slot is busy for one window from now."""
        lane = self._lane
        if lane is None:
            return
        lock = lane.lock
        lock.acquire()  # by hand: `with` takes twice as long, and this is half of what a permit costs
        try:
            if self._lane is None:
                return
            self._lane = None
            if lane.calm:
                lane.busy.append(lane.now())
                return
            waiter = lane.finished(self)
        finally:
            lock.release()
        if waiter is not None:
            waiter.wake.set()

    def refund(self) -> None:
        """Provably nothing was sent: the slot is free at once."""
        self._say(lambda lane: lane.refunded(self))

    def gave_up(self) -> None:
        """No reply came. The gateway may still count the call for the time of grace, and a window from then."""
        self._say(lambda lane: lane.gave_up(self))

    def throttled(self, retry_after: float | None = None) -> None:
        """The gateway answered 429: its class rests, then one call tries alone. *retry_after* is in seconds."""
        self._say(lambda lane: lane.throttled(self, retry_after))

    def _say(self, what: Callable[[Home], Waiter | None]) -> None:
        lane = self._lane
        if lane is None:
            return
        with lane.lock:
            if self._lane is None:
                return
            self._lane = None
            waiter = what(lane)
        if waiter is not None:
            waiter.wake.set()

    def forget(self) -> None:
        """Nothing can be said any more; its lane's lock is held."""
        self._lane = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.done()
        else:
            self.gave_up()

    def __repr__(self) -> str:
        lane = self._lane
        return f"{type(self).__name__}({lane.name if lane else 'closed'})"


class LatePermit(Permit, eq=False, gc=False):
    """A permit that was waited for, or that goes alone; apart, so that the usual one is made quickly."""

    probe: bool = False
    waited: float = 0.0
