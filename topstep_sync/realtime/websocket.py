"""websocket-client with a reading side of our own.

The library does what it is good at: the URL, the upgrade and its check, masking, pings, the closing frame. Its way of
reading costs three system calls and some seventy Python calls a frame, so frames are parsed here, out of 64 KiB read
at once: measured 4 times as many a second. The socket never blocks; whoever reads waits for it elsewhere.
"""

import logging
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import quote

import websocket
from websocket import ABNF

from topstep_sync.clock import Clock
from topstep_sync.realtime.channel import Channel
from topstep_sync.realtime.opening import open_channel
from topstep_sync.realtime.waker import Waker
from topstep_sync.redact import RedactingFilter

_log = logging.getLogger("topstep_sync.realtime")
_redacting = RedactingFilter()

# First byte of a frame: FIN and opcode.
TEXT: Final = 0x81
_TEXT_BEGUN: Final = 0x01
_CONTINUED: Final = 0x00
_ENDED: Final = 0x80
_CONTROL: Final = 0x08

HEAD: Final = struct.Struct("!BBH")  # first byte, length or 126 or 127, and the length that follows a 126

LINGER: Final = 0.25  # GUESS: seconds for the peer to read our goodbye; a round trip to another continent


class PeerClosed(Exception):
    """The peer ended the WebSocket or the connection under it."""


class BrokenFrame(Exception):
    """The peer sent a frame that RFC 6455 forbids, or a message that is too long."""


