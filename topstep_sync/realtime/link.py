"""One open hub connection, from the handshake to its end, on the one thread that owns the socket.

Python does not make one TLS socket safe for a reader and a writer at once (measured: 5.6 % of connections lost under
load with two threads, none with one), so everything is done here, in turns: what is due, what others asked for, what
has arrived. Other threads only append to the outbox and wake the owner.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple, Protocol

import websocket

from topstep_sync.clock import FOREVER, SLICE, Clock
from topstep_sync.config import StreamConfig
from topstep_sync.errors import ConnectionLost, Fate, HubError
from topstep_sync.realtime import signalr
from topstep_sync.realtime.calls import Call, Outbox
from topstep_sync.realtime.lifecycle import Ending, State
from topstep_sync.realtime.subscriptions import Step, Subscriptions
from topstep_sync.realtime.waker import Interrupted, Waker
from topstep_sync.realtime.websocket import HEAD, TEXT, BrokenFrame, BufferedWebSocket, PeerClosed

_log = logging.getLogger("topstep_sync.realtime")


_PING = "topstep"  # told from the pongs that ASP.NET sends unasked


class Ended(Exception):
    """The connection, or the attempt at one, is over."""

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending
        self.reason = reason


def _lost(error: Exception) -> Ended:
    return Ended(Ending.LOST, str(error) or type(error).__name__)


class Sink(Protocol):
    """Who is told what arrives. Called on the owner's thread: must be quick, and never block."""

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        """The fast decoder's events, stamped with the two times."""
        ...

    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None:
        """Any other call of the hub's."""
        ...

    def refused(self, step: Step, reason: str) -> None:
        """The hub did not accept a subscription."""
        ...

    def changed(self, state: State, reason: str | None) -> None:
        """The connection is in another state."""
        ...

    def established(self, gap_start: float | None, gap_end: float) -> None:
        """Every subscription is answered; *gap_start* (seconds since 1970) is given after a reconnect."""
        ...

    def due(self, now: float) -> float:
        """Do what is due; return when to be called next."""
        ...


class _Pending(NamedTuple):
    """A call that was sent and waits for its answer."""

    call: Call | Step
    sent: float
    at: float  # by when the answer must be here


