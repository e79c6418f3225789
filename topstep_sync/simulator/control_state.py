"""What the control API tells of a world: one snapshot for the status page and for programs. Loop thread only."""

from typing import Any, Final

import msgspec

from topstep_sync.simulator.evidence import Arrival
from topstep_sync.simulator.faults import HUB_KINDS, REST_KINDS, STREAM_KINDS, Fault
from topstep_sync.simulator.hub_desk import open_connections
from topstep_sync.simulator.hub_methods import HUBS
from topstep_sync.simulator.hub_payloads import MARKET_TOPICS, USER_TOPICS
from topstep_sync.simulator.hub_server import DROPS, HubEvent, Hubs
from topstep_sync.simulator.limits import GENERAL, HISTORY
from topstep_sync.simulator.operations import OPERATIONS
from topstep_sync.simulator.world import World

_ROWS: Final = 40  # newest rows of each log in a snapshot


def camel(name: str) -> str:
    """`retry_after` → `retryAfter`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def record(value: msgspec.Struct) -> dict[str, Any]:
    """A struct of the simulator as JSON shows it."""
    fields = {camel(name): getattr(value, name) for name in value.__struct_fields__}
    return {name: text.decode("utf-8", "replace") if isinstance(text, bytes) else text for name, text in fields.items()}


def snapshot(world: World, hubs: Hubs) -> dict[str, Any]:
    """Everything at once: clock, accounts, orders, positions, market, hubs, windows, faults, the newest of each log."""
    return {
        "epoch": world.clock.epoch(),
        "seconds": world.clock.monotonic(),
        "speed": world.clock.speed,
        "open": world.open(),
        "seed": world.settings.seed,
        "userName": world.settings.user_name,
        "accounts": accounts(world),
        "orders": [order.wire() for order in list(world.exchange.orders.values())[: -_ROWS - 1 : -1]],
        "positions": [position.wire() for position in world.exchange.ledger.positions.values()],
        "trades": [trade.wire() for trade in world.exchange.ledger.trades[: -_ROWS - 1 : -1]],
        "market": market(world),
        "tokens": {"issued": world.tokens.issued, "lifetime": world.tokens.lifetime},
        "limits": {kind: limits(world, kind) for kind in (GENERAL, HISTORY)},
        "hubs": [record(connection) for connection in open_connections(hubs)],
        "faults": faults(world),
        "requests": [arrival(row, body=False) for row in newest(world.evidence.arrivals)],
        "hubEvents": [record(row) for row in newest(hubs.history)],
    }


def newest(rows: Any, count: int = _ROWS) -> list[Any]:
    """The last *count* of a log, newest first."""
    found = []
    for row in reversed(rows):
        found.append(row)
        if len(found) == count:
            break
    return found


def accounts(world: World) -> list[dict[str, Any]]:
    """Every account, with the switches the wire does not show."""
    return [
        {**a.wire(), "autoOco": a.auto_oco, "follower": a.follower, "violation": a.violation}
        for a in world.exchange.accounts.values()
    ]


def market(world: World) -> list[dict[str, Any]]:
    """Every contract somebody has asked for, with its prices."""
    rows = []
    for instrument in world.catalogue.front:
        found = world.markets.known(instrument.id)
        if found is not None:
            price = instrument.price
            rows.append(
                {
                    "contractId": instrument.id,
                    "name": instrument.name,
                    "description": instrument.wire["description"],
                    "tickSize": instrument.root.tick_size,
                    "last": price(found.last),
                    "bid": price(found.bid),
                    "ask": price(found.ask),
                    "volume": found.volume,
                    "moving": found.timer is not None,
                }
            )
    return rows


def limits(world: World, kind: str) -> dict[str, Any]:
    """One class of calls: how full its window is, and the worst that was seen."""
    limit, window = world.limits.limit(kind)
    counted = [row for row in world.evidence.arrivals if row.window == kind]
    return {
        "limit": limit,
        "window": window,
        "used": world.limits.used(kind, world.settings.user_name, world.clock.monotonic()),
        "worst": world.evidence.worst(kind, window),
        "arrivals": len(counted),
        "refused": sum(row.status == 429 for row in counted),
    }


def faults(world: World) -> list[dict[str, Any]]:
    """The rules in force, with their numbers."""
    return [record(rule) for rule in world.faults.rules]


def arrival(row: Arrival, *, body: bool = True) -> dict[str, Any]:
    """A request as the control API tells it: the reference gateway's words, and the body, which may hold a key."""
    told = record(row if body else msgspec.structs.replace(row, body=b""))
    return {**told, "kind": told.pop("window")}


def event(row: HubEvent) -> dict[str, Any]:
    """A hub event as the control API tells it."""
    return record(row)


def kinds(world: World) -> dict[str, Any]:
    """Every fault and every way to drop a hub, with what it does; and what they may be about."""
    hubs = [f"hubs/{hub}" for hub in HUBS]
    events = [*USER_TOPICS, *MARKET_TOPICS]
    return {
        "rest": REST_KINDS,
        "hub": HUB_KINDS,
        "stream": STREAM_KINDS,
        "drops": DROPS,
        "operations": ["*", *OPERATIONS, *hubs, *events],
        "contracts": [instrument.id for instrument in world.catalogue.front],
    }


def fault_of(body: dict[str, Any]) -> Fault:
    """The rule that a request describes, in our words or the reference gateway's.

    Raises:
        ValueError: a field is unknown, missing, or of the wrong type.
    """
    known = {camel(name): name for name in Fault.__struct_fields__ if name not in ("number", "struck", "expires")}
    given = {("operation" if name == "path" else name): value for name, value in body.items()}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"a fault has no {unknown[0]!r}; it has {', '.join(known)}")
    fault = msgspec.convert({known[name]: value for name, value in given.items()}, Fault)
    if "hubs/" in fault.operation.lower():
        fault.kind = {"status": "refuse", "reset": "refuse-reset"}.get(fault.kind, fault.kind)
    return fault
