"""The hubs' plain HTTP: `/negotiate`, and what a request gets that does not become a WebSocket. ASGI.

Texts and statuses: ASP.NET Core 10.0.12, 2026-11. WebSockets are the only transport offered.
"""

import secrets
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from topstep_sync.simulator.asgi import EMPTY, Answer, Receive, Scope, Send, header, send_answer
from topstep_sync.simulator.hub_methods import ECHO_HUB, HUBS
from topstep_sync.simulator.hub_server import Hubs

_encode: Final = msgspec.json.Encoder().encode
_TEXT: Final = (b"content-type", b"text/plain")
_JSON: Final = (b"content-type", b"application/json")
_TRANSPORTS: Final = [{"transport": "WebSockets", "transferFormats": ["Text"]}]


class Negotiation:
    """The ASGI application under `/hubs`."""

    def __init__(self, hubs: Hubs) -> None:
        self._hubs = hubs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(send, self._answer(scope))

    def _answer(self, scope: Scope) -> Answer:
        hub, _, rest = scope["path"].rstrip("/").lower().removeprefix("/hubs/").partition("/")
        if hub not in HUBS or rest not in ("", "negotiate"):
            return Answer(404)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        refusal = self._bearer(scope, hub, query)
        if refusal is not None:
            return refusal
        if rest:
            return self._negotiate(query) if scope["method"] == "POST" else Answer(405, (EMPTY, _TEXT))
        return self._transport(scope, query)

    def _bearer(self, scope: Scope, hub: str, query: dict[str, list[str]]) -> Answer | None:
        tokens = self._hubs.world.tokens
        named = query.get("access_token", [""])[0]
        verdict = tokens.check(named) if named else tokens.check_header(header(scope, b"authorization"))
        if hub == ECHO_HUB or not verdict.fault:
            return None
        return Answer(401, (EMPTY, (b"www-authenticate", tokens.challenge(verdict).encode())))

    def _negotiate(self, query: dict[str, list[str]]) -> Answer:
        asked = query.get("negotiateVersion", ["0"])[0]
        try:
            version = int(asked)
        except ValueError:
            return _json({"error": "The client requested a non-integer protocol version."})
        if version < 0:
            text = f"The client requested version '{version}', but the server does not support this version."
            return _json({"error": text})
        name, token = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        content: dict[str, Any] = {"negotiateVersion": min(version, 1), "connectionId": name}
        if version:
            content["connectionToken"] = token
        self._hubs.admission.negotiate(token if version else name)
        return _json({**content, "availableTransports": _TRANSPORTS})

    def _transport(self, scope: Scope, query: dict[str, list[str]]) -> Answer:
        if scope["method"] not in ("GET", "POST", "DELETE"):
            return Answer(405, (EMPTY, _TEXT))
        if "id" not in query:
            return Answer(400, (_TEXT,), b"Connection ID required")
        return Answer(404, (_TEXT,), b"No Connection with that ID")


def _json(content: dict[str, Any]) -> Answer:
    body = _encode(content)
    return Answer(200, (_JSON, (b"content-length", str(len(body)).encode())), body)
