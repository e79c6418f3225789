"""One class of calls: its window, its line and its figures behind one short lock; and the permits it gives out."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from topstep_sync.config import RateConfig
from topstep_sync.errors import RateLimitTimeout, SessionClosed
from topstep_sync.http.line import Line, Waiter
from topstep_sync.http.pacing import Pacing
from topstep_sync.http.window import Gate, Window


class Permit:
    """The right to send one call. What became of it is said once; whatever is said later is ignored. Thread-safe.

    As a context manager: leaving the block is `done`, leaving it by an exception `gave_up`, unless something was said.
    """

    __slots__ = ("_lane", "granted", "open", "probe", "waited")

    def __init__(self, lane: "Lane | None", granted: float, probe: bool) -> None:
        self._lane = lane
        self.granted = granted
        """Instant of the grant, in seconds of the limiter's clock."""
        self.probe = probe
        """Goes alone: everybody else waits for what becomes of it."""
        self.open = lane is not None
        """Nothing has been said yet."""
        self.waited = 0.0
        """Seconds that the caller waited for it."""

    def done(self) -> None:
        """The reply is complete: the slot is busy for one window from now."""
        lane = self._lane
        if lane is None:
            return
        with lane.lock:
            if not self.open:
                return
            self.open = False
            now = lane.now()
            lane.window.release(now, now, self.probe)
            if lane.calm:
                return
            waiter = lane.stirred(self.probe)
        if waiter is not None:
            waiter.wake.set()

    def refund(self) -> None:
        """Provably nothing was sent: the slot is free at once."""
        self._close(Lane.refunded)

    def gave_up(self) -> None:
        """No reply came. The gateway may still count the call for the time of grace, and a window from then."""
        self._close(Lane.gave_up)

    def throttled(self, retry_after: float | None = None) -> None:
        """The gateway answered 429: its class rests, then one call tries alone. *retry_after* is in seconds."""
        self._close(lambda lane, permit: lane.throttled(permit, retry_after))

    def _close(self, act: "Callable[[Lane, Permit], Waiter | None]") -> None:
        lane = self._lane
        if lane is None:
            return
        with lane.lock:
            if not self.open:
                return
            self.open = False
            waiter = act(lane, self)
        if waiter is not None:
            waiter.wake.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.done()
        else:
            self.gave_up()

    def __repr__(self) -> str:
        name = "free" if self._lane is None else self._lane.name
        return f"Permit({name!r}{', probe=True' if self.probe else ''}{', open=True' if self.open else ''})"


@dataclass(slots=True)
class Tally:
    """What happened to one class so far."""

    granted: int = 0
    waited: int = 0
    """Callers that had to wait."""
    wait_total: float = 0.0
    wait_worst: float = 0.0
    refused: int = 0
    """Callers refused here, because their deadline came first or the line was full."""
    throttled: int = 0
    """429s of the gateway."""
    refunded: int = 0
    gave_up: int = 0


