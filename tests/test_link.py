"""One open connection: keeping it alive by the clock, its socket, and what it does not follow or send."""

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from rude_hub import RS, Peer, RudeHub, call, frame, record, soon

from topstep_sync.clock import FOREVER, ManualClock
from topstep_sync.errors import ConnectionLost
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import State

PING = {"type": 6}


@pytest.fixture
def hub() -> Iterator[RudeHub]:
    with RudeHub() as made:
        yield made


class Held:
    """A connection on a clock that is moved by hand, with ping and server timeouts of 15 and 30 s."""

    def __init__(self, hub: RudeHub, **config: Any) -> None:
        self.clock = ManualClock()
        self.hub = hub
        self.heard: queue.Queue[Any] = queue.Queue()
        options = {"ping_interval": 15.0, "server_timeout": 30.0, "backoff_seconds": (0.0,), **config}
        self.manager = SignalRConnectionManager(
            "token", lambda target, arguments: self.heard.put(target), options, url=hub.url, name="held",
            clock=self.clock,
        )  # fmt: skip
        self.manager.connect(timeout=0)

    def shaken(self) -> Peer:
        peer = self.hub.shaken()
        assert soon(lambda: self.manager.state is State.CONNECTED)
        return peer

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.manager.wake()

    def send(self, peer: Peer, target: str) -> None:
        """A call has gone out now, and nothing before it."""
        self.manager.send(target)
        assert target == peer.read_record().get("target")
        assert soon(lambda: self.manager.link is not None and self.manager.link._sent_at == self.clock.monotonic())

    def byte(self, peer: Peer) -> None:
        """One byte of the hub's, a pong, has come in now."""
        peer.raw(frame(b"", 10))
        assert soon(lambda: self.manager.link is not None and self.manager.link.heard_at == self.clock.monotonic())


@pytest.fixture
def held(hub: RudeHub) -> Iterator[Callable[..., Held]]:
    made: list[Held] = []

    def make(**config: Any) -> Held:
        made.append(Held(hub, **config))
        return made[-1]

    yield make
    hub.stop_listening()
    for peer in hub.peers:
        peer.fin()
    for one in made:
        one.manager.disconnect()


def test_only_silence_of_ours_is_broken_by_a_ping(held: Callable[..., Held]) -> None:
    """Fifteen seconds after the last send, whatever it was; a send in between puts the ping off."""
    made = held(server_timeout=1000.0)
    peer = made.shaken()
    for target in ("A", "B", "C"):
        made.later(14.0)
        made.send(peer, target)
    made.later(14.9)
    made.send(peer, "D")
    made.later(15.0)
    assert PING == peer.read_record()


def test_a_silent_server_is_left(held: Callable[..., Held]) -> None:
    """Thirty seconds without a byte and the link counts as dead; any byte, a pong included, keeps it."""
    made = held()
    peer = made.shaken()
    for _ in range(5):
        made.later(29.0)
        made.byte(peer)
    assert (State.CONNECTED, []) == (made.manager.state, made.manager.reconnects)
    made.later(30.0)
    made.shaken()
    assert 1 == len(made.manager.reconnects)


def test_a_connection_that_ends_in_the_middle_of_a_frame(held: Callable[..., Held]) -> None:
    """Half a frame, or half a record, is no message; the next connection begins with a clean slate."""
    made = held()
    for half in (frame(call("Half"))[:9], frame(call("Half")[:-3]), frame(call("Half"), fin=False)):
        peer = made.shaken()
        peer.raw(half)
        peer.fin()
    made.shaken().send(call("Whole"))
    assert "Whole" == made.heard.get(timeout=5)
    assert 0 == made.manager.faults


def test_a_hub_that_is_down_for_a_while_is_met_again(hub: RudeHub, held: Callable[..., Held]) -> None:
    """Attempts that are refused do not end it, however many; who listens again on the same port gets the next one."""
    made = held()
    peer = made.shaken()
    hub.stop_listening()
    attempts = threading.Semaphore(0)
    made.manager.observe(lambda state, reason: "refused" in (reason or "").lower() and attempts.release())
    peer.rst()
    for _ in range(3):
        assert attempts.acquire(timeout=5)
    hub.listen_again()
    made.shaken()


def test_a_redirect_is_not_followed(hub: RudeHub, held: Callable[..., Held]) -> None:
    """The address bears the token; it is for the hub that was named, and for nobody that it names."""
    with RudeHub() as stranger:
        made = held()
        peer = hub.tcp().read_request()
        peer.raw(f"HTTP/1.1 302 Found\r\nLocation: {stranger.url}\r\nContent-Length: 0\r\n\r\n".encode())
        made.shaken()
        assert stranger.silent(0.05)


def test_the_socket_is_quick_and_watched(held: Callable[..., Held]) -> None:
    """Small records are sent at once, and the system looks after a peer that vanished."""
    made = held()
    made.shaken()
    assert made.manager.link is not None
    sock = made.manager.link._ws.sock.sock
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_no_record_bears_the_token(held: Callable[..., Held]) -> None:
    """A call is its target, its arguments and its id; the token is in the upgrade alone, once."""
    made = held()
    peer = made.shaken()
    call_ = made.manager.start_call("Echo", 1)
    asked = peer.read_call()
    assert {"type": 1, "target": "Echo", "arguments": [1], "invocationId": asked["invocationId"]} == asked
    assert 1 == " ".join([*peer.request, *peer.headers.values()]).count("token") - peer.request[0].count("access_token")
    peer.send(record(type=3, invocationId=asked["invocationId"], result=2))
    assert 2 == made.manager.result(call_)


