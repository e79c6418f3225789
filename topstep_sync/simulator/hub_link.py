"""One hub connection behind its WebSocket: handshake, records, timeouts, end. It has no socket, loop or clock."""

import enum
import itertools
import logging
from collections import deque
from typing import Any, Final, Protocol

from topstep_sync.simulator import hub_dialect as dialect
from topstep_sync.simulator.hub_settings import HubSettings

log = logging.getLogger("topstep_sync.simulator")


class LinkState(enum.Enum):
    """What a connection is waiting for."""

    HANDSHAKE = "handshake"  # the client's first record
    OPEN = "open"  # records
    POISONED = "poisoned"  # nothing: a record of unknown type stands at the head of the buffer for ever
    CLOSING = "closing"  # the client's WebSocket close; what it sends is ignored
    CLOSED = "closed"  # nothing: the TCP connection has ended


class LinkEvent(enum.Enum):
    """What may happen to a connection."""

    ACCEPT = "accept"
    POISON = "poison"
    END = "end"
    GONE = "gone"


TRANSITIONS: Final = {
    (LinkState.HANDSHAKE, LinkEvent.ACCEPT): LinkState.OPEN,
    (LinkState.HANDSHAKE, LinkEvent.END): LinkState.CLOSING,
    (LinkState.HANDSHAKE, LinkEvent.GONE): LinkState.CLOSED,
    (LinkState.OPEN, LinkEvent.POISON): LinkState.POISONED,
    (LinkState.OPEN, LinkEvent.END): LinkState.CLOSING,
    (LinkState.OPEN, LinkEvent.GONE): LinkState.CLOSED,
    (LinkState.POISONED, LinkEvent.END): LinkState.CLOSING,
    (LinkState.POISONED, LinkEvent.GONE): LinkState.CLOSED,
    (LinkState.CLOSING, LinkEvent.GONE): LinkState.CLOSED,
}

# Bytes that may wait for the end of a turn; more go out at once, so that no message grows without bounds.
_MOST_WAITING: Final = 1024 * 1024
_LIVE: Final = (LinkState.OPEN, LinkState.POISONED)


class Pipe(Protocol):
    """What carries a link's messages."""

    def send(self, message: bytes) -> None:
        """*message* goes out as one transport message."""
        ...

    def finish(self) -> None:
        """A WebSocket close goes out, and TCP ends once the client has answered it."""
        ...


class Host(Protocol):
    """What a link asks of the hubs."""

    def opened(self, link: "Link") -> str | None:
        """The handshake is done; an error text closes the connection at once."""
        ...

    def call(self, link: "Link", record: dict[str, Any]) -> None:
        """The client called a method."""
        ...

    def answered(self, link: "Link", record: dict[str, Any]) -> None:
        """The client answered a call, or gave up one of its own."""
        ...

    def dirty(self, link: "Link") -> None:
        """The link has records waiting: `flush` it at the end of this turn."""
        ...


