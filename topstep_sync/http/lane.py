"""One class of calls: its window, its line and its figures behind one short lock."""

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from topstep_sync.clock import Clock
from topstep_sync.config import RateConfig
from topstep_sync.errors import RateLimitTimeout, SessionClosed
from topstep_sync.http.budgets import ClassBudget
from topstep_sync.http.line import Line, Pacing, Waiter
from topstep_sync.http.permit import LatePermit, Permit, let_go
from topstep_sync.http.sharing import Rules
from topstep_sync.http.window import Gate, Window

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """What happened to one class so far."""

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
    it returns the waiter to wake, which the caller does after unlocking.

    Ctrl-C may come wherever a call returns. What decides runs within `whole`, so it is done or it is not, and a permit
    is made valid by an assignment after that, so that it is good exactly when its slot is taken.
    """

    def __init__(self, rules: Rules, config: RateConfig, clock: Clock) -> None:
        self.name = rules.name
        self.rules = rules
        self.now = clock.monotonic
        # Guards everything here, and the permits and waiters of this class. Nobody enters it twice: see `let_go`.
        self.lock: Any = threading.RLock()
        self.strays: deque[Permit] = deque()
        self._fresh: Permit | None = None
        """Granted, and not yet valid."""
        self.adopt(Window(rules.limit, rules.window, margin=rules.margin, reserved=rules.reserved))
        self.line = Line(config.ageing)
        self.pacing = Pacing(config.burst, rules.limit / rules.window) if config.burst is not None else None
        self.tally = Tally()
        self.grace = config.grace
        self.depth = config.max_queue_depth
        self.closed = False
        self.settle()

    def adopt(self, window: Window) -> None:
        """*window* is where the slots are."""
        self.window = window
        self.busy = window.busy

    def settle(self) -> None:
        """`calm` says what holds."""
        self.calm = not (self.closed or len(self.line) or self.window.gate is not Gate.FLOWING)
        """Nobody waits or probes, and the lane is open: a completion is nothing but a stamp."""

    ############################################ granting ############################################

    def claim(self, rank: int) -> Permit | None:
        """A permit, if this call is next and a slot is free; takes the lock itself."""
        lock, permit = self.lock, None
        try:
            lock.acquire()
            now = self.now()
            window = self.window
            if not self.calm or now >= window.quiet_until:
                permit = self.whole(self._claim, rank, now)
            elif window.taken < (window.ceiling if rank else window.cap):
                # Nothing returns between the two but the permit, so a signal finds neither or both.
                window.taken += 1
                permit = Permit(self, now)
            elif self.strays:
                permit = self.whole(self._claim, rank, now)
            lock.release()
        except BaseException:
            let_go(lock)
            permit = None  # the traceback keeps this frame
            raise
        return permit

    def whole(self, work: Callable[..., T], *given: Any, ends: Permit | None = None) -> T:
        """What *work* returns; if it raises, whatever it changed is as before. Its callers hold the lock.

        A permit that it granted is valid, and nothing can be said of *ends* any more: from after the last call here on,
        so Ctrl-C finds either all or nothing.
        """
        self._gather()
        kept = self.kept()
        try:
            result = work(*given)
        except BaseException:
            self.restore(kept)
            raise
        if self._fresh is not None:
            self._fresh._lane, self._fresh = self, None
        if ends is not None:
            ends._lane = None
        return result

    def _gather(self) -> None:
        """Permits that went out of use count as given up then."""
        while self.strays:
            stray, kept = self.strays[0], self.kept()
            try:
                self.strayed(stray)
            except BaseException:
                self.restore(kept)
                raise
            self.strays.popleft()

    def kept(self) -> Any:
        """What is decided by, as it is now, for `restore`. Not in it: the line, whose changes are single steps, and the
        tally, which is changed last."""
        return self.window.kept()

    def restore(self, kept: Any) -> None:
        """What is decided by is as it was when `kept` was called."""
        self._fresh = None
        self.window.restore(kept)
        self.settle()

    def _claim(self, rank: int, now: float) -> Permit | None:
        if not self.calm:
            self._check_open()
            if not self.line.passes(rank, now):
                return None
        return self._grant(now) if self._wait(rank, now) <= 0.0 else None

    def _wait(self, rank: int, now: float) -> float:
        """Seconds before the next permit; 0.0 means that a slot was taken."""
        if self.pacing is None:
            return self.window.take(now, rank == 0)
        delay = self.pacing.wait(now) if rank else 0.0
        if delay <= 0.0:
            delay = self.window.take(now, rank == 0)
            # The bucket must see every call, so there is no short way past it.
            self.window.quiet_until = -math.inf
            if delay <= 0.0 and rank:
                self.pacing.spend(now)
        return delay

    def _grant(self, now: float, waited: float = 0.0) -> Permit:
        probing = self.window.gate is Gate.PROBING
        probe = probing and self.window.alone
        if probing:
            self.calm = False
        late = probe or waited
        self._fresh = LatePermit(None, now, probe=probe, waited=waited) if late else Permit(None, now)
        return self._fresh

    def join(self, waiter: Waiter, endpoint: str, at: float) -> None:
        """*waiter* stands in line.

        Raises:
            RateLimitTimeout: its turn cannot come before *at*, or the line is full.
            SessionClosed: the limiter is closed.
        """
        assert self.lock._is_owned()
        self._check_open()
        now = self.now()
        needed = self.estimate(waiter.rank, now)
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
        self.line.join(waiter, now)

    def attempt(self, waiter: Waiter) -> tuple[float, Waiter | None]:
        """How long *waiter* may sleep before it asks again (0.0: `waiter.permit` is there), and whom to wake."""
        assert self.lock._is_owned()
        self._check_open()
        if self.line.head() is not waiter:
            waiter.untimed = True
            return math.inf, None
        now = self.now()
        delay = self._wait(waiter.rank, now)
        if delay > 0.0:
            waiter.untimed = delay == math.inf
            return delay, None
        waited = now - waiter.since
        waiter.permit = self._grant(now, waited)
        self.tally.waited += 1
        self.tally.wait_total += waited
        self.tally.wait_worst = max(self.tally.wait_worst, waited)
        return 0.0, self.leave(waiter)

    def leave(self, waiter: Waiter) -> Waiter | None:
        """*waiter* stands in line no more; returned is who is next, if that changed."""
        was_head = self.line.head() is waiter
        self.line.leave(waiter)
        self.settle()
        return self.line.head() if was_head else None

    def desert(self, waiter: Waiter) -> Waiter | None:
        """*waiter* goes away with nothing: what it may have got already is given back."""
        permit = waiter.permit
        self.leave(waiter)
        if permit is not None and permit.open:
            self.refunded(permit)
            permit.forget()
        return self.line.head()

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

    def _stirred(self, changed: bool) -> Waiter | None:
        """Who must look again, now that a call has ended; *changed*: not only the time of the next slot is new."""
        self.settle()
        head = self.line.head()
        return head if head is not None and (changed or head.untimed) else None

    def finished(self, permit: Permit) -> Waiter | None:
        """The reply to the call of *permit* is complete."""
        self.window.release(self.now(), permit.probe)
        return self._stirred(permit.probe)

    def refunded(self, permit: Permit) -> Waiter | None:
        """Nothing was sent under *permit*."""
        self.window.refund(self.now(), permit.probe)
        waiter = self._stirred(True)
        self.tally.refunded += 1
        return waiter

    def gave_up(self, permit: Permit) -> Waiter | None:
        """Nobody knows whether the gateway counts the call of *permit*."""
        return self._abandoned(permit, self.now())

    def strayed(self, permit: Permit) -> None:
        """*permit* went out of use when it says that it was granted, and nobody said anything."""
        self._abandoned(permit, permit.granted)

    def _abandoned(self, permit: Permit, at: float) -> Waiter | None:
        self.window.abandon(at + self.grace, self.now(), permit.probe)
        waiter = self._stirred(permit.probe)
        self.tally.gave_up += 1
        return waiter

    def throttled(self, permit: Permit, retry_after: float | None) -> Waiter | None:
        """The gateway refused the call of *permit*."""
        self.window.refused(self.now(), permit.granted, permit.probe, retry_after)
        waiter = self._stirred(True)
        self.tally.throttled += 1
        return waiter

    ############################################ figures ############################################

    @property
    def granted(self) -> int:
        """Permits given out so far: each is taken, has come free, or was given back."""
        return self.window.taken + self.window.expired + self.tally.refunded + self.tally.throttled

    @property
    def in_flight(self) -> int:
        """Calls that were granted and have not ended."""
        return self.window.flying

    def clear(self) -> None:
        """The window is empty but for the calls in flight, and nothing is learned."""
        self.window.reset()
        self.settle()

    def inherit(self, parent: "Lane") -> None:
        """In a child process: what the parent has in flight counts as complete after the time of grace."""
        mine = self.window
        self.adopt(parent.window)
        parent.adopt(mine)  # for the parent's permits, copied into this process, whose ends concern nobody here
        self.window.orphan(self.now() + self.grace)
        self.closed = parent.closed
        self.settle()

    def snapshot(self) -> ClassBudget:
        """What is used, free and waited for."""
        now, window = self.now(), self.window
        window.review(now)
        wait = self.estimate(1, now)
        return self._described(
            now, wait, used=window.used(now), cap=window.cap, span=window.span, gate=window.gate.value,
            why=window.learned.why(),
        )  # fmt: skip

    def _described(
        self, now: float, wait: float, *, used: int, cap: int, span: float, gate: str, why: str
    ) -> ClassBudget:
        oldest = self.line.oldest()
        return ClassBudget(
            name=self.name,
            limit=self.window.limit,
            window=self.window.learned.nominal,
            learned_limit=cap,
            learned_window=span,
            used=used,
            waiting=self.line.counts(),
            next_free=wait,
            worst_wait=max(self.tally.wait_worst, 0.0 if oldest is None else now - oldest),
            gate=gate,
            why=why,
        )

    def figures_so_far(self) -> dict[str, float]:
        """What happened so far, and what is under way."""
        counts = {name: getattr(self.tally, name) for name in Tally.__slots__}
        return {"granted": self.granted, **counts, "in_flight": self.in_flight, "waiting": len(self.line)}
