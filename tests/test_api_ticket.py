"""From what a trader says to what the gateway takes."""

from typing import Any

import pytest
from gateway_model import ACCOUNT, MNQ
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from topstep_sync.api import brackets, ticket
from topstep_sync.errors import InvalidRequest
from topstep_sync.messages import Bracket, PlaceOrder
from topstep_sync.models import OrderSide, OrderType

BUY, SELL = OrderSide.BUY, OrderSide.SELL


def write(last: float | None = 21000.0, **words: Any) -> PlaceOrder:
    wish = ticket.Wish(**{"account_id": ACCOUNT, "contract_id": MNQ, "side": "buy", "size": 1, **words})
    draft = ticket.check(wish)
    return ticket.write(wish, draft, MNQ, last) if wish.needs_contract else draft


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, OrderType.MARKET), ({"limit_price": 21000.0}, OrderType.LIMIT), ({"stop_price": 21000.0}, OrderType.STOP),
        ({"limit_price": 21000.0, "stop_price": 21000.0}, OrderType.STOP_LIMIT),
        ({"trail_price": 20990.0}, OrderType.TRAILING_STOP), ({"trail_ticks": 40}, OrderType.TRAILING_STOP),
        ({"type": "join_bid"}, OrderType.JOIN_BID), ({"type": OrderType.MARKET}, OrderType.MARKET),
    ],
)  # fmt: skip
def test_prices_say_the_type(words: dict[str, Any], expected: OrderType) -> None:
    """Without a type, the prices that are given say which it is."""
    assert expected is write(**words).type


@pytest.mark.parametrize("kind", ticket.NEEDS)
def test_each_type_has_its_prices(kind: OrderType) -> None:
    """Each type is taken with exactly the prices that it needs; one less or one more is refused."""
    prices = {"limit_price": 21000.0, "stop_price": 21000.0, "trail_price": 20990.0}
    needed = {name: prices[name] for name in ticket.NEEDS[kind]}
    assert kind is write(type=kind, **needed).type
    for name in needed:
        with pytest.raises(InvalidRequest, match=f"a {kind.name} order needs {name}"):
            write(type=kind, **{**needed, name: None})
    for name in prices.keys() - needed.keys():
        with pytest.raises(InvalidRequest, match=f"a {kind.name} order takes no {name}"):
            write(type=kind, **needed, **{name: prices[name]})


def test_every_type_is_known() -> None:
    """Each type that the gateway has is in the table."""
    assert set(OrderType) - {OrderType.UNKNOWN} == set(ticket.NEEDS)


@given(st.integers(-(10**6), 10**6))
def test_any_price_on_a_tick_is_taken(count: int) -> None:
    """A price on a tick is sent as it is, one between ticks is refused with its neighbours."""
    price = count * 0.25
    assert price == write(limit_price=price).limit_price
    with pytest.raises(InvalidRequest, match=r"steps of 0\.25") as caught:
        write(limit_price=price + 0.1)
    assert repr(price) in str(caught.value)
    assert repr(price + 0.25) in str(caught.value)


@pytest.mark.parametrize(("side", "stop", "target"), [("buy", -40, 80), ("sell", 40, -80)])
def test_magnitudes_are_signed_by_side(side: str, stop: int, target: int) -> None:
    """Distances are given as magnitudes; a buy's stop is below and its target above, a sell's the other way round."""
    order = write(side=side, stop_loss_ticks=40, take_profit_ticks=80)
    assert Bracket(ticks=stop, type=OrderType.STOP) == order.stop_loss_bracket
    assert Bracket(ticks=target, type=OrderType.LIMIT) == order.take_profit_bracket


