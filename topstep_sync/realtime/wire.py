"""From the hubs' invocations to typed events.

Market events of the usual shape are decoded in one pass, straight into the event. Everything else, which is all user
events and whatever is unusual, takes the tolerant way: any case of the target, records bare, in an envelope or in a
list of either, arguments batched, ids as text, null entries. Source: gateway documentation and field reports, 2026-09.
"""

import itertools
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from topstep_sync.events import (
    AccountEvent,
    DepthEvent,
    Event,
    OrderEvent,
    PositionEvent,
    QuoteEvent,
    SessionConflict,
    TradeEvent,
    TradesEvent,
)
from topstep_sync.models import Account, Action, Depth, MarketTrade, Order, Position, Quote, Record, Trade


class Partly(msgspec.ValidationError):
    """Some records of an invocation are not what the contract says; `events` are those of the others."""

    def __init__(self, reason: str, events: list[Event]) -> None:
        super().__init__(reason)
        self.events = events


# Anything more than these three fields, such as an invocationId that wants an answer, is for the general decoder.
class _Wire(msgspec.Struct, tag_field="target", forbid_unknown_fields=True, gc=False):
    type: Literal[1]


class _WireQuote(_Wire, tag="GatewayQuote", gc=False):
    arguments: QuoteEvent


class _WireTrades(_Wire, tag="GatewayTrade", gc=False):
    arguments: TradesEvent


class _WireDepth(_Wire, tag="GatewayDepth", gc=False):
    arguments: DepthEvent


def market_decoder() -> msgspec.json.Decoder[Any]:
    """A fast decoder for the market hub, as `signalr.HubProtocol` wants it."""
    return msgspec.json.Decoder(list[_WireQuote | _WireTrades | _WireDepth])


def interpret(target: str, arguments: list[Any]) -> list[Event] | None:
    """The events an invocation means, oldest first; `None` when the target is not the gateway's.

    Raises:
        Partly: some records are not what the contract says; it bears the events of the others.
        msgspec.MsgspecError: the target is known, and what came with it makes no sense.
    """
    reader = _READERS.get(target.lower())
    return None if reader is None else reader(arguments)


def _rows(payload: Any) -> list[Any]:
    """The records of a payload that is a record, a list of records, or either as JSON text."""
    if isinstance(payload, str):
        payload = msgspec.json.decode(payload)
    rows = payload if isinstance(payload, list) else [payload]
    return [row for row in rows if row is not None]


def _user(event: type[Any], record: type[Record]) -> Callable[[list[Any]], list[Event]]:
    def read(arguments: list[Any]) -> list[Event]:
        found: list[Event] = []
        trouble: Exception | None = None
        for row in itertools.chain.from_iterable(map(_rows, arguments)):
            try:
                action, data = _opened(row)
                found.append(event(action=action, data=msgspec.convert(data, record, strict=False)))
            except (msgspec.MsgspecError, TypeError, ValueError) as error:
                trouble = error
        if trouble is not None:
            raise Partly(str(trouble), found)
        return found

    return read


def _opened(row: Any) -> tuple[Action | None, Any]:
    """The action and the record of *row*, whether or not it is in an envelope."""
    action = None
    if isinstance(row, dict) and isinstance(row.get("data"), dict):
        found = row.get("action")
        action = None if found is None else msgspec.convert(found, Action, strict=False)
        row = row["data"]
    if isinstance(row, dict) and "id" not in row and "orderId" in row:
        row = {**row, "id": row["orderId"]}  # seen once on the stream, gateway field reports 2026-08
    return action, row


def _market(event: type[Any], record: type[Record], many: bool) -> Callable[[list[Any]], list[Event]]:
    def read(arguments: list[Any]) -> list[Event]:
        # Usually a contract and its payload; a client has seen several such pairs in one call.
        pairs = [arguments] if arguments and isinstance(arguments[0], str) else arguments
        found = []
        for pair in pairs:
            contract_id, payload = msgspec.convert(pair, tuple[str, Any])
            rows = [msgspec.convert(row, record, strict=False) for row in _rows(payload)]
            found.extend([event(contract_id, rows)] if many else [event(contract_id, row) for row in rows])
        return found

    return read


def _logout(arguments: list[Any]) -> list[Event]:
    # What GatewayLogout carries is undocumented; whatever it is goes to the reader as text.
    reason = ", ".join(str(argument) for argument in arguments if argument is not None)
    return [SessionConflict(reason=reason or None)]


_READERS: Final[dict[str, Callable[[list[Any]], list[Event]]]] = {
    "gatewayuseraccount": _user(AccountEvent, Account),
    "gatewayuserorder": _user(OrderEvent, Order),
    "gatewayuserposition": _user(PositionEvent, Position),
    "gatewayusertrade": _user(TradeEvent, Trade),
    "gatewayquote": _market(QuoteEvent, Quote, many=False),
    "gatewaytrade": _market(TradesEvent, MarketTrade, many=True),
    "gatewaydepth": _market(DepthEvent, Depth, many=True),
    "gatewaylogout": _logout,
}
