"""From the hubs' invocations to typed events.

Market events of the usual shape are decoded in one pass, straight into the event. Everything else, which is all user
events and whatever is unusual, takes the tolerant way: any case of the target, records bare, in an envelope or in a
list of either, arguments batched, ids as text, null entries. Source: gateway documentation and field reports, 2026-09.
"""

import contextlib
from collections.abc import Callable, Iterable
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
from topstep_sync.models import Account, Action, Depth, MarketTrade, Order, Position, Quote, Record, Trade, read


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
        Partly: some of it makes no sense, or all; it bears the events of the rest.
    """
    reader = _READERS.get(target.lower())
    return None if reader is None else reader(arguments)


def _rows(payload: Any) -> list[Any]:
    """The records of a payload that is a record, a list of records, or either as JSON text."""
    if isinstance(payload, str):
        payload = msgspec.json.decode(payload)
    rows = payload if isinstance(payload, list) else [payload]
    return [row for row in rows if row is not None]


def _each(items: Iterable[Any], make: Callable[[Any], list[Any]]) -> list[Any]:
    """What *make* makes of all *items*; one that makes no sense takes no other with it."""
    found: list[Any] = []
    trouble: Exception | None = None
    for item in items:
        try:
            found += make(item)
        except Partly as error:
            trouble = error
            found += error.events
        except Exception as error:  # nobody can name all that a decoder says to what somebody may send
            trouble = error
    if trouble is not None:
        raise Partly(str(trouble) or type(trouble).__name__, found)
    return found


def _user(event: type[Any], record: type[Record]) -> Callable[[list[Any]], list[Event]]:
    def one(row: Any) -> list[Event]:
        action, data = _opened(row)
        return [event(action=action, data=read(data, record, strict=False))]

    return lambda arguments: _each(arguments, lambda payload: _each(_rows(payload), one))


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
    def one(pair: Any) -> list[Event]:
        contract_id, payload = msgspec.convert(pair, tuple[str, Any])
        if not many:
            return _each(_rows(payload), lambda row: [event(contract_id, read(row, record, strict=False))])
        try:
            return [event(contract_id, _each(_rows(payload), lambda row: [read(row, record, strict=False)]))]
        except Partly as error:
            raise Partly(str(error), [event(contract_id, error.events)] if error.events else []) from None

    # Usually a contract and its payload; a client has seen several such pairs in one call.
    return lambda arguments: _each([arguments] if arguments and isinstance(arguments[0], str) else arguments, one)


def _logout(arguments: list[Any]) -> list[Event]:
    # What GatewayLogout carries is undocumented; whatever it is goes to the reader as text, if it can be written down.
    reason = ""
    with contextlib.suppress(ValueError, RecursionError):
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
