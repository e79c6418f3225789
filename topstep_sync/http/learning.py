"""What the gateway's limiter turns out to be: a window longer than documented, or a budget that others spend too.

A 429 though our own count allowed the call has one of two causes. Either the server holds a call longer than it
says (ASP.NET's partitioned limiter makes 61.2–61.7 s of 60 s and 31.4–31.9 s of 30 s; reference gateway, 2026-11),
or somebody else spends the same budget. The age of the *limit*-th newest of our calls tells them apart: if it is
within `MOST` times the documented window, a longer window explains the refusal, and that age is a lower bound.

No figure is exact: such a window is a sum of 30 segments that are drawn anew each time, so two windows do not tell how
long the longest of the next ten will be. What is kept above them buys fewer refusals for a lower rate. In 200
runs of the tests' model over twelve windows of 30 s, 13 saw 15 further refusals in all, each of the one call that goes
ahead, and 4 kept 96.7 to 97 % of the rate; in 40 runs at 60 s there was neither (2026-11, seeds that the constants were
not chosen by). The model is not the server, and the constants were chosen on the model.
"""

import math
from operator import attrgetter
from typing import Any, Final

FOREVER: Final = math.inf

MOST: Final = 1.25
"""A window longer than this many times the documented one is not believed."""

FINE: Final = 11
"""So many probes after a refusal go in steps of window/150, the rest in window/50: at most 20 refusals up to `MOST`."""

INFORMATIVE: Final = 0.04
"""Share of the window: an acceptance that much later than the last refusal does not tell where the truth lies."""

GUARD: Final = 0.35
"""Share of the stretch kept above what two windows showed: ASP.NET's 30 segments of 1.0 or 1.1 s scatter by that."""

WIDEST: Final = 0.015
"""Share of the window that the guard is at most."""

FRESH: Final = 0.1
"""Share of the window after which, where a longer window was learned, the next call goes alone again."""

FADE: Final = 3600.0
"""Seconds after which a learned window is the documented one again; a gateway may have been repaired."""

SLACK: Final = 0.001
"""Share of the window by which an age may be below the proven one and still count as proven."""

STUBBORN: Final = 5
"""After so many refusals in a row a Retry-After that no window explains is believed after all."""


