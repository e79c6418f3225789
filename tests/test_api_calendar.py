"""The session calendar of the CME, and holes measured against it."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.api import calendar
from topstep_sync.api.calendar import Hole

MINUTE = timedelta(minutes=1)


# Source: CME Group, Globex holiday calendars of equity index products, 2024 to 2026.
@pytest.mark.parametrize(
    "day",
    [date(2024, 3, 29), date(2025, 4, 18), date(2026, 4, 3), date(2024, 12, 25), date(2025, 1, 1), date(2026, 12, 25)],
)
def test_days_without_a_session(day: date) -> None:
    """Good Friday, Christmas and New Year have none."""
    assert None is calendar.session(day)


@pytest.mark.parametrize(
    ("day", "close"),
    [
        (date(2026, 1, 19), time(12)), (date(2026, 2, 16), time(12)), (date(2026, 5, 25), time(12)),
        (date(2026, 6, 19), time(12)), (date(2026, 7, 3), time(12)), (date(2026, 9, 7), time(12)),
        (date(2026, 11, 26), time(12)), (date(2026, 11, 27), time(12, 15)), (date(2026, 12, 24), time(12, 15)),
        (date(2025, 7, 3), time(12, 15)), (date(2025, 7, 4), time(12)), (date(2026, 11, 24), time(16)),
    ],
)  # fmt: skip
def test_closes(day: date, close: time) -> None:
    """Holidays that are kept by half end at noon, the days around them a quarter past; every other day at four."""
    found = calendar.session(day)
    assert close == found[1].astimezone(calendar.CHICAGO).time()


@pytest.mark.parametrize(
    ("year", "expected"), [(2024, date(2024, 3, 31)), (2025, date(2025, 4, 20)), (2026, date(2026, 4, 5)),
                           (2027, date(2027, 3, 28)), (2000, date(2000, 4, 23))],
)  # fmt: skip
def test_easter(year: int, expected: date) -> None:
    """Easter Sunday falls where the church has it."""
    assert expected == calendar.easter(year)


@pytest.mark.parametrize(
    ("day", "expected"), [(date(2027, 7, 4), date(2027, 7, 5)), (date(2026, 7, 4), date(2026, 7, 3)),
                          (date(2025, 7, 4), date(2025, 7, 4))],
)  # fmt: skip
def test_holidays_of_weekends_move(day: date, expected: date) -> None:
    """A holiday on a Saturday is kept on Friday, one on a Sunday on Monday."""
    assert expected == calendar.observed(day)


def test_new_year_on_a_saturday_closes_nothing() -> None:
    """The exchange trades on the last day of a year whose next begins on a Saturday."""
    assert calendar.session(date(2021, 12, 31))
    assert None is calendar.session(date(2023, 1, 2))


def test_a_week_has_five_sessions() -> None:
    """From Sunday evening to Friday afternoon, 23 hours each, with an hour's break; also over the change of clocks."""
    for monday in (date(2026, 11, 16), date(2026, 11, 2), date(2026, 3, 9)):
        start = datetime(monday.year, monday.month, monday.day, tzinfo=calendar.CHICAGO) - timedelta(days=1)
        found = list(calendar.sessions(start, start + timedelta(days=7)))
        assert 5 == len(found)
        assert {23 * 3600} == {(closes - opens).total_seconds() for opens, closes in found}


@given(st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1)), st.integers(0, 20 * 24 * 60))
def test_open_time_adds_up(when: datetime, minutes: int) -> None:
    """Open time of a stretch is that of its two parts together, and never more than the stretch."""
    start = when.replace(tzinfo=UTC)
    middle, end = start + timedelta(minutes=minutes // 3), start + timedelta(minutes=minutes)
    whole = calendar.open_seconds(start, end)
    assert whole == pytest.approx(calendar.open_seconds(start, middle) + calendar.open_seconds(middle, end))
    assert 0 <= whole <= minutes * 60


@pytest.mark.parametrize(
    ("when", "expected"),
    [("2026-11-24T21:59:59Z", True), ("2026-11-24T22:00:00Z", False), ("2026-11-24T23:00:00Z", True),
     ("2026-11-21T12:00:00Z", False), ("2026-11-22T23:00:00Z", True), ("2026-12-25T12:00:00Z", False)],
)  # fmt: skip
def test_the_daily_break_and_the_weekend(when: str, expected: bool) -> None:
    """The market rests from four to five, on Saturdays, and on Christmas."""
    assert expected is calendar.is_open(datetime.fromisoformat(when))


def minutes(*stretches: tuple[str, int]) -> list[datetime]:
    """Opening instants of one-minute bars: so many from each begin."""
    return [
        datetime.fromisoformat(f"2026-11-{begin}Z") + n * MINUTE for begin, count in stretches for n in range(count)
    ]


def test_the_break_is_no_hole() -> None:
    """Bars that stop at four and go on at five are complete."""
    times = minutes(("24T21:00", 60), ("24T23:00", 60))
    assert [] == calendar.holes(times, MINUTE, times[0], times[-1] + MINUTE)


def test_holes_are_counted_in_bars_of_open_market() -> None:
    """A stretch without bars counts what the market was open of it; also before the first and after the last bar."""
    times = minutes(("24T21:00", 30), ("24T23:10", 10))
    start, end = datetime(2026, 11, 24, 20, 58, tzinfo=UTC), datetime(2026, 11, 24, 23, 25, tzinfo=UTC)
    expected = [
        Hole(start, times[0], 2), Hole(times[29] + MINUTE, times[30], 40), Hole(times[-1] + MINUTE, end, 5),
    ]  # fmt: skip
    assert expected == calendar.holes(times, MINUTE, start, end)


def test_no_bars_at_all_is_one_hole() -> None:
    """An empty history is a hole as long as the market was open."""
    start = datetime(2026, 11, 24, tzinfo=UTC)
    assert [Hole(start, start + timedelta(days=1), 23 * 60)] == calendar.holes([], MINUTE, start, start + timedelta(1))


def test_missing_days() -> None:
    """Of daily bars a weekday with a session is missed, a weekend and a holiday are not."""
    days = [datetime(2026, 12, day, tzinfo=UTC) for day in (21, 22, 24, 28)]
    found = calendar.missing_days(days, days[0], datetime(2026, 12, 30, tzinfo=UTC))
    assert [(23, 1), (29, 1)] == [(hole.start.day, hole.missing) for hole in found]
    assert [days[2], datetime(2026, 12, 30, tzinfo=UTC)] == [hole.end for hole in found]
