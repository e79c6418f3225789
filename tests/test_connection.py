"""A hub connection against a hub that does anything: the checklist of a correct client, fault by fault."""

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from certificates import authority, server_context
from rude_hub import RS, RudeHub, call, frame, record, soon

from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.errors import (
    AuthenticationError,
    AuthUnavailable,
    ConnectionLost,
    HubError,
    StreamError,
    StreamFailed,
)
from topstep_sync.models import Token
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.opening import trusting_context
from topstep_sync.realtime.subscriptions import Want
from topstep_sync.redact import Secret

QUICK = {"backoff_seconds": (0.0, 0.05), "ping_interval": 5.0, "server_timeout": 10.0}


class Tokens:
    """Counts what it is asked, and gives a newer token for a refused one."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.refused: list[str] = []
        self.error: Exception | None = None

    def token(self) -> Token:
        self.given.append(value := f"token-{len(self.given) + 1}")
        return Token(Secret(value), len(self.given), 0.0, 0.0)

    def rejected(self, token: Token) -> Token:
        self.refused.append(token.value.reveal())
        if self.error is not None:
            raise self.error
        return self.token()


class Heard:
    """What a connection told: calls by target, and states."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[str, list[Any]]] = queue.Queue()
        self.states: list[str] = []

    def route(self, target: str, arguments: list[Any]) -> None:
        self.calls.put((target, arguments))

    def next(self) -> tuple[str, list[Any]]:
        return self.calls.get(timeout=5)


@pytest.fixture
def hub() -> Iterator[RudeHub]:
    with RudeHub() as made:
        yield made


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def dial(hub: RudeHub, heard: Heard) -> Iterator[Callable[..., SignalRConnectionManager]]:
    """Starts a connection to the hub without waiting for it; ends it after the test."""
    made: list[SignalRConnectionManager] = []

    def start(tokens: Any = None, *, wants: tuple[Want, ...] = (), **config: Any) -> SignalRConnectionManager:
        manager = SignalRConnectionManager(tokens, heard, {**QUICK, **config}, url=hub.url, name="test")
        manager.observe(lambda state, reason: heard.states.append(state.value))
        if wants:
            manager.want(*wants)
        made.append(manager)
        manager.connect(timeout=0)
        return manager

    yield start
    hub.stop_listening()
    for peer in hub.peers:  # or every goodbye waits for a peer that does not listen
        peer.fin()
    for manager in made:
        manager.disconnect()


Dial = Callable[..., SignalRConnectionManager]


def connected(manager: SignalRConnectionManager) -> bool:
    return soon(lambda: manager.state is State.CONNECTED)


def failed(manager: SignalRConnectionManager) -> str:
    assert soon(lambda: manager.state is State.FAILED)
    return manager.reason or ""


################################################# the opening #################################################


def test_the_token_travels_in_the_query_and_nothing_precedes_the_handshake(hub: RudeHub, dial: Dial) -> None:
    """One upgrade with the token url-encoded in the query, no negotiation; then the handshake; only then a call."""
    manager = dial(lambda: "a b+c/ü", wants=(Want("SubscribeAccounts"),))
    peer = hub.tcp().read_request()
    assert ("GET /hub?access_token=a%20b%2Bc%2F%C3%BC HTTP/1.1", "a b+c/ü") == (peer.request[0], peer.token)
    assert f"127.0.0.1:{hub.port}" == peer.headers["host"]
    assert not {"origin", "sec-websocket-extensions", "authorization"} & set(peer.headers)
    peer.answer()
    assert {"protocol": "json", "version": 1} == peer.read_record()
    assert State.CONNECTING is manager.state
    peer.send(b"{}" + RS)
    assert ["SubscribeAccounts()"] == peer.agree(1)
    assert connected(manager)


