"""Where two pages of bars meet: pages come newest first, and a bar at the edge may come with both. Pure.

Bars of a length of time are told apart by the instant they open at. Tick bars are not: several may open at the same
one, and be alike in everything else, too. Of those, what a page repeats is found by comparing it with the page before.
"""

from bisect import bisect_left
from datetime import datetime, timedelta
from itertools import chain, pairwise, takewhile
from operator import attrgetter
from typing import Final, Protocol

from topstep_sync.models import Bar, BarUnit

# Whether the gateway takes the end of a window as inside, and in what steps it counts time, is not documented: the bars
# of the edge are asked for once more, with all others of the same millisecond (the coarsest stamps seen: gateway 2026).
REACH: Final = timedelta(milliseconds=1)

opened = attrgetter("t")


class Join(Protocol):
    """How the pages of one pull are joined."""

    @property
    def spare(self) -> int:
        """Bars that the next page is expected to repeat."""
        ...

    def until(self, edge: datetime) -> datetime:
        """Where the window of the next page ends, when the pages so far begin at *edge*."""
        ...

    def fresh(self, got: list[Bar], start: datetime, end: datetime, *, inclusive: bool) -> list[Bar]:
        """What of a page is new and from *start* on, oldest first; *end* is the edge, or the end of the whole pull."""
        ...

    def took(self, page: list[Bar]) -> None:
        """*page* is among the pages so far."""
        ...


class ByStamp:
    """For bars of a length of time. The bar at the edge is asked for again, in case the end counts as inside."""

    @property
    def spare(self) -> int:
        return 1

    def until(self, edge: datetime) -> datetime:
        return edge

    def fresh(self, got: list[Bar], start: datetime, end: datetime, *, inclusive: bool) -> list[Bar]:
        return between(got, start, end, inclusive=inclusive)

    def took(self, page: list[Bar]) -> None:
        pass


class ByOverlap:
    """For tick bars."""

    def __init__(self) -> None:
        self._edge: list[Bar] = []  # the bars within `REACH` of the edge, oldest first

    @property
    def spare(self) -> int:
        return len(self._edge)

    def until(self, edge: datetime) -> datetime:
        return edge + REACH if self._edge else edge

    def fresh(self, got: list[Bar], start: datetime, end: datetime, *, inclusive: bool) -> list[Bar]:
        found = _oldest_first(got)
        if self._edge:
            found = found[: len(found) - self._repeated(found[bisect_left(found, end, key=opened) :])]
        else:
            found = found[: bisect_left(found, end + timedelta(microseconds=inclusive), key=opened)]
        return found[bisect_left(found, start, key=opened) :]

    def took(self, page: list[Bar]) -> None:
        limit = page[0].t + REACH
        self._edge = list(takewhile(lambda bar: bar.t <= limit, chain(page, self._edge)))

    def _repeated(self, tail: list[Bar]) -> int:
        """How many bars at the end of *tail* are those that the edge begins with."""
        most = min(len(tail), len(self._edge))
        for count in range(most, 0, -1):
            if tail[-count:] == self._edge[:count]:
                return count
        return most  # changed since they were read


def join_for(unit: BarUnit) -> Join:
    return ByOverlap() if unit is BarUnit.TICK else ByStamp()


def _oldest_first(bars: list[Bar]) -> list[Bar]:
    # Newest first is what the gateway sends, though it does not promise it. Within an instant nothing else tells.
    found = bars[::-1] if bars and bars[0].t >= bars[-1].t else bars
    return sorted(found, key=opened)


def between(bars: list[Bar], start: datetime, end: datetime, *, inclusive: bool = False) -> list[Bar]:
    """*bars* oldest first and each instant once, from *start* up to and, unless *inclusive*, without *end*."""
    # Newest first is what the gateway sends, though it does not promise it.
    found = bars[::-1] if len(bars) > 1 and bars[0].t > bars[-1].t else bars
    if any(a.t >= b.t for a, b in pairwise(found)):
        found = sorted({bar.t: bar for bar in found}.values(), key=opened)
    first = bisect_left(found, start, key=opened)
    last = bisect_left(found, end + timedelta(microseconds=inclusive), key=opened)
    return found[first:last]
