"""The methods a client may call on each hub: names, argument types, what they do.

`/hubs/echo` needs no token and is for general SignalR clients: results, errors, sizes, streams.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from topstep_sync.simulator import hub_dialect as dialect
from topstep_sync.simulator.bus import MARKET_HUB, USER_HUB
from topstep_sync.simulator.hub_link import Link
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

ECHO_HUB: Final = "echo"
HUBS: Final = (USER_HUB, MARKET_HUB, ECHO_HUB)

_INT32: Final = range(-(2**31), 2**31)


class HubError(Exception):
    """A deliberate failure: the client is told the text."""


class Desk(Protocol):
    """What methods ask of the hubs."""

    world: World

    def first(self, link: Link, target: str, *arguments: Any) -> None:
        """*link* alone is sent an event."""
        ...

    def later(self, link: Link, seconds: float, action: Callable[[], None]) -> None:
        """*action* happens *seconds* from now, unless the link has ended."""
        ...


class Call(NamedTuple):
    """One call of a method. With `id` None the client wants no answer."""

    desk: Desk
    link: Link
    id: str | None
    target: str

    def answer(self, value: Any = None) -> None:
        if self.id is not None:
            self.link.put(dialect.result(self.id, value))

    def fail(self, error: str) -> None:
        if self.id is not None:
            self.link.put(dialect.failure(self.id, error))


Run = Callable[..., Any]
_LATER: Final = object()  # what a method returns that answers by itself


class Method(NamedTuple):
    """A method: its name as the client is told it in errors is the one the client used."""

    kinds: tuple[str, ...]
    """Type of each argument: `int32`, `text`, `json`."""
    run: Run
    """Called with the call and the arguments."""
    streams: bool = False


def invoke(call: Call, record: dict[str, Any]) -> None:
    """The call has run, or failed, and its answer waits to go out."""
    method = METHODS[call.link.hub].get(call.target.lower())
    streaming = record["type"] == dialect.STREAM_INVOCATION
    if method is None:
        call.fail(dialect.unknown_method(call.target))
    elif streaming is not method.streams:
        call.fail((dialect.not_streaming if streaming else dialect.streaming)(call.target))
    elif record.get("streamIds"):
        call.fail(dialect.surplus_streams(call.target, len(record["streamIds"])))
    elif not _fits(method.kinds, record["arguments"]):
        call.fail(dialect.bad_arguments(call.target))
    else:
        _run(call, method, record["arguments"])


def _run(call: Call, method: Method, arguments: list[Any]) -> None:
    try:
        value = method.run(call, *arguments)
        if value is not _LATER:
            call.answer(value)
    except HubError as error:
        call.fail(dialect.hub_exception(call.target, str(error)))
    except Exception:  # whatever a method does wrong, or cannot be sent: the client is told as the framework tells it
        log.exception("! hub %s: %s failed", call.link.id, call.target)
        call.fail(dialect.hub_exception(call.target, None))


def _fits(kinds: tuple[str, ...], arguments: list[Any]) -> bool:
    return len(kinds) == len(arguments) and all(
        _FITS[kind](value) for kind, value in zip(kinds, arguments, strict=True)
    )


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "int32": lambda value: isinstance(value, int) and not isinstance(value, bool) and value in _INT32,
    "text": lambda value: value is None or dialect.is_text(value),
    "json": lambda value: True,
}


############################################## user ##############################################


def _account_topics(topic: str) -> tuple[Run, Run]:
    def join(call: Call, account_id: int) -> None:
        if account_id not in call.desk.world.exchange.accounts:
            raise HubError(f"Account {account_id} not found.")
        call.link.topics.add(f"{topic}:{account_id}")

    def leave(call: Call, account_id: int) -> None:
        call.link.topics.discard(f"{topic}:{account_id}")

    return join, leave


def _user_methods() -> dict[str, Method]:
    methods = {
        "SubscribeAccounts": Method((), lambda call: call.link.topics.add("accounts")),
        "UnsubscribeAccounts": Method((), lambda call: call.link.topics.discard("accounts")),
    }
    for topic in ("Orders", "Positions", "Trades"):
        join, leave = _account_topics(topic.lower())
        methods[f"Subscribe{topic}"] = Method(("int32",), join)
        methods[f"Unsubscribe{topic}"] = Method(("int32",), leave)
    return methods


############################################# market #############################################


def _contract_topics(topic: str, image: Callable[[Call, str], None]) -> tuple[Run, Run]:
    def join(call: Call, contract_id: str | None) -> None:
        if contract_id is None:
            raise TypeError("the contract is null")
        call.link.topics.add(f"{topic}:{contract_id}")
        if call.desk.world.markets.watch(contract_id) is not None:
            image(call, contract_id)

    def leave(call: Call, contract_id: str | None) -> None:
        call.link.topics.discard(f"{topic}:{contract_id}")

    return join, leave


def _first_quote(call: Call, contract_id: str) -> None:
    call.desk.first(call.link, "GatewayQuote", contract_id, call.desk.world.markets.quote(contract_id))


def _first_depth(call: Call, contract_id: str) -> None:
    call.desk.first(call.link, "GatewayDepth", contract_id, call.desk.world.markets.depth(contract_id))


def _market_methods() -> dict[str, Method]:
    images = {"Quotes": _first_quote, "Trades": lambda *_: None, "MarketDepth": _first_depth}
    methods = {}
    for name, image in images.items():
        join, leave = _contract_topics(TOPICS[name], image)
        methods[f"SubscribeContract{name}"] = Method(("text",), join)
        methods[f"UnsubscribeContract{name}"] = Method(("text",), leave)
    return methods


TOPICS: Final = {"Quotes": "quotes", "Trades": "trades", "MarketDepth": "depth"}


############################################## echo ##############################################


def _echo(call: Call, value: Any) -> Any:
    return value


def _throw(call: Call, message: str | None) -> None:
    raise HubError(message or "")


def _crash(call: Call) -> None:
    raise ValueError("inner detail")


def _slow(call: Call, milliseconds: int) -> object:
    call.desk.later(call.link, milliseconds / 1000, lambda: call.answer("done"))
    return _LATER


def _big(call: Call, length: int) -> str:
    if not 0 <= length <= 10_000_000:
        raise ValueError("no string of that length")
    return "é" * length


def _flood(call: Call, count: int, size: int) -> None:
    for i in range(min(count, 1_000_000)):
        call.link.put(dialect.invocation("Numbered", [i, "x" * min(size, 100_000)]))


def _counter(call: Call, count: int) -> object:
    if call.id is not None:
        for i in range(min(count, 1_000_000)):
            call.link.put(dialect.stream_item(call.id, i))
        call.link.put(dialect.stream_end(call.id))
    return _LATER


def _abort(call: Call) -> object:
    call.link.close()
    return _LATER


def _echo_methods() -> dict[str, Method]:
    return {
        "Echo": Method(("json",), _echo),
        "Add": Method(("int32", "int32"), lambda call, left, right: (left + right + 2**31) % 2**32 - 2**31),
        "Big": Method(("int32",), _big),
        "Throw": Method(("text",), _throw),
        "Crash": Method((), _crash),
        "Slow": Method(("int32",), _slow),
        "AbortMe": Method((), _abort),
        "Flood": Method(("int32", "int32"), _flood),
        "Counter": Method(("int32",), _counter, streams=True),
    }


NAMES: Final[dict[str, dict[str, Method]]] = {
    USER_HUB: _user_methods(),
    MARKET_HUB: _market_methods(),
    ECHO_HUB: _echo_methods(),
}
"""Hub → its methods, as they are spelt."""

METHODS: Final = {hub: {name.lower(): method for name, method in methods.items()} for hub, methods in NAMES.items()}
"""Hub → its methods by lower-case name: names match in any case."""
