"""A hub that does exactly what a test tells it, and nothing else: raw bytes, any order, any mistake.

Well-behaved servers never send half a frame, a masked one, or a wrong Sec-WebSocket-Accept. Every read is bounded.
"""

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import sys
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

from topstep_sync.realtime.baton import Baton
from topstep_sync.realtime.queue import EventQueue

RS = b"\x1e"
PATIENCE = 5.0
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(payload: bytes | str, opcode: int = 1, fin: bool = True, mask: bool = False, rsv: int = 0) -> bytes:
    """One WebSocket frame, right or wrong."""
    data = payload.encode() if isinstance(payload, str) else payload
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(data))
    return head + (bytes(4) if mask else b"") + data


def record(**fields: Any) -> bytes:
    """One record of the hub protocol."""
    return json.dumps(fields).encode() + RS


def call(target: str, *arguments: Any, **more: Any) -> bytes:
    """An invocation by the server."""
    return record(type=1, target=target, arguments=list(arguments), **more)


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._bytes = b""
        self._records: list[dict[str, Any]] = []
        self.request: list[str] = []
        self.path = ""
        self.token: str | None = None
        self.headers: dict[str, str] = {}
        self.pongs: list[bytes] = []
        self.pings: list[bytes] = []
        self.close_code: int | None = None

    def _read(self, size: int) -> bytes:
        while len(self._bytes) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._bytes += data
        found, self._bytes = self._bytes[:size], self._bytes[size:]
        return found

    def read_request(self) -> "Peer":
        """The client's upgrade request is read."""
        while b"\r\n\r\n" not in self._bytes:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._bytes += data
        head, _, self._bytes = self._bytes.partition(b"\r\n\r\n")
        self.request = head.decode().split("\r\n")
        self.path = self.request[0].split()[1]
        self.token = parse_qs(urlsplit(self.path).query).get("access_token", [None])[0]
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in self.request[1:])}
        return self

    def answer(self, status: str = "101 Switching Protocols", accept: str | None = None, more: bytes = b"") -> "Peer":
        """The upgrade is answered; *more* follows in the same segment."""
        key = self.headers["sec-websocket-key"].encode()
        right = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
        lines = [f"HTTP/1.1 {status}"]
        if status.startswith("101"):
            lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept or right}"]
        else:
            lines += ["Content-Length: 0", "X-Request: 7101"]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + more)
        return self

    def raw(self, data: bytes) -> None:
        """Bytes, as they are."""
        self.sock.sendall(data)

    def send(self, *records: bytes) -> None:
        """Records, in one message."""
        self.raw(frame(b"".join(records)))

    def read_frame(self) -> tuple[int, bytes]:
        """The client's next frame: opcode and payload."""
        first, second = self._read(2)
        length = second & 127
        if length == 126:
            length = int.from_bytes(self._read(2), "big")
        elif length == 127:
            length = int.from_bytes(self._read(8), "big")
        assert second & 128, "a client must mask its frames"
        mask = self._read(4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(self._read(length)))
        return first & 15, data

    def read_record(self) -> dict[str, Any]:
        """The client's next record; pings, pongs and the closing frame are noted on the way."""
        while not self._records:
            opcode, data = self.read_frame()
            if opcode == 9:
                self.pings.append(data)
                self.raw(frame(data, 10))
            elif opcode == 10:
                self.pongs.append(data)
            elif opcode == 8:
                self.close_code = int.from_bytes(data[:2], "big")
                raise EOFError
            else:
                self._records += [json.loads(part) for part in data.split(RS)[:-1]]
        return self._records.pop(0)

    def read_call(self, target: str | None = None) -> dict[str, Any]:
        """The client's next call; pings are passed over."""
        while True:
            found = self.read_record()
            if found["type"] in (1, 4) and (target is None or found["target"] == target):
                return found

    def shake(self) -> "Peer":
        """The handshake is asked for and given."""
        assert {"protocol": "json", "version": 1} == self.read_record()
        self.send(b"{}" + RS)
        return self

    def agree(self, count: int) -> list[str]:
        """The next *count* calls are answered; what they were."""
        found = []
        for _ in range(count):
            asked = self.read_call()
            found.append(f"{asked['target']}({', '.join(map(str, asked['arguments']))})")
            self.send(record(type=3, invocationId=asked["invocationId"], result=None))
        return found

    def until_end(self) -> str:
        """How the client ended the connection: ``close`` (with `close_code`), ``fin`` or ``rst``."""
        try:
            while True:
                self.read_record()
        except EOFError:
            return "fin" if self.close_code is None else "close"
        except ConnectionResetError:
            return "rst"

    def rst(self) -> None:
        """The connection is reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def fin(self) -> None:
        """The connection is ended without a word."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class RudeHub:
    """Listens on a free port of 127.0.0.1; every connection is accepted by hand."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/hub"
        self.peers: list[Peer] = []

    def tcp(self) -> Peer:
        """The next connection, with nothing read from it."""
        sock, _ = self._listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True)
        self.peers.append(peer := Peer(sock))
        return peer

    def upgraded(self) -> Peer:
        """The next connection, upgraded."""
        return self.tcp().read_request().answer()

    def shaken(self) -> Peer:
        """The next connection, with the handshake done."""
        return self.upgraded().shake()

    def silent(self, seconds: float) -> bool:
        """Whether nobody connects for so long."""
        self._listener.settimeout(seconds)
        try:
            self.peers.append(Peer(self._listener.accept()[0]))
        except TimeoutError:
            return True
        finally:
            self._listener.settimeout(PATIENCE)
        return False

    def stop_listening(self) -> None:
        """New connections are refused from here on."""
        self._listener.close()

    def listen_again(self) -> None:
        """New connections are accepted again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener.settimeout(PATIENCE)

    def __enter__(self) -> "RudeHub":
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.close()


def waiters(events: EventQueue) -> int:
    """How many threads wait for something to come into *events*."""
    frames = sys._current_frames().values()
    return sum(frame.f_code is Baton.wait.__code__ and frame.f_locals["self"] is events._arrived for frame in frames)


def soon(condition: Any, timeout: float = PATIENCE) -> bool:
    """Whether *condition* becomes true in time; looked at a thousand times a second."""
    tick = threading.Event()
    for _ in range(int(timeout * 1000)):
        if condition():
            return True
        tick.wait(0.001)
    return bool(condition())
