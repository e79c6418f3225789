"""ORDER-001: one intent, at most one order."""

from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, GatewayModel

from topstep_sync import errors
from topstep_sync.api.rooms import Rooms
from topstep_sync.config import Config
from topstep_sync.models import OrderSide, OrderStatus, OrderType


@pytest.fixture
def model() -> GatewayModel:
    return GatewayModel()


@pytest.fixture
def rooms(model: GatewayModel) -> Rooms:
    return open_rooms(model)


def open_rooms(model: GatewayModel, **settings: Any) -> Rooms:
    config = Config(orders=settings)
    return Rooms(model.call, get=lambda path: "pong", config=config, clock=model.clock, listen=model.listen)


def paths(model: GatewayModel) -> list[str]:
    return [path.removeprefix("/api/") for path, _ in model.calls]


def test_an_order_gets_its_tag_before_it_is_sent(model: GatewayModel, rooms: Rooms) -> None:
    """The tag that the gateway sees is the one that the caller gets."""
    placed = rooms.orders.place(ACCOUNT, MNQ, side="buy", size=2, limit_price=20990.25, label="scalper")
    path, request = model.calls[-1]
    assert ("/api/Order/place", placed.custom_tag) == (path, request.custom_tag)
    assert placed.custom_tag.startswith("scalper~")
    assert (9056, OrderType.LIMIT, OrderSide.BUY, 20990.25) == (placed.id, placed.type, placed.side, placed.limit_price)


@pytest.mark.parametrize("fault", ["lost", "500-after", "truncated", "silent"])
@pytest.mark.parametrize("hub", [True, False], ids=["hub", "rest"])
def test_a_lost_reply_is_looked_up(model: GatewayModel, rooms: Rooms, fault: str, hub: bool) -> None:
    """An order whose reply is lost after it was accepted comes back as if nothing had happened."""
    model.hub_open = hub
    model.faults["Order/place"] = [fault]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [placed.custom_tag] == model.executed
    assert (placed.id, OrderStatus.FILLED) == (placed.record.id, placed.record.status)


def test_an_order_that_comes_late_is_found(model: GatewayModel, rooms: Rooms) -> None:
    """An order that the gateway executes eight seconds after the timeout is still the answer."""
    model.faults["Order/place"] = ["late"]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert [placed.custom_tag] == model.executed


def test_an_order_that_is_never_found_is_unknown(model: GatewayModel, rooms: Rooms) -> None:
    """After the horizon the caller learns that nothing is known, with the tag to ask about."""
    model.faults["Order/place"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert rooms.orders.verify(caught.value.tag) is None
    assert [] == model.executed
    assert 1 == paths(model).count("Order/place")


def test_the_same_tag_is_sent_again_if_the_caller_wants(model: GatewayModel, rooms: Rooms) -> None:
    """With `resend`, an order that was looked for in vain goes out once more under the tag it had."""
    model.faults["Order/place"] = ["dropped"]
    placed = rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    sent = {request.custom_tag for path, request in model.calls if path == "/api/Order/place"}
    assert ({placed.custom_tag}, [placed.custom_tag]) == (sent, model.executed)


def test_a_failed_look_up_is_not_absence(model: GatewayModel, rooms: Rooms) -> None:
    """While look-ups fail nothing is sent again, whatever the caller allowed."""
    model.faults["Order/place"] = ["dropped"]
    model.faults["Order/search"] = ["500"] * 50
    with pytest.raises(errors.OrderStateUnknown, match="TransientError"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1, resend=True)
    assert 1 == paths(model).count("Order/place")


@pytest.mark.parametrize("fault", ["refused", "open", "429", "401"])
def test_what_was_not_executed_is_not_looked_up(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """An order that provably never ran raises at once, and its tag may be used again."""
    model.faults["Order/place"] = [fault]
    with pytest.raises(errors.RequestError) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert ["Order/place"] == paths(model)
    again = rooms.orders.buy(ACCOUNT, MNQ.id, 1, custom_tag=caught.value.custom_tag)
    assert [again.custom_tag] == model.executed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"size": -1}, "size is -1; expected a whole number"),
        ({"size": 1.5}, "size is 1.5"),
        ({"size": True}, "size is True"),
        ({"side": "long"}, "side is 'long'; expected one of"),
        ({"limit_price": 21000.1}, "21000.0 or 21000.25"),
        ({"limit_price": float("nan")}, "expected a finite number"),
        ({"type": "limit"}, "a LIMIT order needs limit_price"),
        ({"type": "market", "limit_price": 1.0}, "takes no limit_price"),
        ({"stop_loss_ticks": 3}, "stop_loss_ticks is 3; expected a whole number of 4 or more"),
        ({"stop_loss_ticks": -40}, "stop_loss_ticks is -40"),
        ({"limit_price": 21000.0, "stop_loss_price": 21010.0}, "belongs below"),
        ({"label": "a b"}, "label is 'a b'"),
        ({"custom_tag": "ö"}, "custom_tag is 'ö'"),
        ({"trail_ticks": 1001}, "expected 1000 at most"),
    ],
)
def test_bad_orders_are_refused_before_anything_is_sent(
    model: GatewayModel, rooms: Rooms, arguments: dict[str, Any], expected: str
) -> None:
    """A wrong argument is an InvalidRequest that says what was expected, and no order goes out."""
    with pytest.raises(errors.InvalidRequest, match=expected.replace("(", r"\(")):
        rooms.orders.place(ACCOUNT, MNQ, **{"side": "buy", "size": 1, **arguments})
    assert [] == model.calls


def test_a_dry_run_sends_nothing(model: GatewayModel, rooms: Rooms) -> None:
    """`dry_run` gives what would be sent: brackets signed by side, the tag minted."""
    request = rooms.orders.place(
        ACCOUNT, MES, side="sell", size=1, stop_loss_ticks=40, take_profit_ticks=80, dry_run=True
    )
    assert (40, -80) == (request.stop_loss_bracket.ticks, request.take_profit_bracket.ticks)
    assert [] == model.calls
