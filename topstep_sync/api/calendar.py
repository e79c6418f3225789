"""When CME Globex trades: the session calendar that holes in a history are measured against.

A session belongs to a day, Monday to Friday: it opens at 17:00 Chicago time on the evening before and closes at 16:00.
Holidays are those of the equity index futures (CME Group, holiday calendar, 2026); other products differ on early
closes. A day that the exchange declared by itself (a day of mourning) is not known here and shows up as a hole.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from topstep_sync.tables import Shown

CHICAGO: Final = ZoneInfo("America/Chicago")
OPENS: Final = time(17)
CLOSES: Final = time(16)
NOON: Final = time(12)
QUARTER: Final = time(12, 15)
ONE_DAY: Final = timedelta(days=1)
MONDAY, THURSDAY, FRIDAY, SATURDAY = 0, 3, 4, 5


class Hole(Shown, msgspec.Struct, frozen=True):
    """A stretch in which the market was open and bars are missing."""

    start: datetime
    """Opening instant of the first bar that is missing."""
    end: datetime
    """Opening instant of the next bar that is there, or the end of the window."""
    missing: int
    """How many bars of open market it spans; a thin market has minutes without a trade, and no bar for them."""


def easter(year: int) -> date:
    """Easter Sunday, by the Gregorian computus (Meeus)."""
    a, b, c = year % 19, year // 100, year % 100
    d = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    e = (32 + 2 * (b % 4) + 2 * (c // 4) - d - c % 4) % 7
    f = d + e - 7 * ((a + 11 * d + 22 * e) // 451) + 114
    return date(year, f // 31, f % 31 + 1)


def nth(year: int, month: int, weekday: int, count: int) -> date:
    """The *count*-th *weekday* of a month; -1 for the last."""
    if count < 0:
        last = date(year + month // 12, month % 12 + 1, 1) - ONE_DAY
        return last - timedelta(days=(last.weekday() - weekday) % 7)
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (count - 1))


def observed(day: date) -> date:
    """The weekday on which a holiday of a fixed date is kept."""
    return day - ONE_DAY if day.weekday() == SATURDAY else day + ONE_DAY if day.weekday() > SATURDAY else day


@lru_cache(maxsize=64)
def early_closes(year: int) -> dict[date, time]:
    """Days that end early → when, Chicago time."""
    thanksgiving = nth(year, 11, THURSDAY, 4)
    independence = observed(date(year, 7, 4))
    found = {
        nth(year, 1, MONDAY, 3): NOON,  # Martin Luther King
        nth(year, 2, MONDAY, 3): NOON,  # Presidents
        nth(year, 5, MONDAY, -1): NOON,  # Memorial
        observed(date(year, 6, 19)): NOON,  # Juneteenth
        independence: NOON,
        nth(year, 9, MONDAY, 1): NOON,  # Labor
        thanksgiving: NOON,
        thanksgiving + ONE_DAY: QUARTER,
        date(year, 12, 24): QUARTER,
    }
    if independence == date(year, 7, 4):
        found[date(year, 7, 3)] = QUARTER
    return found


@lru_cache(maxsize=64)
def closures(year: int) -> frozenset[date]:
    """Days without a session."""
    found = {easter(year) - timedelta(days=2), observed(date(year, 12, 25))}
    new_year = date(year, 1, 1)
    if new_year.weekday() != SATURDAY:  # kept on the Monday after a Sunday, but not on the Friday before a Saturday
        found.add(observed(new_year))
    return frozenset(found)


@lru_cache(maxsize=4096)
def session(day: date) -> tuple[datetime, datetime] | None:
    """Opening and close of the session that belongs to *day*, in UTC; `None` when there is none."""
    if day.weekday() > FRIDAY or day in closures(day.year):
        return None
    opens = datetime.combine(day - ONE_DAY, OPENS, CHICAGO)
    closes = datetime.combine(day, early_closes(day.year).get(day, CLOSES), CHICAGO)
    return opens.astimezone(UTC), closes.astimezone(UTC)


def sessions(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """What of each session lies between *start* and *end*, oldest first."""
    day = start.astimezone(CHICAGO).date()
    last = end.astimezone(CHICAGO).date() + ONE_DAY
    while day <= last:
        found = session(day)
        if found is not None:
            opens, closes = max(found[0], start), min(found[1], end)
            if opens < closes:
                yield opens, closes
        day += ONE_DAY


def open_seconds(start: datetime, end: datetime) -> float:
    """Seconds of open market between *start* and *end*."""
    return sum((closes - opens).total_seconds() for opens, closes in sessions(start, end))


def is_open(when: datetime) -> bool:
    """Whether the market trades at *when*."""
    return any(True for _ in sessions(when, when + timedelta(seconds=1)))


def holes(times: Sequence[datetime], step: timedelta, start: datetime, end: datetime) -> list[Hole]:
    """Where between *start* and *end* bars are missing, oldest first.

    Args:
        times: opening instants of the bars that are there, ascending.
        step: length of a bar, less than a day.
    """
    found = []
    if not times:
        gaps = [(start, end)]
    else:
        gaps = [(start, times[0])]
        gaps += [(a + step, b) for a, b in pairwise(times) if b - a > step]
        gaps.append((times[-1] + step, end))
    for opens, closes in gaps:
        missing = sum(int((b - a) / step) for a, b in sessions(opens, closes)) if closes > opens else 0
        if missing:
            found.append(Hole(opens, closes, missing))
    return found


def missing_days(days: Sequence[datetime], start: datetime, end: datetime) -> list[Hole]:
    """The same for daily bars, which begin at 00:00 UTC: weekdays on which a session closed, and which are not there.

    Daily bars of the gateway are cut at UTC midnight, not at the session's end; seen by a client in 2026.
    """
    there = {when.date() for when in days}
    found, day = [], start.date()
    while day < end.date():
        if day not in there and session(day) is not None:
            begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
            following = bisect_right(days, begin)
            found.append(Hole(begin, days[following] if following < len(days) else end, 1))
        day += ONE_DAY
    return found
