"""Pacing: a token bucket in front of the window, so that a long pull flows instead of stalling for half a minute."""


class Pacing:
    """A bucket of *burst* calls that fills with *rate* calls a second. Pure; its owner holds the lock.

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
