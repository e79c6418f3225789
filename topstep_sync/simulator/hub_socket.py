"""A hub connection's WebSocket on its TCP transport: the upgrade, frames both ways, and every way to break them."""

import asyncio
import codecs
import logging
import socket
import struct
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

from topstep_sync.simulator import hub_frames as frames
from topstep_sync.simulator.hub_link import Link

log = logging.getLogger("topstep_sync.simulator")

RST: Final = struct.pack("ii", 1, 0)  # linger on, no time: the kernel sends RST instead of FIN

_UTF8: Final = codecs.getincrementaldecoder("utf-8")

# What a client that does not read may make the simulator keep, before it is given up.
_MAX_UNSENT: Final = 64 * 1024 * 1024
# Seconds a client has to answer a WebSocket close: ASP.NET Core's CloseTimeout.
_CLOSE_TIMEOUT: Final = 5.0


class Upgrade(NamedTuple):
    """A request to become a WebSocket."""

    path: str
    """Lower case, without a slash at its end."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    """By lower-case name."""
    port: int
    """The client's."""

    @property
    def token(self) -> str | None:
        """The bearer: of the query first, then of the header; None for none."""
        named = self.query.get("access_token", [""])[0]
        if named:
            return named
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() or None if scheme.lower() == "bearer" else None


class Refusal(NamedTuple):
    """An upgrade that is answered by something else than 101."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    how: str = "answer"
    """Or `reset`, `fin`: the connection ends without one; `silence`: it stays open without one."""


class Door(Protocol):
    """What a socket asks of the hubs."""

    def admit(self, upgrade: Upgrade, socket: "HubSocket") -> Link | Refusal:
        """The connection's link, or why there is none."""
        ...

    def left(self, link: Link) -> None:
        """The link's TCP connection has ended."""
        ...

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        ...


def parse_upgrade(head: bytes, port: int) -> Upgrade:
    """The request whose head (up to the empty line) is *head*."""
    first, *lines = head.decode("latin-1").split("\r\n")
    target = first.split(" ")[1]
    path, _, query = target.partition("?")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Upgrade(unquote(path).rstrip("/").lower(), parse_qs(query), headers, port)


class HubSocket(asyncio.Protocol):
    """What uvicorn hands an upgraded connection to: `connection_made`, then the request's head as data."""

    def __init__(self, door: Door, connections: set[Any]) -> None:
        self._door = door
        self._connections = connections
        self._head = b""
        self._reader = frames.FrameReader()
        self._in_message = False
        self._text: codecs.IncrementalDecoder | None = None
        self._deaf = False  # the half-open connection: nothing is read, nothing is sent
        self._closing: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.link: Link | None = None
        self.fragment = 0
        """Messages longer than this many bytes go out in fragments of that size; 0: never."""
        self.transport: Any = None

    ############################################# asyncio's side #############################################

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._connections.add(self)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._writable.set()
        if self._closing:
            self._closing.cancel()
        if self.link:
            self.link.gone()
            self._door.left(self.link)

    def eof_received(self) -> bool:
        return False  # the framework answers a FIN by its own

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.link is None:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._upgrade(head)
            data = rest
        if self.link is not None and data:
            self._frames(data)

    ################################################ upgrade ################################################

    def _upgrade(self, head: bytes) -> None:
        peer = self.transport.get_extra_info("peername") or ("", 0)
        upgrade = parse_upgrade(head, peer[1])
        admitted = self._door.admit(upgrade, self)
        if isinstance(admitted, Refusal):
            self._refuse(admitted)
            return
        self.link = admitted
        accept = frames.accept_key(upgrade.headers.get("sec-websocket-key", "").encode("latin-1")).decode()
        self._answer(101, (("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept)))

    def _answer(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        lines = [f"HTTP/1.1 {status} {_reason(status)}", "Server: Kestrel"]
        lines += [f"{name}: {value}" for name, value in headers]
        if status != 101:
            lines.append("Content-Length: 0")
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.how == "silence":
            self._deaf = True
        elif refusal.how == "answer":
            self._answer(refusal.status, (*refusal.headers, ("Connection", "close")))
            self.transport.close()
        else:
            self.cut(reset=refusal.how == "reset")

    ################################################ inbound ################################################

    def _frames(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._frame(frame)
        except frames.FrameError as error:
            log.info("! hub: %s", error)
            self.transport.write(frames.encode_close(error.code))
            self.transport.close()

    def _frame(self, frame: frames.Frame) -> None:
        if frame.opcode == frames.PING:
            self.transport.write(frames.encode_frame(frame.payload, frames.PONG))
        elif frame.opcode == frames.CLOSE:
            self._closed(frame)
        elif frame.opcode != frames.PONG:
            if (frame.opcode == frames.CONTINUATION) is not self._in_message:
                raise frames.FrameError("a fragment without a message, or a message within a message")
            if frame.opcode != frames.CONTINUATION:
                self._text = _UTF8() if frame.opcode == frames.TEXT else None
            self._in_message = not frame.fin
            self._check_text(frame)
            if self.link:
                self.link.receive(frame.payload, self._door.now())

    def _check_text(self, frame: frames.Frame) -> None:
        if self._text is None:
            return
        try:
            self._text.decode(frame.payload, frame.fin)
        except UnicodeDecodeError as error:
            raise frames.FrameError(f"a text message is not UTF-8: {error}", frames.BAD_DATA) from error

    def _closed(self, frame: frames.Frame) -> None:
        if self._closing is None:
            code = frames.PROTOCOL_ERROR if len(frame.payload) == 1 else frames.NORMAL
            self.transport.write(frames.encode_close(code))
        self.transport.close()

    ################################################ outbound ################################################

    def send(self, message: bytes) -> None:
        """*message* goes out, in fragments if it is long."""
        if self._deaf or self.transport.is_closing():
            return
        if 0 < self.fragment < len(message):
            self.transport.write(frames.encode_fragments(message, self.fragment))
        else:
            self.transport.write(frames.frame_head(len(message)) + message)
        if self.transport.get_write_buffer_size() > _MAX_UNSENT:
            log.warning("! hub: a client left more than %d bytes unread, it is cut", _MAX_UNSENT)
            self.transport.abort()

    def finish(self) -> None:
        """A WebSocket close has gone out, and TCP ends when the client has answered it, or after five seconds."""
        if self._deaf or self.transport.is_closing() or self._closing is not None:
            return
        self.transport.write(frames.encode_close())
        self._closing = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self.transport.close)

    async def drain(self) -> None:
        """The transport has room again, or the connection is over."""
        await self._writable.wait()

    async def send_bytes(self, data: bytes) -> bool:
        """*data*, frames and all, has been taken by the transport; False when the connection is over."""
        if self._deaf or self.transport.is_closing():
            return False
        self.transport.write(data)
        await self._writable.wait()
        return not self.transport.is_closing()

    def cut(self, *, reset: bool) -> None:
        """The TCP connection has ended without a word: by RST, or by FIN after what was sent."""
        if not reset:
            self.transport.close()
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.transport.abort()

    def silence(self) -> None:
        """Nothing is read or sent any more, though TCP stays: what a dead path looks like from the client."""
        self._deaf = True  # reading goes on, into nothing, so that a client that leaves is noticed


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
