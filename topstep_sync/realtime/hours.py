"""When futures trade on CME Globex, as far as a stream must know it: to tell a quiet market from a silent feed.

Sunday 17:00 to Friday 16:00 Chicago time, with a break from 16:00 to 17:00 each day (CME, equity index products, seen
2026-11). Holidays and products with shorter hours count as open: then a feed that is rightly quiet is probed in vain,
less and less often.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

_OPENS: Final = 17  # o'clock in Chicago
_CLOSES: Final = 16
_FRIDAY, _SATURDAY, _SUNDAY = 4, 5, 6


def is_open(epoch: float) -> bool:
    """Whether the market is open at *epoch*, in seconds since 1970."""
    return opened_at(epoch) is not None


def opened_at(epoch: float) -> float | None:
    """When the session that runs at *epoch* began, in seconds since 1970; `None` when the market is closed."""
    local = chicago(epoch)
    day, hour = local.weekday(), local.hour
    if day == _SATURDAY or (day == _SUNDAY and hour < _OPENS) or (day == _FRIDAY and hour >= _CLOSES):
        return None
    if _CLOSES <= hour < _OPENS:
        return None
    begin = local.replace(hour=_OPENS, minute=0, second=0, microsecond=0)
    if hour < _OPENS:
        begin -= timedelta(days=1)
    return epoch - (local - begin).total_seconds()


def chicago(epoch: float) -> datetime:
    """The clock on a wall in Chicago, without a zone.

    The rule is law in the US since 2007; a table of zones would have to be installed on some systems.
    """
    utc = datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None)
    begin = _sunday(utc.year, 3, 2) + timedelta(hours=8)  # 2:00 standard time
    end = _sunday(utc.year, 11, 1) + timedelta(hours=7)  # 2:00 daylight time
    return utc - timedelta(hours=5 if begin <= utc < end else 6)


def _sunday(year: int, month: int, which: int) -> datetime:
    first = datetime(year, month, 1)
    return first + timedelta(days=(_SUNDAY - first.weekday()) % 7 + 7 * (which - 1))
