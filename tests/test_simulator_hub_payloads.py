"""The shapes of hub payloads: every switch, on the wire, and readable by the client's tolerant decoder."""

import json
from typing import Any

import pytest

from tests.hub_wire import opened
from topstep_sync.realtime.wire import interpret
from topstep_sync.simulator.bus import Publication
from topstep_sync.simulator.hub_payloads import Shaper, topic_of
from topstep_sync.simulator.settings import Settings

MNQ = "CON.F.US.MNQ.Z26"
ORDER = {"id": 5, "accountId": 536, "parentOrderId": None, "linkedOrderId": 4, "status": 1, "customTag": None}
TRADE = {"id": 7, "accountId": 536, "orderId": 5, "profitAndLoss": None}
ROW = {"price": 1.0, "type": 2, "volume": 3, "currentVolume": None}
FULL = {"symbol": "F.US.MNQ", "lastPrice": 1.0, "bestBid": 0.75}


def shaped(target: str, *arguments: Any, **switches: Any) -> list[list[Any]]:
    return Shaper(Settings(**switches), lambda _: dict(FULL)).shape(target, arguments)


def user(target: str, data: Any, **switches: Any) -> Any:
    ((argument,),) = shaped(target, {"action": 1, "data": data}, **switches)
    return argument


@pytest.mark.parametrize(
    ("envelope", "order_in", "trade_in"),
    [
        ("wrapped", "envelope", "envelope"),
        ("flat", "bare", "bare"),
        ("list", "list", "list"),
        ("mixed", "envelope", "bare"),
    ],
)
def test_envelopes(envelope: str, order_in: str, trade_in: str) -> None:
    """User events are wrapped, bare, in a list, or wrapped for orders only."""

    def kind(value: Any) -> str:
        if isinstance(value, list):
            return "list"
        return "envelope" if "data" in value else "bare"

    assert order_in == kind(user("GatewayUserOrder", ORDER, envelope=envelope))
    assert trade_in == kind(user("GatewayUserTrade", TRADE, envelope=envelope))


def test_nulls_are_left_out_or_kept() -> None:
    """Null fields are left out, as seen live, or kept, as documented."""
    assert "customTag" not in user("GatewayUserOrder", ORDER)["data"]
    assert None is user("GatewayUserOrder", ORDER, omit_nulls=False)["data"]["customTag"]


def test_ids_as_text() -> None:
    """Order and trade ids may be strings; account ids stay numbers."""
    data = user("GatewayUserOrder", ORDER, ids="text")["data"]
    assert ("5", "4", 536) == (data["id"], data["linkedOrderId"], data["accountId"])
    data = user("GatewayUserTrade", TRADE, ids="text")["data"]
    assert ("7", "5") == (data["id"], data["orderId"])


def test_the_shared_record_is_not_changed() -> None:
    """What the exchange published stays as it is, whatever the shape."""
    data = dict(ORDER)
    user("GatewayUserOrder", data, ids="text")
    assert ORDER == data


@pytest.mark.parametrize(
    ("switch", "rows", "expected"),
    [
        ("mixed", [ROW], [{"price": 1.0, "type": 2, "volume": 3}]),
        ("mixed", [ROW, ROW], [[{"price": 1.0, "type": 2, "volume": 3}] * 2]),
        ("list", [ROW], [[{"price": 1.0, "type": 2, "volume": 3}]]),
        ("single", [ROW, ROW], [{"price": 1.0, "type": 2, "volume": 3}] * 2),
        ("nulls", [ROW], [[{"price": 1.0, "type": 2, "volume": 3}, None]]),
    ],
)
def test_depth(switch: str, rows: list[Any], expected: list[Any]) -> None:
    """Depth comes as objects, arrays, arrays with nulls, or as it falls."""
    assert [[MNQ, payload] for payload in expected] == shaped("GatewayDepth", MNQ, rows, market_depth=switch)


def test_trades() -> None:
    """Market trades come as an array, or one an event."""
    rows = [{"price": 1.0}, {"price": 2.0}]
    assert [[MNQ, rows]] == shaped("GatewayTrade", MNQ, rows)
    assert [[MNQ, rows[0]], [MNQ, rows[1]]] == shaped("GatewayTrade", MNQ, rows, market_trades="single")


def test_quotes() -> None:
    """Quotes are sparse, or whole every time."""
    assert [[MNQ, {"bestBid": 1.0}]] == shaped("GatewayQuote", MNQ, {"bestBid": 1.0})
    assert [[MNQ, FULL]] == shaped("GatewayQuote", MNQ, {"bestBid": 1.0}, quotes="full")


def test_unknown_events_pass() -> None:
    """What has no shape of its own goes as it is, and belongs to no subscription."""
    assert [["x", 1]] == shaped("GatewayLogout", "x", 1)
    assert "" == topic_of(Publication("market", "GatewayLogout", ()))
    assert "" == topic_of(Publication("user", "GatewayLogout", ()))


SHAPES = [
    {"envelope": "flat"},
    {"envelope": "list"},
    {"envelope": "mixed", "ids": "text"},
    {"omit_nulls": False, "market_depth": "nulls"},
    {"market_trades": "single", "market_depth": "single", "quotes": "full"},
    {"market_depth": "list", "records_per_message": 1, "fragment": 7},
]


@pytest.mark.parametrize("shape", [pytest.param(s, marks=pytest.mark.gateway(**s), id=str(s)) for s in SHAPES])
def test_every_shape_reads_alike(gateway: Any, shape: dict[str, Any]) -> None:
    """The client's decoder makes the same events of every shape, over the wire, in fragments too."""
    from topstep_sync.messages import PlaceOrder
    from topstep_sync.models import OrderSide, OrderType

    token = gateway.run(lambda world: world.tokens.issue())
    gateway.set_price(MNQ, 21000.0)
    order = PlaceOrder(account_id=536, contract_id=MNQ, type=OrderType.MARKET, side=OrderSide.BUY, size=1)
    with opened(gateway.user_hub_url, token) as user, opened(gateway.market_hub_url, token) as market:
        for method in ("Orders", "Positions", "Trades"):
            user.result(f"Subscribe{method}", 536)
        for method in ("Quotes", "Trades", "MarketDepth"):
            market.result(f"SubscribeContract{method}", MNQ)
        gateway.run(lambda world: world.exchange.place(order))
        gateway.set_price(MNQ, 21001.0)
        events: list[Any] = []
        for wire in (user, market):
            gateway.hubs.send("all", "End")
            while (record := wire.record()).get("target") != "End":
                events += interpret(record["target"], record["arguments"]) or [] if record["type"] == 1 else []
    kinds = [event.kind for event in events]
    assert [6, 2] == [event.data.status for event in events if event.kind == "order"]
    assert (1, 1) == (kinds.count("trade"), kinds.count("position"))
    assert 21001.0 == [event.data for event in events if event.kind == "quote"][-1].last_price
    assert 21001.0 == [trade.price for event in events if event.kind == "trades" for trade in event.data][-1]
    assert [event for event in events if event.kind == "depth"]
    assert json.dumps(shape)
