"""The daily guard."""

from datetime import UTC, datetime, time
from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, GatewayModel
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import errors
from topstep_sync.api import guard
from topstep_sync.api.rooms import Rooms
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.models import OrderSide, Trade


def guarded(model: GatewayModel, **rules: Any) -> Rooms:
    return Rooms(model.call, get=str, config=Config(guard=rules), clock=model.clock)


def at(hour: int, minute: int = 0, *, day: int = 24) -> GatewayModel:
    """A gateway at a Chicago time of day of November 2026 (UTC-6)."""
    when = datetime(2026, 11, day, hour, minute, tzinfo=guard.calendar.CHICAGO)
    return GatewayModel(ManualClock(epoch=when.timestamp(), auto=True))


def trade(profit: float | None, when: datetime, *, voided: bool = False) -> Trade:
    return Trade(
        id=1, account_id=ACCOUNT, contract_id=MNQ.id, creation_timestamp=when, price=21000.0, profit_and_loss=profit,
        fees=0.36, commissions=0.25, side=OrderSide.SELL, size=1, voided=voided, order_id=1,
    )  # fmt: skip


def sent(model: GatewayModel) -> int:
    return sum(path == "/api/Order/place" for path, _ in model.calls)


def test_no_rule_asks_nothing() -> None:
    """Off by default: an order costs one call."""
    model = GatewayModel()
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 500)
    assert 1 == len(model.calls)


def test_an_order_that_is_too_big() -> None:
    """More contracts than allowed are refused, and nothing was sent."""
    model = GatewayModel()
    rooms = guarded(model, max_order_size=5)
    with pytest.raises(errors.RiskRefused, match="an order of 6; max_order_size is 5") as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 6)
    assert (errors.Fate.NOT_SENT, 0) == (caught.value.fate, sent(model))
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 5).id


def test_a_position_that_would_be_too_big() -> None:
    """What is held and what still works on the same side count together."""
    model = GatewayModel()
    rooms = guarded(model, max_position=3)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    with pytest.raises(errors.RiskRefused, match=r"could become \+4; max_position is 3"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    rooms.orders.buy(ACCOUNT, MES.id, 3)
    with pytest.raises(errors.RiskRefused, match=r"could become -4"):
        rooms.orders.sell(704, MNQ.id, 4)


def test_getting_out_is_always_allowed() -> None:
    """An order that only reduces the position passes every rule; one that turns it over does not."""
    model = at(16)
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 8)
    rooms = guarded(model, max_order_size=1, max_position=2, max_daily_loss=1.0, open_until="15:10")
    model.trades = [trade(-500.0, model.now())]
    with pytest.raises(errors.RiskRefused):
        rooms.orders.sell(ACCOUNT, MNQ.id, 9)
    rooms.orders.sell(ACCOUNT, MNQ.id, 3)
    rooms.orders.sell(ACCOUNT, MNQ.id, 5)
    assert {} == model.positions


def test_a_smaller_overweight_is_progress() -> None:
    """A position that is above its limit may be turned into a smaller one of the other side."""
    model = GatewayModel()
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 8)
    assert guarded(model, max_position=2).orders.sell(ACCOUNT, MNQ.id, 13)
    assert 5 == next(iter(model.positions.values())).size


def test_a_day_that_lost_enough() -> None:
    """Losses since 17:00 Chicago count after fees; voided fills and those of yesterday do not."""
    model = at(10)
    rooms = guarded(model, max_daily_loss=100.0)
    yesterday = datetime(2026, 11, 23, 16, 59, tzinfo=guard.calendar.CHICAGO)
    evening = datetime(2026, 11, 23, 17, 1, tzinfo=guard.calendar.CHICAGO)
    model.trades = [trade(-98.0, evening), trade(None, evening), trade(-500.0, evening, voided=True)]
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    asked = next(request for path, request in model.calls if path == "/api/Trade/search")
    assert yesterday < asked.start_timestamp == datetime(2026, 11, 23, 23, tzinfo=UTC)
    model.trades.append(trade(0.5, evening))
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.trades.append(trade(-1.0, evening))
    with pytest.raises(errors.RiskRefused, match=r"100\.94 lost since 17:00 Chicago; max_daily_loss is 100\.00"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)


@pytest.mark.parametrize(
    ("hour", "rules", "allowed"),
    [
        (9, {"open_from": "8:30", "open_until": "15:10"}, True),
        (8, {"open_from": "8:30", "open_until": "15:10"}, False),
        (16, {"open_from": "8:30", "open_until": "15:10"}, False),
        (16, {"open_until": "15:10"}, False), (9, {"open_until": "15:10"}, True),
        (7, {"open_from": "8"}, False), (8, {"open_from": "8"}, True),
        (18, {"open_from": "17:00", "open_until": "15:10"}, True),
        (3, {"open_from": "17:00", "open_until": "15:10"}, True),
        (16, {"open_from": "17:00", "open_until": "15:10"}, False),
    ],
)  # fmt: skip
def test_hours(hour: int, rules: dict[str, str], allowed: bool) -> None:
    """New risk is taken inside the window of Chicago time, which may pass midnight."""
    rooms = guarded(at(hour), **rules)
    if allowed:
        assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    else:
        with pytest.raises(errors.RiskRefused, match=f"it is {hour:02}:00 in Chicago"):
            rooms.orders.buy(ACCOUNT, MNQ.id, 1)


def test_a_blind_guard_refuses() -> None:
    """What the rules need and cannot find out is a refusal."""
    model = GatewayModel()
    model.faults["Position/searchOpen"] = ["500"]
    with pytest.raises(errors.RiskRefused, match="cannot be sure") as caught:
        guarded(model, max_position=2).orders.buy(ACCOUNT, MNQ.id, 1)
    assert (0, True) == (sent(model), isinstance(caught.value.__cause__, errors.TransientError))


def test_a_bigger_order_is_new_risk() -> None:
    """Making an order bigger is checked like a new one; making it smaller, or moving it, is not."""
    model = GatewayModel()
    rooms = guarded(model, max_order_size=3, max_position=4)
    order = rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)
    with pytest.raises(errors.RiskRefused, match="an order of 4"):
        rooms.orders.modify(order, size=4)
    rooms.orders.modify(order, size=3)
    rooms.orders.modify(order, limit_price=20001.0)
    rooms.orders.modify(ACCOUNT, order.id, size=1)
    assert 1 == model.orders[order.id].size


def test_a_dry_run_is_not_guarded() -> None:
    """Showing what would be sent asks nothing."""
    model = GatewayModel()
    guarded(model, max_order_size=1, max_position=1).orders.place(ACCOUNT, MNQ.id, side="buy", size=9, dry_run=True)
    assert [] == model.calls


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_reducing_never_turns_over(net: int, change: int) -> None:
    """Whatever is held and ordered, what counts as reducing leaves less of the same side."""
    if guard.reduces(net, change):
        assert abs(net + change) < abs(net)
        assert (net + change) * net >= 0


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)))
def test_a_trading_day_begins_at_five(when: datetime) -> None:
    """The day of any instant began at 17:00 Chicago, at most 25 hours before."""
    moment = when.replace(tzinfo=UTC)
    begin = guard.day_start(moment)
    assert time(17) == begin.astimezone(guard.calendar.CHICAGO).time()
    assert 0 <= (moment - begin).total_seconds() < 25 * 3600
