"""The pure sliding window of one class: completion-stamped slots, a gate that freezes, and what was learned.

A slot is busy from the grant until *completion* + span, because only that holds on the server's clock:
arrival_new ≥ grant_new ≥ completion_old + span ≥ arrival_old + span, whatever the network does in between.
"""

import enum
import math
from bisect import insort
from collections import deque
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from topstep_sync.http.learning import FOREVER, Learned


class Gate(enum.Enum):
    """Whether calls of a class flow."""

    FLOWING = "flowing"  # permits go out as the window allows
    FROZEN = "frozen"  # the gateway refused a call: nobody goes before `until`
    PROBING = "probing"  # one call tries alone, everybody else waits for its outcome


class Notice(enum.Enum):
    """What happens to a gate."""

    PROBE = "probe"  # a call goes alone
    ACCEPTED = "accepted"  # the gateway took it
    REFUSED = "refused"  # the gateway answered 429
    LOST = "lost"  # nobody will ever know: never sent, or no reply
    RESET = "reset"


GATES: Final[Mapping[tuple[Gate, Notice], Gate]] = {
    (Gate.FLOWING, Notice.PROBE): Gate.PROBING,
    (Gate.FLOWING, Notice.REFUSED): Gate.FROZEN,
    (Gate.FLOWING, Notice.RESET): Gate.FLOWING,
    (Gate.FROZEN, Notice.PROBE): Gate.PROBING,
    (Gate.FROZEN, Notice.REFUSED): Gate.FROZEN,
    (Gate.FROZEN, Notice.RESET): Gate.FLOWING,
    (Gate.PROBING, Notice.ACCEPTED): Gate.FLOWING,
    (Gate.PROBING, Notice.REFUSED): Gate.FROZEN,
    (Gate.PROBING, Notice.LOST): Gate.FROZEN,
    (Gate.PROBING, Notice.RESET): Gate.FLOWING,
}
"""A pair that is missing is a bug of the caller."""


