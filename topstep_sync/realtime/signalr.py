"""The JSON hub protocol of SignalR, without I/O: bytes in, messages out; calls in, text out.

Source: ASP.NET Core, HubProtocol.md and TransportProtocols.md, and the official clients, 2026-11.

A record is one JSON object followed by 0x1E. The transport cuts where it likes: a message may carry many records,
and a record may span messages, so what is left over is kept for the next call.

Records that a *fast decoder* knows come out as whatever it makes of their arguments; a whole batch is decoded in
one call, because the call costs more than a record. JSON strings cannot hold a raw 0x1E, so putting a comma in its
place turns the batch into one array.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

import msgspec

RECORD_SEPARATOR: Final = b"\x1e"

# Version 1 is what every server accepts; 2 adds stateful reconnect, which needs the negotiation we skip.
HANDSHAKE: Final = '{"protocol":"json","version":1}\x1e'
PING: Final = '{"type":6}\x1e'
CLOSE: Final = '{"type":7}\x1e'

# What msgspec raises: its own, UnicodeDecodeError (a ValueError), and RecursionError for deep nesting.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_arguments: Final = attrgetter("arguments")

_NO_RESULT: Final = "Client didn't provide a result."  # the official clients' words


class Handshake(msgspec.Struct, frozen=True):
    """The server's answer to the handshake; refused when `error` is set."""

    error: str | None = None


class Invocation(msgspec.Struct, frozen=True):
    """The server calls *target*. One with an `invocation_id` wants a completion."""

    target: str
    arguments: list[Any]
    invocation_id: str | None = None


class StreamItem(msgspec.Struct, frozen=True):
    """One item of a streaming call."""

    invocation_id: str
    item: Any


class Completion(msgspec.Struct, frozen=True):
    """A call ended, with a result (null for a void method) or an error."""

    invocation_id: str
    result: Any = None
    error: str | None = None


class Close(msgspec.Struct, frozen=True):
    """The server ends the connection."""

    error: str | None = None
    allow_reconnect: bool = False


class Ignored(msgspec.Struct, frozen=True):
    """A record of a type this client does not know, or has no use for."""

    type: int


class Batch(list[Any]):
    """What a fast decoder made of records that followed each other."""


class Fault(msgspec.Struct, frozen=True):
    """The peer broke the protocol. Always the last message: nothing after it can be trusted."""

    reason: str


Message = Batch | Handshake | Invocation | StreamItem | Completion | Close | Ignored | Fault


class FastRecord(Protocol):
    """What a fast decoder makes of one record."""

    arguments: Any


class FastDecoder(Protocol):
    """Decodes an array of records; raises `msgspec.ValidationError` at the first it does not know."""

    def decode(self, buf: bytes, /) -> Sequence[FastRecord]: ...


class HubProtocol:
    """One connection's reading side. Feed it whole messages of the transport, in order; belongs to one thread."""

    def __init__(self, fast: FastDecoder | None = None, limit: int = 16 * 1024 * 1024) -> None:
        self._fast = fast
        self._limit = limit
        self._rest = b""
        self._handshaken = False

    @property
    def between(self) -> bool:
        """Whether the next byte begins a record, and the handshake is done."""
        return self._handshaken and not self._rest

    def receive(self, data: bytes) -> list[Message]:
        """The messages that *data* completes, oldest first; what the fast decoder made comes in `Batch`es.

        However the bytes are cut, the same messages come out. A `Fault` is the last one there ever is.
        """
        if self._rest:
            data = self._rest + data
        elif self._handshaken and data.endswith(RECORD_SEPARATOR):  # nearly always
            return self._records(data[:-1])
        end = data.rfind(RECORD_SEPARATOR)
        self._rest = data[end + 1 :]
        if len(self._rest) > self._limit:
            return [Fault(f"a record is longer than {self._limit} bytes")]
        if end < 0:
            return []
        if self._handshaken:
            return self._records(data[:end])
        first, separator, others = data[:end].partition(RECORD_SEPARATOR)
        answer = _handshake(first)
        if isinstance(answer, Fault) or answer.error is not None:
            return [answer]
        self._handshaken = True
        return [answer, *self._records(others)] if separator else [answer]

    def _records(self, body: bytes) -> list[Message]:
        """The messages of *body*, records with separators between them and none at the end."""
        batch = self.batch(body)
        return [batch] if batch else self._one_by_one(body)

    def batch(self, body: bytes) -> Batch | None:
        """What the fast decoder makes of the records of *body*, with separators between them; `None` when it does not
        know them all."""
        if self._fast is None:
            return None
        array = body.replace(RECORD_SEPARATOR, b", ")  # two bytes for one, so the length counts them: `count` is slower
        separators = len(array) - len(body)
        try:
            records = self._fast.decode(b"[" + array + b"]")
        except _UNREADABLE:
            return None
        # A record that is no single JSON value could pass as two; then the counts differ.
        return Batch(map(_arguments, records)) if len(records) == separators + 1 else None

    def _one_by_one(self, body: bytes) -> list[Message]:
        messages: list[Message] = []
        for raw in body.split(RECORD_SEPARATOR):
            if self._fast is not None:
                try:
                    (record,) = self._fast.decode(b"[" + raw + b"]")
                except _UNREADABLE:
                    pass
                else:
                    if not (messages and isinstance(messages[-1], Batch)):
                        messages.append(Batch())
                    messages[-1].append(record.arguments)  # type: ignore[union-attr]
                    continue
            message = general(raw)
            if message is not None:
                messages.append(message)
            if isinstance(message, Fault):
                break
        return messages


