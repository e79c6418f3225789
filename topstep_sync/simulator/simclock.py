"""Simulation time: real, faster, or stepped by hand. Everything in the simulator that is a time comes from here."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

from topstep_sync.clock import SYSTEM_CLOCK, Clock

# A loop that was blocked catches up in slices, so that a stop or a socket is never kept waiting.
_CATCH_UP: Final = 0.05


class Timer:
    """One pending call; `cancel` makes it never happen."""

    __slots__ = ("at", "callback", "cancelled")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SimClock:
    """Seconds of simulation, and the calls due at them. Loop thread only, but for the two readings.

    Args:
        speed: seconds of simulation per real second; 0 stands still until `advance`.
        start: first instant, in seconds since 1970; None: now.
        source: the real clock below.
    """

    def __init__(self, speed: float = 1.0, start: float | None = None, source: Clock = SYSTEM_CLOCK) -> None:
        self._speed = speed
        self._source = source
        self._real = source.monotonic()
        self._elapsed = 0.0
        self.start: Final = source.epoch() if start is None else start
        """First instant, in seconds since 1970."""
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.TimerHandle | None = None

    def monotonic(self) -> float:
        """Seconds of simulation since the start."""
        if not self._speed:
            return self._elapsed
        return self._elapsed + (self._source.monotonic() - self._real) * self._speed

    def epoch(self) -> float:
        """The simulated instant, in seconds since 1970."""
        return self.start + self.monotonic()

    @property
    def speed(self) -> float:
        return self._speed

    def set_speed(self, speed: float) -> None:
        """Time runs at *speed* from now on; 0 stops it."""
        self._elapsed, self._real = self.monotonic(), self._source.monotonic()
        self._speed = speed
        self._arm()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Timers fire on *loop* from now on."""
        self._loop = loop
        self._arm()

    def detach(self) -> None:
        """No timer fires any more."""
        if self._wake:
            self._wake.cancel()
        self._loop = None

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        """*callback* is called once the clock reads *at* (`monotonic` seconds)."""
        timer = Timer(at, callback)
        heapq.heappush(self._timers, (at, next(self._order), timer))
        if self._timers[0][2] is timer:
            self._arm()
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """*callback* is called *delay* seconds of simulation from now."""
        return self.call_at(self.monotonic() + delay, callback)

    def advance(self, seconds: float) -> None:
        """Time is *seconds* later, and everything due by then has happened, each thing at its own instant."""
        if seconds < 0:
            raise ValueError(f"simulation time cannot go back: advance({seconds!r})")
        end = self.monotonic() + seconds
        while self._timers and self._timers[0][0] <= end:
            at = self._timers[0][0]
            self._move_to(max(at, self.monotonic()))
            self._fire_next()
        self._move_to(end)
        self._arm()

    def _move_to(self, instant: float) -> None:
        self._elapsed, self._real = instant, self._source.monotonic()

    def _fire_next(self) -> None:
        _, _, timer = heapq.heappop(self._timers)
        if not timer.cancelled:
            timer.callback()

    def _arm(self) -> None:
        if self._wake:
            self._wake.cancel()
            self._wake = None
        if self._loop is None or not self._timers or not self._speed:
            return
        delay = (self._timers[0][0] - self.monotonic()) / self._speed
        self._wake = self._loop.call_later(max(0.0, delay), self._run_due)

    def _run_due(self) -> None:
        self._wake = None
        stop = self._source.monotonic() + _CATCH_UP
        while self._timers and self._timers[0][0] <= self.monotonic() and self._source.monotonic() < stop:
            self._fire_next()
        self._arm()
