"""What the REST side and its faults share of ASGI: types, an answer, the reading of a body."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, NamedTuple

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

MAX_BODY: Final = 30_000_000  # Kestrel's default
TRANSPORT: Final = "topstep.transport"
"""Key of the scope under which the server puts the connection's transport."""

JSON: Final = (b"content-type", b"application/json; charset=utf-8")
PROBLEM: Final = (b"content-type", b"application/problem+json; charset=utf-8")
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
EMPTY: Final = (b"content-length", b"0")


class Answer(NamedTuple):
    """A reply. One with a body goes out chunked, as Kestrel does it."""

    status: int
    headers: tuple[Header, ...] = (EMPTY,)
    body: bytes = b""


class TooLarge(Exception):
    """The body is above Kestrel's limit."""


class Gone(Exception):
    """The client left before its body was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name; None when there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def read_body(receive: Receive) -> bytes:
    """The whole body of the request.

    Raises:
        TooLarge: it is above `MAX_BODY`.
        Gone: the client left before it was complete.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        whole = bytearray(body)
        while message.get("more_body"):
            message = await receive()
            whole += message.get("body", b"")
            if len(whole) > MAX_BODY:
                raise TooLarge
        body = bytes(whole)
    if message["type"] == "http.disconnect":
        raise Gone
    return body


async def send_answer(send: Send, answer: Answer) -> None:
    """*answer* has gone out."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
