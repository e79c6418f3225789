"""The JSON hub protocol as ASP.NET Core's server reads and writes it, without a socket.

Every text below was seen on ASP.NET Core 10.0.12 (2026-11), the error cases with the reference gateway side by side.
"""

import json
from typing import Any, Final, TypeGuard

import msgspec

RECORD_END: Final = b"\x1e"

INVOCATION: Final = 1
STREAM_ITEM: Final = 2
COMPLETION: Final = 3
STREAM_INVOCATION: Final = 4
CANCEL_INVOCATION: Final = 5
PING: Final = 6
CLOSE: Final = 7
ACK: Final = 8
SEQUENCE: Final = 9

HANDSHAKE_OK: Final = b"{}" + RECORD_END
PING_RECORD: Final = b'{"type":6}' + RECORD_END
CLOSED_WITH_ERROR: Final = "Connection closed with an error."
HANDSHAKE_CANCELED: Final = "Handshake was canceled."
HANDSHAKE_FAILED: Final = "An unexpected error occurred during connection handshake."

# The highest version of the hub protocol: 2 is 1 with stateful reconnect. Lower ones, even negative, are taken.
_VERSION: Final = 2

_encode: Final = msgspec.json.Encoder().encode
_TEXTS: Final = ("invocationId", "target", "error")
_NEEDS: Final[dict[int, tuple[str, ...]]] = {
    INVOCATION: ("target", "arguments"),
    STREAM_ITEM: ("invocationId", "item"),
    COMPLETION: ("invocationId",),
    STREAM_INVOCATION: ("invocationId", "target", "arguments"),
    CANCEL_INVOCATION: ("invocationId",),
    PING: (),
    CLOSE: (),
    ACK: ("sequenceId",),
    SEQUENCE: ("sequenceId",),
}


class ProtocolError(Exception):
    """The peer sent what is no record of the protocol: the connection closes with an error."""


class HandshakeError(Exception):
    """The handshake is refused; the text is what the client is told."""


############################################ what arrives ############################################


def read_handshake(record: bytes) -> int:
    """The version the client asks for.

    Raises:
        HandshakeError: with the words of the answer.
    """
    try:
        request = _object(record)
    except ProtocolError as error:
        raise HandshakeError(HANDSHAKE_FAILED) from error
    protocol, version = request.get("protocol"), request.get("version")
    if not is_text(protocol) or not _is_int(version):
        raise HandshakeError(HANDSHAKE_FAILED)
    if protocol.lower() != "json":
        raise HandshakeError(f"The protocol '{protocol}' is not supported.")
    if version > _VERSION:
        raise HandshakeError(f"The server does not support version {version} of the '{protocol}' protocol.")
    return version


def read_record(record: bytes) -> dict[str, Any] | None:
    """The record (without its end) as a checked mapping; None when its type is unknown.

    Raises:
        ProtocolError: it is not JSON, or a property is missing or of the wrong type.
    """
    found = _object(record)
    kind = found.get("type")
    if not _is_int(kind):
        raise ProtocolError("'type' is missing or not an integer")
    for name in _TEXTS:
        if name in found and not is_text(found[name]):
            raise ProtocolError(f"'{name}' is not a string")
    needs = _NEEDS.get(kind)
    if needs is None:
        return None
    missing = [name for name in needs if name not in found]
    if missing:
        raise ProtocolError(f"'{missing[0]}' is missing")
    if "arguments" in found and not isinstance(found["arguments"], list):
        raise ProtocolError("'arguments' is not an array")
    if kind == COMPLETION and "error" in found and "result" in found:
        raise ProtocolError("'error' and 'result' exclude each other")
    return found


def _object(record: bytes) -> dict[str, Any]:
    try:
        text = record.decode()
        # What follows the object is ignored, as the framework's reader stops at its end.
        found, _ = _DECODER.raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ProtocolError("not a JSON object")
    return found


def is_text(value: object) -> TypeGuard[str]:
    """Whether *value* is a string that can be sent: half a surrogate pair, which JSON can spell, cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value))


def _refuse(literal: str) -> Any:
    raise ValueError(f"{literal} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


############################################ what is sent ############################################


def handshake_error(text: str) -> bytes:
    """The answer to a handshake that is refused."""
    return _encode({"error": text}) + RECORD_END


def invocation(target: str, arguments: Any, invocation_id: str | None = None) -> bytes:
    """A call of the client's method *target*; with an id, one that the client must answer."""
    head: dict[str, Any] = {"type": INVOCATION}
    if invocation_id is not None:
        head["invocationId"] = invocation_id
    return _encode(head | {"target": target, "arguments": arguments}) + RECORD_END


def result(invocation_id: str, value: Any) -> bytes:
    """The answer to a call; a method without a result answers null."""
    return _encode({"type": COMPLETION, "invocationId": invocation_id, "result": value}) + RECORD_END


def failure(invocation_id: str, error: str) -> bytes:
    """The answer to a call that failed."""
    return _encode({"type": COMPLETION, "invocationId": invocation_id, "error": error}) + RECORD_END


def stream_item(invocation_id: str, item: Any) -> bytes:
    """One item of a stream the client asked for."""
    return _encode({"type": STREAM_ITEM, "invocationId": invocation_id, "item": item}) + RECORD_END


def stream_end(invocation_id: str) -> bytes:
    """The end of a stream."""
    return _encode({"type": COMPLETION, "invocationId": invocation_id}) + RECORD_END


def close(error: str | None = None, *, allow_reconnect: bool = False) -> bytes:
    """The last record of a connection."""
    record: dict[str, Any] = {"type": CLOSE}
    if error is not None:
        record["error"] = error
    if allow_reconnect:
        record["allowReconnect"] = True
    return _encode(record) + RECORD_END


def unknown_method(target: str) -> str:
    """What a call of a method that does not exist fails with."""
    return f"Failed to invoke '{target}' due to an error on the server. HubException: Method does not exist."


def bad_arguments(target: str) -> str:
    """What a call with the wrong number or types of arguments fails with."""
    return f"Failed to invoke '{target}' due to an error on the server."


def surplus_streams(target: str, count: int) -> str:
    """What a call fails with that brings streams of its own."""
    return hub_exception(target, f"Client sent {count} stream(s), Hub method expects 0.")


def hub_exception(target: str, text: str | None) -> str:
    """What a call fails with whose method raised; *text* is told only of a deliberate error."""
    start = f"An unexpected error occurred invoking '{target}' on the server."
    return start if text is None else f"{start} HubException: {text}"


def not_streaming(target: str) -> str:
    """What a streaming call of an ordinary method fails with."""
    return f"The client attempted to invoke the non-streaming '{target}' method with a streaming invocation."


def streaming(target: str) -> str:
    """What an ordinary call of a streaming method fails with."""
    return f"The client attempted to invoke the streaming '{target}' method with a non-streaming invocation."