@pytest.mark.parametrize(
    ("words", "stop", "target"),
    [
        ({"limit_price": 21000.0}, 20990.0, 21020.0), ({"stop_price": 21000.0}, 20990.0, 21020.0),
        ({}, 20990.0, 21020.0), ({"side": "sell", "limit_price": 21000.0}, 21010.0, 20980.0),
        ({"trail_price": 21000.0, "last": 21000.0}, 20990.0, 21020.0),
    ],
)  # fmt: skip
def test_prices_of_legs_count_from_the_entry(words: dict[str, Any], stop: float, target: float) -> None:
    """Legs may be given as prices; they count from the entry's price, of a market order from the latest."""
    order = write(**words, stop_loss_price=stop, take_profit_price=target)
    ticks = (order.stop_loss_bracket.ticks, order.take_profit_bracket.ticks)
    assert ((stop - 21000.0) / 0.25, (target - 21000.0) / 0.25) == ticks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stop_loss_ticks": 3}, "4 or more"), ({"take_profit_ticks": 0}, "4 or more"),
        ({"stop_loss_ticks": -40}, "stop_loss_ticks is -40; expected a distance, without a sign"),
        ({"stop_loss_ticks": 4.5}, "stop_loss_ticks is 4.5"),
        ({"stop_loss_price": 21010.0}, "for a buy at 21000.0 it belongs below"),
        ({"take_profit_price": 20990.0}, "it belongs above"), ({"stop_loss_price": 20999.5}, "expected -4 or less"),
        ({"side": "sell", "stop_loss_price": 21000.5}, r"expected \+4 or more"),
        ({"stop_loss_price": 20990.1}, "expected a multiple of 0.25"),
        ({"stop_loss_price": 20990.0, "last": None}, "no price of the market is known"),
        ({"stop_loss_ticks": 40, "stop_loss_price": 20990.0}, "give one of stop_loss"),
        ({"stop_loss_ticks": 40, "stop_loss_type": "limit"}, "stop_loss is a LIMIT; expected STOP or TRAILING_STOP"),
        ({"stop_loss": Bracket(ticks=40, type=OrderType.STOP)}, r"is \+40 ticks; for a buy expected -4 or less"),
        ({"take_profit": Bracket(ticks=80, type=OrderType.STOP)}, "take_profit is a STOP; expected LIMIT"),
        ({"trail_ticks": 0}, "trail_ticks is 0"), ({"trail_ticks": 5, "trail_price": 20990.0}, "twice"),
        ({"trail_ticks": 40, "last": None}, "give trail_price instead"),
        ({"trail_price": 20000.0}, "4000 ticks from the latest price"),
        ({"account_id": 0}, "account_id is 0; expected an Account"),
        ({"account_id": "704"}, "account_id is '704'; expected an Account"), ({"contract_id": ""}, "contract_id is ''"),
    ],
)  # fmt: skip
def test_what_the_gateway_would_refuse_is_refused_here(words: dict[str, Any], message: str) -> None:
    """Signs, distances, types, alignment and the reach of a trail are checked before the tag is used up."""
    with pytest.raises(InvalidRequest, match=message):
        write(**words)


def test_the_raw_form_of_a_bracket() -> None:
    """The wire's own signed form is taken as it is."""
    raw = Bracket(ticks=-40, type=OrderType.TRAILING_STOP)
    assert raw == write(stop_loss=raw).stop_loss_bracket
    assert OrderType.TRAILING_STOP is write(stop_loss_ticks=40, stop_loss_type="trailing stop").stop_loss_bracket.type


def test_a_trail_without_a_known_market() -> None:
    """A trail given as a price is taken also where no price of the market is known: then the gateway checks it."""
    assert 20990.0 == write(last=None, trail_price=20990.0).trail_price


@pytest.mark.parametrize(("side", "expected"), [("sell", 20990.0), ("buy", 21010.0)])
def test_a_trail_as_a_distance(side: str, expected: float) -> None:
    """A selling stop trails below the market, a buying one above."""
    assert expected == write(side=side, trail_ticks=40).trail_price


@given(st.integers(4, 10**6), st.sampled_from([BUY, SELL]), st.booleans())
def test_a_leg_is_always_on_its_side(distance: int, side: OrderSide, target: bool) -> None:
    """Whatever magnitude, side and leg: the sign is the one that the gateway wants, and the check agrees."""
    kind = OrderType.LIMIT if target else OrderType.STOP
    leg = brackets.from_ticks(distance, side, kind, target=target)
    assert (distance, (side is BUY) == target) == (abs(leg.ticks), leg.ticks > 0)
    with pytest.raises(InvalidRequest):
        brackets.checked(Bracket(ticks=-leg.ticks, type=kind), side, target=target)


def test_a_market_order_needs_no_contract() -> None:
    """A market order, with brackets in ticks or without, needs neither tick size nor latest price."""
    plain = ticket.Wish(account_id=1, contract_id="X", side="buy", size=1, stop_loss_ticks=40)
    priced = ticket.Wish(account_id=1, contract_id="X", side="buy", size=1, limit_price=1.0, stop_loss_price=0.5)
    relative = ticket.Wish(account_id=1, contract_id="X", side="buy", size=1, stop_loss_price=0.5)
    assert [(False, False), (True, False), (True, True)] == [
        (wish.needs_contract, wish.needs_last) for wish in (plain, priced, relative)
    ]
    assert UNSET is ticket.check(plain).limit_price
