"""Times on the wire."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.wire import parse_time, wire_time


@pytest.mark.parametrize(
    ("epoch", "digits", "expected"),
    [
        (0.0, 6, "1970-01-01T00:00:00+00:00"),
        (1795501862.15673, 6, "2026-11-24T06:31:02.15673+00:00"),
        (1795501862.5, 7, "2026-11-24T06:31:02.5+00:00"),
        (1795501862.1239, 3, "2026-11-24T06:31:02.124+00:00"),
        (1795501862.9999999, 3, "2026-11-24T06:31:03+00:00"),
        (-1.5, 6, "1969-12-31T23:59:58.5+00:00"),
    ],
)
def test_times_have_mixed_precision(epoch: float, digits: int, expected: str) -> None:
    """Trailing zeros are cut, and a fraction that rounds up moves the second."""
    assert expected == wire_time(epoch, digits)


@given(st.floats(0, 4e9))
def test_what_is_written_can_be_read(epoch: float) -> None:
    """A written time reads back to the microsecond."""
    read = parse_time(wire_time(epoch))
    assert read is not None
    assert abs(read.timestamp() - epoch) <= 2e-6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02", dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        ("2026-01-02T03:04", dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)),
        ("2026-01-02T03:04:05", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ("2026-01-02T03:04:05.1234567Z", dt.datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=dt.UTC)),
        ("2026-01-02T03:04:05-05:00", dt.datetime(2026, 1, 2, 8, 4, 5, tzinfo=dt.UTC)),
    ],
)
def test_iso_8601_is_taken(text: str, expected: dt.datetime) -> None:
    """Date, minutes, seconds, fractions and offsets are all instants; without an offset it is UTC."""
    assert expected == parse_time(text)


@pytest.mark.parametrize(
    "text",
    ["", "x", "2026-13-01", "2026-01-02 03:04:05Z", "20260102", "2026-01-02T24:00:00Z", "2026-01-02T03:04:05+0100",
     "2026-01-02t03:04:05z", "２０２６-01-02", "0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_anything_else_is_not(text: str) -> None:
    """What System.Text.Json refuses is refused here."""
    assert parse_time(text) is None