class Lane:
    """A class of calls. Every method but `claim` wants the lock held, takes the time itself, and wakes nobody:
    it returns the waiter to wake, which the caller does after unlocking."""

    def __init__(self, name: str, config: RateConfig, limit: int, window: float, reserved: int) -> None:
        self.name = name
        self.lock = threading.Lock()  # guards everything here, and the permits and waiters of this class
        self.window = Window(limit, window, margin=config.margin, reserved=reserved)
        self.line = Line(config.ageing)
        self.pacing = Pacing(config.burst, limit / window) if config.burst is not None else None
        self.tally = Tally()
        self.grace = config.grace
        self.depth = config.max_queue_depth
        self.closed = False
        self.calm = True
        """Nobody waits and nothing is closed: the short way may be taken."""
        self.now: Callable[[], float]

    ############################################ granting ############################################

    def claim(self, rank: int) -> Permit | None:
        """A permit, if this call is next and a slot is free; takes the lock itself."""
        with self.lock:
            now = self.now()
            if not self.calm:
                self._check_open()
                if not self.line.passes(rank, now):
                    return None
            return self._grant(rank, now) if self._wait(rank, now) <= 0.0 else None

    def _wait(self, rank: int, now: float) -> float:
        """Seconds before the next permit; 0.0 means that a slot was taken."""
        if self.pacing is None or rank == 0:
            return self.window.take(now, rank == 0)
        delay = self.pacing.wait(now)
        if delay > 0.0:
            return delay
        delay = self.window.take(now, False)
        if delay <= 0.0:
            self.pacing.spend(now)
        return delay

    def _grant(self, rank: int, now: float) -> Permit:
        self.tally.granted += 1
        return Permit(self, now, self.window.gate is Gate.PROBING)

    def join(self, rank: int, endpoint: str, at: float) -> Waiter:
        """A new waiter stands in line.

        Raises:
            RateLimitTimeout: its turn cannot come before *at*, or the line is full.
            SessionClosed: the limiter is closed.
        """
        assert self.lock.locked()
        self._check_open()
        now = self.now()
        needed = self.estimate(rank, now)
        if now + needed >= at:
            raise self.too_late(endpoint, needed, at - now)
        if len(self.line) >= self.depth:
            self.tally.refused += 1
            raise RateLimitTimeout(
                f"{len(self.line)} callers already wait for {self.name} permits (RateConfig.max_queue_depth); "
                f"nothing was sent, try again in {needed:.1f} s",
                endpoint=endpoint, wait_needed=needed, retry_after=needed,
            )  # fmt: skip
        self.calm = False
        return self.line.join(rank, now)

    def attempt(self, waiter: Waiter) -> tuple[float, Waiter | None]:
        """How long *waiter* may sleep before it asks again (0.0: `waiter.permit` is there), and whom to wake."""
        assert self.lock.locked()
        self._check_open()
        if self.line.head() is not waiter:
            waiter.untimed = True
            return math.inf, None
        now = self.now()
        delay = self._wait(waiter.rank, now)
        if delay > 0.0:
            waiter.untimed = delay == math.inf
            return delay, None
        waiter.permit = self._grant(waiter.rank, now)
        waiter.permit.waited = waited = now - waiter.since
        self.tally.waited += 1
        self.tally.wait_total += waited
        self.tally.wait_worst = max(self.tally.wait_worst, waited)
        return 0.0, self.leave(waiter)

    def leave(self, waiter: Waiter) -> Waiter | None:
        """*waiter* stands in line no more; returned is who is next, if that changed."""
        was_head = self.line.head() is waiter
        self.line.leave(waiter)
        self.calm = not len(self.line) and not self.closed
        return self.line.head() if was_head else None

    def desert(self, waiter: Waiter) -> Waiter | None:
        """*waiter* goes away with nothing: what it may have got already is given back."""
        permit, waiter.permit = waiter.permit, None
        if permit is not None and permit.open:
            permit.open = False
            return self.refunded(permit)
        return self.leave(waiter)

    def too_late(self, endpoint: str, needed: float, left: float) -> RateLimitTimeout:
        """The refusal of a caller that has *left* seconds where *needed* are needed; counted."""
        self.tally.refused += 1
        needed = max(0.0, needed)
        return RateLimitTimeout(
            f"a {self.name} permit for {endpoint} takes {needed:.2f} s, the deadline is in {max(0.0, left):.2f} s; "
            "nothing was sent: call less often, or allow more time",
            endpoint=endpoint, wait_needed=needed, retry_after=needed,
        )  # fmt: skip

    def estimate(self, rank: int, now: float) -> float:
        """The least that a caller that comes now will wait, in seconds; 0.0 when it would not."""
        ahead = self.line.ahead(rank, now)
        delay = self.window.wait(now, ahead, rank == 0)
        if self.pacing is not None and rank:
            delay = max(delay, self.pacing.wait(now, ahead))
        return delay

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosed("the session is closed: make a new one; nothing was sent")

    ########################################### completion ###########################################

    def stirred(self, changed: bool) -> Waiter | None:
        """Who must look again, now that a call has ended; *changed*: not only the time of the next slot is new."""
        head = self.line.head()
        return head if head is not None and (changed or head.untimed) else None

    def refunded(self, permit: Permit) -> Waiter | None:
        """Nothing was sent under *permit*."""
        self.tally.refunded += 1
        self.window.refund(self.now(), permit.probe)
        return self.stirred(True)

    def gave_up(self, permit: Permit) -> Waiter | None:
        """Nobody knows whether the gateway counts the call of *permit*."""
        self.tally.gave_up += 1
        now = self.now()
        self.window.release(now + self.grace, now, permit.probe)
        return self.stirred(permit.probe)

    def throttled(self, permit: Permit, retry_after: float | None) -> Waiter | None:
        """The gateway refused the call of *permit*."""
        self.tally.throttled += 1
        self.window.refused(self.now(), permit.granted, permit.probe, retry_after)
        return self.stirred(True)
