"""CME's trading hours."""

import datetime as dt
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.sessions import chicago_offset, cme_open

CHICAGO = zoneinfo.ZoneInfo("America/Chicago")


@given(st.integers(1_170_000_000, 2_200_000_000))  # from 2007 on, when the present rule of daylight saving began
def test_the_clock_in_chicago_is_right(epoch: int) -> None:
    """The offset agrees with the time zone database, at every instant."""
    expected = dt.datetime.fromtimestamp(epoch, CHICAGO).utcoffset()
    assert expected is not None
    assert expected.total_seconds() == chicago_offset(epoch)


@pytest.mark.parametrize(
    ("day", "hour", "minute", "expected"),
    [
        ("Mon", 15, 59, True), ("Mon", 16, 0, False), ("Mon", 16, 59, False), ("Mon", 17, 0, True), ("Tue", 3, 0, True),
        ("Fri", 15, 59, True), ("Fri", 16, 0, False), ("Fri", 18, 0, False), ("Sat", 12, 0, False),
        ("Sun", 16, 59, False), ("Sun", 17, 0, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("week", ["2026-07-06", "2026-11-23"])
def test_sessions_and_breaks(week: str, day: str, hour: int, minute: int, expected: bool) -> None:
    """Open from Sunday 17:00 to Friday 16:00 in Chicago, but for an hour each day, in summer and winter."""
    number = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day)
    local = dt.datetime.fromisoformat(week) + dt.timedelta(days=number, hours=hour, minutes=minute)
    assert expected == cme_open(local.replace(tzinfo=CHICAGO).timestamp())
