"""One class of calls whose permits come from a shared budget: leases at hand, and what has to be told."""

import math
import os
import threading
from collections import deque
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final

from topstep_sync.clock import Clock
from topstep_sync.config import RateConfig
from topstep_sync.errors import BudgetUnavailable
from topstep_sync.http.budgets import ClassBudget
from topstep_sync.http.lane import Lane
from topstep_sync.http.line import Waiter
from topstep_sync.http.permit import LatePermit, Permit
from topstep_sync.http.sharing import DONE, GAVE_UP, REFUSED, UNUSED, USABLE, Answer, Ask, Ended, Rules
from topstep_sync.http.window import Window

POLL: Final = 0.25
"""Longest time, in seconds, between two questions while somebody waits: another process may give permits back."""

AGAIN: Final = 1.0
"""Seconds before a store that could not be reached is tried again."""

AWAY: Final = 30.0
"""Seconds after which one that went to the store is not waited for any more: longer than any store takes to fail."""

KEPT: Final = 10_000
"""Most reports kept for a store that cannot be reached; older ones count as complete when their lease ends."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease at hand."""

    number: int
    count: int
    use_before: float
    urgent: bool
    """Taken from the reserve: only an urgent call may use it."""
    probe: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a permit, as it is kept until it is told."""

    lease: int
    how: str
    at: float
    granted: float = 0.0
    hint: float | None = None
    first: int = 0
    """The exchange that told it first, and failed."""

    def ended(self, now: float) -> Ended:
        return Ended(self.lease, self.how, now - self.at, now - self.granted, self.hint, self.first)


@dataclass(frozen=True, slots=True)
class Errand:
    """Somebody is at the store."""

    ask: Ask
    at: float
    """When it was asked."""
    thread: int


_PLAIN: Final = (
    "appetite", "asked_last", "errand", "figures", "flying", "given", "lost", "unsure", "_last", "_serial", "_taking",
)  # fmt: skip
_PLAINLY: Final = attrgetter(*_PLAIN)


class LeasedPermit(LatePermit, eq=False, gc=False):
    """A permit under a lease; 0: under none, given out by our own count while the store was out of reach."""

    lease: int = 0


class SharedLane(Lane):
    """A lane in front of a shared budget. It never goes there: `ask` says what to exchange, and the courier does it.

    Only one at a time is at the store, as `sharing` wants it: see `errand`.
    """

    def __init__(self, rules: Rules, config: RateConfig, clock: Clock) -> None:
        super().__init__(rules, config, clock)
        self.holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        self.largest = config.lease
        self.pool: deque[Held] = deque()
        self.outbox: deque[Report] = deque(maxlen=KEPT)
        self.errand: Errand | None = None
        """Who is at the store for this class."""
        self.onlookers: list[threading.Event] = []
        """Who wants to know when nobody is there any more."""
        self.unsure = False
        """There may be a lease that never reached us; the next exchange gives it back."""
        self._serial = 0
        self._last = 0
        """The newest lease that reached us."""
        self.ask_at = {True: -math.inf, False: -math.inf}
        """Urgent or not → when it makes sense to ask for permits."""
        self.appetite = 1
        self.asked_last = -math.inf
        self.flying = 0
        self.given = 0
        self.figures: Answer | None = None
        self.lost = ""
        """Why the store cannot be reached; empty while it can."""
        self._taking: Held | None = None
        self._shared = config.on_budget_loss == "share"
        share = max(1, rules.limit // config.processes)
        self.spare = Window(share, rules.window, margin=rules.margin, reserved=min(rules.reserved, share - 1))
        """What we count by ourselves while the store is out of reach."""

    def settle(self) -> None:
        """There is no short way past the leases."""
        self.calm = False

    ############################################ granting ############################################

    def _wait(self, rank: int, now: float) -> float:
        delay = self.pacing.wait(now) if self.pacing and rank else 0.0
        if delay > 0.0:
            return delay
        self._drop_stale(now, now)
        self._taking = self._usable(rank == 0)
        if self._taking is None:
            delay = self._without_lease(rank, now)
        else:
            self._use(self._taking)
        if delay <= 0.0 and self.pacing and rank:
            self.pacing.spend(now)
        return delay

    def _usable(self, urgent: bool) -> Held | None:
        """The lease that such a call takes its permit from."""
        for held in self.pool:
            if urgent or not held.urgent:
                return held
        return None

    def _use(self, held: Held) -> None:
        """One permit less is at hand under *held*."""
        at = self.pool.index(held)
        if held.count == 1:
            del self.pool[at]
        else:
            self.pool[at] = replace(held, count=held.count - 1)

    def _without_lease(self, rank: int, now: float) -> float:
        """Seconds to wait where no lease is at hand; infinity while only the store's answer helps."""
        ask_at = self.ask_at[rank == 0]
        if not self.lost:
            return ask_at - now if ask_at > now else math.inf
        if self._shared:
            return self.spare.take(now, rank == 0)
        if now < ask_at:
            raise self.unavailable()
        return math.inf

    def unavailable(self) -> BudgetUnavailable:
        """The refusal of a call that nobody could count."""
        return BudgetUnavailable(
            f"the shared rate budget is out of reach ({self.lost}), so nobody can count this {self.name} call; nothing "
            "was sent. Make the store reachable, or set RateConfig.on_budget_loss='share' to go on with a share of it",
            retry_after=AGAIN,
        )  # fmt: skip

    def _grant(self, now: float, waited: float = 0.0) -> Permit:
        held, self._taking = self._taking, None
        self.flying += 1
        self.given += 1
        number, probe = (held.number, held.probe) if held else (0, False)
        self._fresh = LeasedPermit(None, now, probe=probe, waited=waited, lease=number)
        return self._fresh

    def estimate(self, rank: int, now: float) -> float:
        """What the store last said, which is all that is known here; 0.0 when a lease is at hand."""
        self._drop_stale(now, now)
        ahead = self.line.ahead(rank, now)
        paced = self.pacing.wait(now, ahead) if self.pacing and rank else 0.0
        if self.lost and self._shared:
            return max(paced, self.spare.wait(now, ahead, rank == 0))
        if self.lost or self._usable(rank == 0) is not None:
            return paced
        return max(paced, self.ask_at[rank == 0] - now, 0.0)

    def _drop_stale(self, before: float, now: float) -> None:
        """Leases that were to be used until *before* are given back."""
        while self.pool and self.pool[0].use_before <= before:
            held = self.pool.popleft()
            self.outbox.extend([Report(held.number, UNUSED, now)] * held.count)
            self.appetite = 1

    ########################################### completion ###########################################

    def _told(self, permit: Permit, how: str, now: float, hint: float | None = None) -> Waiter | None:
        assert isinstance(permit, LeasedPermit)
        self.flying -= 1
        self.outbox.append(Report(permit.lease, how, now, permit.granted, hint))
        return self._stirred(False)

    def finished(self, permit: Permit) -> Waiter | None:
        now = self.now()
        if self._own(permit):
            self.spare.release(now, False)
        return self._told(permit, DONE, now)

    def refunded(self, permit: Permit) -> Waiter | None:
        now = self.now()
        if self._own(permit):
            self.spare.refund(now, False)
        waiter = self._told(permit, UNUSED, now)
        self.tally.refunded += 1
        return waiter

    def _abandoned(self, permit: Permit, at: float) -> Waiter | None:
        if self._own(permit):
            self.spare.abandon(at + self.grace, self.now(), False)
        waiter = self._told(permit, GAVE_UP, at)
        self.tally.gave_up += 1
        return waiter

    def throttled(self, permit: Permit, retry_after: float | None) -> Waiter | None:
        now = self.now()
        if self._own(permit):
            self.spare.refund(now, False)
        # What is at hand was leased before the gateway said no: nobody uses it any more.
        self._drop_stale(math.inf, now)
        waiter = self._told(permit, REFUSED, now, retry_after)
        self.tally.throttled += 1
        return waiter

    def _own(self, permit: Permit) -> bool:
        """Whether *permit* was given out by our own count."""
        assert isinstance(permit, LeasedPermit)
        return permit.lease == 0

    ########################################### the store ###########################################

    def away(self, now: float) -> bool:
        """Whether somebody is at the store; one that was interrupted there, as this thread shows by asking, is not."""
        assert self.lock._is_owned()
        errand = self.errand
        if errand is None:
            return False
        if errand.thread == threading.get_ident() or errand.at + AWAY <= now:
            self.unanswered(errand, "", now)
            return False
        return True

    def ask(self, now: float, urgent: bool) -> Errand | None:
        """What to exchange with the store so that somebody gets a permit; `None` while there is nothing to ask."""
        if self.closed or self.away(now) or now < self.ask_at[urgent] or self._usable(False) is not None:
            return None
        waiting = self.line.counts()
        needed = max(1, min(self.largest, waiting[0] if urgent else sum(waiting)))
        # Twice as many each time that they are gone within half a second.
        self.appetite = min(self.largest, self.appetite * 2) if now - self.asked_last < USABLE / 4 else 1
        self.asked_last = now
        return self._go(now, needed, needed if urgent else max(needed, self.appetite), urgent)

    def tell(self, now: float, *, everything: bool = False) -> Errand | None:
        """What to tell the store though nobody wants a permit; `None`: nothing. *everything*: give back leases, too."""
        if self.away(now):
            return None
        self._drop_stale(math.inf if everything else now, now)
        if not (self.outbox or self.unsure) or (now < self.ask_at_least() and not everything):
            return None
        return self._go(now)

    def ask_at_least(self) -> float:
        """Not before this instant is the store tried, after it was out of reach."""
        return self.ask_at[True] if self.lost else -math.inf

    def _go(self, now: float, needed: int = 0, want: int = 0, urgent: bool = False) -> Errand:
        ended = [report.ended(now) for report in self.outbox]
        self.outbox.clear()
        self._serial += 1
        ask = Ask(self.holder, needed, want, urgent, ended, self._serial, self._last)
        self.errand = Errand(ask, now, threading.get_ident())
        return self.errand

    def answered(self, errand: Errand, answer: Answer, now: float) -> Waiter | None:
        """The store has answered; returned is who must look again."""
        if errand is not self.errand:
            return None  # somebody went after it, and the store takes back what this one got
        self.errand, ask = None, errand.ask
        self.lost, self.unsure = "", False
        self.figures = answer
        if answer.granted:
            self._last = answer.lease
            # By our clock, from before the question: later than that the store may already count them as complete.
            self.pool.append(Held(answer.lease, answer.granted, errand.at + USABLE, ask.urgent, answer.probe))
        if ask.needed:
            again = now if answer.granted else now + min(answer.wait, POLL)
            self.ask_at[ask.urgent] = again
            if ask.urgent and not answer.granted:
                self.ask_at[False] = max(self.ask_at[False], again)  # what is not there for them is there for nobody
        return self._stirred(True)

    def unanswered(self, errand: Errand, why: str, now: float) -> Waiter | None:
        """The exchange failed: what should have been told is kept. *why* is empty where the store is not to blame."""
        if errand is not self.errand:
            return None
        self.errand, ask = None, errand.ask
        untold = [
            Report(e.lease, e.how, errand.at - e.age, errand.at - e.since_grant, e.hint, e.first or ask.serial)
            for e in ask.ended
        ]
        self.outbox = deque([*untold, *self.outbox], maxlen=KEPT)
        self.unsure = self.unsure or ask.needed > 0
        if why:
            self.lost = why
            self.ask_at = dict.fromkeys(self.ask_at, now + AGAIN)
        return self._stirred(True)

    def kept(self) -> Any:
        # The window has nothing to say here, and neither has our own count unless there is, or was, no store.
        spare = self.spare.kept() if self.lost or self.spare.taken else None
        return spare, tuple(self.pool), tuple(self.outbox), self.ask_at.copy(), _PLAINLY(self)

    def restore(self, kept: Any) -> None:
        spare, pool, outbox, self.ask_at, plain = kept
        if spare is not None:
            self.spare.restore(spare)
        self.pool, self.outbox = deque(pool), deque(outbox, maxlen=KEPT)
        for name, value in zip(_PLAIN, plain, strict=True):
            setattr(self, name, value)
        self._fresh = None

    def busy_here(self) -> bool:
        """Whether there is, or will be, something to tell."""
        return bool(self.outbox or self.pool or self.flying or self.unsure)

    ############################################ figures ############################################

    @property
    def granted(self) -> int:
        """Permits given out so far."""
        return self.given

    @property
    def in_flight(self) -> int:
        """Calls in flight, of this process."""
        return self.flying

    def clear(self) -> None:
        """Leases at hand are dropped; the store is cleared by whoever calls."""
        self.pool.clear()
        self.spare.reset()
        self.ask_at = dict.fromkeys(self.ask_at, -math.inf)

    def inherit(self, parent: Lane) -> None:
        """In a child process the parent's leases are the parent's."""
        self.closed = parent.closed

    def snapshot(self) -> ClassBudget:
        """What the store last said, and who waits here."""
        now = self.now()
        figures = self.figures
        wait = self.estimate(1, now)
        return self._described(
            now, wait,
            used=figures.used if figures else 0,
            cap=figures.cap if figures else self.rules.limit,
            span=figures.span if figures else self.spare.span,
            gate=figures.gate if figures else "flowing",
            why="; ".join(filter(None, [figures.why if figures else "", self.lost and f"out of reach: {self.lost}"])),
        )  # fmt: skip
