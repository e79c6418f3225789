"""When the market is open, on both sides of daylight saving time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.realtime.hours import chicago, is_open, opened_at

CHICAGO = ZoneInfo("America/Chicago")


def local(*when: int) -> float:
    return datetime(*when, tzinfo=CHICAGO).timestamp()  # type: ignore[arg-type]


@given(st.integers(datetime(2020, 1, 1, tzinfo=UTC).timestamp().__int__(), 2_100_000_000))
def test_the_clock_in_chicago(epoch: int) -> None:
    """The rule gives what the zone table gives, at every second since 2020."""
    assert datetime.fromtimestamp(epoch, CHICAGO).replace(tzinfo=None) == chicago(epoch)


@pytest.mark.parametrize("when", [(2026, 3, 8, 8), (2026, 11, 1, 7)])
def test_the_hours_of_the_change(when: tuple[int, ...]) -> None:
    """Right before and right after the change, too."""
    turn = datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]
    for epoch in (turn - 1, turn, turn + 1):
        assert datetime.fromtimestamp(epoch, CHICAGO).replace(tzinfo=None) == chicago(epoch)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ((2026, 11, 22, 16, 59, 59), False),  # Sunday
        ((2026, 11, 22, 17, 0, 0), True),
        ((2026, 11, 23, 15, 59, 59), True),  # Monday
        ((2026, 11, 23, 16, 0, 0), False),
        ((2026, 11, 23, 16, 59, 59), False),
        ((2026, 11, 23, 17, 0, 0), True),
        ((2026, 11, 27, 15, 59, 59), True),  # Friday
        ((2026, 11, 27, 16, 0, 0), False),
        ((2026, 11, 27, 17, 0, 0), False),
        ((2026, 11, 28, 12, 0, 0), False),  # Saturday
        ((2026, 7, 1, 3, 0, 0), True),  # in summer
    ],
)
def test_sessions(when: tuple[int, ...], expected: bool) -> None:
    """Sunday 17:00 to Friday 16:00, with an hour's break a day."""
    assert expected == is_open(local(*when))


def test_when_a_session_began() -> None:
    """At 17:00 of the day before, or of the same day; nobody knows while it is closed."""
    assert local(2026, 11, 22, 17) == opened_at(local(2026, 11, 23, 9, 30, 12))
    assert local(2026, 11, 23, 17) == opened_at(local(2026, 11, 23, 17, 5))
    assert None is opened_at(local(2026, 11, 28, 12))