def general(raw: bytes) -> Message | None:
    """What one record says; `None` for a ping, which only proves that the peer lives."""
    try:
        record = msgspec.json.decode(raw)
    except _UNREADABLE as error:
        return Fault(f"a record is not JSON: {error}")
    if not isinstance(record, dict) or type(record.get("type")) is not int:
        return Fault("a record is not an object with a whole number as its type")
    try:
        reader = _READERS.get(record["type"])
        return reader(record) if reader else Ignored(record["type"])
    except msgspec.ValidationError as error:
        return Fault(f"a record of type {record['type']} is malformed: {error}")


def _handshake(raw: bytes) -> Handshake | Fault:
    try:
        answer = msgspec.json.decode(raw)
    except _UNREADABLE:
        answer = None
    if not isinstance(answer, dict) or "type" in answer:
        return Fault("the first record is not an answer to the handshake")
    error = answer.get("error")
    return Handshake(None if error is None else str(error))


# The official .NET client sends and expects these names; unknown fields, headers included, are ignored.
class _Invocation(msgspec.Struct, rename="camel"):
    target: str
    arguments: list[Any]
    invocation_id: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    invocation_id: str
    item: Any = None
    result: Any = None
    error: str | None = None


class _Close(msgspec.Struct, rename="camel"):
    error: str | None = None
    allow_reconnect: bool | None = None


def _read_invocation(record: dict[str, Any]) -> Message:
    read = msgspec.convert(record, _Invocation)
    return Invocation(read.target, read.arguments, read.invocation_id)


def _read_item(record: dict[str, Any]) -> Message:
    read = msgspec.convert(record, _Answer)
    return StreamItem(read.invocation_id, read.item)


def _read_completion(record: dict[str, Any]) -> Message:
    read = msgspec.convert(record, _Answer)
    return Completion(read.invocation_id, read.result, read.error)


def _read_ping(_: dict[str, Any]) -> None:
    return None


def _read_close(record: dict[str, Any]) -> Message:
    read = msgspec.convert(record, _Close)
    return Close(read.error, read.allow_reconnect is True)


_READERS: Final = {1: _read_invocation, 2: _read_item, 3: _read_completion, 6: _read_ping, 7: _read_close}


########################################### what the client sends ###########################################


def invocation(target: str, arguments: Sequence[Any], invocation_id: str | None = None) -> str:
    """The record that calls *target*; the hub answers it when it carries an id."""
    return _call(1, target, arguments, invocation_id)


def stream_invocation(target: str, arguments: Sequence[Any], invocation_id: str) -> str:
    """The record that starts a streaming call of *target*."""
    return _call(4, target, arguments, invocation_id)


def cancel_invocation(invocation_id: str) -> str:
    """The record that ends a streaming call."""
    return _encode({"type": 5, "invocationId": invocation_id})


def completion(invocation_id: str, result: Any = None, error: str | None = None) -> str:
    """The record that answers a call of the server's."""
    ending = {"result": result} if error is None else {"error": error}
    return _encode({"type": 3, "invocationId": invocation_id, **ending})


def no_result(invocation_id: str) -> str:
    """The answer to a call nobody here has a result for."""
    return completion(invocation_id, error=_NO_RESULT)


def _call(kind: int, target: str, arguments: Sequence[Any], invocation_id: str | None) -> str:
    record: dict[str, Any] = {"type": kind, "target": target, "arguments": list(arguments)}
    if invocation_id is not None:
        record["invocationId"] = invocation_id
    return _encode(record)


def _encode(record: dict[str, Any]) -> str:
    return msgspec.json.encode(record).decode() + "\x1e"
