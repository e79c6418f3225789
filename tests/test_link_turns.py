"""The two ways in which a link takes in what arrives: whole turns, and the short ones of market events."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rude_hub import call, frame, record

from topstep_sync.clock import ManualClock
from topstep_sync.config import StreamConfig
from topstep_sync.realtime.calls import Outbox
from topstep_sync.realtime.channel import Channel
from topstep_sync.realtime.lifecycle import Ending
from topstep_sync.realtime.link import Ended, Link
from topstep_sync.realtime.subscriptions import Subscriptions
from topstep_sync.realtime.waker import Waker
from topstep_sync.realtime.websocket import BufferedWebSocket
from topstep_sync.realtime.wire import market_decoder

Wire = tuple[list[bytes], list[tuple[str, Any]]]

PONG = b"\x8a\x00"


class Ears:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.stamps: list[tuple[float, float]] = []

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        for event in batch:
            self.heard.append((event.kind, event.contract_id))
            self.stamps.append((event.received_at, event.received_epoch))

    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None:
        self.heard.append((target, arguments))


class Bench:
    """A link that has shaken hands, on a socket whose other end is the test's, and a clock that the test moves."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.clock, self.ears = ManualClock(), Ears()
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.waker = Waker(self.clock)
        self.ws = BufferedWebSocket(limit)
        self.ws.sock, self.ws.connected = Channel(ours, self.waker, 1e9), True
        config = StreamConfig(max_message_bytes=limit)
        self.link = Link(
            self.ws, self.waker, self.clock, config, Subscriptions(), Outbox(), self.ears, market_decoder()  # type: ignore[arg-type]
        )  # fmt: skip
        self.peer.sendall(frame(b"{}\x1e"))
        self.take()

    def take(self) -> None:
        """All that has arrived is taken in, by the short way where it can be."""
        until = self.clock.monotonic() + 0.0005
        while True:
            self.link._hurry(until)
            if not self.link._turn(until) and not self.ws.more:
                return

    def take_all(self) -> None:
        """The same until the end of the link is met."""
        for _ in range(3):
            self.take()

    def close(self) -> None:
        self.ws.drop()
        self.peer.close()
        self.waker.close()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def quote(number: int) -> bytes:
    filling = {"symbol": "F.US.MNQ", "lastUpdated": "2026-11-24T13:30:31.4347534+00:00", "bestBid": 21000.25}
    return call("GatewayQuote", f"C{number}", filling)


# What may stand in the stream of records, and what is heard of it.
PARTS = st.one_of(
    st.integers(0, 99).map(lambda n: (quote(n), [("quote", f"C{n}")])),
    st.integers(0, 99).map(lambda n: (quote(n) + quote(n + 1), [("quote", f"C{n}"), ("quote", f"C{n + 1}")])),
    st.integers(0, 99).map(lambda n: (call("Other", n, "x" * 200), [("Other", [n, "x" * 200])])),
    st.just((record(type=6), [])),
    st.just((record(type=3, invocationId="nobody's", result="y" * 300), [])),
    st.just((quote(7) + record(type=6), [("quote", "C7")])),
)


@st.composite
def wires(draw: st.DrawFn) -> Wire:
    """What is written, in pieces, and what is heard. Frames end anywhere in records, and pieces anywhere in frames."""
    parts = draw(st.lists(PARTS, min_size=1, max_size=8))
    heard = [one for _, told in parts for one in told]
    frames: list[bytes] = []
    rest = b""
    for data, _ in parts:
        whole = rest + data
        cut = draw(st.one_of(st.just(len(whole)), st.integers(1, len(whole))))
        rest, message = whole[cut:], whole[:cut]
        middle = draw(st.one_of(st.just(0), st.integers(0, len(message))))
        if middle:
            frames += [
                frame(message[:middle], fin=False),
                *[PONG] * draw(st.integers(0, 1)),
                frame(message[middle:], 0),
            ]
        else:
            frames.append(frame(message))
    if rest:
        frames.append(frame(rest))
    pieces: list[bytes] = []
    for data in frames:
        cut = draw(st.one_of(st.just(0), st.just(0), st.integers(0, len(data))))
        pieces += filter(None, [data[:cut], data[cut:]])
    glued = draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    written: list[bytes] = []
    for data, glue in zip(pieces, glued, strict=True):
        if glue and written:
            written[-1] += data
        else:
            written.append(data)
    return written, heard


