"""From invocations to events, in every shape that was ever seen."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from topstep_sync.events import (
    AccountEvent,
    DepthEvent,
    OrderEvent,
    PositionEvent,
    QuoteEvent,
    SessionConflict,
    TradeEvent,
    TradesEvent,
)
from topstep_sync.models import Action, DepthType, OrderStatus, PositionType
from topstep_sync.realtime.signalr import Batch, HubProtocol
from topstep_sync.realtime.wire import Partly, interpret, market_decoder

CONTRACT = "CON.F.US.MNQ.U26"
ACCOUNT = {"id": 1, "name": "PRAC", "balance": 5.5, "canTrade": True, "isVisible": True, "simulated": True}
ORDER = {
    "id": 2**40,
    "accountId": 1,
    "contractId": CONTRACT,
    "creationTimestamp": "2026-08-01T13:30:31.4173693+00:00",
    "status": 1,
    "type": 1,
    "side": 0,
    "size": 2,
}
POSITION = {
    "id": 3,
    "accountId": 1,
    "contractId": CONTRACT,
    "creationTimestamp": "2026-08-01T13:30:31+00:00",
    "type": 1,
    "size": 2,
    "averagePrice": 29547.25,
}
TRADE = {
    "id": 4,
    "accountId": 1,
    "contractId": CONTRACT,
    "creationTimestamp": "2026-08-01T13:30:31.41+00:00",
    "price": 1.5,
    "profitAndLoss": None,
    "fees": 0.36,
    "side": 1,
    "size": 1,
    "voided": False,
    "orderId": 2**40,
}
# Quoted from recorded traffic, field reports of 2026-07.
QUOTE = {
    "symbol": "F.US.MNQ",
    "bestBid": 29547,
    "bestAsk": 29547.5,
    "lastUpdated": "2026-07-30T13:30:31.4347534+00:00",
    "timestamp": "2026-07-30T13:30:31.348+00:00",
    "contract": CONTRACT,
}
PRINT = {"symbolId": "F.US.MES", "price": 7730.5, "timestamp": "2026-07-30T13:30:30.052+00:00", "type": 1, "volume": 1}
LEVEL = {"contractId": CONTRACT, "timestamp": "2026-07-30T13:30:30Z", "type": 4, "price": 29547, "volume": 2}


def fast(target: str, *arguments: Any) -> Any:
    """What the market hub's fast decoder makes of a record; None when it leaves it to the other."""
    protocol = HubProtocol(market_decoder())
    record = json.dumps({"type": 1, "target": target, "arguments": arguments}).encode()
    _, message = protocol.receive(b"{}\x1e" + record + b"\x1e")
    return message[0] if isinstance(message, Batch) else None


def test_a_sparse_quote() -> None:
    """What is left out stays unset; times have all their digits that Python can hold."""
    event = fast("GatewayQuote", CONTRACT, QUOTE)
    assert (QuoteEvent, CONTRACT, msgspec.UNSET, 29547.5) == (
        type(event),
        event.contract_id,
        event.data.last_price,
        event.data.best_ask,
    )
    assert datetime(2026, 7, 30, 13, 30, 31, 434753, UTC) == event.data.last_updated
    assert [event] == interpret("gatewayquote", [CONTRACT, QUOTE])


@pytest.mark.parametrize(
    ("target", "data"), [("GatewayQuote", QUOTE), ("GatewayTrade", [PRINT]), ("GatewayDepth", [LEVEL])]
)
def test_a_time_without_a_zone_is_utc(target: str, data: Any) -> None:
    """The fast decoder leaves it to the other, which reads it as UTC."""
    zoneless = json.loads(re.sub(r"(T[\d:.]+)(Z|\+00:00)", r"\1", json.dumps(data)))
    assert None is fast(target, CONTRACT, zoneless)
    assert [fast(target, CONTRACT, data)] == interpret(target, [CONTRACT, zoneless])


def test_trades_and_depth_come_as_lists() -> None:
    """A list on the wire is one event; a single object, and lists with holes, are read the tolerant way."""
    trades, depth = fast("GatewayTrade", CONTRACT, [PRINT, PRINT]), fast("GatewayDepth", CONTRACT, [LEVEL])
    assert (TradesEvent, 2, DepthEvent, DepthType.BEST_BID) == (
        type(trades),
        len(trades.data),
        type(depth),
        depth.data[0].type,
    )
    assert None is fast("GatewayDepth", CONTRACT, LEVEL)
    assert (
        [depth] == interpret("GatewayDepth", [CONTRACT, LEVEL]) == interpret("GatewayDepth", [CONTRACT, [None, LEVEL]])
    )
    assert [trades] == interpret("GatewayTrade", [CONTRACT, json.dumps([PRINT, PRINT])])
    assert [trades, trades] == interpret("GatewayTrade", [[CONTRACT, [PRINT, PRINT]], [CONTRACT, [PRINT, PRINT]]])
    assert [QuoteEvent] * 2 == [type(e) for e in interpret("GatewayQuote", [CONTRACT, [QUOTE, QUOTE]]) or []]