class Learned:
    """The effective window and the effective limit of one class. Pure: takes `now`, holds no lock.

    Ages are seconds from the completion of our *limit*-th newest call to the grant of the call in question.
    """

    __slots__ = (
        "base", "foreign", "foreign_since", "limit", "low", "misled", "most", "nominal", "peak", "proven", "proven_at",
        "since", "span", "strikes", "surveys", "taken",
    )  # fmt: skip

    def __init__(self, limit: int, window: float, margin: float) -> None:
        self.limit = limit
        self.nominal = window
        self.base = window * (1.0 + margin)
        self.most = max(window * MOST, self.base)
        self.forget()

    def forget(self) -> None:
        """Only the documentation is known."""
        self.span = self.base
        """Seconds a slot stays busy after its call is complete."""
        self.peak = self.base
        """What `span` was when it was learned."""
        self.since = 0.0
        """When it was learned."""
        self.proven = FOREVER
        """The smallest age at which the gateway accepted a call; younger ages are tried by one call alone."""
        self.proven_at = 0.0
        self.low = 0.0
        """The largest age refused since the last acceptance of a probe."""
        self.strikes = 0
        """Refusals since the last acceptance of a probe."""
        self.surveys = 0
        """How many windows have shown their length; from 2 on it is settled."""
        self.misled = False
        """A Retry-After that was obeyed led into the next refusal, so here they are guesses."""
        self.taken = 0.0
        """Calls of others per window, when last measured."""
        self.foreign = 0
        """Calls of others per window as assumed now."""
        self.foreign_since = 0.0

    def kept(self) -> Any:
        """Everything as it is now, for `restore`."""
        return _EVERYTHING(self)

    def restore(self, kept: Any) -> None:
        """Everything is as it was when `kept` was called."""
        for name, value in zip(Learned.__slots__, kept, strict=True):
            setattr(self, name, value)

    @property
    def sure(self) -> bool:
        """Whether a slot that is free by our count is free by the gateway's, as far as experience goes."""
        return self.proven <= self.span + SLACK * self.nominal

    @property
    def step(self) -> float:
        """Seconds from a refused probe to the next one."""
        return self.nominal / (150 if self.strikes <= FINE else 50)

    @property
    def cap(self) -> int:
        """Calls we may have in one window: the documented limit less what others take, at least one."""
        return max(1, self.limit - self.foreign)

    def doubtful(self, age: float) -> bool:
        """Whether a call at *age* must go alone, because no call as early as that was accepted before."""
        return age < min(self.proven, self.most) - SLACK * self.nominal

    def refused(self, now: float, age: float, own: int, hint: float | None) -> float:
        """The gateway refused a call; the class rests for the returned seconds, then one call tries alone.

        *own* is how many of our calls the gateway may count by our own window, *hint* the Retry-After in seconds.
        """
        self.strikes += 1
        if age < self.most:
            return self._stretch(now, age, hint)
        self.taken = max(self.limit - own, 1)
        self.foreign = min(int(self.taken), self.limit)
        self.foreign_since = now
        pause = self.nominal / 10 * 2.0 ** min(self.strikes - 1, 3)
        return min(max(pause, hint or 0.0), self.most)

    def _stretch(self, now: float, age: float, hint: float | None) -> float:
        self.low = max(self.low, age)
        self.proven = FOREVER
        self._learn(now, max(self.span, self.low + self.step))
        if hint is None or hint <= 0:
            return self.step
        if age + hint > self.most:  # it contradicts every window that we would believe in
            return min(hint, self.most) if self.strikes > STUBBORN else self.step
        self.misled = self.misled or self.strikes == 2
        return self.step if self.misled else max(self.step, hint)

    def accepted(self, now: float, age: float) -> None:
        """The gateway accepted a call that went alone at *age* (infinite: it had no *limit* calls before it)."""
        if self.low:
            if age <= self.low + INFORMATIVE * self.nominal:
                self._survey(now, age)
        elif self.surveys == 1:
            if now > self.since + self.nominal / 2 and age <= self.span + INFORMATIVE * self.nominal:
                self._survey(now, self.span)
        else:
            self.proven = min(self.proven, age)
            self.proven_at = now
        self.strikes = 0
        self.low = 0.0

    def _survey(self, now: float, span: float) -> None:
        """One window has shown its length. The first is not believed before the second says the same."""
        self.surveys += 1
        if self.surveys >= 2:
            self.proven, self.proven_at = span, now
        if self.surveys == 2:
            span += min(GUARD * max(0.0, span - self.nominal), WIDEST * self.nominal)
        self._learn(now, span)

    def _learn(self, now: float, span: float) -> None:
        self.span = self.peak = min(max(span, self.base), self.most)
        self.since = now

    def review(self, now: float) -> float:
        """`span` and `foreign` are what is left of them by now; returned is when to look again, infinity for never."""
        if self.peak > self.base:
            # Flat at first: what was learned half an hour ago is still nearly all believed.
            left = 1.0 - ((now - self.since) / FADE) ** 4
            self.span = self.base + (self.peak - self.base) * max(0.0, min(1.0, left))
            if left <= 0.0:
                self.peak, self.surveys = self.base, 0
            elif now > self.proven_at + FRESH * self.nominal:
                self.proven = FOREVER  # a window that scatters is tried by one call, not by all at once
        if self.taken:
            # Others hold their share for a window; then it is halved each window, so one refusal a window is the price.
            windows = max(0.0, (now - self.foreign_since) / self.nominal - 1.0)
            self.foreign = math.floor(self.taken * 0.5**windows + 0.5)
            if not self.foreign:
                self.taken = 0.0
        return now + self.nominal / 50 if self.taken or self.peak > self.base else FOREVER

    def why(self) -> str:
        """What was learned, in words; empty when the documentation holds."""
        reasons = []
        if self.span > self.base:
            reasons.append(f"the gateway's window is {self.span:.2f} s, not {self.nominal:g} s")
        if self.foreign:
            reasons.append(f"others take {self.foreign} of {self.limit} calls per window")
        return "; ".join(reasons)


_EVERYTHING: Final = attrgetter(*Learned.__slots__)
