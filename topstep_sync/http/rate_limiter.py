"""RATE-001: permits that hold on the server's clock, first come first served in three priorities.

The decisions lie in `window`, `learning`, `line` and `lane`; here is the thin shell that sleeps, and the fork.
"""

import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock, Deadline
from topstep_sync.config import Config, RateConfig
from topstep_sync.errors import BudgetUnavailable, InvalidRequest
from topstep_sync.http import routes
from topstep_sync.http.budgets import Budgets
from topstep_sync.http.courier import Courier
from topstep_sync.http.lane import Lane
from topstep_sync.http.line import Waiter
from topstep_sync.http.permit import Permit
from topstep_sync.http.shared_lane import SharedLane
from topstep_sync.http.sharing import PATIENCE, BudgetLost, Rules, SharedBudget

REMEMBERED: Final = 1024
"""Spellings of paths whose class is remembered; more than the gateway has, less than a caller's bug can make."""

RECHECK: Final = 1.0
"""Longest time, in seconds, that anybody waits for an event only: a permit may go out of use and tell nobody."""

GLANCE: Final = 0.25
"""Seconds that one who does not want to wait gives the store of a shared budget."""

GLANCES: Final = 8

FREE: Final = Permit(None, 0.0)
"""The permit of a call that the gateway does not count."""


