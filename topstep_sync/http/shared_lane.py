"""One class of calls whose permits come from a shared budget: leases at hand, and what has to be told."""

import math
import os
from collections import deque
from dataclasses import dataclass
from typing import Final

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

KEPT: Final = 10_000
"""Most reports kept for a store that cannot be reached; older ones count as complete when their lease ends."""


@dataclass(slots=True)
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

    def ended(self, now: float) -> Ended:
        return Ended(self.lease, self.how, now - self.at, now - self.granted, self.hint)


class LeasedPermit(LatePermit, eq=False, gc=False):
    """A permit under a lease; 0: under none, given out by our own count while the store was out of reach."""

    lease: int = 0


class SharedLane(Lane):
    """A lane in front of a shared budget. It never goes there: `ask` says what to exchange, and the courier does it."""

    def __init__(self, rules: Rules, config: RateConfig, clock: Clock) -> None:
        super().__init__(rules, config, clock)
        self.holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        self.largest = config.lease
        self.pool: deque[Held] = deque()
        self.outbox: deque[Report] = deque(maxlen=KEPT)
        self.asking = False
        """Somebody is at the store for permits of this class."""
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
        self._drop_stale(now)
        self._taking = next((held for held in self.pool if not (rank and held.urgent)), None)
        if self._taking is None:
            delay = self._without_lease(rank, now)
        else:
            self._taking.count -= 1
            if not self._taking.count:
                self.pool.remove(self._taking)
        if delay <= 0.0 and self.pacing and rank:
            self.pacing.spend(now)
        return delay

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
        return LeasedPermit(self, now, probe=probe, waited=waited, lease=number)

    def estimate(self, rank: int, now: float) -> float:
        """What the store last said, which is all that is known here; 0.0 when a lease is at hand."""
        self._drop_stale(now)
        ahead = self.line.ahead(rank, now)
        paced = self.pacing.wait(now, ahead) if self.pacing and rank else 0.0
        if self.lost and self._shared:
            return max(paced, self.spare.wait(now, ahead, rank == 0))
        if any(not (rank and held.urgent) for held in self.pool) or self.lost:
            return paced
        return max(paced, self.ask_at[rank == 0] - now, 0.0)

    def _drop_stale(self, now: float) -> None:
        """Leases that were not used in time are given back."""
        while self.pool and self.pool[0].use_before <= now:
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
        self.tally.refunded += 1
        now = self.now()
        if self._own(permit):
            self.spare.refund(now, False)
        return self._told(permit, UNUSED, now)

    def gave_up(self, permit: Permit) -> Waiter | None:
        self.tally.gave_up += 1
        now = self.now()
        if self._own(permit):
            self.spare.abandon(now + self.grace, now, False)
        return self._told(permit, GAVE_UP, now)

    def throttled(self, permit: Permit, retry_after: float | None) -> Waiter | None:
        self.tally.throttled += 1
        now = self.now()
        if self._own(permit):
            self.spare.refund(now, False)
        # What is at hand was leased before the gateway said no: nobody uses it any more.
        for held in self.pool:
            held.use_before = -math.inf
        self._drop_stale(now)
        return self._told(permit, REFUSED, now, retry_after)

    def _own(self, permit: Permit) -> bool:
        """Whether *permit* was given out by our own count."""
        assert isinstance(permit, LeasedPermit)
        return permit.lease == 0

    ########################################### the store ###########################################

    def ask(self, now: float, urgent: bool) -> Ask | None:
        """What to exchange with the store so that somebody gets a permit; `None` while there is nothing to ask."""
        assert self.lock.locked()
        if self.closed or self.asking or now < self.ask_at[urgent] or any(not held.urgent for held in self.pool):
            return None
        self.asking = True
        waiting = self.line.counts()
        needed = max(1, min(self.largest, waiting[0] if urgent else sum(waiting)))
        # Twice as many each time that they are gone within half a second.
        self.appetite = min(self.largest, self.appetite * 2) if now - self.asked_last < USABLE / 4 else 1
        self.asked_last = now
        return Ask(self.holder, needed, needed if urgent else max(needed, self.appetite), urgent, self._tell(now))

    def tell(self, now: float, *, everything: bool = False) -> Ask | None:
        """What to tell the store though nobody wants a permit; `None`: nothing. *everything*: give back leases, too."""
        assert self.lock.locked()
        if everything:
            for held in self.pool:
                held.use_before = -math.inf
        self._drop_stale(now)
        if not self.outbox or (now < self.ask_at_least() and not everything):
            return None
        return Ask(self.holder, ended=self._tell(now))

    def ask_at_least(self) -> float:
        """Not before this instant is the store tried, after it was out of reach."""
        return self.ask_at[True] if self.lost else -math.inf

    def _tell(self, now: float) -> list[Ended]:
        ended = [report.ended(now) for report in self.outbox]
        self.outbox.clear()
        return ended

    def answered(self, ask: Ask, answer: Answer, asked: float, now: float) -> Waiter | None:
        """The store has answered what was asked at *asked*; returned is who must look again."""
        assert self.lock.locked()
        self.lost = ""
        self.figures = answer
        if answer.granted:
            # By our clock, from before the question: later than that the store may already count them as complete.
            self.pool.append(Held(answer.lease, answer.granted, asked + USABLE, ask.urgent, answer.probe))
        if ask.needed:
            self.asking = False
            again = now if answer.granted else now + min(answer.wait, POLL)
            self.ask_at[ask.urgent] = again
            if ask.urgent and not answer.granted:
                self.ask_at[False] = max(self.ask_at[False], again)  # what is not there for them is there for nobody
        return self._stirred(True)

    def unanswered(self, ask: Ask, why: str, asked: float, now: float) -> Waiter | None:
        """The exchange asked at *asked* failed: what should have been told is kept."""
        assert self.lock.locked()
        self.outbox.extendleft(
            Report(e.lease, e.how, asked - e.age, asked - e.since_grant, e.hint) for e in reversed(ask.ended)
        )
        if ask.needed:
            self.asking = False
        self.lost = why
        self.ask_at = dict.fromkeys(self.ask_at, now + AGAIN)
        return self._stirred(True)

    def busy_here(self) -> bool:
        """Whether there is, or will be, something to tell."""
        return bool(self.outbox or self.pool or self.flying)

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
