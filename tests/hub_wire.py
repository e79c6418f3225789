"""A WebSocket client that does exactly what it is told: raw bytes in and out, no help, no repair.

Well-behaved libraries hide what a hub really sends (fragments, close codes, bytes after a Close), so the tests of the
hubs speak through this one. Blocking; every read is bounded.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

RS = "\x1e"
HANDSHAKE = '{"protocol":"json","version":1}' + RS


@dataclass
class Frame:
    """One frame as it stood on the wire."""

    opcode: int
    fin: bool
    payload: bytes


class Refused(Exception):
    """The upgrade was answered by something else than 101."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"{status} {headers}")
        self.status, self.headers, self.body = status, headers, body


class Ended(Exception):
    """The connection is over: ``close`` with its code, ``fin`` or ``rst``."""

    def __init__(self, how: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(f"{how} {code or ''} {reason}".strip())
        self.how, self.code, self.reason = how, code, reason


class Wire:
    """One upgraded connection to a hub; `url` is the hub's http or ws address."""

    def __init__(
        self, url: str, token: str | None = None, *, by: str = "query", timeout: float = 5.0, extra: str = ""
    ) -> None:
        self.timeout = timeout
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        path = parts.path + (f"?access_token={quote(token)}" if token is not None and by == "query" else "")
        if parts.query:
            path += ("&" if "?" in path else "?") + parts.query
        self.sock = socket.create_connection((parts.hostname, parts.port), timeout=timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extra}"
        if token is not None and by == "header":
            head += f"Authorization: Bearer {token}\r\n"
        self.buffer = b""
        self.sock.sendall(head.encode() + b"\r\n")
        try:
            self.status, self.headers = self._head()
        except BaseException:
            self.sock.close()
            raise
        self.records: list[dict[str, Any]] = []
        self._partial = b""
        if self.status != 101:
            body = self._body()
            self.sock.close()
            raise Refused(self.status, self.headers, body)

    def _head(self) -> tuple[int, dict[str, str]]:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        return int(lines[0].split()[1]), {
            name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])
        }

    def _body(self) -> bytes:
        length = int(self.headers.get("content-length", 0))
        while len(self.buffer) < length:
            self._more()
        return self.buffer[:length]

    def _more(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            raise Ended("rst") from None
        if not data:
            raise Ended("fin")
        self.buffer += data

    def send_frame(self, payload: bytes, opcode: int = 1, *, fin: bool = True, mask: bool = True) -> None:
        head = bytes([opcode | (0x80 if fin else 0)])
        bit = 0x80 if mask else 0
        if len(payload) < 126:
            head += bytes([bit | len(payload)])
        elif len(payload) < 65536:
            head += struct.pack("!BH", bit | 126, len(payload))
        else:
            head += struct.pack("!BQ", bit | 127, len(payload))
        if mask:
            key = os.urandom(4)
            repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
            head += key
        self.sock.sendall(head + payload)

    def send(self, *records: Any) -> None:
        """Send *records* in one message; text as it is, anything else as JSON."""
        text = "".join(record if isinstance(record, str) else json.dumps(record) + RS for record in records)
        self.send_frame(text.encode())

    def invoke(self, target: str, *arguments: Any, id_: str | None = "1") -> None:
        record: dict[str, Any] = {"type": 1, "target": target, "arguments": list(arguments)}
        self.send(record if id_ is None else {**record, "invocationId": id_})

    def frame(self) -> Frame:
        """The next frame, whatever it is."""
        need = 2
        while True:
            if len(self.buffer) >= need:
                first, second = self.buffer[0], self.buffer[1]
                length, at = second & 0x7F, 2
                if length == 126:
                    at = 4
                elif length == 127:
                    at = 10
                if len(self.buffer) >= at:
                    if at > 2:
                        length = int.from_bytes(self.buffer[2:at], "big")
                    if len(self.buffer) >= at + length:
                        payload = self.buffer[at : at + length]
                        self.buffer = self.buffer[at + length :]
                        return Frame(first & 0x0F, bool(first & 0x80), payload)
                    need = at + length
                else:
                    need = at
            self._more()

    def message(self) -> bytes:
        """The payload of the next whole data message; raises `Ended` when the connection is over instead."""
        parts = []
        while True:
            frame = self.frame()
            if frame.opcode == 8:
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else None
                raise Ended("close", code, frame.payload[2:].decode())
            if frame.opcode in (9, 10):
                continue
            parts.append(frame.payload)
            if frame.fin:
                return b"".join(parts)

    def record(self) -> Any:
        """The next record, parsed."""
        while b"\x1e" not in self._partial:
            self._partial += self.message()
        one, self._partial = self._partial.split(b"\x1e", 1)
        return json.loads(one)

    def record_of(self, kind: int) -> Any:
        """The next record of that type; others are skipped."""
        while True:
            found = self.record()
            if found.get("type") == kind:
                return found

    def result(self, target: str, *arguments: Any, id_: str = "1") -> Any:
        """The completion of one invocation."""
        self.invoke(target, *arguments, id_=id_)
        while True:
            found = self.record_of(3)
            if found["invocationId"] == id_:
                return found

    def handshake(self, text: str = HANDSHAKE) -> Any:
        self.send(text)
        return self.record()

    def quiet(self, seconds: float) -> bool:
        """Whether nothing at all arrives for *seconds*."""
        if self.buffer:
            return False
        self.sock.settimeout(seconds)
        try:
            self._more()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(self.timeout)
        return False

    def swallow(self, count: int) -> None:
        """*count* records have ended."""
        seen, brace = 0, False
        while seen < count:
            data = self.sock.recv(1 << 20)
            if not data:
                raise Ended("fin")
            # With the brace before it, for a frame's head may hold the same byte: 286 is 0x011E.
            seen += data.count(b"}\x1e") + (brace and data.startswith(b"\x1e"))
            brace = data.endswith(b"}")

    def until_end(self) -> tuple[list[Any], Ended]:
        """Every record up to the end, and the end."""
        found = []
        try:
            while True:
                found.append(self.record())
        except Ended as end:
            return found, end

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def opened(url: str, token: str | None = None, **options: Any) -> Wire:
    """A connection with its handshake done."""
    wire = Wire(url, token, **options)
    assert wire.handshake() == {}
    return wire


def wait_until(condition: Any, seconds: float = 5.0) -> None:
    """Return once `condition()` is true; fail after *seconds*."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)
