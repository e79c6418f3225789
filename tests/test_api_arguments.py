"""Arguments: what is wrong is refused before anything is sent, with what was expected."""

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from gateway_model import ACCOUNT, MNQ
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.api import arguments
from topstep_sync.errors import InvalidRequest
from topstep_sync.models import Account, BarUnit, OrderSide, OrderType

NEW_YORK = timezone(timedelta(hours=-5))


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, None, float("nan"), float("inf"), object()])
def test_sizes_are_whole_and_positive(value: Any) -> None:
    """A size that is not a whole number of one or more is refused by name."""
    with pytest.raises(InvalidRequest, match=r"^size is .*expected a whole number of 1 or more"):
        arguments.whole(value, "size")


@pytest.mark.parametrize("value", [3, 3.0, Decimal(3), np.int64(3)])
def test_whole_numbers_of_every_type(value: Any) -> None:
    """A whole number is taken in whatever type it comes."""
    assert 3 == arguments.whole(value, "size")
    assert type(arguments.whole(value, "size")) is int


@pytest.mark.parametrize("value", [1.25, Decimal("1.25"), np.float64(1.25), np.float32(1.25)])
def test_prices_of_every_type(value: Any) -> None:
    """A price is taken as int, float, Decimal or a numpy scalar, and negative ones, too."""
    assert 1.25 == arguments.number(value, "price")
    assert -37.63 == arguments.number(-37.63, "price")


@pytest.mark.parametrize("value", ["1.25", None, True, float("nan"), float("-inf"), [1.0], np.array([1.0])])
def test_what_is_no_price(value: Any) -> None:
    """Text, nothing, truth values, infinities and arrays are no prices."""
    with pytest.raises(InvalidRequest, match=r"expected a finite number"):
        arguments.number(value, "limit_price")


@pytest.mark.parametrize("value", ["buy", "BUY", " Bid ", OrderSide.BUY, 0])
def test_sides(value: Any) -> None:
    """A side is its word in any case, its member or its number."""
    assert OrderSide.BUY is arguments.choice(value, arguments.SIDES, "side")


@pytest.mark.parametrize("value", ["long", "", 2, -1, None, True, 0.0])
def test_unknown_sides(value: Any) -> None:
    """Anything else is refused with the words there are."""
    with pytest.raises(InvalidRequest, match=r"^side is .*expected one of ask, bid, buy, sell"):
        arguments.choice(value, arguments.SIDES, "side")


@pytest.mark.parametrize("value", ["stop limit", "STOP_LIMIT", "stop-limit", 3, OrderType.STOP_LIMIT])
def test_types(value: Any) -> None:
    """A type may be written with a blank, a dash or an underscore."""
    assert OrderType.STOP_LIMIT is arguments.type_of(value)


@pytest.mark.parametrize("value", [OrderType.UNKNOWN, 8, "iceberg"])
def test_unknown_types(value: Any) -> None:
    """UNKNOWN is a type to read, never one to send."""
    with pytest.raises(InvalidRequest, match=r"^type is"):
        arguments.type_of(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 11, 1, 9, tzinfo=NEW_YORK), datetime(2026, 11, 1, 14, tzinfo=UTC)),
        ("2026-11-01T14:00:00Z", datetime(2026, 11, 1, 14, tzinfo=UTC)),
        ("2026-11-01T09:00:00-05:00", datetime(2026, 11, 1, 14, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        (date(2026, 11, 1), datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_instants(value: Any, expected: datetime) -> None:
    """Aware datetimes, texts with an offset and whole days become UTC."""
    found = arguments.instant(value, "start")
    assert (expected, UTC) == (found, found.tzinfo)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2026, 11, 1), "start has no time zone"),
        ("2026-11-01T14:00:00", "start has no time zone"),
        ("yesterday", "expected ISO 8601"),
        ("2026-13-01", "expected ISO 8601"),
        (1_790_000_000, "expected an aware datetime"),
        (None, "expected an aware datetime"),
    ],
)
def test_what_is_no_instant(value: Any, message: str) -> None:
    """A naive time is refused, for every guess about it is wrong for somebody; so is what is no time."""
    with pytest.raises(InvalidRequest, match=message):
        arguments.instant(value, "start")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1m", (BarUnit.MINUTE, 1)), ("5 min", (BarUnit.MINUTE, 5)), ("30s", (BarUnit.SECOND, 30)),
        ("1h", (BarUnit.HOUR, 1)), ("1d", (BarUnit.DAY, 1)), ("1w", (BarUnit.WEEK, 1)), ("1mo", (BarUnit.MONTH, 1)),
        ("100t", (BarUnit.TICK, 100)), (("minute", 5), (BarUnit.MINUTE, 5)), ((BarUnit.HOUR, 4), (BarUnit.HOUR, 4)),
    ],
)  # fmt: skip
def test_bar_lengths(value: Any, expected: tuple[BarUnit, int]) -> None:
    """A bar length is a number and a unit."""
    assert expected == arguments.span(value)


@pytest.mark.parametrize("value", ["", "m", "0m", "-1m", "1M", "1y", "1.5h", 5, None, ("minute",)])
def test_what_is_no_bar_length(value: Any) -> None:
    """A capital M could be a minute or a month, and is neither."""
    with pytest.raises(InvalidRequest, match="the bar length is"):
        arguments.span(value)


def test_windows_run_forward() -> None:
    """A window ends after it starts; its end is now unless given."""
    start, end = arguments.window("2026-11-01", None, 1_795_000_000.0)
    assert start < end == datetime.fromtimestamp(1_795_000_000.0, UTC)
    with pytest.raises(InvalidRequest, match="is not before end"):
        arguments.window("2026-11-02", "2026-11-01", 0.0)


def test_records_stand_for_their_ids() -> None:
    """An account, a contract and an order may be given as what the gateway returned."""
    account = Account(id=ACCOUNT, name="x", balance=0.0, can_trade=True, is_visible=True)
    assert ACCOUNT == arguments.account_number(account)
    assert MNQ.id == arguments.contract_name(MNQ)
    assert (ACCOUNT, 7) == arguments.order_key(account, 7)
    with pytest.raises(InvalidRequest, match="is no order; expected one"):
        arguments.order_key(account, None)
    with pytest.raises(InvalidRequest, match="contract_id is ' '"):
        arguments.contract_name(" ")
    with pytest.raises(InvalidRequest, match="order_id is None"):
        arguments.order_key(ACCOUNT, None)


@given(st.integers() | st.floats() | st.text() | st.booleans() | st.none() | st.binary())
def test_nothing_else_is_raised(value: Any) -> None:
    """Whatever comes in, it is taken or refused as InvalidRequest."""
    for check in (
        lambda: arguments.whole(value, "x"), lambda: arguments.number(value, "x"),
        lambda: arguments.choice(value, arguments.SIDES, "side"),
        lambda: arguments.type_of(value), lambda: arguments.instant(value, "x"), lambda: arguments.span(value),
        lambda: arguments.contract_name(value),
    ):  # fmt: skip
        with contextlib.suppress(InvalidRequest):
            check()
