"""When the market trades: always, or Sunday 17:00 to Friday 16:00 Chicago with a break from 16:00 to 17:00 each day."""

import datetime as dt
import functools
from typing import Final

DAY: Final = 86_400
HOUR: Final = 3_600

_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_BREAK_HOUR: Final = 16
_OPEN_HOUR: Final = 17


@functools.lru_cache(maxsize=64)
def _summer(year: int) -> tuple[int, int]:
    """First and last instant of daylight saving time: 02:00 on March's 2nd and November's 1st Sunday."""
    march, november = dt.date(year, 3, 8), dt.date(year, 11, 1)
    start = march.toordinal() + (6 - march.weekday()) % 7
    end = november.toordinal() + (6 - november.weekday()) % 7
    return (start - _EPOCH) * DAY + 8 * HOUR, (end - _EPOCH) * DAY + 7 * HOUR


def chicago_offset(epoch: float) -> int:
    """Seconds to add to UTC for the clock in Chicago."""
    start, end = _summer(dt.date.fromordinal(int(epoch // DAY) + _EPOCH).year)
    return -5 * HOUR if start <= epoch < end else -6 * HOUR


def cme_open(epoch: float) -> bool:
    """Whether CME's index futures trade at that instant. Holidays are not modelled."""
    local = epoch + chicago_offset(epoch)
    weekday = (int(local // DAY) + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    hour = local % DAY / HOUR
    if weekday == 5:
        return False
    if weekday == 6:
        return hour >= _OPEN_HOUR
    if weekday == 4:
        return hour < _BREAK_HOUR
    return not _BREAK_HOUR <= hour < _OPEN_HOUR