class Link:
    """Serves one connection until it ends. Belongs to one thread."""

    def __init__(
        self,
        ws: BufferedWebSocket,
        waker: Waker,
        clock: Clock,
        config: StreamConfig,
        subscriptions: Subscriptions,
        outbox: Outbox,
        sink: Sink,
        fast: signalr.FastDecoder | None,
    ) -> None:
        self._ws, self._waker, self._clock, self._config = ws, waker, clock, config
        self._subscriptions, self._outbox, self._sink = subscriptions, outbox, sink
        self._protocol = signalr.HubProtocol(fast, config.max_message_bytes)
        self._pending: dict[str, _Pending] = {}
        self._ids = 0
        self._handshaken = False
        self._odd_types: set[int] = set()
        self._pinged_at = self._sent_at = self.heard_at = clock.monotonic()
        self.heard_epoch = clock.epoch()
        """When the last byte came in, in both times."""
        self.sure = self._empty = (self.heard_at, self.heard_epoch)
        """A moment before the last byte was sent, in both times: what was sent before it is here."""
        self.round_trip: float | None = None
        """Seconds the hub took to answer the last call or ping."""
        self.faults = 0

    def handshake(self) -> None:
        """The hub speaks our protocol.

        Raises:
            Ended: it refused, it did not answer in time, or the connection ended.
        """
        self._send(signalr.HANDSHAKE)
        end = self._clock.monotonic() + self._config.handshake_timeout
        while not self._handshaken:
            if self._clock.monotonic() >= end:
                raise Ended(Ending.LOST, f"no answer to the handshake within {self._config.handshake_timeout} s")
            self._turn(end)

    def serve(self, settled: Callable[[], None]) -> None:
        """Serve until the connection ends; *settled* is called once, when all subscriptions are answered.

        Raises:
            Ended: how and why it ended.
            Interrupted: the owner was told to stop.
        """
        announced = False
        while True:
            self._waker.called = False  # first: who calls from here on is not overlooked
            self._subscribe()
            if not announced and self._subscriptions.settled:
                announced = True
                settled()
            self._post()
            now = self._clock.monotonic()
            until = min(self._sink.due(now), self._expire(now), self._keep_alive(now))
            # While nothing but events comes and nobody calls, nothing of the above can be due before *until*.
            while self._turn(until) and self.heard_at < until and not self._waker.called:
                self._hurry(until)

    def _turn(self, until: float) -> bool:
        """Take in what has arrived; wait for it, but not beyond *until*, nor when somebody wakes us.

        Returns:
            Whether it was events, and nothing but events.
        """
        ws = self._ws
        if self._waker.stopped:
            raise Interrupted
        if not ws.more and not self._waker.wait(ws.sock.sock, until - self._clock.monotonic()):
            self._empty = (self._clock.monotonic(), self._clock.epoch())
            return False
        try:
            messages = ws.messages()
        except (PeerClosed, OSError, websocket.WebSocketException) as error:
            raise _lost(error) from None
        except BrokenFrame as error:
            self.faults += 1
            raise Ended(Ending.LOST, f"protocol error: {error}") from None
        if ws.ponged:
            ws.ponged = False
            self.round_trip = self._clock.monotonic() - self._pinged_at
        if ws.heard:
            # Where this program stood still, as the machine slept, it may have come long before it is read.
            self.sure = self._empty
            self.heard_at, self.heard_epoch = heard = self._clock.monotonic(), self._clock.epoch()
            if not ws.more:
                self._empty = heard
        if not messages:
            return False
        found = self._protocol.receive(messages[0] if len(messages) == 1 else b"".join(messages))
        self._take(found)
        return len(found) == 1 and type(found[0]) is signalr.Batch

    def _hurry(self, until: float) -> None:
        """Take in events in short turns, as long as nothing else comes, nobody calls, and it is before *until*.

        A thousand times a second every turn is cold, and what it costs is how many functions and objects it touches
        (measured on one thread: 9.4 µs a turn instead of 12.2, 15 instead of 20 with cold caches). Here each piece is
        taken that is one frame with whole records of known events, as nearly all are; whatever else has come is put
        back as it was, for `_turn`.
        """
        ws, waker, clock, protocol, channel = self._ws, self._waker, self._clock, self._protocol, self._ws.sock
        if not (ws.between and protocol.between):
            return
        poll, alone = waker.alone(channel.sock)
        limit = min(self._config.max_message_bytes, 65_535)
        while not waker.called and self.heard_at < until:
            if poll(1000 * min(SLICE, until - self.heard_at)) != alone:
                return
            try:
                data = channel.read()
            except OSError as error:
                raise _lost(error) from None
            batch = None
            if data and 4 < len(data) <= limit and data.endswith(signalr.RECORD_SEPARATOR):
                first, length, extended = HEAD.unpack_from(data)
                if first == TEXT and length == 126 and extended + 4 == len(data):
                    batch = protocol.batch(data[4:-1])
            if batch is None:
                ws.unread(data)
                return
            self.sure = self._empty
            self.heard_at, self.heard_epoch = now, epoch = clock.monotonic(), clock.epoch()
            if not channel.more:
                self._empty = now, epoch
            for event in batch:
                event.received_at = now
                event.received_epoch = epoch
            self._sink.events(batch, now, epoch)
            if channel.more:
                ws.more = True
                return

    def _take(self, messages: list[signalr.Message]) -> None:
        now, epoch = self.heard_at, self.heard_epoch
        for message in messages:
            if type(message) is signalr.Batch:
                for event in message:
                    event.received_at = now
                    event.received_epoch = epoch
                self._sink.events(message, now, epoch)
            elif isinstance(message, signalr.Invocation):
                self._invoked(message)
            elif isinstance(message, (signalr.Completion, signalr.StreamItem)):
                self._answered(message)
            else:
                self._told(message)

    def _invoked(self, message: signalr.Invocation) -> None:
        if message.invocation_id is not None:
            self._send(signalr.no_result(message.invocation_id))
        self._sink.invocation(message.target, message.arguments, self.heard_at, self.heard_epoch)

    def _answered(self, message: signalr.Completion | signalr.StreamItem) -> None:
        pending = self._pending.get(message.invocation_id)
        if pending is None:
            return  # given up, or never ours
        call = pending.call
        if isinstance(message, signalr.StreamItem):
            if isinstance(call, Call):
                call.take(message.item)
            return
        del self._pending[message.invocation_id]
        self.round_trip = self.heard_at - pending.sent
        if isinstance(call, Call):
            error = None if message.error is None else HubError(f"{call.target}: {message.error}")
            call.finish(message.result, error)
            return
        self._subscriptions.answered(call, message.error)
        if message.error is not None:
            self._sink.refused(call, message.error)

    def _told(self, message: signalr.Message) -> None:
        if isinstance(message, signalr.Fault):
            self.faults += 1
            raise Ended(Ending.LOST, f"protocol error: {message.reason}")
        if isinstance(message, signalr.Close):
            words = message.error or "the hub closed the connection"
            raise Ended(Ending.LOST if message.allow_reconnect else Ending.KICKED, words)
        if isinstance(message, signalr.Handshake):
            self._greeted(message)
        elif isinstance(message, signalr.Ignored) and message.type not in self._odd_types:
            self._odd_types.add(message.type)
            _log.info("< a record of type %s was ignored; later ones are, too", message.type)

    def _greeted(self, message: signalr.Handshake) -> None:
        if message.error is None:
            self._handshaken = True
        else:
            # ASP.NET's words for a protocol or a version that it will never speak; all else, such as its own timeout or
            # an error within it, another attempt may not meet.
            ending = Ending.HOPELESS if "support" in message.error.lower() else Ending.LOST
            raise Ended(ending, f"the hub refused the handshake: {message.error}")

    def _subscribe(self) -> None:
        for step in self._subscriptions.due():
            key = self._pend(step, self._clock.monotonic() + self._config.invoke_timeout)
            self._send(signalr.invocation(step.target, step.want.arguments, key))

    def _post(self) -> None:
        """Send what other threads asked for."""
        outbox = self._outbox
        if outbox.posts or outbox.calls:
            for text in self._asked():
                self._send(text)
        while outbox.cancelled:
            self._cancel(outbox.cancelled.popleft())

    def _asked(self) -> Iterator[str]:
        """The records that other threads asked for; who posted one is told when the next is asked for: it was sent."""
        outbox = self._outbox
        while outbox.posts:
            yield outbox.posts[0].text
            outbox.posts.popleft().finish()
        while outbox.calls:
            call = outbox.calls.popleft()
            make = signalr.invocation if call.on_item is None else signalr.stream_invocation
            yield make(call.target, call.arguments, self._pend(call, call.at))

    def _cancel(self, call: Call) -> None:
        for key in [key for key, pending in self._pending.items() if pending.call is call]:
            del self._pending[key]
            if call.on_item is not None:
                self._send(signalr.cancel_invocation(key))

    def _pend(self, call: Call | Step, at: float) -> str:
        self._ids += 1
        key = call.key if isinstance(call, Call) and call.key else str(self._ids)
        self._pending[key] = _Pending(call, self._clock.monotonic(), at)
        return key

    def _expire(self, now: float) -> float:
        """Fail the calls that are overdue; return when the next one is."""
        soonest = FOREVER
        for key, pending in list(self._pending.items()):
            call = pending.call
            if pending.at > now:
                soonest = min(soonest, pending.at)
            elif isinstance(call, Call):
                del self._pending[key]
                call.finish(error=HubError(f"{call.target}: no answer in time", fate=Fate.UNKNOWN))
            else:
                raise Ended(Ending.LOST, f"{call.target}: no answer within {self._config.invoke_timeout:g} s")
        return soonest

    def _keep_alive(self, now: float) -> float:
        """Ping when due, notice silence; return when to look again."""
        dead_at = self.heard_at + self._config.server_timeout
        if now >= dead_at:
            raise Ended(Ending.LOST, f"not a byte from the hub for {self._config.server_timeout:g} s")
        if now >= self._sent_at + self._config.ping_interval:
            self._send(signalr.PING)
            # SignalR's ping has no answer; the WebSocket's has, and tells how far away the hub is.
            self._guarded(self._ws.ping, _PING)
            self._pinged_at = now
        return min(dead_at, self._sent_at + self._config.ping_interval)

    def _send(self, text: str) -> None:
        self._guarded(self._ws.send, text)
        self._sent_at = self._clock.monotonic()

    def _guarded(self, send: Callable[[str], Any], text: str) -> None:
        """*text* is with the operating system, whole. Half a frame cannot be taken back, so any failure is the end."""
        self._ws.sock.at = self._clock.monotonic() + self._config.invoke_timeout
        try:
            send(text)
        except (OSError, websocket.WebSocketException) as error:
            raise Ended(Ending.LOST, f"sending failed: {error or type(error).__name__}") from None

    def end(self, polite: bool) -> None:
        """The socket is closed and nobody waits for an answer any more. Nothing is resent."""
        if polite:
            # Who sends and then disconnects means both; the owner may not have had a turn in between.
            self._ws.goodbye(chain(self._asked() if self._handshaken else (), [signalr.CLOSE]))
        else:
            self._ws.drop()
        for pending in self._pending.values():
            if isinstance(pending.call, Call):
                lost = ConnectionLost(f"{pending.call.target}: the connection ended before the hub answered")
                pending.call.finish(error=lost)
        self._pending.clear()
