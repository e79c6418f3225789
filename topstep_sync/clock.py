"""Time and chance: the one room that asks the machine for either.

Everything else takes a `Clock`, so that a test can live through 24 hours in a millisecond.
Durations are monotonic; only expiry of tokens and timestamps for humans use the wall clock.
"""

import contextlib
import random
import threading
import time
from typing import Final, Protocol

# An untimed wait ignores Ctrl-C on Windows, so long waits are cut into slices.
SLICE: Final = 1.0

FOREVER: Final = float("inf")


class Waitable(Protocol):
    """What `Clock.wait` waits for: `Signal`, `threading.Event`, or anything with the same two methods."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Signal:
    """An event that survives Ctrl-C. Thread-safe; wait for it through a `Clock`.

    `threading.Event` is written in Python, on a lock that a `KeyboardInterrupt` at the wrong moment leaves locked: then
    whoever sets it, or waits for it, hangs for ever. Here the state is one attribute, and the lock only wakes; one
    that was left closed costs a waiter a `SLICE`, as the clock looks anew after each.
    """

    __slots__ = ("_gate", "_on")

    def __init__(self) -> None:
        self._on = False
        self._gate = threading.Lock()  # open while set; each waiter that passes opens it for the next
        self._gate.acquire()

    def is_set(self) -> bool:
        return self._on

    def set(self) -> None:
        """Whoever waits is awake."""
        self._on = True
        self._open()

    def _open(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()

    def clear(self) -> None:
        """Whoever waits from now on waits for the next `set`."""
        self._on = False
        self._gate.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is set; after *timeout* seconds at most, or sooner for no reason."""
        if self._on:
            return True
        if self._gate.acquire(timeout=-1 if timeout is None else timeout) and self.is_set():
            self._open()
        return self.is_set()


class Clock(Protocol):
    """Where a room gets its time from. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back. For durations and deadlines."""
        ...

    def epoch(self) -> float:
        """Seconds since 1970 UTC; may jump. For expiry and for humans."""
        ...

    def sleep(self, delay: float) -> None:
        """Return after *delay* seconds; at once when it is zero or negative."""
        ...

    def wait(self, event: Waitable, timeout: float | None = None) -> bool:
        """Return True when *event* is set, False when *timeout* seconds passed first (`None`: no limit)."""
        ...

    def random(self) -> float:
        """A number from 0.0 up to, and without, 1.0. For jitter."""
        ...


# A source of its own: programs that seed the module `random` are not disturbed by us, nor we by them; and processes
# that were forked do not all draw the same jitter.
_CHANCE: Final = random.SystemRandom()


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)

    def epoch(self) -> float:
        return time.time()

    def sleep(self, delay: float) -> None:
        if delay > 0:
            time.sleep(delay)

    def wait(self, event: Waitable, timeout: float | None = None) -> bool:
        end = FOREVER if timeout is None else time.monotonic() + timeout
        while not event.is_set():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if event.wait(min(left, SLICE)):
                return True
        return True

    def random(self) -> float:
        return _CHANCE.random()

    def __repr__(self) -> str:
        return "SystemClock()"


class ManualClock:
    """A clock that stands still until a test moves it.

    `advance` moves both readings; `jump` moves the wall clock only, as an administrator or NTP would.
    A thread that sleeps or waits on this clock returns once another thread has advanced it far enough.
    `auto=True` advances by itself: a sleep returns at once, with the clock moved, which suits single-threaded tests.
    Thread-safe.
    """

    def __init__(self, monotonic: float = 1000.0, epoch: float = 1_790_000_000.0, *, auto: bool = False) -> None:
        self._moved = threading.Condition()  # guards the three readings and the count of sleepers
        self._monotonic = monotonic
        self._epoch = epoch
        self._auto = auto
        self._sleepers = 0
        self.chance = 0.5
        """What `random` returns."""

    def monotonic(self) -> float:
        return self._monotonic

    def epoch(self) -> float:
        return self._epoch

    def random(self) -> float:
        return self.chance

    @property
    def sleepers(self) -> int:
        """How many threads sleep or wait on this clock right now."""
        return self._sleepers

    def advance(self, seconds: float) -> None:
        """Both readings are *seconds* later, and whoever was due by then is awake."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back: advance({seconds!r})")
        with self._moved:
            self._monotonic += seconds
            self._epoch += seconds
            self._moved.notify_all()

    def jump(self, seconds: float) -> None:
        """The wall clock alone is *seconds* later (or earlier, when negative)."""
        with self._moved:
            self._epoch += seconds

    def sleep(self, delay: float) -> None:
        if delay <= 0:
            return
        if self._auto:
            self.advance(delay)
            return
        with self._moved:
            end = self._monotonic + delay
            self._sleepers += 1
            try:
                while self._monotonic < end:
                    self._moved.wait(SLICE)
            finally:
                self._sleepers -= 1

    def wait(self, event: Waitable, timeout: float | None = None) -> bool:
        end = FOREVER if timeout is None else self._monotonic + timeout
        if self._auto and timeout is not None and not event.is_set():
            self.advance(max(0.0, timeout))
            return event.is_set()
        with self._moved:
            self._sleepers += 1
        try:
            # The event does not know this clock, so its waiter looks at both, ever more rarely: 0.5 to 10 real ms.
            pause = 0.0005
            while not event.wait(pause):
                if self._monotonic >= end:
                    return event.is_set()
                pause = min(2 * pause, 0.01)
            return True
        finally:
            with self._moved:
                self._sleepers -= 1

    def wait_for_sleepers(self, count: int, timeout: float = 10.0) -> None:
        """Return once *count* threads sleep or wait here; fail after *timeout* real seconds."""
        end = time.monotonic() + timeout
        while self._sleepers < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{self._sleepers} of {count} threads were waiting after {timeout} s")
            time.sleep(0.0005)

    def __repr__(self) -> str:
        return f"ManualClock(monotonic={self._monotonic!r}, epoch={self._epoch!r})"


SYSTEM_CLOCK: Final = SystemClock()


class Deadline:
    """An instant on the monotonic clock, made once and spent across every wait of one call.

    `Deadline(None)` never comes. Immutable, so threads may share it.
    """

    __slots__ = ("_clock", "at")

    def __init__(self, timeout: float | None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.at = FOREVER if timeout is None else clock.monotonic() + timeout
        """The instant, in seconds of the clock's `monotonic()`; infinity for never."""

    def remaining(self) -> float:
        """Seconds left, never negative; infinity for never."""
        return max(0.0, self.at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        return self._clock.monotonic() >= self.at

    def allows(self, delay: float) -> bool:
        """Whether a wait of *delay* seconds would end before the deadline."""
        return self._clock.monotonic() + delay < self.at

    def bound(self, timeout: float | None) -> float | None:
        """The shorter of *timeout* and what is left, in seconds; `None` when neither limits."""
        left = self.remaining()
        if timeout is not None:
            return min(timeout, left)
        return None if left == FOREVER else left

    def __repr__(self) -> str:
        return "Deadline(None)" if self.at == FOREVER else f"Deadline({self.remaining():.3f})"
