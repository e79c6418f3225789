"""The right to send one call, and what its holder says of it afterwards."""

from collections import deque
from collections.abc import Callable
from copy import copy
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec

from topstep_sync.http.line import Waiter

T = TypeVar("T")


class Home(Protocol):
    """What a permit needs of the lane that gave it out. All but `lock` and `strays` is guarded by it."""

    name: str
    lock: Any
    """A `threading.RLock`: it knows who holds it, see `let_go`."""
    calm: bool
    """A completion is nothing but a stamp."""
    busy: deque[float]
    strays: deque["Permit"]
    """Permits that went out of use, and nobody said what became of them; each has the instant in `granted`."""
    now: Callable[[], float]

    # Each returns whom to wake once the lock is free.
    def finished(self, permit: "Permit") -> Waiter | None: ...
    def refunded(self, permit: "Permit") -> Waiter | None: ...
    def gave_up(self, permit: "Permit") -> Waiter | None: ...
    def throttled(self, permit: "Permit", retry_after: float | None) -> Waiter | None: ...
    def whole(self, work: Callable[..., T], *given: Any, ends: "Permit | None" = None) -> T: ...


def let_go(lock: Any) -> None:
    """*lock* is free of this thread, wherever Ctrl-C came in between.

    Python looks for signals when a call returns, so ``lock.acquire()`` can raise though the lock is taken, and a plain
    lock could not tell whose it is. `with` has no such gap, and costs twice as much.
    """
    if lock._is_owned():
        lock.release()


class Permit(msgspec.Struct, eq=False, gc=False):  # made twice as quickly as a class of Python's own
    """The right to send one call. What became of it is said once; whatever is said later is ignored. Thread-safe.

    As a context manager: leaving the block is `done`, leaving it by an exception `gave_up`, unless something was said.
    One that is dropped with nothing said, as by Ctrl-C before the caller had it, counts as given up.
    """

    _lane: Home | None  # guarded by the lane's lock; None before it is valid, and once something was said
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
        try:
            lock.acquire()
            if lane.calm and self._lane is not None:
                now = lane.now()
                # No signal comes between these two: nothing that is called returns.
                self._lane = None
                lane.busy.append(now)
                lock.release()
                return
            lock.release()
        except BaseException:
            let_go(lock)
            raise
        self._say(lane, lane.finished)

    def refund(self) -> None:
        """Provably nothing was sent: the slot is free at once."""
        if (lane := self._lane) is not None:
            self._say(lane, lane.refunded)

    def gave_up(self) -> None:
        """No reply came. The gateway may still count the call for the time of grace, and a window from then."""
        if (lane := self._lane) is not None:
            self._say(lane, lane.gave_up)

    def throttled(self, retry_after: float | None = None) -> None:
        """The gateway answered 429: its class rests, then one call tries alone. *retry_after* is in seconds."""
        if (lane := self._lane) is not None:
            self._say(lane, lane.throttled, retry_after)

    def _say(self, lane: Home, what: Callable[..., Waiter | None], *details: Any) -> None:
        with lane.lock:
            if self._lane is None:
                return
            waiter = lane.whole(what, self, *details, ends=self)
        if waiter is not None:
            waiter.wake.set()

    def forget(self) -> None:
        """Nothing can be said any more; its lane's lock is held."""
        self._lane = None

    def __del__(self) -> None:
        lane = self._lane
        if lane is not None:  # whoever holds the lock may be the one that drops it, so nothing can be done here
            self._lane = None  # a debugger may keep it, and drop it a second time
            stray = copy(self)
            stray.granted = lane.now()
            lane.strays.append(stray)

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