class Window:
    """Slots of one class. Pure: takes `now`, returns decisions; its owner holds the lock.

    A slot is taken from the grant until its call is complete plus one span. Calls in flight have no stamp yet, those
    that were given up have one that lies ahead. Until `quiet_until` a grant is nothing but ``taken += 1`` below the
    ceiling, and a completion nothing but ``busy.append(now)``: what an owner in a hurry may do by itself.
    """

    __slots__ = (
        "ahead", "alone", "busy", "cap", "ceiling", "expired", "freed", "gate", "learned", "limit", "probe_age",
        "quiet_until", "reserved", "review_at", "span", "sure", "taken", "thawed", "until",
    )  # fmt: skip

    def __init__(self, limit: int, window: float, *, margin: float = 0.0, reserved: int = 0) -> None:
        self.limit = limit
        self.reserved = reserved
        self.learned = Learned(limit, window, margin)
        self.busy: deque[float] = deque()
        """Completion stamps within the span, ascending."""
        self.ahead: list[float] = []
        """Stamps that lie in the future, ascending: calls that were given up."""
        self.freed: deque[float] = deque(maxlen=limit)
        """Stamps that have left the window, but not the longest one we would believe in: the evidence of refusals."""
        self.taken = 0
        """Slots that are not free: in flight, busy or ahead."""
        self.expired = 0
        """Slots that have come free in all this time."""
        self.reset()

    def reset(self) -> None:
        """Nothing is remembered but the calls that are in flight now."""
        done = len(self.busy) + len(self.ahead)
        self.taken -= done
        self.expired += done
        self.busy.clear()
        self.ahead.clear()
        self.freed.clear()
        self.learned.forget()
        self.gate = Gate.FLOWING
        self.until = 0.0
        self.thawed = -math.inf
        """When the last freeze ended: refusals of calls granted before are old news."""
        self.probe_age = FOREVER
        self.alone = False
        """The last grant was that of a probe."""
        self.review_at = FOREVER
        self._settle()

    def kept(self) -> tuple[Any, ...]:
        """Everything as it is now, for `restore`."""
        return _NUMBERS(self), self.learned.kept(), tuple(self.busy), tuple(self.ahead), tuple(self.freed)

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Everything is as it was when `kept` was called: what began since was interrupted half-way."""
        numbers, learned, busy, ahead, freed = kept
        for name, value in zip(_NUMBERED, numbers, strict=True):
            setattr(self, name, value)
        self.learned.restore(learned)
        for stamps, old in ((self.busy, busy), (self.ahead, ahead), (self.freed, freed)):
            stamps.clear()
            stamps.extend(old)

    @property
    def flying(self) -> int:
        """Calls in flight."""
        return self.taken - len(self.busy) - len(self.ahead)

    def step(self, notice: Notice) -> None:
        """The gate is what the table says."""
        self.gate = GATES[self.gate, notice]
        self._settle()

    def _settle(self) -> None:
        """The copies that `take` reads follow what was learned."""
        self.span = self.learned.span
        self.cap = self.learned.cap
        self.ceiling = self.cap - min(self.reserved, self.cap - 1)
        self.sure = self.learned.sure
        self.quiet_until = -math.inf

    ######################################### granting #########################################

    def take(self, now: float, urgent: bool) -> float:
        """Seconds before the next permit for such a call; 0.0 means it was taken, infinity that only an event helps."""
        self._sweep(now)
        room = (self.cap if urgent else self.ceiling) - self.taken
        if not self.clear(1):
            return self._careful(now, room, urgent)
        if room <= 0:
            return self._until_free(now, -room)
        self.taken += 1
        if self.sure or not self.freed:
            # A call that completes later is stamped later: nothing but the oldest comes free within a span from now.
            oldest = self.busy[0] if self.busy else now
            self.quiet_until = min(self.review_at, oldest + self.span, self.ahead[0] if self.ahead else FOREVER)
        return 0.0

    def clear(self, count: int) -> bool:
        """Whether *count* more calls raise no doubt about the gateway's window: tried before, or too few to matter."""
        return self.gate is Gate.FLOWING and (self.sure or len(self.freed) + self.taken + count <= self.limit)

    def _careful(self, now: float, room: int, urgent: bool) -> float:
        self.alone = False
        if self.gate is Gate.PROBING:
            # A mere doubt about the window does not hold up a cancel; a refusal does, since it would be refused, too.
            if not urgent or self.learned.strikes or room <= 0:
                return FOREVER
            self.taken += 1
            return 0.0
        if self.gate is Gate.FROZEN and now < self.until:
            return max(self.until - now, self._until_free(now, -room))
        if room <= 0:
            return self._until_free(now, -room)
        age = self.age(now)
        if self.gate is Gate.FROZEN or self.learned.doubtful(age):
            self.probe_age = age
            self.alone = True
            self.step(Notice.PROBE)
        self.taken += 1
        return 0.0

    def _sweep(self, now: float) -> None:
        """What was due by *now* has happened: reviews, given-up calls, slots that come free."""
        if now >= self.review_at:
            self.review(now)
        while self.ahead and self.ahead[0] <= now:
            insort(self.busy, self.ahead.pop(0))
        busy, freed, span = self.busy, self.freed, self.span
        if busy and busy[0] + span <= now:
            before = len(busy)
            while busy and busy[0] + span <= now:
                freed.append(busy.popleft())
            self.taken -= before - len(busy)
            self.expired += before - len(busy)
            self.quiet_until = -math.inf
        while freed and freed[0] + self.learned.most <= now:
            freed.popleft()

    def _until_free(self, now: float, lacking: int) -> float:
        """Seconds until *lacking* + 1 busy slots are free; infinity if calls in flight must end first."""
        if lacking < 0:
            return 0.0
        if lacking < len(self.busy):
            return self.busy[lacking] + self.span - now
        lacking -= len(self.busy)
        return self.ahead[lacking] + self.span - now if lacking < len(self.ahead) else FOREVER

    def wait(self, now: float, ahead: int, urgent: bool) -> float:
        """The least that a caller behind *ahead* others will wait, in seconds: nobody can be quicker."""
        self._sweep(now)
        frozen = self.until - now if self.gate is Gate.FROZEN else 0.0
        lacking = ahead + self.taken - (self.cap if urgent else self.ceiling)
        if lacking < 0:
            return max(0.0, frozen)
        rounds, rest = divmod(lacking, self.cap)
        first = self._until_free(now, rest)
        if first == FOREVER:
            first = self.span  # a call in flight completes now at best
        return max(frozen, first + self.span * rounds)

    def age(self, now: float) -> float:
        """Seconds since our *limit*-th newest call was complete; infinity when there were not so many."""
        n = self.limit - self.flying - len(self.ahead)
        if n <= 0:
            return 0.0
        if n <= len(self.busy):
            return now - self.busy[-n]
        n -= len(self.busy)
        return now - self.freed[-n] if n <= len(self.freed) else FOREVER

    def used(self, now: float) -> int:
        """Slots that are not free."""
        self._sweep(now)
        return self.taken

    def review(self, now: float) -> None:
        """The span and the cap have drifted to where they should be by *now*."""
        self.review_at = self.learned.review(now)
        self._settle()

    ######################################### completion #########################################

    def release(self, now: float, probe: bool) -> None:
        """A call is complete: its slot is busy until *now* + span."""
        self.busy.append(now)
        if probe:
            self.probed(now, Notice.ACCEPTED)

    def abandon(self, stamp: float, now: float, probe: bool) -> None:
        """Nobody knows about a call; it counts as complete at *stamp*, which lies ahead."""
        insort(self.ahead, stamp)
        self.quiet_until = -math.inf
        if probe:
            self.probed(now, Notice.LOST)

    def refund(self, now: float, probe: bool) -> None:
        """A call was never sent: its slot is free."""
        self.taken -= 1
        if probe:
            self.probed(now, Notice.LOST)

    def refused(self, now: float, granted: float, probe: bool, hint: float | None) -> None:
        """The gateway answered 429, and so does not count the call. The class is frozen, unless that is old news."""
        self.taken -= 1
        if not probe and granted < self.thawed:
            return
        pause = self.learned.refused(now, self.age(granted), self.taken, hint)
        self.review_at = now
        if probe or self.gate is not Gate.PROBING:
            self.until = max(self.until, now + pause)
            self.step(Notice.REFUSED)
        self._settle()
        self._recall(now)

    def probed(self, now: float, notice: Notice) -> None:
        """The outcome of the call that went alone."""
        if self.gate is not Gate.PROBING:
            return  # a reset came in between
        if notice is Notice.ACCEPTED:
            self.learned.accepted(now, self.probe_age)
            self.thawed = now
            self.review_at = now
        self.step(notice)
        self._recall(now)

    def _recall(self, now: float) -> None:
        """Slots that were free by a shorter span are taken again by the longer one."""
        while self.freed and self.freed[-1] + self.span > now:
            self.busy.appendleft(self.freed.pop())
            self.taken += 1
            self.expired -= 1

    def orphan(self, stamp: float) -> None:
        """Calls in flight count as complete at *stamp*, which lies ahead: their holder is gone."""
        self.ahead.extend([stamp] * self.flying)
        self.ahead.sort()
        self.quiet_until = -math.inf
        if self.gate is Gate.PROBING:
            self.step(Notice.LOST)


_NUMBERED: Final = tuple(name for name in Window.__slots__ if name not in ("ahead", "busy", "freed", "learned"))
_NUMBERS: Final = attrgetter(*_NUMBERED)
