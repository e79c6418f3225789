"""WebSocket frames as a server reads and writes them (RFC 6455), without a socket.

A library would repair what the simulator must be able to break: where fragments are cut, what is sent after a Close.
"""

import base64
import hashlib
from typing import Final, NamedTuple

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
BAD_DATA: Final = 1007
TOO_BIG: Final = 1009

MOST: Final = 16 * 1024 * 1024
"""Bytes a frame may have. The framework has no such limit, but hands on what has arrived; here frames are collected."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80


class FrameError(Exception):
    """The peer broke the WebSocket protocol; `code` is what the connection closes with."""

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class Frame(NamedTuple):
    """One frame, unmasked."""

    opcode: int
    fin: bool
    payload: bytes


def accept_key(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers the client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - the RFC's choice, not a secret


def frame_head(length: int, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """The bytes before a payload of *length* bytes."""
    first = opcode | (_FIN if fin else 0)
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def encode_frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """One frame, unmasked as a server must send it."""
    return frame_head(len(payload), opcode, fin=fin) + payload


def encode_fragments(payload: bytes, size: int, opcode: int = TEXT) -> bytes:
    """One message in fragments of *size* bytes, wherever that cuts, ended by an empty final frame.

    Source: ASP.NET Core's WebSocketsServerTransport, which sends the segments of a pipe so.
    """
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    frames = [encode_frame(part, CONTINUATION if i else opcode, fin=False) for i, part in enumerate(parts)]
    return b"".join(frames) + encode_frame(b"", CONTINUATION if parts else opcode)


def encode_close(code: int = NORMAL, reason: str = "") -> bytes:
    """The frame that closes a connection."""
    return encode_frame(code.to_bytes(2, "big") + reason.encode()[:123], CLOSE)


class FrameReader:
    """Turns what arrives into frames. Checks each frame, not their sequence."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now.

        Raises:
            FrameError: reserved bits, an unknown opcode, no mask, or a control frame that is long or fragmented.
        """
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        self._check(first, second)
        length, at = second & 0x7F, 2
        if length >= 126:
            at = 4 if length == 126 else 10
            if len(buffer) < at:
                return None
            length = int.from_bytes(buffer[2:at], "big")
            if length > MOST:
                raise FrameError(f"a frame of {length} bytes; {MOST} are the most", TOO_BIG)
        end = at + 4 + length
        if len(buffer) < end:
            return None
        payload = _unmask(bytes(buffer[at + 4 : end]), bytes(buffer[at : at + 4]))
        del buffer[:end]
        return Frame(first & 0x0F, bool(first & _FIN), payload)

    def _check(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & _RESERVED:
            raise FrameError("a reserved bit is set, though no extension was agreed")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(f"unknown opcode {opcode}")
        if not second & _MASKED:
            raise FrameError("a client's frame must be masked")
        if opcode >= CLOSE and (not first & _FIN or second & 0x7F > 125):
            raise FrameError("a control frame must be whole and at most 125 bytes")


def _unmask(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    if not length:
        return payload
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