class Link:
    """One connection to one hub. Loop thread only.

    Args:
        token: generation of the token it came with; None for none.
        expires: seconds since 1970 at which that token dies.
        now: seconds of the monotonic clock.
    """

    _numbers = itertools.count(1)

    def __init__(
        self,
        hub: str,
        pipe: Pipe,
        host: Host,
        settings: HubSettings,
        *,
        now: float,
        token: str | None = None,
        expires: float | None = None,
        port: int = 0,
    ) -> None:
        self.id = f"{hub}-{next(Link._numbers)}"
        self.hub = hub
        self.token = token
        self.expires = expires
        self.port = port
        self.since = now
        self.state = LinkState.HANDSHAKE
        self.topics: set[str] = set()
        self.invocations: deque[str] = deque(maxlen=1000)
        """Methods it called, the newest thousand, in order."""
        self.sent = 0
        """Records sent so far."""
        self.refusal: str | None = None
        """When set, the error it is closed with right after its handshake."""
        self.handshake_refusal: str | None = None
        """When set, what the next handshake is refused with."""
        self._pipe = pipe
        self._host = host
        self._settings = settings
        self._buffer = bytearray()
        self._outbox: list[bytes] = []
        self._waiting = 0  # bytes in the outbox
        self._pinged = self._heard = now
        self._armed = False

    @property
    def live(self) -> bool:
        """Whether the handshake is done and the end has not begun."""
        return self.state in _LIVE

    def step(self, event: LinkEvent) -> None:
        """The state is what the table says; a pair it does not know raises KeyError."""
        self.state = TRANSITIONS[self.state, event]

    ############################################## inbound ##############################################

    def receive(self, data: bytes, now: float) -> None:
        """*data*, the payload of whatever frames arrived, has been worked on."""
        if self.state in (LinkState.CLOSING, LinkState.CLOSED):
            return
        self._buffer += data
        if self.state is LinkState.HANDSHAKE:
            self._shake(now)
        if self.state is LinkState.OPEN:
            self._read(now)
        if self.live and len(self._buffer) > self._settings.receive_limit and not self._complete():
            log.info("! hub %s: more than %d bytes without an end", self.id, self._settings.receive_limit)
            self.close(dialect.CLOSED_WITH_ERROR, allow_reconnect=True)

    def _complete(self) -> bool:
        """Whether a record that could still be read stands in the buffer."""
        if self.state is LinkState.POISONED:
            return False
        return 0 <= self._buffer.find(dialect.RECORD_END) < self._settings.receive_limit

    def _take(self) -> bytes | None:
        end = self._buffer.find(dialect.RECORD_END)
        if not 0 <= end < self._settings.receive_limit:
            return None
        record = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return record

    def _shake(self, now: float) -> None:
        record = self._take()
        if record is None:
            if len(self._buffer) > self._settings.receive_limit:
                self._refuse(dialect.HANDSHAKE_CANCELED)
            return
        try:
            dialect.read_handshake(record)
        except dialect.HandshakeError as error:
            self._refuse(str(error))
            return
        if self.handshake_refusal is not None:
            self._refuse(self.handshake_refusal)
            return
        self.step(LinkEvent.ACCEPT)
        self._pinged = self._heard = now
        self.put(dialect.HANDSHAKE_OK)
        refusal = self._host.opened(self)
        if refusal is not None:
            self.close(refusal)

    def _refuse(self, error: str) -> None:
        log.info("! hub %s: handshake refused: %s", self.id, error)
        self.put(dialect.handshake_error(error))
        self._end()

    def _read(self, now: float) -> None:
        while self.state is LinkState.OPEN and (record := self._take()) is not None:
            try:
                found = dialect.read_record(record)
            except dialect.ProtocolError as error:
                log.info("! hub %s: unreadable record: %s", self.id, error)
                self.close(dialect.CLOSED_WITH_ERROR, allow_reconnect=True)
                return
            if found is None:
                # The framework's reader comes back to it with every read, so nothing behind it is ever seen.
                log.info("! hub %s: record of unknown type, nothing is read any more", self.id)
                self._buffer[:0] = record + dialect.RECORD_END
                self.step(LinkEvent.POISON)
                return
            self._heard = now
            self._dispatch(found)

    def _dispatch(self, record: dict[str, Any]) -> None:
        kind = record["type"]
        if kind in (dialect.INVOCATION, dialect.STREAM_INVOCATION):
            self._host.call(self, record)
        elif kind in (dialect.COMPLETION, dialect.CANCEL_INVOCATION):
            self._host.answered(self, record)
        elif kind == dialect.PING:
            self._armed = True
        elif kind == dialect.CLOSE:
            self.close()

    ############################################## outbound ##############################################

    def put(self, record: bytes) -> None:
        """*record*, whole with its end, goes out at the end of this turn."""
        if self.state is LinkState.CLOSED:
            return
        if not self._outbox:
            self._host.dirty(self)
        self._outbox.append(record)
        self._waiting += len(record)
        if self._waiting > _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """What waited has gone out, as many records a message as the settings allow."""
        outbox, self._outbox = self._outbox, []
        self._waiting = 0
        if self.state is LinkState.CLOSED or not outbox:
            return
        self.sent += len(outbox)
        most = self._settings.records_per_message or len(outbox)
        for at in range(0, len(outbox), most):
            self._pipe.send(b"".join(outbox[at : at + most]))

    def close(self, error: str | None = None, *, allow_reconnect: bool = False) -> None:
        """A Close record and a WebSocket close have gone out; nothing more is read."""
        if self.live:
            self.put(dialect.close(error, allow_reconnect=allow_reconnect))
            self._end()

    def _end(self) -> None:
        self.flush()
        self.step(LinkEvent.END)
        self._buffer.clear()
        self._pipe.finish()

    def gone(self) -> None:
        """The TCP connection has ended."""
        if self.state is not LinkState.CLOSED:
            self.step(LinkEvent.GONE)
            self._outbox.clear()
            self._buffer.clear()

    ############################################## time ##############################################

    def tick(self, now: float, epoch: float) -> None:
        """What was due by *now* has happened: ping, client timeout, handshake timeout, token expiry."""
        settings = self._settings
        if self.state is LinkState.HANDSHAKE:
            if 0 < settings.handshake_timeout <= now - self.since:
                self._refuse(dialect.HANDSHAKE_CANCELED)
            return
        if not self.live:
            return
        if self._armed and 0 < settings.client_timeout <= now - self._heard:
            log.info("! hub %s: client silent for %.1f s", self.id, now - self._heard)
            self.close(dialect.CLOSED_WITH_ERROR, allow_reconnect=True)
        elif settings.close_on_expiry and self.expires is not None and epoch >= self.expires:
            self.close(dialect.CLOSED_WITH_ERROR, allow_reconnect=True)
        elif 0 < settings.keep_alive <= now - self._pinged:
            # By the framework: every interval, however much else was sent in it.
            self._pinged = now
            self.put(dialect.PING_RECORD)

    def __repr__(self) -> str:
        return f"Link({self.id!r}, {self.state.value}, topics={len(self.topics)})"