class UpgradeRefused(Exception):
    """The server answered the upgrade with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered the upgrade with status {status}")
        self.status = status


class BufferedWebSocket(websocket.WebSocket):
    """A WebSocket whose reading never blocks. Belongs to one thread."""

    sock: Channel  # type: ignore[assignment]  # all that the library asks of a socket

    def __init__(self, limit: int) -> None:
        # UTF-8 is checked by the JSON decoder; the library's own check is one Python call a byte.
        super().__init__(skip_utf8_validation=True, enable_multithread=False)
        self._limit = limit
        self._buffer = b""
        self._parts: list[bytes] | None = None  # of a message in fragments; None between messages
        self._size = 0
        self._failure: Exception | None = None  # to be told once what came before it is taken
        self._torn = False  # whether the peer has half a frame, after which nothing makes sense to it
        self.heard = False
        """Whether the last `messages` took in any byte, a ping included."""

        self.more = True
        """Whether another `messages` may find something without waiting."""
        self.ponged = False
        """Whether a ping of ours was answered; the reader of this takes it back."""

    @property
    def between(self) -> bool:
        """Whether the next byte begins a message, and nothing was read that was not taken."""
        return not (self.more or self._buffer or self._parts is not None)

    def unread(self, data: bytes | None) -> None:
        """*data*, which who read the channel has no use for, is what `messages` finds next."""
        self.sock.ahead, self.more = data or b"", True

    def messages(self) -> list[bytes]:
        """The whole messages among what has arrived, oldest first; empty when there is none.

        Pings are answered on the way. What came before the end of a connection is returned before the end is told.

        Raises:
            PeerClosed: the peer ended it.
            BrokenFrame: the peer broke the protocol.
        """
        if self._failure is not None:
            raise self._failure
        channel = self.sock
        data = channel.ahead or channel.read()
        channel.ahead = b""
        self.heard, self.more = bool(data), channel.more
        found: list[bytes] = []
        if data:
            if not self._buffer and self._parts is None:
                at = _plain_messages(data, found.append, self._limit)
                if at == len(data):  # nearly always
                    return found
                data = data[at:]
            self._buffer += data
        try:
            self._parse(found)
        except (PeerClosed, BrokenFrame, OSError, websocket.WebSocketException) as error:
            if not found:
                raise
            self.more, self._failure = True, error
        else:
            if data == b"":
                if not found:
                    raise PeerClosed("the connection ended without a closing frame")
                self.more = True
        return found

    def _parse(self, found: list[bytes]) -> None:
        """Append the whole messages of the buffer to *found*. A frame that fails stays."""
        buffer, at, end = self._buffer, 0, len(self._buffer)
        try:
            if self._parts is None:
                at = _plain_messages(buffer, found.append, self._limit)
            while end - at >= 2:
                first, length, start = buffer[at], buffer[at + 1], at + 2
                if length >= 126:
                    start += 2 if length == 126 else 8
                    if length > 127:
                        raise BrokenFrame("the server masked a frame")
                    if start > end:
                        break
                    length = int.from_bytes(buffer[at + 2 : start], "big")
                if length > self._limit:
                    raise BrokenFrame(f"a message is longer than {self._limit} bytes")
                stop = start + length
                if stop > end:
                    break
                if first == TEXT and self._parts is None:
                    found.append(buffer[start:stop])
                else:
                    self._unusual(first, buffer[start:stop], found)
                at = stop
        finally:
            self._buffer = buffer[at:]

    def _unusual(self, first: int, data: bytes, found: list[bytes]) -> None:
        """Take a frame that is a fragment or a control frame; or refuse it."""
        if first & _CONTROL:
            self._control(first, data)
        elif first == _TEXT_BEGUN and self._parts is None:
            self._parts, self._size = [data], len(data)
        elif first in (_CONTINUED, _ENDED) and self._parts is not None:
            self._parts.append(data)
            self._size += len(data)
            if self._size > self._limit:
                raise BrokenFrame(f"a message is longer than {self._limit} bytes")
            if first == _ENDED:
                found.append(b"".join(self._parts))
                self._parts = None
        else:
            raise BrokenFrame(f"a frame that starts with {first:#04x} is out of place")

    def _control(self, first: int, data: bytes) -> None:
        frame = ABNF(first >> 7, first >> 6 & 1, first >> 5 & 1, first >> 4 & 1, first & 15, 0, data)
        try:
            frame.validate(skip_utf8_validation=True)
        except websocket.WebSocketException as error:
            raise BrokenFrame(str(error)) from None
        if len(data) > 125 or not frame.fin:
            raise BrokenFrame("a control frame is fragmented or too long")
        if frame.opcode == ABNF.OPCODE_PING:
            self.pong(data)
        elif frame.opcode == ABNF.OPCODE_PONG:
            self.ponged |= bool(data)
        elif frame.opcode == ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if data else 1005
            words = data[2:].decode("utf-8", "replace")
            raise PeerClosed(f"the server closed the WebSocket with code {code}{f' ({words})' if words else ''}")

    def send_frame(self, frame: ABNF) -> int:
        """*frame* is with the operating system, whole. The library sends every kind of frame by this method."""
        self._torn = True  # until it is whole: a wait for room may be called off
        length: int = super().send_frame(frame)
        self._torn = False
        return length

    def goodbye(self, texts: Iterable[str]) -> None:
        """*texts* and a closing frame are sent, if the peer takes them within `LINGER` seconds; then it is closed."""
        try:
            if self._torn:
                return
            self.sock.sock.settimeout(LINGER)
            self.sock.patient = False
            for text in texts:
                self.send(text)
            self.send_close()
            self.sock.finish(LINGER)
        except (OSError, ValueError, websocket.WebSocketException):
            pass  # it is over either way
        finally:
            self.drop()

    def drop(self) -> None:
        """The socket is closed, without a word."""
        channel, self.connected = self.sock, False
        if channel is not None:
            channel.close()


def _plain_messages(buffer: bytes, append: Callable[[bytes], None], limit: int) -> int:
    """Append the whole, unfragmented messages that *buffer* begins with; return where the first other frame starts.

    The hot loop: one call reads a frame's head. Longer ones than 65 535 bytes, or than *limit*, are left to the loop
    that takes all.
    """
    at, end, head = 0, len(buffer), HEAD.unpack_from
    while at + 4 <= end:
        first, length, extended = head(buffer, at)
        if length == 126:
            length, start = extended, at + 4
        elif length < 126:
            start = at + 2
        else:
            break
        stop = start + length
        if stop > end or first != TEXT or length > limit:
            break
        append(buffer[start:stop])
        at = stop
    return at


def open_websocket(
    url: str,
    token: str | None,
    waker: Waker,
    at: float,
    clock: Clock,
    *,
    limit: int,
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
) -> BufferedWebSocket:
    """A WebSocket to the hub at *url*, open by *at* (monotonic).

    The token travels in the query, as hubs want it where no header can be set.

    Raises:
        UpgradeRefused: the server said no.
        OSError: no connection came about; `TimeoutError` when it took too long.
        Interrupted: `waker.stop()` was called.
    """
    logging.getLogger("websocket").addFilter(_redacting)  # its debug log shows the URL, and with it the token
    channel = open_channel(url, waker, at, clock, tls)
    address = "ws" + url.removeprefix("http").removeprefix("ws")
    if token:
        address += f"{'&' if '?' in address else '?'}access_token={quote(token, safe='')}"
    ws = BufferedWebSocket(limit)
    try:
        ws.connect(address, socket=channel, suppress_origin=True, redirect_limit=0, header=headers or {})  # type: ignore[no-untyped-call]
    except websocket.WebSocketBadStatusException as error:
        raise UpgradeRefused(error.status_code) from None
    except websocket.WebSocketException as error:
        # Its texts quote the server's header, which may hold a cookie.
        raise OSError(f"the upgrade to a WebSocket failed: {type(error).__name__}") from None
    except (ValueError, TypeError, AttributeError) as error:  # what it raises on a garbled reply
        raise OSError(f"the reply to the upgrade makes no sense: {type(error).__name__}") from None
    finally:
        if not ws.connected:
            channel.close()
    return ws