@given(wires())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_the_wire_is_cut_the_same_is_heard(
    bench: Bench, wire: tuple[list[bytes], list[tuple[str, Any]]]
) -> None:
    """Records, messages, frames and pieces end where they like; each event comes once, in order, with its own time."""
    written, heard = wire
    bench.ears.heard.clear()
    bench.ears.stamps.clear()
    for piece in written:
        bench.clock.advance(1.0)
        bench.peer.sendall(piece)
        bench.take()
    assert heard == bench.ears.heard
    assert bench.ears.stamps == sorted(bench.ears.stamps)
    assert bench.link.heard_at == bench.clock.monotonic()


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of one quote needs no whole turn, neither does one of twenty; anything else does."""
    made, turns = Bench(), []
    monkeypatch.setattr(BufferedWebSocket, "messages", lambda ws: turns.append(1) or [])
    until = made.clock.monotonic() + 0.0005
    for data in (quote(1), b"".join(map(quote, range(20)))):
        made.peer.sendall(frame(data))
        made.link._hurry(until)
    assert ([("quote", "C1"), *[("quote", f"C{n}") for n in range(20)]], []) == (made.ears.heard, turns)
    made.peer.sendall(frame(record(type=6)))
    made.link._hurry(until)
    assert (True, frame(record(type=6))) == (made.ws.more, made.ws.sock.ahead)
    made.close()


def test_a_gap_begins_at_the_last_look_that_found_nothing() -> None:
    """By the short way too, `sure` is a moment before the last byte was sent, not the one at which it was read."""
    made = Bench()
    looked = made.link._empty
    made.clock.advance(5.0)
    made.peer.sendall(frame(quote(1)))
    made.link._hurry(made.clock.monotonic() + 0.0005)
    assert (looked, made.clock.monotonic()) == (made.link.sure, made.link.heard_at)
    made.clock.advance(5.0)
    made.peer.sendall(frame(quote(2)))
    made.link._hurry(made.clock.monotonic() + 0.0005)
    assert (made.clock.monotonic() - 5.0, made.clock.monotonic()) == (made.link.sure[0], made.link.heard_at)
    made.close()


def test_an_end_on_the_short_way_is_told() -> None:
    """A peer that resets, and one that just ends, end the link as they would in a whole turn."""
    for how, reason in (("fin", "without a closing frame"), ("close", "code 1005")):
        made = Bench()
        made.peer.sendall(frame(quote(1)) + (frame(b"", 8) if how == "close" else b""))
        made.peer.shutdown(socket.SHUT_WR)
        with pytest.raises(Ended, match=reason) as caught:
            made.take_all()
        assert (Ending.LOST, [("quote", "C1")]) == (caught.value.ending, made.ears.heard)
        made.close()


@pytest.mark.parametrize("ahead", [b"", frame(quote(1))])
def test_no_frame_is_longer_than_the_limit(ahead: bytes) -> None:
    """However short the frame's head is, a message beyond `max_message_bytes` ends the link, and is not taken."""
    made = Bench(limit=1000)
    made.peer.sendall(ahead + frame(call("GatewayQuote", "C2", {"symbol": "x" * 1000})))
    with pytest.raises(Ended, match="a message is longer than 1000 bytes"):
        made.take_all()
    assert [("quote", "C1")] * bool(ahead) == made.ears.heard
    made.close()


def test_nothing_follows_half_a_frame() -> None:
    """A link that is called off in the middle of a send closes without another byte: it would be part of that frame."""
    made = Bench()
    made.ws.sock.at = made.clock.monotonic() + 100.0
    made.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.ws.sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    made.waker.wake()
    calls: list[int] = []

    def called_off(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise InterruptedByTest

    made.waker.wait_for = called_off  # type: ignore[method-assign]
    with pytest.raises(InterruptedByTest):
        made.ws.send("x" * 1_000_000)
    sent = bytearray()
    made.peer.setblocking(False)
    try:
        while data := made.peer.recv(65536):
            sent += data
    except BlockingIOError:
        pass
    made.link.end(polite=True)
    made.peer.setblocking(True)
    assert (b"", True) == (made.peer.recv(10), 0 < len(sent) < 1_000_000)
    made.close()


class InterruptedByTest(Exception):
    """Somebody stops the owner while it waits for room."""
