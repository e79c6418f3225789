"""What can be said under `/control`: one small function a route. Parameters in the query, JSON out."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from topstep_sync.simulator import control_state as state
from topstep_sync.simulator import steering
from topstep_sync.simulator.faults import Fault
from topstep_sync.simulator.hub_replay import play
from topstep_sync.simulator.hub_server import ALL, Hubs
from topstep_sync.simulator.recording import read
from topstep_sync.simulator.world import World

_DROP_WORDS: Final = {"error": "close", "error-reconnect": "close-reconnect"}  # the reference gateway's


class Ask(NamedTuple):
    """One request: the world it is about, and what it said."""

    world: World
    hubs: Hubs
    path: dict[str, str]
    query: dict[str, str]
    body: bytes

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter of the path or the query."""
        value = self.path.get(name, self.query.get(name, default))
        if value is None:
            raise ValueError(f"parameter {name!r} is missing")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        text = self.text(name, None if default is None else str(default))
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"parameter {name!r} is {text!r}; expected a number") from None
        if not math.isfinite(value):
            raise ValueError(f"parameter {name!r} is {text!r}; expected a finite number")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        return int(self.number(name, default))

    def json(self, kind: Any) -> Any:
        """The body, which must be JSON of that type."""
        return msgspec.json.decode(self.body or b"null", type=kind)


Handler = Callable[[Ask], Any | Awaitable[Any]]

############################################## evidence ##############################################


def requests(ask: Ask) -> Any:
    kind = ask.query.get("kind")
    rows = [state.arrival(row) for row in ask.world.evidence.arrivals if kind in (None, row.window)]
    return {"now": ask.world.clock.monotonic(), "requests": rows}


def worst(ask: Ask) -> Any:
    kind = ask.text("kind")
    length = ask.number("window", ask.world.limits.limit(kind)[1])
    rows = [row for row in ask.world.evidence.arrivals if row.window == kind]
    return {
        "worst": ask.world.evidence.worst(kind, length),
        "worst_accepted": ask.world.evidence.worst(kind, length, refused=False),
        "arrivals": len(rows),
        "refused": sum(row.status == 429 for row in rows),
    }


def hub_history(ask: Ask) -> Any:
    return [state.event(row) for row in ask.hubs.history]


def hub_connections(ask: Ask) -> Any:
    opened = sum(row.kind == "open" for row in ask.hubs.history)
    return {"opened": opened, "tokens": ask.world.tokens.issued, "open": state.snapshot(ask.world, ask.hubs)["hubs"]}


############################################## steering ##############################################


def price(ask: Ask) -> None:
    ask.world.markets.set_price(ask.text("contractId"), ask.number("price"))


def rate(ask: Ask) -> None:
    ask.world.markets.set_rate(ask.number("eventsPerSecond"))


def advance(ask: Ask) -> None:
    ask.world.clock.advance(ask.number("seconds"))


def speed(ask: Ask) -> None:
    ask.world.clock.set_speed(ask.number("speed"))


def lifetime(ask: Ask) -> None:
    ask.world.tokens.lifetime = ask.number("seconds")


def account(ask: Ask) -> None:
    names = {state.camel(name): name for name in steering.ACCOUNT_SWITCHES}
    changes = {names.get(name, name): value for name, value in ask.json(dict[str, Any]).items()}
    steering.change_account(ask.world, ask.whole("id"), changes)


def fill(ask: Ask) -> None:
    steering.fill(ask.world, ask.whole("id"), ask.whole("size"), ask.number("price"))


def add_fault(ask: Ask) -> Any:
    fault = state.fault_of(ask.json(dict[str, Any]))
    ask.world.faults.add(fault, ask.world.clock.monotonic())
    return state.record(fault)


def remove_faults(ask: Ask) -> None:
    number = ask.query.get("number")
    if number is None:
        ask.world.faults.clear()
    for rule in [rule for rule in ask.world.faults.rules if str(rule.number) == number]:
        ask.world.faults.remove(rule)


################################################ hubs ################################################


def fail_connects(ask: Ask) -> None:
    fault = Fault(operation="*", kind="close", times=ask.whole("count"))
    ask.world.faults.add(fault, ask.world.clock.monotonic())


def drop(ask: Ask) -> Any:
    how = ask.text("how", "abort")
    return {"dropped": ask.hubs.drop(ask.text("hub"), _DROP_WORDS.get(how, how))}


def send(ask: Ask) -> Any:
    return {"sent": ask.hubs.send(ask.text("hub"), ask.text("target"), ask.json(list[Any]))}


def raw(ask: Ask) -> Any:
    return {"sent": ask.hubs.send_raw(ask.text("hub"), ask.body)}


async def ask_client(ask: Ask) -> Any:
    return await ask.hubs.ask(ask.text("hub"), ask.text("target"), ask.json(list[Any]), ask.number("seconds", 5))


async def blast(ask: Ask) -> Any:
    options = {"burst": ask.whole("burst", 1), "size": ask.whole("size", 275), "rate": ask.number("rate", 0)}
    return await ask.hubs.blast(ask.text("hub", ALL), ask.whole("count"), **options)


async def replay(ask: Ask) -> Any:
    return {"records": await play(ask.hubs, read(ask.text("path")), ask.number("speed", 1))}


ROUTES: Final[dict[tuple[str, str], Handler]] = {
    ("GET", "/state"): lambda ask: state.snapshot(ask.world, ask.hubs),
    ("GET", "/kinds"): lambda ask: state.kinds(ask.world),
    ("GET", "/settings"): lambda ask: steering.settings(ask.world),
    ("POST", "/reset"): lambda ask: steering.reset(ask.world, ask.hubs),
    ("GET", "/requests"): requests,
    ("GET", "/worst"): worst,
    ("POST", "/tokens/revoke"): lambda ask: ask.world.tokens.revoke(ask.query.get("id")),
    ("POST", "/tokens/lifetime"): lifetime,
    ("POST", "/market"): price,
    ("POST", "/market/rate"): rate,
    ("POST", "/clock/advance"): advance,
    ("POST", "/clock/speed"): speed,
    ("POST", "/accounts/{id}"): account,
    ("POST", "/orders/{id}/fill"): fill,
    ("GET", "/faults"): lambda ask: state.faults(ask.world),
    ("POST", "/faults"): add_fault,
    ("DELETE", "/faults"): remove_faults,
    ("GET", "/hubs"): hub_connections,
    ("GET", "/hubs/history"): hub_history,
    ("POST", "/hubs/fail-connects"): fail_connects,
    ("POST", "/hubs/replay"): replay,
    ("POST", "/hubs/{hub}/drop"): drop,
    ("POST", "/hubs/{hub}/send/{target}"): send,
    ("POST", "/hubs/{hub}/ask/{target}"): ask_client,
    ("POST", "/hubs/{hub}/raw"): raw,
    ("POST", "/hubs/{hub}/blast"): blast,
}
"""(method, path under `/control`) → what answers it. None answers 204."""
