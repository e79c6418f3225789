"""Bars as a pure function of contract, time and seed: any page of any pull can be checked against any other.

The close of a bar is the open of the next, in all units alike; highs, lows and volumes belong to the unit. As seen on
the real gateway: newest first, `t` is the opening instant, the limit keeps the newest, days are days of UTC, hours
without trading have no bars, and an expired contract keeps hourly and coarser bars only.
"""

import functools
import math
from typing import Any, Final

from topstep_sync.messages import RetrieveBars
from topstep_sync.models import BarUnit
from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.sessions import DAY, HOUR, cme_open
from topstep_sync.simulator.terrain import key, levels
from topstep_sync.simulator.wire import wire_time

SECONDS: Final = {
    BarUnit.SECOND: 1, BarUnit.MINUTE: 60, BarUnit.HOUR: HOUR, BarUnit.DAY: DAY, BarUnit.WEEK: 7 * DAY,
    BarUnit.MONTH: 30 * DAY,
}  # fmt: skip
"""Length of each unit; a month is taken as 30 days."""

# The first instant of a contract's history: before it there is nothing to answer, however far a window reaches back.
_HORIZON: Final = 3 * 366 * DAY

_STEP: Final = 2654435761
_opens: Final = functools.lru_cache(maxsize=1 << 16)(lambda hour: cme_open(hour * HOUR))


def bars(instrument: Instrument, request: RetrieveBars, now: float, seed: int, *, always: bool) -> list[dict[str, Any]]:
    """The newest bars of the window, newest first."""
    length = SECONDS[request.unit] * request.unit_number
    if not instrument.active and length < HOUR:
        return []
    end = min(request.end_time.timestamp(), now)
    start = max(request.start_time.timestamp(), now - _HORIZON)
    newest = int(end // length) * length
    if not request.include_partial_bar:
        while newest + length > end:
            newest -= length
    openings = _openings(newest, start, length, request.limit, always=always)
    return _make(instrument, openings, length, min(end, now), seed)


def _openings(newest: int, start: float, length: int, limit: int, *, always: bool) -> list[int]:
    """When the bars open: at most *limit*, ascending."""
    found: list[int] = []
    opening = newest
    if always:
        count = min(limit, max(0, math.floor((newest - start) / length) + 1))
        return [newest - length * index for index in reversed(range(count))]
    while opening >= start and len(found) < limit:
        if _trades(opening, length):
            found.append(opening)
        opening -= length
    found.reverse()
    return found


def _trades(opening: int, length: int) -> bool:
    """Whether the market is open at any time of the bar; sessions begin and end with whole hours."""
    first = opening // HOUR
    if length <= HOUR and opening % HOUR + length <= HOUR:
        return bool(_opens(first))
    last = (opening + length - 1) // HOUR
    return last - first >= 60 or any(_opens(hour) for hour in range(first, last + 1))


def _make(instrument: Instrument, openings: list[int], length: int, end: float, seed: int) -> list[dict[str, Any]]:
    if not openings:
        return []
    closings: list[float] = [opening + length for opening in openings]
    closings[-1] = min(closings[-1], end)
    instants = sorted({*openings, *closings})
    at = dict(zip(instants, levels(instrument, instants, seed), strict=True))
    price = functools.lru_cache(maxsize=None)(instrument.price)
    salt, reach = key(f"{instrument.id} {length}"), 1 + math.isqrt(length) // 4
    made = []
    for opening, closing in zip(reversed(openings), reversed(closings), strict=True):
        first, last = at[opening], at[closing]
        noise = opening * _STEP + salt >> 12
        high, low = (first, last) if first > last else (last, first)
        made.append(
            {
                "t": _stamp(opening),
                "o": price(first),
                "h": price(high + noise % reach),
                "l": price(max(1, low - (noise >> 8) % reach)),
                "c": price(last),
                "v": 1 + (noise >> 4) % (10 * length),
            }
        )
    return made


@functools.lru_cache(maxsize=4096)
def _day(day: int) -> str:
    return wire_time(day * DAY)[:11]


_CLOCK: Final = tuple(f"{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))


def _stamp(opening: int) -> str:
    day, second = divmod(opening, DAY)
    return f"{_day(day)}{_CLOCK[second // 60]}{second % 60:02}+00:00"
