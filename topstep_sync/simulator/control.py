"""The control API: how a test in any language steers the gateway. ASGI, under `/control`, for this machine alone.

The routes are in `control_routes.ROUTES`; they mirror those of the reference gateway where both have them.
"""

import inspect
import ipaddress
import logging
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from topstep_sync.simulator.asgi import (
    JSON,
    Answer,
    Gone,
    Receive,
    Scope,
    Send,
    TooLarge,
    header,
    read_body,
    send_answer,
)
from topstep_sync.simulator.control_routes import ROUTES, Ask, Handler
from topstep_sync.simulator.hub_server import Hubs
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

PREFIX: Final = "/control"
# What a parameter or a body can be wrong by; anything else is a bug, and shows as one.
_REFUSALS: Final = (ValueError, KeyError, OverflowError, OSError, RecursionError, TypeError)
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Control:
    """The ASGI application under `/control`."""

    def __init__(self, world: World, hubs: Hubs) -> None:
        self._world = world
        self._hubs = hubs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, await self._answer(scope, receive))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if not local(scope):
            return _json(403, {"error": "the control API answers this machine alone, and pages of its own"})
        path = "/" + scope["path"][len(PREFIX) :].strip("/")
        found = list(match(path))
        handler, names = next(
            ((handler, names) for method, handler, names in found if method == scope["method"]), (None, {})
        )
        if handler is None:
            allowed = sorted(method for method, _, _ in found)
            return _json(
                405 if found else 404, {"error": f"no {scope['method']} {path}", "allowed": allowed, "routes": routes()}
            )
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        try:
            body = await read_body(receive)
        except (TooLarge, Gone) as error:
            return _json(413, {"error": f"the body did not arrive: {type(error).__name__}"})
        try:
            ask = Ask(self._world, self._hubs, names, query, body)
            answer = handler(ask)
            content = await answer if inspect.isawaitable(answer) else answer
        except _REFUSALS as error:
            log.info("! control %s %s: %s", scope["method"], path, error)
            return _json(400, {"error": str(error)})
        return Answer(204) if content is None else _json(200, content)


def match(path: str) -> Iterator[tuple[str, Handler, dict[str, str]]]:
    """What answers *path*: method, handler and the path's parameters, for each method there is."""
    parts = path.split("/")
    for (method, pattern), route in ROUTES.items():
        wanted = pattern.split("/")
        if len(wanted) != len(parts):
            continue
        pairs = list(zip(wanted, parts, strict=True))
        if all(want == part or (want.startswith("{") and part) for want, part in pairs):
            yield (
                method,
                route.handler,
                {want.strip("{}"): unquote(part) for want, part in pairs if want.startswith("{")},
            )


def routes() -> list[str]:
    """Every route there is."""
    return [f"{method} {PREFIX}{pattern}" for method, pattern in ROUTES]


def local(scope: Scope) -> bool:
    """Whether the request comes from this machine, and not from a page of another site in its browser."""
    client = scope.get("client")
    host = header(scope, b"host") or ""
    origin = header(scope, b"origin")
    named = urlsplit(f"//{host}").hostname or ""
    return client is not None and _loopback(client[0]) and _loopback(named) and origin in (None, f"http://{host}")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _json(status: int, content: Any) -> Answer:
    return Answer(status, (JSON,), _encode(content))
