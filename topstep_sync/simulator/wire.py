"""How values look on the wire: times with the wild's mixed precision."""

import datetime as dt
import re
from typing import Final

_UTC: Final = dt.UTC
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=_UTC)

# What System.Text.Json takes for a DateTimeOffset: the extended profile of ISO 8601, up to 16 digits of a second.
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,16}))?)?(Z|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)


def wire_time(epoch: float, digits: int = 6) -> str:
    """*epoch* as the gateway writes it: `+00:00`, at most *digits* of a second, trailing zeros cut.

    REST shows up to 6 digits, hub records up to 7, market data 3. Source: recorded traffic, 2026.
    """
    whole = int(epoch // 1)
    text = (_EPOCH + dt.timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{epoch - whole:.{digits}f}"
    if fraction[0] != "0":  # rounded up to a whole second
        return wire_time(whole + 1.0, digits)
    fraction = fraction[1:].rstrip("0").rstrip(".")
    return f"{text}{fraction}+00:00"


def parse_time(text: str) -> dt.datetime | None:
    """The ISO 8601 instant *text*, aware; None when it is none. Without an offset it is taken as UTC."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    day, minute, second, fraction, zone = match.groups()
    try:
        whole = dt.datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone or 'Z'}")
        return whole.astimezone(_UTC).replace(microsecond=int((fraction or "0")[:6].ljust(6, "0")))
    except (ValueError, OverflowError):
        return None