@pytest.mark.parametrize(
    ("target", "record", "kind"),
    [
        ("GatewayUserAccount", ACCOUNT, AccountEvent),
        ("GatewayUserOrder", ORDER, OrderEvent),
        ("GatewayUserPosition", POSITION, PositionEvent),
        ("GatewayUserTrade", TRADE, TradeEvent),
    ],
)
@pytest.mark.parametrize(
    ("wrap", "action", "count"),
    [
        (lambda r: [r], None, 1),
        (lambda r: [{"action": 1, "data": r}], Action.UPDATE, 1),
        (lambda r: [{"action": "1", "data": r}], Action.UPDATE, 1),
        (lambda r: [{"data": r}], None, 1),
        (lambda r: [[{"action": 0, "data": r}, None, {"action": 0, "data": r}]], Action.CREATE, 2),
        (lambda r: [json.dumps({"action": 2, "data": r})], Action.DELETE, 1),
        (lambda r: [{"action": 77, "data": r}], Action(77), 1),
        (lambda r: [{**r, "brandNew": {"a": 1}}], None, 1),
        (lambda r: [{**r, "id": str(r["id"])}], None, 1),
        (lambda r: [{**{k: v for k, v in r.items() if k != "id"}, "orderId": r["id"]}], None, 1),
    ],
)
def test_user_records_in_every_wrapping(
    target: str, record: Any, kind: type, wrap: Any, action: Any, count: int
) -> None:
    """Bare, in an envelope, in a list of either, as JSON text, with ids as text, with new fields: the same record."""
    events: list[Any] = interpret(target.upper(), wrap(record)) or []
    assert [kind] * count == [type(event) for event in events]
    assert all((action, record["id"]) == (event.action, event.data.id) for event in events)


def test_values_nobody_knows_are_kept() -> None:
    """An enum value of tomorrow is still that value."""
    (event,) = interpret("GatewayUserOrder", [{**ORDER, "status": 42}]) or []
    assert (42, "UNKNOWN_42") == (event.data.status, event.data.status.name)  # type: ignore[attr-defined]
    (event,) = interpret("GatewayUserPosition", [{**POSITION, "type": 0, "size": 0}]) or []
    assert (PositionType.UNDEFINED, OrderStatus.OPEN) == (event.data.type, OrderStatus(1))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "reason"), [([], None), (["you are out"], "you are out"), ([None, {"a": 1}], "{'a': 1}")]
)
def test_logout_with_whatever_it_carries(arguments: list[Any], reason: str | None) -> None:
    """GatewayLogout becomes a conflict, in any spelling and with any payload."""
    assert [SessionConflict(reason=reason)] == interpret("gatewaylogout", arguments)


def test_targets_of_others() -> None:
    """A target nobody knows is not the gateway's."""
    assert None is interpret("Hello", [1])


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("GatewayUserOrder", [{"id": 1}]),
        ("GatewayUserOrder", [7]),
        ("GatewayUserTrade", ["not json"]),
        ("GatewayQuote", [CONTRACT]),
        ("GatewayQuote", [CONTRACT, 7]),
        ("GatewayTrade", [CONTRACT, [{"price": "much"}]]),
        ("GatewayDepth", [7, 8]),
    ],
)
def test_nonsense_is_refused(target: str, arguments: list[Any]) -> None:
    """A known target with something else than its records raises, and never gives half an event."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        interpret(target, arguments)


@pytest.mark.parametrize(
    ("target", "record"), [("GatewayQuote", QUOTE), ("GatewayTrade", PRINT), ("GatewayDepth", LEVEL)]
)
def test_an_odd_row_takes_no_other_with_it(target: str, record: dict[str, Any]) -> None:
    """Of a list in which one row makes no sense, the others are told, and that one was not."""
    with pytest.raises(Partly) as told:
        interpret(target, [CONTRACT, [record, 7, record]])
    assert told.value.events == interpret(target, [CONTRACT, [record, record]])
    with pytest.raises(Partly) as told:
        interpret(target, [CONTRACT, [7, 8]])
    assert [] == told.value.events
