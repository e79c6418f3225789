"""The gateway's rate limits, counted on arrival: sliding log, fixed window, or ASP.NET's segments.

The gateway's documentation gives 50 calls per 30 s for bars and 200 per 60 s for the rest (2026-09), and nothing else.
"""

import math
from collections import deque
from typing import Final, Protocol

from topstep_sync.simulator.settings import Settings

GENERAL: Final = "general"
HISTORY: Final = "history"
FREE: Final = "free"

# ASP.NET's partitioned limiters look at the time each 100 ms and let a window move only then.
_HEARTBEAT: Final = 0.1


def window_of(path: str) -> str:
    """Which window counts a call of *path* (lower case)."""
    if path.startswith("/api/history/retrievebars"):
        return HISTORY
    return GENERAL if path.startswith("/api/") and not path.startswith("/api/status") else FREE


class Window(Protocol):
    """One budget."""

    def arrive(self, now: float) -> float | None:
        """Counts an arrival: None when it is taken, else seconds until the next one could be."""
        ...

    def used(self, now: float) -> int:
        """Arrivals that count at *now*."""
        ...


class SlidingLog:
    """At most *limit* in every half-open window of *length* seconds; a refused arrival does not count."""

    def __init__(self, limit: int, length: float) -> None:
        self._limit = limit
        self._length = length
        self._times: deque[float] = deque()

    def arrive(self, now: float) -> float | None:
        self._forget(now)
        if len(self._times) < self._limit:
            self._times.append(now)
            return None
        return self._times[0] + self._length - now if self._times else self._length

    def used(self, now: float) -> int:
        self._forget(now)
        return len(self._times)

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] >= self._length:
            self._times.popleft()


class FixedWindow:
    """At most *limit* in each window; a window starts with the first arrival after the last one ended."""

    def __init__(self, limit: int, length: float) -> None:
        self._limit = limit
        self._length = length
        self._start = -math.inf
        self._count = 0

    def arrive(self, now: float) -> float | None:
        if now - self._start >= self._length:
            self._start, self._count = now, 0
        if self._count < self._limit:
            self._count += 1
            return None
        return self._start + self._length - now

    def used(self, now: float) -> int:
        return self._count if now - self._start < self._length else 0


class SegmentedWindow:
    """ASP.NET Core's sliding window: counts per segment, moved by a timer that is always a little late.

    So a window is in truth longer than configured: 60 s in 30 segments took 61.2–61.7 s on ASP.NET Core 10.0.12.
    """

    def __init__(self, limit: int, length: float, segments: int) -> None:
        self._free = limit
        self._limit = limit
        self._segment = length / max(1, segments)
        self._counts = [0] * max(1, segments)
        self._index = 0
        self._moved: float | None = None
        self._origin = 0.0

    def arrive(self, now: float) -> float | None:
        self._catch_up(now)
        if self._free <= 0:
            return self._segment
        self._free -= 1
        self._counts[self._index] += 1
        return None

    def used(self, now: float) -> int:
        self._catch_up(now)
        return self._limit - self._free

    def _catch_up(self, now: float) -> None:
        if self._moved is None:
            self._moved = self._origin = now
        beats = max(1, math.ceil(self._segment / _HEARTBEAT - 1e-9))
        # Where a segment is a whole number of heartbeats, every other heartbeat comes too early by a hair, and the
        # window moves with the next one.
        hair = math.isclose(self._segment / _HEARTBEAT, beats)
        for _ in range(len(self._counts) + 1):
            # The first heartbeat at which a whole segment has passed since the last move.
            passed = math.floor((self._moved - self._origin) / _HEARTBEAT + 1e-9)
            due = self._origin + (passed + beats + (hair and self._index % 2)) * _HEARTBEAT
            if due - self._moved < self._segment - 1e-9:
                due += _HEARTBEAT
            if due > now:
                return
            self._moved = due
            self._index = (self._index + 1) % len(self._counts)
            self._free += self._counts[self._index]
            self._counts[self._index] = 0
        self._moved = now  # every segment is empty: nothing to remember


class Limits:
    """All windows, one per class of calls and partition (the user, or nobody). Loop thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._windows: dict[tuple[str, str], Window] = {}

    def arrive(self, kind: str, partition: str, now: float) -> float | None:
        """Counts an arrival: None when it is taken, else seconds until the next one could be."""
        if kind == FREE or self._settings.limiter == "none":
            return None
        return self._window(kind, partition).arrive(now)

    def used(self, kind: str, partition: str, now: float) -> int:
        """Arrivals of the class that count at *now*."""
        return self._window(kind, partition).used(now) if (kind, partition) in self._windows else 0

    def limit(self, kind: str) -> tuple[int, float]:
        """Calls and seconds of the class."""
        s = self._settings
        return (s.history_limit, s.history_window) if kind == HISTORY else (s.general_limit, s.general_window)

    def reset(self) -> None:
        """Nothing has arrived so far."""
        self._windows.clear()

    def _window(self, kind: str, partition: str) -> Window:
        window = self._windows.get((kind, partition))
        if window is None:
            window = self._windows[kind, partition] = self._make(*self.limit(kind))
        return window

    def _make(self, limit: int, length: float) -> Window:
        if self._settings.limiter == "fixed":
            return FixedWindow(limit, length)
        if self._settings.limiter == "segmented":
            return SegmentedWindow(limit, length, self._settings.segments)
        return SlidingLog(limit, length)