def test_what_was_sent_before_disconnecting_is_sent(held: Callable[..., Held], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when the connection's thread had no turn in between; a call then ends without its answer, and says so."""
    made = held()
    peer = made.shaken()
    monkeypatch.setattr(made.manager, "wake", lambda: None)
    made.manager.send("Last")
    asked = made.manager.start_call("Echo", 1)
    made.manager.disconnect()
    assert ["Last", "Echo"] == [peer.read_call()["target"] for _ in range(2)]
    assert ({"type": 7}, "close") == (peer.read_record(), peer.until_end())
    with pytest.raises(ConnectionLost, match="before the hub answered"):
        made.manager.result(asked)


class Ending:
    """A sink that ends its connection from the owner's thread, as soon as anything comes."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.ended = threading.Event()

    def events(self, batch: list[Any], now: float, epoch: float) -> None: ...
    def refused(self, step: Any, reason: str) -> None: ...
    def changed(self, state: State, reason: str | None) -> None: ...
    def established(self, gap_start: float | None, gap_end: float) -> None: ...

    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None:
        self.manager.disconnect()
        self.ended.set()

    def due(self, now: float) -> float:
        return FOREVER


def test_the_owner_s_thread_may_end_its_own_connection(hub: RudeHub) -> None:
    """It does not wait for itself; the goodbye is said, the thread ends, and the connection can be used again."""
    sink = Ending()
    sink.manager = manager = SignalRConnectionManager("token", url=hub.url, name="own", sink=sink)
    manager.connect(timeout=0)
    peer = hub.shaken()
    peer.raw(frame(call("End") + record(type=6)))
    assert sink.ended.wait(5)
    assert ("close", 1000) == (peer.until_end(), peer.close_code)
    assert soon(lambda: manager.state is State.DISCONNECTED)
    manager.connect(timeout=0)
    hub.shaken()
    assert soon(lambda: manager.state is State.CONNECTED)
    hub.peers[-1].fin()
    manager.disconnect()


class Sleepy:
    """A sink on whose thread the program stands still, for as long as `go` is not set."""

    def __init__(self) -> None:
        self.go, self.still, self.back = threading.Event(), threading.Event(), threading.Event()
        self.gaps: list[float | None] = []
        self.go.set()

    def events(self, batch: list[Any], now: float, epoch: float) -> None: ...
    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None: ...
    def refused(self, step: Any, reason: str) -> None: ...
    def changed(self, state: State, reason: str | None) -> None: ...

    def established(self, gap_start: float | None, gap_end: float) -> None:
        self.gaps.append(gap_start)
        if gap_start is not None:
            self.back.set()

    def due(self, now: float) -> float:
        if not self.go.is_set():
            self.still.set()
        self.go.wait(5)
        return FOREVER


def test_a_gap_begins_where_the_program_stood_still(hub: RudeHub) -> None:
    """What the hub sent before it hung up is read ten minutes later; what it told nobody since then is missed all the
    same."""
    sink, clock = Sleepy(), ManualClock()
    options = {"ping_interval": 1000.0, "server_timeout": 1000.0, "backoff_seconds": (0.0,)}
    manager = SignalRConnectionManager("token", None, options, url=hub.url, name="still", clock=clock, sink=sink)
    with closing(manager):
        manager.connect(timeout=0)
        peer = hub.shaken()
        assert soon(lambda: sink.gaps == [None])
        clock.advance(7.0)
        peer.send(call("Heard"))
        assert soon(lambda: manager.link is not None and manager.link.heard_at == clock.monotonic())
        asleep = clock.epoch()
        sink.go.clear()
        manager.wake()
        assert sink.still.wait(5)
        peer.send(call("Last"))
        peer.fin()
        clock.advance(600.0)
        sink.go.set()
        hub.shaken()
        assert sink.back.wait(5)
        assert ([None, asleep], asleep) == (sink.gaps, manager._estate.sure[1])


def test_the_handshake_is_given_up_by_the_clock(hub: RudeHub, held: Callable[..., Held]) -> None:
    """Fifteen seconds without an answer to it and the next attempt follows; records before the answer are a fault."""
    made = held(handshake_timeout=15.0, server_timeout=1000.0)
    peer = hub.upgraded()
    assert {"protocol": "json", "version": 1} == peer.read_record()
    made.later(15.0)
    while hub.silent(0.05):  # its time began only after we read it
        made.later(15.0)
    early = hub.peers[-1].read_request().answer()
    early.read_record()
    early.raw(frame(call("Early") + b"{}" + RS))
    made.shaken()
    assert 1 == made.manager.faults
    assert made.heard.empty()


def test_a_callback_that_fails_ends_neither_the_connection_nor_another_call(
    hub: RudeHub, held: Callable[..., Held], caplog: pytest.LogCaptureFixture
) -> None:
    """What takes an item, or hears of the end of a call, may raise: the stream goes on, and every call still ends."""
    made = held()
    peer = made.shaken()
    streaming = made.manager.start_call("Counter", on_item=lambda item: 1 // item)
    peer.send(record(type=2, invocationId=peer.read_call()["invocationId"], item=0))
    asked = made.manager.start_call("Ask", on_done=lambda call: 1 // 0)
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"], result=5))
    assert 5 == made.manager.result(asked)
    first = made.manager.start_call("Never", on_done=lambda call: 1 // 0)
    others = [made.manager.start_call("Neither") for _ in range(2)]
    for _ in range(3):
        peer.read_call()
    peer.rst()
    for call_made in (streaming, first, *others):
        with pytest.raises(ConnectionLost):
            made.manager.result(call_made)
    made.shaken()
    assert made.manager.state is State.CONNECTED
    assert 3 == sum("a callback of the call of" in line.getMessage() for line in caplog.records)
