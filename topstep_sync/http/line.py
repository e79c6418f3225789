"""Who waits for a permit, and who is next: three priorities, first come first served, with ageing; and pacing."""

import math
import threading
from collections import deque
from typing import Any


class Waiter:
    """One caller that waits. Its own thread sleeps on `wake`; everything else is guarded by its lane's lock."""

    __slots__ = ("key", "permit", "rank", "since", "untimed", "wake")

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.since = 0.0
        self.key = 0.0
        """Smaller goes first."""
        self.permit: Any = None
        self.untimed = False
        """Sleeps until an event, because no instant is known at which a slot will be free."""
        self.wake = threading.Event()


class Line:
    """The callers that wait for one class. Pure; its owner holds the lock.

    Priority 0 goes first, always. A caller of priority 2 lets those of priority 1 pass that come less than *ageing*
    seconds after it, so it is never starved for ever. Within a priority nobody overtakes.
    """

    __slots__ = ("_queues", "ageing")

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self._queues: tuple[deque[Waiter], deque[Waiter], deque[Waiter]] = (deque(), deque(), deque())

    def __len__(self) -> int:
        urgent, normal, bulk = self._queues
        return len(urgent) + len(normal) + len(bulk)

    def key(self, rank: int, now: float) -> float:
        """The place of a caller that comes *now*; a smaller one goes first."""
        return -math.inf if rank == 0 else now + (rank - 1) * self.ageing

    def join(self, waiter: Waiter, now: float) -> None:
        """*waiter* stands at the end of its priority."""
        waiter.since, waiter.key = now, self.key(waiter.rank, now)
        self._queues[waiter.rank].append(waiter)

    def leave(self, waiter: Waiter) -> bool:
        """*waiter* stands here no more; whether it did."""
        queue = self._queues[waiter.rank]
        if queue and queue[0] is waiter:
            queue.popleft()
            return True
        try:
            queue.remove(waiter)
        except ValueError:
            return False
        return True

    def head(self) -> Waiter | None:
        """Who is next."""
        urgent, normal, bulk = self._queues
        if urgent:
            return urgent[0]
        if normal and bulk:
            return normal[0] if normal[0].key <= bulk[0].key else bulk[0]
        queue = normal or bulk
        return queue[0] if queue else None

    def passes(self, rank: int, now: float) -> bool:
        """Whether a caller that comes *now* would be next."""
        head = self.head()
        if head is None:
            return True
        return self.key(rank, now) < head.key

    def ahead(self, rank: int, now: float) -> int:
        """How many would go before a caller that comes *now*."""
        if rank == 0:
            return len(self._queues[0])
        key = self.key(rank, now)
        rest = sum(1 for queue in self._queues[1:] for waiter in queue if waiter.key <= key)
        return len(self._queues[0]) + rest

    def counts(self) -> tuple[int, int, int]:
        """How many wait, by priority."""
        urgent, normal, bulk = self._queues
        return len(urgent), len(normal), len(bulk)

    def oldest(self) -> float | None:
        """When the one that waits longest came."""
        return min((queue[0].since for queue in self._queues if queue), default=None)

    def everybody(self) -> list[Waiter]:
        return [waiter for queue in self._queues for waiter in queue]


class Pacing:
    """A token bucket in front of the window, so that a long pull flows instead of stalling for half a minute.

    A bucket of *burst* calls that fills with *rate* calls a second. Pure; its owner holds the lock.
    Kept as one instant (GCRA): the bucket is full when that instant is reached.
    """

    __slots__ = ("_full_at", "_gap", "_tolerance")

    def __init__(self, burst: int, rate: float) -> None:
        self._gap = 1.0 / rate
        self._tolerance = (burst - 1) * self._gap
        self._full_at = 0.0

    def wait(self, now: float, ahead: int = 0) -> float:
        """Seconds until there is a call in the bucket for a caller behind *ahead* others; 0.0 when there is one now."""
        return max(0.0, self._full_at + ahead * self._gap - self._tolerance - now)

    def spend(self, now: float) -> None:
        """One call less is in the bucket."""
        self._full_at = max(self._full_at, now) + self._gap
