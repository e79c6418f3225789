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

WEEK: Final = 7 * 86400.0
YEAR: Final = 366 * 86400.0

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

    def within(self, name: str, least: float, most: float) -> float:
        """A number between two bounds, beyond which the gateway would be busy or broken for ever."""
        value = self.number(name)
        if not least <= value <= most:
            raise ValueError(f"parameter {name!r} is {value:g}; expected {least:g} to {most:g}")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        return int(self.number(name, default))

    def json(self, kind: Any) -> Any:
        """The body, which must be JSON of that type."""
        return msgspec.json.decode(self.body or b"null", type=kind)


Handler = Callable[[Ask], Any | Awaitable[Any]]


class Route(NamedTuple):
    """What answers a request, and its line in the README."""

    handler: Handler
    text: str


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
    ask.world.markets.set_price(ask.text("contractId"), ask.within("price", -1e9, 1e9))


def rate(ask: Ask) -> None:
    ask.world.markets.set_rate(ask.within("eventsPerSecond", 0, 1e5))


def advance(ask: Ask) -> None:
    ask.world.clock.advance(ask.within("seconds", 0, WEEK))


def speed(ask: Ask) -> None:
    ask.world.clock.set_speed(ask.within("speed", 0, 1e6))


def lifetime(ask: Ask) -> None:
    ask.world.tokens.lifetime = ask.within("seconds", -YEAR, YEAR)


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


ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "/state"): Route(
        lambda ask: state.snapshot(ask.world, ask.hubs),
        "everything at once: clock, accounts, orders, positions, market, windows, connections, faults, logs",
    ),
    ("GET", "/kinds"): Route(
        lambda ask: state.kinds(ask.world),
        "every fault and drop with its explanation; operations and contracts there are",
    ),
    ("GET", "/settings"): Route(
        lambda ask: steering.settings(ask.world),
        "every switch and its value",
    ),
    ("POST", "/reset"): Route(
        lambda ask: steering.reset(ask.world, ask.hubs),
        "orders, books, evidence, windows and faults back to the start; tokens and connections stay",
    ),
    ("GET", "/requests"): Route(
        requests,
        "every arrival: time, path, class, port, token, body, status; `?kind=general`, `history` or `free`",
    ),
    ("GET", "/worst"): Route(
        worst,
        "the most arrivals in any window; `?kind=history&window=30`",
    ),
    ("POST", "/tokens/revoke"): Route(
        lambda ask: ask.world.tokens.revoke(ask.query.get("id")),
        "every token, or `?id=` one, is dead",
    ),
    ("POST", "/tokens/lifetime"): Route(
        lifetime,
        "`?seconds=` of the tokens issued from now on",
    ),
    ("POST", "/market"): Route(
        price,
        "`?contractId=&price=`: the market stands there, what it reaches is filled",
    ),
    ("POST", "/market/rate"): Route(
        rate,
        "`?eventsPerSecond=` of every watched market; 0 stops them",
    ),
    ("POST", "/clock/advance"): Route(
        advance,
        "time is `?seconds=` later, everything due has happened",
    ),
    ("POST", "/clock/speed"): Route(
        speed,
        "time runs `?speed=` times as fast; 0 stands still",
    ),
    ("POST", "/accounts/{id}"): Route(
        account,
        'body: `{"canTrade": false, "balance": 1000, …}`',
    ),
    ("POST", "/orders/{id}/fill"): Route(
        fill,
        "`?size=&price=`: so much of a working order is filled",
    ),
    ("GET", "/faults"): Route(
        lambda ask: state.faults(ask.world),
        "the rules in force, with number and how often each struck",
    ),
    ("POST", "/faults"): Route(
        add_fault,
        'body: `{"operation": "Order/place", "kind": "lose", "times": 1, …}`',
    ),
    ("DELETE", "/faults"): Route(
        remove_faults,
        "every rule, or `?number=` one, is over",
    ),
    ("GET", "/hubs"): Route(
        hub_connections,
        "open connections: token, age, subscriptions, calls",
    ),
    ("GET", "/hubs/history"): Route(
        hub_history,
        "every refusal, open, call, answer and close",
    ),
    ("POST", "/hubs/fail-connects"): Route(
        fail_connects,
        "the next `?count=` connections are closed right after their handshake",
    ),
    ("POST", "/hubs/replay"): Route(
        replay,
        "the recording `?path=` is played, `?speed=` times as fast; 0: at once",
    ),
    ("POST", "/hubs/{hub}/drop"): Route(
        drop,
        "`?how=`, see above; hub: `user`, `market`, `echo` or `all`",
    ),
    ("POST", "/hubs/{hub}/send/{target}"): Route(
        send,
        "body: JSON array of arguments; an event to every connection",
    ),
    ("POST", "/hubs/{hub}/ask/{target}"): Route(
        ask_client,
        "the same, and waits `?seconds=` for what each client answers",
    ),
    ("POST", "/hubs/{hub}/raw"): Route(
        raw,
        "the body as one message, whatever it is; records end in U+001E",
    ),
    ("POST", "/hubs/{hub}/blast"): Route(
        blast,
        "`?count=&burst=&size=&rate=`: numbered quotes as fast as they go",
    ),
}
"""(method, path under `/control`) → what answers it, and its explanation. None answers 204."""
