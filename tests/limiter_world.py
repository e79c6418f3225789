"""What judges the limiter in its tests: a naive count of slots, and a model of a gateway that stretches its windows."""

import contextlib
import math
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from topstep_sync.clock import FOREVER, ManualClock, Waitable
from topstep_sync.http.window import Gate, Window

ORDERS = "/api/Order/search"
CANCEL = "/api/Order/cancel"
BARS = "/api/History/retrieveBars"
PING = "/api/Status/ping"


class WatchedClock(ManualClock):
    """A manual clock that knows until when each of its sleepers sleeps, so that no test advances it too early."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[object, float] = {}

    def wait(self, event: Waitable, timeout: float | None = None) -> bool:
        key, end = object(), FOREVER if timeout is None else self.monotonic() + timeout
        self._ends[key] = end
        try:
            while not event.wait(0.001):
                if self.monotonic() >= end:
                    return event.is_set()
            return True
        finally:
            del self._ends[key]

    def wait_for(self, *, timed: int = 0, untimed: int = 0) -> None:
        """Return once exactly so many sleep until an instant that is to come, and so many until an event."""
        limit = time.monotonic() + 10.0
        while True:
            ends = [end for end in list(self._ends.values()) if end > self.monotonic()]
            found = (sum(1 for end in ends if end < FOREVER), sum(1 for end in ends if end == FOREVER))
            if found == (timed, untimed):
                return
            if time.monotonic() > limit:
                raise TimeoutError(f"{found} sleep with and without an instant, not {(timed, untimed)}")
            time.sleep(0.0005)


@dataclass
class Call:
    """One call as the worst gateway may see it: it arrives at any instant from the grant to the end."""

    granted: float
    last_arrival: float = math.inf


@dataclass
class Naive:
    """An independent count: a call is busy from its grant until its last possible arrival plus one window."""

    limit: int
    window: float
    calls: list[Call] = field(default_factory=list)

    def grant(self, now: float) -> Call:
        """A call goes out; the window must not be overfull."""
        busy = [call for call in self.calls if call.last_arrival + self.window > now]
        assert len(busy) < self.limit, f"{len(busy) + 1} of {self.limit} calls in {self.window} s"
        call = Call(now)
        self.calls.append(call)
        return call

    def used(self, now: float) -> int:
        return sum(1 for call in self.calls if call.last_arrival + self.window > now)


class Stretching:
    """ASP.NET's partitioned sliding window: it looks at the time each 100 ms, and moves a segment from that moment."""

    def __init__(self, limit: int, window: float, segments: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._period = window / segments
        self._counts = [0] * segments
        self._current = 0
        self._free = limit
        self._tick = self._next_tick = self._random.random() * 0.1
        self._moved: float | None = None
        self.moves: list[float] = []

    def _advance(self, now: float) -> None:
        while self._next_tick <= now:
            if self._next_tick - (self._moved or 0.0) >= self._period:
                self._moved = self._next_tick
                self.moves.append(self._moved)
                self._current = (self._current + 1) % len(self._counts)
                self._free += self._counts[self._current]
                self._counts[self._current] = 0
            self._tick += 0.1
            self._next_tick = self._tick + self._random.random() ** 4 * 0.015

    def accepts(self, now: float) -> bool:
        if self._moved is None:
            self._moved = now
        self._advance(now)
        if self._free <= 0:
            return False
        self._free -= 1
        self._counts[self._current] += 1
        return True

    @property
    def window(self) -> float:
        """How long its windows really are, on average."""
        return (self.moves[-1] - self.moves[0]) / (len(self.moves) - 1) * len(self._counts)


def drive(
    window: Window, server: Stretching, *, until: float, clients: int = 8, hint: float | None = None
) -> tuple[list[float], list[float]]:
    """Instants of accepted and of refused calls of *clients* that call as fast as they may; 5 ms a round trip."""
    trip = 0.005
    accepted: list[float] = []
    refused: list[float] = []
    todo: list[tuple[float, int, tuple[float, bool, bool] | None]] = [(0.0, n, None) for n in range(clients)]
    while todo:
        now, client, flight = min(todo, key=lambda item: item[:2])
        todo.remove((now, client, flight))
        if now >= until:
            continue
        if flight is not None:
            granted, probe, good = flight
            if good:
                window.release(now, probe)
            else:
                window.refused(now, granted, probe, hint)
            (accepted if good else refused).append(now)
            todo.append((now, client, None))
            continue
        delay = window.take(now, False)
        if delay > 0.0:
            todo.append((now + (trip if delay == math.inf else delay), client, None))
        else:
            todo.append(
                (
                    now + trip,
                    client,
                    (now, window.gate is Gate.PROBING and window.alone, server.accepts(now + trip / 2)),
                )
            )
    return accepted, refused


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """The address of a real Redis that keeps nothing; the test is skipped where there is no program for it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server (Debian package redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 10
            while time.monotonic() < end:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
