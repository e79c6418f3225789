"""Every refusal of Order/place, with the gateway's own words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator_world import BUY, MNQ, SELL, Desk, stop_loss, take_profit

from topstep_sync.models import OrderType
from topstep_sync.simulator.rules import Refusal

LIMIT, STOP, TRAIL = OrderType.LIMIT, OrderType.STOP, OrderType.TRAILING_STOP
MODE = "Brackets cannot be used with Position Brackets. You must enable Auto OCO Brackets."


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"account_id": 999}, 10, None),
        ({"contract_id": "CON.F.US.ENQ.U26"}, 9, None),
        ({"type": OrderType.UNKNOWN}, 2, "Invalid order type specified"),
        ({"type": OrderType.STOP_LIMIT, "limit_price": 1.0, "stop_price": 1.0}, 2, "Invalid order type specified"),
        ({"type": OrderType(99)}, 2, "Invalid order type specified"),
        ({"side": 2}, 2, "Invalid order side specified"),
        ({"size": 0}, 2, "Invalid order size specified"),
        ({"size": -1}, 2, "Invalid order size specified"),
        ({"size": 1_000_001}, 2, "Invalid order size specified"),
        ({"type": LIMIT}, 2, "Limit price not set."),
        ({"type": LIMIT, "limit_price": None}, 2, "Limit price not set."),
        ({"type": STOP}, 2, "Stop price not set."),
        ({"type": LIMIT, "limit_price": 20000.1}, 2, "Invalid limit price. Price is not aligned to tick size."),
        ({"type": STOP, "stop_price": 20000.1}, 2, "Invalid stop price. Price is not aligned to tick size."),
        ({"type": TRAIL}, 2, "Trail Distance not set."),
        ({"type": TRAIL, "trail_price": 20990.1}, 2, "Invalid trail price. Price is not aligned to tick size."),
        ({"type": TRAIL, "trail_price": 20749.75}, 2, "Trail Distance exceeds maximum (1000)"),
        ({"account_id": 536, "stop_loss_bracket": stop_loss(-40)}, 2, MODE),
        ({"account_id": 536, "take_profit_bracket": take_profit(40)}, 2, MODE),
        ({"stop_loss_bracket": stop_loss(40)}, 2,
         "Invalid stop loss ticks (40). Ticks should be less than zero when longing."),
        ({"stop_loss_bracket": stop_loss(0)}, 2,
         "Invalid stop loss ticks (0). Ticks should be less than zero when longing."),
        ({"side": SELL, "stop_loss_bracket": stop_loss(-40)}, 2,
         "Invalid stop loss ticks (-40). Ticks should be greater than zero when going short."),
        ({"stop_loss_bracket": stop_loss(-1)}, 2,
         "Invalid stop loss ticks (-1). Price should be at least 4 ticks away."),
        ({"stop_loss_bracket": stop_loss(-40, LIMIT)}, 2, "Invalid stop loss type (Limit)"),
        ({"stop_loss_bracket": stop_loss(-40, OrderType.MARKET)}, 2, "Invalid stop loss type"),
        ({"take_profit_bracket": take_profit(-40)}, 2,
         "Invalid take profit ticks (-40). Ticks should be greater than zero when longing."),
        ({"side": SELL, "take_profit_bracket": take_profit(30)}, 2,
         "Invalid take profit ticks (30). Ticks should be less than zero when going short."),
        ({"take_profit_bracket": stop_loss(40)}, 2, "Invalid take profit type"),
    ],
)  # fmt: skip
def test_each_rule_has_its_words(fields: dict[str, object], code: int, text: str | None) -> None:
    """A broken rule is told with its code and message, and leaves a rejected record."""
    desk = Desk()
    order_id, refusal = desk.ask(**fields)
    assert Refusal(code, text) == refusal
    assert order_id in desk.exchange.orders


@pytest.mark.parametrize(("change", "code"), [("follower", 10), ("violation", 4)])
def test_accounts_that_may_not_trade(change: str, code: int) -> None:
    """Followers and accounts in violation are refused without a text."""
    desk = Desk()
    setattr(desk.exchange.accounts[704], change, True)
    assert Refusal(code) == desk.ask()[1]


@pytest.mark.parametrize(("code", "text"), [(3, None), (2, "Not enough margin.")])
def test_funds_are_checked_where_the_position_grows(code: int, text: str | None) -> None:
    """More contracts than the balance carries are refused, fewer never."""
    desk = Desk(margin=10_000.0, funds_code=code)
    assert Refusal(code, text) == desk.ask(size=6)[1]
    desk.place(size=4)
    assert Refusal(code, text) == desk.ask(size=1)[1]
    assert desk.ask(side=SELL, size=1)[1] is None
    assert Refusal(code, text) == desk.ask(side=SELL, size=9)[1]


@pytest.mark.parametrize(
    ("switches", "code", "text"),
    [
        ({}, 2, "Trading is currently unavailable. The instrument is not in an active trading status."),
        ({"closed_code": 5, "closed_text": "2025"}, 5, "Outside of trading hours."),
    ],
)
def test_closed_hours_have_two_readings(switches: dict[str, object], code: int, text: str) -> None:
    """The refusal outside trading hours is code 2 as seen in practice, or the documented 5."""
    desk = Desk(hours="cme", start=1_795_878_000.0, **switches)  # a Saturday
    assert Refusal(code, text) == desk.ask()[1]


@given(st.integers(-2000, 2000), st.integers(-2000, 2000), st.sampled_from([BUY, SELL]))
def test_brackets_are_taken_exactly_when_their_signs_and_distances_fit(stop: int, target: int, side: int) -> None:
    """Signed ticks: the stop on the losing side and four away, the target on the winning side."""
    sign = 1 if side == BUY else -1
    fits = stop * sign <= -4 and target * sign > 0
    legs = {"stop_loss_bracket": stop_loss(stop), "take_profit_bracket": take_profit(target)}
    assert fits == (Desk().ask(side=side, **legs)[1] is None)


@given(st.integers(1, 200_000), st.booleans())
def test_prices_are_aligned_to_the_tick(ticks: int, off: bool) -> None:
    """A price is taken exactly when it is a whole number of ticks."""
    price = ticks * 0.25 + (0.125 if off else 0.0)
    assert off == (Desk().ask(type=LIMIT, contract_id=MNQ, limit_price=price)[1] is not None)


def test_a_trailing_stop_needs_a_price_to_modify() -> None:
    """Modify has no limit of 1000 ticks for the trail, as documented."""
    desk = Desk()
    order = desk.place(type=TRAIL, trail_price=20990.0)
    assert Refusal(3, "Invalid trail price. Price is not aligned to tick size.") == desk.modify(order, trail_price=1.1)
    assert 0 == desk.modify(order, trail_price=20000.0).code
    assert 4000 == order.distance