def test_records_behind_the_upgrade_and_the_handshake_are_not_lost(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """What shares a segment with the upgrade's answer, or a message with the handshake's, is read."""
    dial()
    hub.tcp().read_request().answer(more=frame(b"{}" + RS + call("First", 1)) + frame(call("Second", 2)))
    assert [("First", [1]), ("Second", [2])] == [heard.next(), heard.next()]


@pytest.mark.parametrize("wrong", ["AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "?"])
def test_a_wrong_accept_is_no_websocket(hub: RudeHub, dial: Dial, wrong: str) -> None:
    """Sec-WebSocket-Accept is checked; the next attempt follows by the schedule."""
    manager = dial()
    hub.tcp().read_request().answer(accept=wrong)
    hub.shaken()
    assert connected(manager)


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "404 Not Found", "500 Oops", "503 Service Unavailable"])
def test_any_other_answer_to_the_upgrade_is_tried_again(hub: RudeHub, dial: Dial, status: str) -> None:
    """101 in a header is no 101; a server that is not ready is asked again."""
    manager = dial()
    hub.tcp().read_request().answer(status)
    hub.shaken()
    assert connected(manager)


@pytest.mark.parametrize(
    "garbage", [b"nonsense\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff\xfe\r\n\r\n"]
)
def test_a_garbled_answer_to_the_upgrade_is_tried_again(hub: RudeHub, dial: Dial, garbage: bytes) -> None:
    """Whatever a server answers, the thread lives and tries again."""
    manager = dial()
    hub.tcp().read_request().raw(garbage)
    hub.shaken()
    assert connected(manager)


def test_an_endless_header_is_cut_off(hub: RudeHub, dial: Dial) -> None:
    """A header longer than 64 KiB ends the attempt instead of filling memory."""
    manager = dial()
    peer, pause = hub.tcp().read_request(), threading.Event()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012 - the client hangs up somewhere on the way
        peer.raw(b"HTTP/1.1 101 Switching Protocols\r\n")
        for _ in range(100):
            peer.raw(b"X-Filler: " + b"x" * 10_000 + b"\r\n")
            pause.wait(0.001)  # a socket of a hub that hung up says so only a moment later
    hub.shaken()
    assert connected(manager)


@pytest.mark.parametrize("trouble", ["cookie", "resolve", "certifi", "proxy"])
def test_whatever_an_attempt_raises_another_follows(
    trouble: str, hub: RudeHub, dial: Dial, heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cookie no browser would set, no thread to look a name up, no authorities, a proxy that makes no sense."""
    words = {"cookie": "Illegal key", "resolve": "new thread", "certifi": "No such file", "proxy": "proxy"}[trouble]
    if trouble == "cookie":
        manager = dial()
        peer = hub.tcp().read_request()
        peer.answer(status="101 Switching Protocols\r\nSet-Cookie: a/b=1")
    else:
        url = hub.url.replace("127.0.0.1", "hub.example")
        if trouble == "certifi":
            url = url.replace("http", "https")
            monkeypatch.setattr("certifi.where", lambda: str(tmp_path / "gone"))
        elif trouble == "proxy":
            monkeypatch.setenv("http_proxy", "http://me:pa/ss@proxy:8080")
        else:
            monkeypatch.setattr("topstep_sync.realtime.waker.Waker.errand", _no_thread)
        manager = SignalRConnectionManager(None, None, {"backoff_seconds": (60.0,)}, url=url, any_url=True)
        manager.connect(timeout=0)
    assert soon(lambda: words in (manager.reason or ""))
    assert State.RECONNECTING is manager.state
    manager.disconnect()
    assert State.DISCONNECTED is manager.state


def _no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("timeout", ["connect_timeout", "handshake_timeout"])
def test_a_server_that_never_answers_is_given_up_in_time(hub: RudeHub, dial: Dial, timeout: str) -> None:
    """Neither an unanswered upgrade nor an unanswered handshake holds the connection longer than its timeout."""
    manager = dial(**{timeout: 1.0})
    hub.tcp() if timeout == "connect_timeout" else hub.upgraded()
    peer = hub.shaken() if timeout == "handshake_timeout" else hub.tcp().read_request().answer().shake()
    assert connected(manager)
    assert peer.request


def test_a_refused_handshake_is_final(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """The server's words reach the user, and nobody asks a second time."""
    manager = dial()
    peer = hub.upgraded()
    peer.read_record()
    peer.send(b'{"error":"The protocol \'nope\' is not supported."}' + RS)
    assert "the hub refused the handshake: The protocol 'nope' is not supported." == failed(manager)
    assert hub.silent(0.2)
    again = in_background(lambda: manager.connect(timeout=5))
    peer = hub.upgraded()
    peer.read_record()
    peer.send(b'{"error":"still not supported"}' + RS)
    error = again.get(timeout=5)
    assert (StreamFailed, True) == (type(error), "still not" in str(error))


@pytest.mark.parametrize(
    "words", ["Handshake was canceled.", "An unexpected error occurred during connection handshake.", ""]
)
def test_a_handshake_that_went_wrong_is_tried_again(hub: RudeHub, dial: Dial, words: str) -> None:
    """The server's own timeout, or an error within it, says nothing about the next attempt."""
    manager = dial()
    peer = hub.upgraded()
    peer.read_record()
    peer.send(b'{"error":"%b"}' % words.encode() + RS)
    hub.shaken()
    assert connected(manager)


def test_a_refused_connection_is_tried_by_the_schedule(dial: Dial, hub: RudeHub) -> None:
    """With nobody listening, attempts go on until the budget is used up; the reason says what is wrong."""
    hub.stop_listening()
    manager = dial(backoff_seconds=(0.0, 0.01), max_attempts=3)
    assert "refused" in failed(manager).lower()


################################################### the token ###################################################


def test_every_attempt_takes_a_fresh_token(hub: RudeHub, dial: Dial) -> None:
    """A reconnect does not reuse the token of the connection before."""
    tokens = Tokens()
    dial(tokens)
    first = hub.shaken()
    first.rst()
    second = hub.shaken()
    assert ("token-1", "token-2") == (first.token, second.token)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_token_is_replaced_once_and_at_once(hub: RudeHub, dial: Dial, status: str) -> None:
    """A 401 goes back to the token manager, and the newer token connects, without any wait."""
    tokens = Tokens()
    manager = dial(tokens, backoff_seconds=(60.0,))
    hub.tcp().read_request().answer(status)
    peer = hub.shaken()
    assert connected(manager)
    assert (["token-1"], "token-2") == (tokens.refused, peer.token)


def test_two_refused_tokens_are_the_end(hub: RudeHub, dial: Dial) -> None:
    """A fresh token that is refused, too, is told, and nobody hammers the server."""
    manager = dial(Tokens())
    hub.tcp().read_request().answer("401 Unauthorized")
    hub.tcp().read_request().answer("401 Unauthorized")
    assert "401" in failed(manager)
    assert hub.silent(0.2)


def test_refused_credentials_are_the_end(hub: RudeHub, dial: Dial) -> None:
    """When no newer token is to be had because the login itself is refused, the reason is the login's."""
    tokens = Tokens()
    tokens.error = AuthenticationError("the API key was refused")
    manager = dial(tokens)
    hub.tcp().read_request().answer("401 Unauthorized")
    assert "the API key was refused" == failed(manager)


def test_a_login_that_is_down_is_tried_again(hub: RudeHub, dial: Dial) -> None:
    """No token for the moment is no end: the next attempt asks again."""
    tokens = Tokens()
    tokens.error = AuthUnavailable("the gateway is away")
    manager = dial(tokens)
    hub.tcp().read_request().answer("401 Unauthorized")
    hub.shaken()
    assert connected(manager)


def test_a_token_function_that_has_no_other(hub: RudeHub, dial: Dial) -> None:
    """A constant token that is refused is the end, and the message says what to do."""
    manager = dial("constant-token")
    hub.tcp().read_request().answer("401 Unauthorized")
    assert "log in again" in failed(manager)


def test_a_hub_that_wants_a_token_nobody_has(hub: RudeHub, dial: Dial) -> None:
    """Without a token source, a 401 is tried again like any other refusal of the upgrade."""
    manager = dial(max_attempts=1)
    hub.tcp().read_request().answer("401 Unauthorized")
    hub.tcp().read_request().answer("401 Unauthorized")
    assert "401" in failed(manager)


def test_the_token_is_in_no_log_and_no_error(hub: RudeHub, dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, the token shows up nowhere."""
    caplog.set_level(0)
    manager = dial("secret-token-0123456789")
    hub.tcp().read_request().answer("500 Oops")
    hub.tcp().read_request().raw(b"nonsense\r\n\r\n")
    hub.shaken().rst()
    hub.tcp().read_request().answer("401 Unauthorized")
    reason = failed(manager)
    assert "secret-token" not in caplog.text + reason + repr(manager)


################################################### the frames ###################################################


def test_any_fragmentation_and_control_frames_between(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """A message in fragments cut inside UTF-8 sequences, a ping and a pong between them, an empty frame at the end."""
    dial()
    peer = hub.shaken()
    raw = '{"type":1,"target":"Übung","arguments":["é€😀"]}'.encode() + RS
    for start in range(0, len(raw), 3):
        peer.raw(frame(raw[start : start + 3], 0 if start else 1, fin=False) + frame(b"x", 10) + frame(b"hi", 9))
    peer.raw(frame(b"", 0))
    assert ("Übung", ["é€😀"]) == heard.next()
    for _ in range(0, len(raw), 3):
        assert (10, b"hi") == peer.read_frame()


def test_a_record_split_over_messages(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """Half a record waits for the other half."""
    dial()
    peer = hub.shaken()
    whole = call("Split", 7)
    peer.raw(frame(whole[:10]))
    peer.raw(frame(whole[10:]))
    assert ("Split", [7]) == heard.next()


def test_one_byte_at_a_time(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """Frames that trickle in byte by byte are frames."""
    dial()
    peer = hub.shaken()
    for byte in frame(call("Drip", "x" * 200)):
        peer.raw(bytes([byte]))
    assert ("Drip", ["x" * 200]) == heard.next()


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 3_000_000])
def test_every_length_of_frame(hub: RudeHub, dial: Dial, heard: Heard, size: int) -> None:
    """All three ways to write a frame's length are read."""
    dial()
    peer = hub.shaken()
    peer.send(call("Big", "x" * size))
    assert size == len(heard.next()[1][0])


@pytest.mark.parametrize(
    "bad",
    [
        frame(call("X"), mask=True),
        frame(call("X"), rsv=4),
        frame(call("X"), opcode=2),
        frame(call("X"), opcode=3),
        frame(b"x", opcode=0),
        frame(b"a", opcode=1, fin=False) + frame(b"b", opcode=1),
        frame(b"x" * 126, opcode=9),
        frame(b"x", opcode=9, fin=False),
        frame(b"x", opcode=8),
        frame(b"\x00\x00", opcode=8),
        frame(b"garbage" + RS),
        frame(b"\xff\xff" + RS),
        frame(record(type="x")),
        frame(RS),
    ],
)
def test_a_breach_of_the_protocol_is_counted_and_the_connection_replaced(
    hub: RudeHub, dial: Dial, heard: Heard, bad: bytes
) -> None:
    """Garbage gives one counted fault and a reconnect, never a dead thread; what came before it counts."""
    manager = dial()
    peer = hub.shaken()
    peer.raw(frame(call("Before")) + bad + frame(call("Never")))
    assert "Before" == heard.next()[0]
    hub.shaken().send(call("After"))
    assert "After" == heard.next()[0]
    assert 1 == manager.faults


def test_messages_have_a_limit(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """A frame, or fragments, longer than the limit end the connection before they fill memory."""
    manager = dial(max_message_bytes=1000)
    hub.shaken().raw(frame(b"x" * 1001))
    peer = hub.shaken()
    peer.raw(frame(b"x" * 600, fin=False) + frame(b"x" * 600, 0, fin=False))
    hub.shaken().send(call("After"))
    assert ("After", 2) == (heard.next()[0], manager.faults)


################################################### the records ###################################################


def test_odd_records_are_ignored(hub: RudeHub, dial: Dial, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """Unknown types, acks, sequences, unknown fields, headers and answers nobody asked for change nothing; each type
    that is unknown is logged, once."""
    caplog.set_level(logging.INFO, "topstep_sync.realtime")
    dial()
    peer = hub.shaken()
    odd = [record(type=99), record(type=99, a=[]), record(type=8, sequenceId=1), record(type=9, sequenceId=1)]
    odd += [record(type=6), record(type=3, invocationId="nobody", result=1), record(type=2, invocationId="x", item=1)]
    peer.send(*odd, call("Still", headers={"a": "b"}, more=1))
    assert ("Still", []) == heard.next()
    lines = [line.getMessage() for line in caplog.records if "was ignored" in line.getMessage()]
    assert [99, 8, 9] == [int(line.split("type ")[1].split()[0]) for line in lines]


def test_a_call_that_wants_an_answer_gets_one(hub: RudeHub, dial: Dial) -> None:
    """A server that asks for a result is not left waiting."""
    dial()
    peer = hub.shaken()
    peer.send(call("AskMe", 1, invocationId="s1"))
    assert {"type": 3, "invocationId": "s1", "error": "Client didn't provide a result."} == peer.read_record()


def test_targets_match_in_any_case_and_callbacks_may_fail(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """A failing callback ends nothing; handlers are told apart by target in any case, and can be taken off."""
    manager = dial()
    got: queue.Queue[Any] = queue.Queue()

    def fail(*arguments: Any) -> None:
        raise RuntimeError("user code")

    off = manager.subscribe("gatewayQuote", fail)
    manager.on("GATEWAYQUOTE", lambda *arguments: got.put(arguments))
    peer = hub.shaken()
    peer.send(call("GatewayQuote", "C", {}))
    assert ("C", {}) == got.get(timeout=5)
    off()
    peer.send(call("GatewayQuote", "D", {}))
    assert ("D", {}) == got.get(timeout=5)


def test_a_slow_callback_holds_up_nobody(hub: RudeHub, dial: Dial) -> None:
    """Pings are answered while a callback sleeps."""
    manager = dial()
    release = threading.Event()
    manager.on("Slow", lambda: release.wait(5))
    peer = hub.shaken()
    peer.send(call("Slow"))
    peer.raw(frame(b"there?", 9))
    assert (10, b"there?") == peer.read_frame()
    release.set()


#################################################### the calls ####################################################


def in_background(work: Callable[[], Any]) -> "queue.Queue[Any]":
    """What *work* returns or raises, once it does."""
    outcome: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            outcome.put(work())
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def test_invoke_returns_the_result_or_raises(hub: RudeHub, dial: Dial) -> None:
    """Result, void result and error reach their own caller, in whatever order they come."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    waiting = []
    for name in ("A", "B", "C"):
        waiting.append(in_background(lambda name=name: manager.invoke(name, 1)))
        assert name == peer.read_call()["target"]
    peer.send(record(type=3, invocationId="3", error="no"), record(type=3, invocationId="2"))
    peer.send(record(type=3, invocationId="1", result={"a": 1}))
    assert ({"a": 1}, None) == (waiting[0].get(timeout=5), waiting[1].get(timeout=5))
    error = waiting[2].get(timeout=5)
    assert (HubError, "C: no") == (type(error), str(error))
    assert manager.link is not None
    assert manager.link.round_trip is not None


def test_an_unanswered_call_fails_alone(hub: RudeHub, dial: Dial) -> None:
    """A call's timeout ends that call, not the connection; a late answer is nobody's."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    with pytest.raises(HubError, match="no answer in time"):
        manager.invoke("Slow", timeout=0.05)
    asked = peer.read_call()
    peer.send(record(type=3, invocationId=asked["invocationId"], result=1))
    answer = in_background(lambda: manager.invoke("Next"))
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"], result=2))
    assert 2 == answer.get(timeout=5)


def test_calls_in_flight_fail_with_the_connection_and_are_not_repeated(hub: RudeHub, dial: Dial) -> None:
    """Nothing is sent twice: who waits is told that the outcome is unknown."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    waiting = in_background(lambda: manager.invoke("Place"))
    peer.read_call("Place")
    peer.rst()
    assert isinstance(waiting.get(timeout=5), ConnectionLost)
    fresh = hub.shaken()
    assert connected(manager)
    manager.send("Marker")
    assert "Marker" == fresh.read_call()["target"]


def test_while_it_reconnects_calls_are_refused(hub: RudeHub, dial: Dial) -> None:
    """At once, and nothing of them is sent on the connection that follows."""
    manager = dial(backoff_seconds=(0.1,))
    peer = hub.shaken()
    assert connected(manager)
    peer.rst()
    assert soon(lambda: manager.state is State.RECONNECTING)
    for attempt in (manager.send, manager.invoke, manager.start_call):
        with pytest.raises(ConnectionLost, match=r"is reconnecting; nothing was sent"):
            attempt("Late")
    peer = hub.shaken()
    assert connected(manager)
    manager.send("Next")
    assert "Next" == peer.read_call()["target"]


def test_what_was_handed_over_as_the_connection_ended_is_told_and_not_sent_later(
    hub: RudeHub, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it stands and the laying down, or before the owner's turn: never on the next one."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    owner = manager._owner
    assert owner is not None
    outbox = owner.outbox
    assert outbox is not None
    put = outbox.put

    def put_late(asked: Any) -> None:
        peer.rst()
        assert soon(lambda: owner.outbox is None)
        put(asked)

    monkeypatch.setattr(outbox, "put", put_late)
    outcome = in_background(lambda: manager.send("Lost"))
    assert "ended before this was sent" in str(outcome.get(timeout=5))
    peer = hub.shaken()
    assert connected(manager)
    monkeypatch.setattr(manager, "wake", lambda: None)  # no turn for the owner before the next end
    outcomes = [in_background(lambda: manager.send("Lost too")), in_background(lambda: manager.invoke("And this"))]
    assert soon(lambda: owner.outbox is not None and len(owner.outbox.posts) == len(owner.outbox.calls) == 1)
    peer.rst()
    assert [ConnectionLost] * 2 == [type(outcome.get(timeout=5)) for outcome in outcomes]
    monkeypatch.undo()
    peer = hub.shaken()
    assert connected(manager)
    manager.send("Next")
    assert "Next" == peer.read_call()["target"]


def test_without_a_connection_calls_are_refused(hub: RudeHub, dial: Dial) -> None:
    """Nothing is lost in silence: neither `send` nor `invoke` pretends."""
    manager = dial()
    for attempt in (lambda: manager.send("X"), lambda: manager.invoke("X")):
        with pytest.raises(ConnectionLost, match="nothing was sent"):
            attempt()
    with pytest.raises(TypeError):
        SignalRConnectionManager(object())
    hub.shaken()
    assert connected(manager)
    with pytest.raises(TypeError):
        manager.invoke("X", object())


def test_a_streaming_call(hub: RudeHub, dial: Dial) -> None:
    """Items come one by one, then the end; a call given up is cancelled at the hub."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    items: list[Any] = []
    streaming = manager.start_call("Counter", 2, on_item=items.append)
    key = peer.read_call()["invocationId"]
    peer.send(*(record(type=2, invocationId=key, item=i) for i in range(2)), record(type=3, invocationId=key))
    assert (None, [0, 1]) == (manager.result(streaming), items)
    manager.cancel(manager.start_call("Counter", 9, on_item=items.append))
    key = peer.read_call()["invocationId"]
    assert {"type": 5, "invocationId": key} == peer.read_record()


def test_a_call_from_a_state_observer(hub: RudeHub, dial: Dial) -> None:
    """Observers run on the callbacks' thread, so they may call the hub."""
    manager = dial()
    got: queue.Queue[Any] = queue.Queue()
    manager.observe(lambda state, reason: got.put(manager.invoke("Hello")) if state is State.CONNECTED else None)
    peer = hub.shaken()
    peer.send(record(type=3, invocationId=peer.read_call("Hello")["invocationId"], result="hi"))
    assert "hi" == got.get(timeout=5)


############################################### staying alive, ending ###############################################


def test_a_ping_after_silence_of_ours(hub: RudeHub, dial: Dial) -> None:
    """After a ping interval without a send, and only then, a ping goes out; the round trip is measured with it."""
    manager = dial(ping_interval=0.05)
    peer = hub.shaken()
    assert {"type": 6} == peer.read_record()
    assert {"type": 6} == peer.read_record()
    assert [b"topstep"] == peer.pings[:1]
    assert soon(lambda: manager.link is not None and manager.link.round_trip is not None)


@pytest.mark.parametrize("how", ["fin", "rst", "close", "allowed"])
def test_every_kind_of_end_is_reconnected_at_once(hub: RudeHub, dial: Dial, how: str) -> None:
    """FIN, RST, a WebSocket close, and a Close that allows it: the first step of the schedule is 0 s."""
    manager = dial(backoff_seconds=(0.0, 60.0))
    peer = hub.shaken()
    assert connected(manager)
    if how == "close":
        peer.raw(frame(b"\x03\xe9going away", 8))
    elif how == "allowed":
        peer.send(record(type=7, error="Connection closed with an error.", allowReconnect=True))
    else:
        getattr(peer, how)()
    hub.shaken()
    assert soon(lambda: len(manager.reconnects) == 1)


def test_a_close_without_allow_reconnect_starts_at_the_second_step(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """It is not final, but not answered at once either."""
    manager = dial(backoff_seconds=(0.0, 0.3))
    hub.shaken().send(record(type=7, error="Connection closed with an error."))
    assert hub.silent(0.15)
    hub.shaken()
    assert connected(manager)


def test_repeated_closes_are_the_end_with_the_server_s_words(hub: RudeHub, dial: Dial) -> None:
    """Five closes in a row, none after a stable connection, and the connection gives up."""
    manager = dial(backoff_seconds=(0.0,))
    for _ in range(5):
        hub.shaken().send(record(type=7, error="go away"))
    assert "go away" == failed(manager)
    assert hub.silent(0.1)


def test_the_official_reading_of_close(hub: RudeHub, dial: Dial) -> None:
    """With reconnect_on_close="server" the first Close without allowReconnect is final."""
    manager = dial(reconnect_on_close="server")
    hub.shaken().send(record(type=7, error="bye"))
    assert "bye" == failed(manager)


def test_wants_are_replayed_before_connected_is_told(hub: RudeHub, dial: Dial, heard: Heard) -> None:
    """After a drop every subscription is made again and answered, and only then the state is CONNECTED."""
    wants = (Want("SubscribeOrders", (536,)), Want("SubscribeTrades", (536,)))
    manager = dial(wants=wants)
    assert ["SubscribeOrders(536)", "SubscribeTrades(536)"] == hub.shaken().agree(2)
    assert connected(manager)
    hub.peers[-1].rst()
    peer = hub.shaken()
    peer.read_call()
    assert State.RECONNECTING is manager.state
    peer.send(record(type=3, invocationId="1", result=None))
    peer.agree(1)
    assert connected(manager)
    assert set(wants) == manager.subscriptions.standing()


def test_a_refused_subscription_stands_alone(hub: RudeHub, dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    """The hub's refusal is told with its words; the others stand, and the connection is up."""
    good, bad = Want("SubscribeOrders", (1,)), Want("SubscribeOrders", (2,))
    manager = dial(wants=(good, bad))
    peer = hub.shaken()
    peer.agree(1)
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"], error="Account 2 not found."))
    assert connected(manager)
    assert ({good}, {bad: "Account 2 not found."}) == (
        manager.subscriptions.standing(),
        manager.subscriptions.refused(),
    )
    assert soon(lambda: "Account 2 not found." in caplog.text)


def test_an_unanswered_subscription_is_a_lost_connection(hub: RudeHub, dial: Dial) -> None:
    """A hub that does not answer a subscription is not trusted to send its events."""
    manager = dial(wants=(Want("SubscribeAccounts"),), invoke_timeout=0.1)
    hub.shaken().read_call()
    hub.shaken().agree(1)
    assert connected(manager)


def test_unwanted_subscriptions_are_taken_back(hub: RudeHub, dial: Dial) -> None:
    """Several holders share one subscription; the last one takes it back."""
    want = Want("SubscribeOrders", (1,))
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    manager.want(want, holder="a")
    manager.want(want, holder="b")
    assert ["SubscribeOrders(1)"] == peer.agree(1)
    manager.unwant([want], holder="a")
    manager.unwant([want], holder="b")
    assert ["UnsubscribeOrders(1)"] == peer.agree(1)
    assert soon(lambda: not manager.subscriptions.standing())


def test_reconnecting_is_unlimited(hub: RudeHub, dial: Dial) -> None:
    """Twenty drops in a row end with a connection."""
    manager = dial(backoff_seconds=(0.0,))
    for i in range(20):
        peer = hub.shaken()
        peer.rst() if i % 2 else peer.fin()
    hub.shaken()
    assert connected(manager)


################################################ start, stop, threads ################################################


def left_behind() -> list[str]:
    """The names of the library's threads that still run."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("topstep-"))


def elapsed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.parametrize("stage", ["tcp", "upgraded", "connected", "backing off", "failed", "subscribing"])
def test_disconnect_ends_within_a_second_from_any_state(hub: RudeHub, dial: Dial, stage: str) -> None:
    """Whatever the thread waits for, it is gone well within a second, and so is its name."""
    wants = (Want("SubscribeAccounts"),) if stage == "subscribing" else ()
    manager = dial(backoff_seconds=(60.0,), max_attempts=0 if stage == "failed" else None, wants=wants)
    if stage == "tcp":
        hub.tcp().read_request()
    elif stage == "upgraded":
        hub.upgraded()
    elif stage in ("backing off", "failed"):
        hub.tcp().fin()
        assert soon(lambda: manager.state in (State.RECONNECTING, State.FAILED))
    else:
        hub.shaken()
        assert stage == "subscribing" or connected(manager)
    if stage == "subscribing":
        assert soon(lambda: manager.link is not None)
    assert elapsed(manager.disconnect) < 0.9
    assert State.DISCONNECTED is manager.state
    assert not [t for t in threading.enumerate() if t.name.startswith("topstep-test")]


def test_disconnect_says_goodbye(hub: RudeHub, dial: Dial) -> None:
    """The hub gets a Close record, then a closing frame with code 1000."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    manager.disconnect()
    assert {"type": 7} == peer.read_record()
    assert ("close", 1000) == (peer.until_end(), peer.close_code)


def test_a_black_hole_is_left_at_once(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TCP connect that is never answered does not hold up disconnect."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    manager = SignalRConnectionManager(url=f"http://127.0.0.1:{full.getsockname()[1]}/hub", name="hole")
    assert elapsed(lambda: manager.connect(timeout=0.1)) < 1.0
    assert State.CONNECTING is manager.state
    assert elapsed(manager.disconnect) < 0.5
    for sock in (full, *fillers):
        sock.close()


def test_names_are_looked_up_interruptibly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs does not hold up disconnect."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(5) or [])
    manager = SignalRConnectionManager(url="https://hub.example/hub", name="dns")
    manager.connect(timeout=0.05)
    assert elapsed(manager.disconnect) < 0.5
    assert ["topstep-resolve"] == left_behind()
    release.set()
    assert soon(lambda: not left_behind())


def test_a_token_that_takes_for_ever_is_left_at_once(hub: RudeHub, dial: Dial) -> None:
    """A login under way does not hold up disconnect."""
    release = threading.Event()
    manager = dial(lambda: release.wait(5) and "late")
    assert soon(lambda: "topstep-test-token" in left_behind())
    assert elapsed(manager.disconnect) < 0.5
    assert ["topstep-test-token"] == left_behind()
    release.set()
    assert soon(lambda: not left_behind())


def test_a_callback_that_takes_for_ever_is_left_behind(hub: RudeHub, dial: Dial) -> None:
    """It holds up disconnect by half a second at most; its thread ends with it."""
    running, release = threading.Event(), threading.Event()
    manager = dial()
    manager.on("Sleep", lambda: (running.set(), release.wait(10)))
    hub.shaken().send(call("Sleep"))
    assert running.wait(5)
    assert elapsed(manager.disconnect) < 0.9
    assert ["topstep-test-callbacks"] == left_behind()
    release.set()
    assert soon(lambda: not left_behind())


def test_start_and_stop_any_number_of_times(hub: RudeHub, dial: Dial) -> None:
    """A connection can be used again after disconnect; connecting twice is connecting once."""
    manager = dial()
    for _ in range(5):
        hub.shaken()
        assert connected(manager)
        assert manager.connect()
        manager.disconnect()
        manager.disconnect()
        manager.connect(timeout=0)
    hub.shaken()
    assert connected(manager)


def test_disconnect_from_a_callback(hub: RudeHub, dial: Dial) -> None:
    """A callback may end the connection that called it."""
    manager = dial()
    done = threading.Event()
    manager.on("Stop", lambda: (manager.disconnect(), done.set()))
    hub.shaken().send(call("Stop"))
    assert done.wait(2)
    assert State.DISCONNECTED is manager.state


def test_as_a_context(hub: RudeHub) -> None:
    """The connection is up inside the block and gone after it."""
    made = in_background(lambda: hub.shaken())
    with SignalRConnectionManager(url=hub.url, name="test") as manager:
        assert State.CONNECTED is manager.state
        assert "SignalRConnectionManager('test', state='connected')" == repr(manager)
        made.get(timeout=5)
    assert State.DISCONNECTED is manager.state


def test_a_bug_of_ours_is_told(hub: RudeHub, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception nobody foresaw ends in FAILED with its name, not in a thread that is silently gone."""
    monkeypatch.setattr("topstep_sync.realtime.link.signalr.HubProtocol", None)
    manager = dial()
    hub.upgraded()
    assert "internal error: TypeError" in failed(manager)


def test_what_only_callbacks_have(hub: RudeHub) -> None:
    """A connection that feeds a sink has no callbacks, and says where to look instead."""

    class Silent:
        def __getattr__(self, name: str) -> Any:
            return lambda *a, **k: float("inf")

    manager = SignalRConnectionManager(url=hub.url, sink=Silent())
    for attempt in (lambda: manager.on("X", print), lambda: manager.observe(print)):
        with pytest.raises(StreamError):
            attempt()


def test_32_threads_call_at_once(hub: RudeHub, dial: Dial) -> None:
    """Every caller gets its own answer."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)

    def serve() -> None:
        for _ in range(320):
            asked = peer.read_call()
            peer.send(record(type=3, invocationId=asked["invocationId"], result=asked["arguments"][0]))

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    outcomes = [in_background(lambda i=i: [manager.invoke("Echo", (i, j)) for j in range(10)]) for i in range(32)]
    assert [[[i, j] for j in range(10)] for i in range(32)] == [outcome.get(timeout=20) for outcome in outcomes]
    server.join(5)


def test_the_owner_cannot_wait_for_itself(hub: RudeHub, dial: Dial) -> None:
    """A call made on the connection's own thread would never be answered, so it is refused."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    refused: queue.Queue[Any] = queue.Queue()

    def again(_: Any) -> None:
        try:
            manager.invoke("Again")
        except StreamError as error:
            refused.put(error)

    manager.start_call("First", on_done=again)
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"]))
    assert "cannot wait for itself" in str(refused.get(timeout=5))


def test_giving_up_waiting_cancels_the_call(hub: RudeHub, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting for an answer leaves nothing behind; the late answer is nobody's."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)

    class Interrupting:
        def __getattr__(self, name: str) -> Any:
            return getattr(SYSTEM_CLOCK, name)

        def wait(self, event: Any, timeout: float | None = None) -> bool:
            peer.read_call("Slow")
            raise KeyboardInterrupt

    monkeypatch.setattr(manager, "_clock", Interrupting())
    with pytest.raises(KeyboardInterrupt):
        manager.invoke("Slow")
    monkeypatch.undo()
    assert manager.link is not None
    assert soon(lambda: not manager.link._pending)  # type: ignore[union-attr]
    peer.send(record(type=3, invocationId="1", result=1), call("Still"))


def test_a_server_that_does_not_read(hub: RudeHub, dial: Dial) -> None:
    """A send that does not get through in time ends the connection: half a frame cannot be taken back."""
    manager = dial(invoke_timeout=0.1)
    hub.shaken()
    assert connected(manager)
    with pytest.raises(StreamError):
        manager.invoke("Huge", "x" * 20_000_000)
    hub.shaken()
    assert connected(manager)


def test_no_log_shows_the_token(hub: RudeHub, dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    """Not even with everything switched on that websocket-client can write about its connections."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl-secret"
    caplog.set_level(logging.DEBUG)
    trace = logging.getLogger("websocket")
    before = trace.level, list(trace.handlers)
    websocket.enableTrace(True, handler=caplog.handler)
    try:
        manager = dial(token)
        peer = hub.shaken()
        assert (token, True) == (peer.token, connected(manager))
        manager.send("Echo", 1)
        peer.read_call()
        peer.rst()
        hub.tcp().read_request().answer(status="403 Forbidden")
        failed(manager)
    finally:
        websocket.enableTrace(False)
        trace.level, trace.handlers[:] = before
    assert any(line.name == "websocket" and "GET /hub?access_token=" in line.getMessage() for line in caplog.records)
    assert "c2lnbmF0dXJl" not in caplog.text
    assert "eyJzdWIi" not in caplog.text


def test_over_tls(heard: Heard, tmp_path: Path) -> None:
    """Verified, with calls, a large message, a reset and a goodbye; the owner thread alone touches the socket."""
    ca = authority(tmp_path)
    with RudeHub(server_context(ca)) as hub:
        tls = trusting_context(str(ca.certificate))
        manager = SignalRConnectionManager("token", heard, QUICK, url=hub.url, name="test", tls=tls)
        manager.connect(timeout=0)
        hub.shaken().rst()
        peer = hub.shaken()
        peer.send(call("Big", "x" * 1_000_000))
        assert 1_000_000 == len(heard.next()[1][0])
        assert connected(manager)
        manager.disconnect()
        assert {"type": 7} == peer.read_record()
        assert "close" == peer.until_end()


@pytest.mark.slow
def test_many_small_tls_connections_lose_nothing(tmp_path: Path) -> None:
    """Calls out under a flood in, thirty times: no connection ends that nobody ended (a thousand at night)."""
    ca = authority(tmp_path)
    with RudeHub(server_context(ca)) as hub:
        tls = trusting_context(str(ca.certificate))
        for _ in range(30):
            manager = SignalRConnectionManager(None, None, QUICK, url=hub.url, name="test", tls=tls)
            manager.connect(timeout=0)
            peer = hub.shaken()
            assert connected(manager)
            calls = in_background(lambda m=manager: [m.send("Echo", i) for i in range(20)])
            # One thread on the hub's side, too: two on one TLS socket would lose connections there.
            for i in range(50):
                peer.send(call("N", i, "x" * 300) * 10)
            assert list(range(20)) == [peer.read_call()["arguments"][0] for _ in range(20)]
            assert 20 == len(calls.get(timeout=5))
            assert [] == manager.reconnects
            manager.disconnect()  # before the peer ends, or another attempt would wait at the door
            peer.fin()


def test_in_a_forked_child_the_connection_is_the_parent_s(hub: RudeHub, dial: Dial) -> None:
    """Nothing is said on it; the child's manager knows why it is not connected, and connects anew when asked."""
    manager = dial()
    peer = hub.shaken()
    assert connected(manager)
    owner = manager._owner
    assert owner is not None
    owner.stop()  # the child has no such thread, nor that of the callbacks
    owner.join()
    assert manager._callbacks is not None
    manager._callbacks.close()
    peer.until_end()
    manager._estate.turn.acquire()
    in_background(manager._lock.acquire).get(timeout=5)
    manager.forked()
    assert (State.DISCONNECTED, True) == (manager.state, "forked" in (manager.reason or ""))
    manager.connect(timeout=0)
    hub.shaken()
    assert connected(manager)