class RateLimiter:
    """Permits for calls, as many as the gateway's documented windows allow, on the gateway's clock. Thread-safe.

    A slot is busy from the grant until the reply is complete plus one window, so however slow or uneven the network is,
    the gateway never sees more calls in a window than allowed.
    """

    def __init__(
        self,
        config: "RateConfig | Mapping[str, Any] | Config | None" = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        budget: SharedBudget | None = None,
    ) -> None:
        """A limiter with *config*, on its own or in front of *budget* (see `shared_budget.open_budget`)."""
        self._config = RateConfig.of(config)
        self._clock = clock
        self._budget = budget
        self._known: dict[str, tuple[Lane | None, int]] = {}
        self._lanes = self._make_lanes()
        _LIMITERS.add(self)

    def _make_lanes(self) -> dict[routes.Window, Lane]:
        kinds = (routes.Window.GENERAL, routes.Window.HISTORY)
        rules = {kind: Rules.of(self._config, kind.value) for kind in kinds}
        self._courier: Courier | None = None
        if self._budget is None:
            return {kind: Lane(rules[kind], self._config, self._clock) for kind in kinds}
        shared = {kind: SharedLane(rules[kind], self._config, self._clock) for kind in kinds}
        self._courier = Courier(self._budget, shared.values(), self._clock)
        return dict(shared)

    def acquire(
        self,
        endpoint: str,
        priority: int | None = None,  # by position, too: arguments by name only cost every call a thirtieth of a permit
        deadline: Deadline | float | None = None,
        blocking: bool = True,
    ) -> Permit:
        """The permit for one call of *endpoint*, after as long a wait as it takes.

        Args:
            endpoint: the path, such as ``/api/Order/place``, in whatever case.
            priority: 0 before 1 before 2; `None`: as the endpoint has it.
            deadline: when the wait must be over; a number is an instant of the clock's `monotonic()`.
            blocking: False refuses at once where a wait would be needed.

        Raises:
            RateLimitTimeout: the permit would come after the deadline; known at once where possible. Nothing is sent.
            BudgetUnavailable: the store of a shared budget is out of reach, and the configuration wants refusal.
            SessionClosed: the limiter is, or was meanwhile, closed.
        """
        try:
            lane, rank = self._known[endpoint]
        except KeyError:
            lane, rank = self._look_up(endpoint)
        if lane is None:
            return FREE
        if priority is not None:
            rank = _checked(priority)
        permit = lane.claim(rank)
        if permit is None and not blocking:
            permit = self._fetched(lane, rank)
        if permit is None:
            at = deadline.at if isinstance(deadline, Deadline) else FOREVER if deadline is None else deadline
            permit = self._queue(lane, rank, endpoint, at if blocking else -FOREVER)
        return permit

    def try_acquire(self, endpoint: str, *, priority: int | None = None) -> Permit | None:
        """A permit if there is one now, else `None`."""
        lane, rank = self._known.get(endpoint) or self._look_up(endpoint)
        if lane is None:
            return FREE
        if priority is not None:
            rank = _checked(priority)
        return lane.claim(rank) or self._fetched(lane, rank)

    def _fetched(self, lane: Lane, rank: int) -> Permit | None:
        """A permit that the store of a shared budget has right now."""
        if self._courier is None:
            return None
        end = self._clock.monotonic() + GLANCE
        for _ in range(GLANCES):  # another thread may be quicker to take what this one has fetched
            self._courier.fetch(lane, urgent=rank == 0, patience=GLANCE, wait=True)
            permit = lane.claim(rank)
            if permit is not None or self._courier.told_to_wait(lane, urgent=rank == 0):
                return permit
            if self._clock.monotonic() >= end:
                break
        return None

    def _fetch(self, lane: Lane, rank: int, left: float) -> bool:
        """Whether the store of a shared budget was asked for permits."""
        if self._courier is None:
            return False
        return self._courier.fetch(lane, urgent=rank == 0, patience=min(PATIENCE, left))

    def _look_up(self, endpoint: str) -> tuple[Lane | None, int]:
        route = routes.route(endpoint)
        found = (self._lanes.get(route.window), int(route.priority))
        if len(self._known) < REMEMBERED:
            self._known[endpoint] = found
        return found

    def _queue(self, lane: Lane, rank: int, endpoint: str, at: float) -> Permit:
        waiter = Waiter(rank)
        try:
            with lane.lock:
                lane.whole(lane.join, waiter, endpoint, at)
            return self._wait(lane, waiter, endpoint, at)
        except BaseException:
            with lane.lock:
                following = lane.whole(lane.desert, waiter)
            if following is not None:
                following.wake.set()
            raise

    def _wait(self, lane: Lane, waiter: Waiter, endpoint: str, at: float) -> Permit:
        """The permit of *waiter*, which stands in line."""
        while True:
            with lane.lock:
                delay, following = lane.whole(lane.attempt, waiter)
                left = at - lane.now()
                # Nothing comes sooner than the head's own instant, so there is no point in waiting for the deadline.
                hopeless = delay > 0 and (left <= 0 or (delay < FOREVER and delay >= left))
                late = lane.too_late(endpoint, delay, left) if hopeless else None
            if following is not None:
                following.wake.set()
            if late is not None:
                raise late
            if delay <= 0:
                permit: Permit = waiter.permit
                return permit
            if delay == FOREVER and self._fetch(lane, waiter.rank, left):
                continue
            pause = min(RECHECK if delay == FOREVER else delay, left)
            self._clock.wait(waiter.wake, None if pause == FOREVER else pause)
            waiter.wake.clear()

    def get_wait_time(self, endpoint: str) -> float:
        """Seconds that a call of *endpoint* would wait at the least if it came now; 0.0 for none."""
        lane, rank = self._known.get(endpoint) or self._look_up(endpoint)
        if lane is None:
            return 0.0
        with lane.lock:
            return lane.whole(lane.estimate, rank, lane.now())

    def reset(self) -> None:
        """Every window is empty but for the calls in flight, and nothing is learned. The figures stay.

        Raises:
            BudgetUnavailable: the store of a shared budget is out of reach; nothing is reset there.
        """
        for lane in self._lanes.values():
            try:
                if self._budget is not None:
                    self._budget.forget(Rules.of(self._config, lane.name))
            except BudgetLost as error:
                raise BudgetUnavailable(
                    f"the shared rate budget is out of reach ({error}), and so is not reset; try again when it is back"
                ) from error
            with lane.lock:
                lane.whole(lane.clear)
                waiter = lane.line.head()
            if waiter is not None:
                waiter.wake.set()

    def close(self) -> None:
        """Nobody gets a permit any more, and whoever waits for one gets `SessionClosed`. May be called again."""
        for lane in self._lanes.values():
            with lane.lock:
                lane.closed = True
                lane.settle()
                waiting = lane.line.everybody()
            for waiter in waiting:
                waiter.wake.set()
        if self._courier is not None:
            self._courier.close()

    def budget(self) -> Budgets:
        """What is used, free and waited for right now, class by class."""
        classes = []
        for lane in self._lanes.values():
            with lane.lock:
                classes.append(lane.whole(lane.snapshot))
        return Budgets(classes)

    def get_stats(self) -> dict[str, Any]:
        """Figures since the start, by class; for monitoring."""
        stats: dict[str, Any] = {}
        for lane in self._lanes.values():
            with lane.lock:
                stats[lane.name] = lane.figures_so_far()
        return stats

    def health(self) -> dict[str, Any]:
        """Where the budget is kept, and whether it can be reached: ``kind``, ``ok`` and ``why`` it is not."""
        return self._courier.health() if self._courier else {"kind": "memory", "ok": True, "why": ""}

    def _forked(self) -> None:
        """In a child process: no waiters, no held locks, and the parent's calls are the parent's."""
        if self._budget is not None:
            self._budget.forked()
        parents, self._lanes, self._known = self._lanes, self._make_lanes(), {}
        for kind, lane in self._lanes.items():
            # The parent's permits, copied into this process, keep their lane; its lock must not stay held for ever.
            parents[kind].lock = threading.RLock()
            lane.inherit(parents[kind])

    def __repr__(self) -> str:
        return f"RateLimiter({self.budget()!r})"


_LIMITERS: "weakref.WeakSet[RateLimiter]" = weakref.WeakSet()


def _after_fork() -> None:
    for limiter in list(_LIMITERS):
        limiter._forked()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _checked(priority: int) -> int:
    if priority not in (0, 1, 2):
        raise InvalidRequest(f"priority is {priority!r}; expected 0 (urgent), 1 (normal) or 2 (bulk)")
    return int(priority)
