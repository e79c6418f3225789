"""Code written for signalrcore, after changing one import."""

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rude_hub import Peer, RudeHub, call, record, soon
from signalrcore.hub.base_hub_connection import BaseHubConnection
from signalrcore.hub.errors import HubConnectionError
from signalrcore.hub_connection_builder import HubConnectionBuilder as Original
from signalrcore.messages.completion_message import CompletionMessage
from signalrcore.protocol.json_hub_protocol import JsonHubProtocol
from signalrcore.protocol.messagepack_protocol import MessagePackHubProtocol
from signalrcore.subject import Subject
from signalrcore.types import HttpTransportType, HubProtocolEncoding

from topstep_sync.compat import HubConnection, HubConnectionBuilder
from topstep_sync.realtime.lifecycle import State

RAW = {"type": "raw", "keep_alive_interval": 10, "reconnect_interval": 0.01, "max_attempts": 5}


@pytest.fixture
def hub() -> Iterator[RudeHub]:
    with RudeHub() as made:
        yield made


class Client:
    """A connection as the README of signalrcore makes it, with everything it is told."""

    def __init__(self, hub: RudeHub, reconnect: dict[str, Any] | None = None, **options: Any) -> None:
        builder = HubConnectionBuilder().with_url(hub.url, options={"verify_ssl": False, **options})
        builder.configure_logging(logging.ERROR)
        if reconnect is not None:
            builder.with_automatic_reconnect(reconnect)
        self.hub = hub
        self.connection: HubConnection = builder.build()
        self.told: queue.Queue[Any] = queue.Queue()
        for name in ("open", "close", "reconnect"):
            getattr(self.connection, f"on_{name}")(lambda name=name: self.told.put(name))
        self.connection.on_error(lambda message: self.told.put(("error", message.invocation_id, message.error)))

    def start(self) -> Peer:
        peers: queue.Queue[Peer] = queue.Queue()
        threading.Thread(target=lambda: peers.put(self.hub.shaken()), daemon=True).start()
        assert self.connection.start()
        assert "open" == self.next()
        return peers.get(timeout=5)

    def next(self) -> Any:
        return self.told.get(timeout=5)


def test_the_classes_are_signalrcore_s(hub: RudeHub) -> None:
    """isinstance checks keep working; configuration mistakes raise what they raised."""
    client = Client(hub)
    assert isinstance(HubConnectionBuilder(), Original)
    assert isinstance(client.connection, BaseHubConnection)
    with pytest.raises(ValueError, match="valid url"):
        HubConnectionBuilder().with_url("")
    with pytest.raises(TypeError):
        HubConnectionBuilder().with_url("http://x", options={"access_token_factory": 7})


def test_the_readme_s_example(hub: RudeHub) -> None:
    """Open, receive, send, and stop, each callback in turn; handlers get the list of arguments."""
    client = Client(hub, RAW)
    client.connection.on("ReceiveMessage", client.told.put)
    peer = client.start()
    client.connection.send("SendMessage", ["user", "hello"])
    asked = peer.read_call()
    assert ("SendMessage", ["user", "hello"]) == (asked["target"], asked["arguments"])
    peer.send(record(type=3, invocationId=asked["invocationId"]), call("receivemessage", "user", "hi"))
    assert ["user", "hi"] == client.next()
    assert not client.connection.start()
    client.connection.stop()
    assert ("close", "close") == (client.next(), peer.until_end())
    with pytest.raises(HubConnectionError, match="Unable to transmit"):
        client.connection.send("SendMessage", [])


def test_answers_and_errors_reach_their_callbacks(hub: RudeHub) -> None:
    """The result goes to the call's own callback, the refusal to on_error with the caller's id."""
    client = Client(hub)
    peer = client.start()
    results: queue.Queue[CompletionMessage] = queue.Queue()
    made = client.connection.invoke("Add", [1, 2], on_invocation=results.put)
    assert made.invocation_id == peer.read_call()["invocationId"]
    peer.send(record(type=3, invocationId=made.invocation_id, result=3))
    assert (3, made.invocation_id) == ((got := results.get(timeout=5)).result, got.invocation_id)
    client.connection.send("Throw", [], invocation_id="mine")
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"], error="no"))
    assert ("error", "mine", "no") == client.next()
    with pytest.raises(TypeError, match="list or subject"):
        client.connection.send("X", "text")
    client.connection.stop()


def test_a_stream_loses_no_item(hub: RudeHub) -> None:
    """It starts when somebody listens; items, the end and an error reach their callbacks."""
    client = Client(hub)
    peer = client.start()
    got: list[Any] = []
    done = threading.Event()
    callbacks = {"next": got.append, "complete": lambda message: done.set(), "error": got.append}
    client.connection.stream("Counter", [2]).subscribe(callbacks)
    key = peer.read_call()["invocationId"]
    peer.send(record(type=2, invocationId=key, item=1), record(type=2, invocationId=key, item=2))
    peer.send(record(type=3, invocationId=key))
    assert done.wait(5)
    assert [1, 2] == got
    client.connection.stream("Counter", [2]).subscribe(callbacks)
    peer.send(record(type=3, invocationId=peer.read_call()["invocationId"], error="no"))
    assert soon(lambda: len(got) == 3)
    assert "no" == got[2].error
    client.connection.stop()


def test_a_subject_streams_to_the_server(hub: RudeHub) -> None:
    """Client streaming goes through `connection.transport`, as signalrcore's own class does it."""
    client = Client(hub)
    peer = client.start()
    subject = Subject()
    client.connection.send("UploadStream", subject)
    subject.next("one")
    subject.complete()
    begun, item, end = (peer.read_record() for _ in range(3))
    assert (1, [subject.invocation_id]) == (begun["type"], begun["streamIds"])
    assert (2, "one", 3) == (item["type"], item["item"], end["type"])
    assert (True, True) == (client.connection.transport.is_connected(), client.connection.transport.is_running())
    client.connection.stop()
    assert not client.connection.transport.is_running()
    with pytest.raises(HubConnectionError):
        subject.next("two")


def test_it_survives_a_reset_and_a_failing_callback(hub: RudeHub) -> None:
    """on_reconnect while it is away, on_open when it is back; a call in flight ends in on_error."""
    client = Client(hub, RAW)
    client.connection.on("Bad", lambda arguments: 1 // 0)
    peer = client.start()
    peer.send(call("Bad"))
    client.connection.send("Slow", [], invocation_id="s")
    peer.read_call()
    peer.rst()
    told = {str(client.next()) for _ in range(2)}
    assert "reconnect" in told
    assert any("the connection ended before" in text for text in told)
    hub.shaken()
    assert "open" == client.next()
    client.connection.unsubscribe("Bad", client.connection.handlers["Bad"][0])
    client.connection.stop()


def test_a_token_for_every_attempt_in_the_header(hub: RudeHub) -> None:
    """The factory is called anew, and the token is in no record and no URL."""
    tokens = iter(["one", "two", "three"])
    client = Client(hub, RAW, access_token_factory=lambda: next(tokens), headers={"X-Mine": "yes"})
    peer = client.start()
    assert ("/hub", "Bearer one", "yes") == (peer.path, peer.headers["authorization"], peer.headers["x-mine"])
    client.connection.send("X", [])
    assert "headers" not in peer.read_call()
    peer.fin()
    assert "Bearer two" == hub.shaken().headers["authorization"]
    client.connection.stop()


def test_without_automatic_reconnect_lost_is_lost(hub: RudeHub) -> None:
    """on_close, and no second attempt, as officially."""
    client = Client(hub)
    client.start().fin()
    assert "close" == client.next()
    assert (True, State.FAILED) == (hub.silent(0.1), client.connection._manager.state)
    client.connection.stop()


def test_the_intervals_end_the_attempts(hub: RudeHub) -> None:
    """As many attempts as there are intervals."""
    client = Client(hub, {"type": "interval", "intervals": [0, 0.01]})
    peer = client.start()
    hub.stop_listening()
    peer.fin()
    assert ["reconnect", "reconnect", "close"] == [client.next() for _ in range(3)]
    client.connection.stop()


def test_start_says_why_it_cannot(hub: RudeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection raises, and so does a server that does not answer."""
    monkeypatch.setattr("topstep_sync.compat._WAIT", 0.1)
    with pytest.raises(HubConnectionError, match=r"no connection within 0\.1 s"):
        Client(hub, RAW).connection.start()
    hub.stop_listening()
    with pytest.raises(HubConnectionError, match="refused"):
        Client(hub).connection.start()


def test_a_callback_may_stop_and_start(hub: RudeHub) -> None:
    """As often as it likes: one thread runs the callbacks, one after the other and in order."""
    client = Client(hub, RAW)
    running, most = threading.Semaphore(1), []

    def again(arguments: list[Any]) -> None:
        most.append(running.acquire(blocking=False))
        client.connection.stop()
        client.connection.start()
        client.told.put(arguments[0])
        running.release()

    client.connection.on("Again", again)
    peer = client.start()
    for number in range(3):
        peers: queue.Queue[Peer] = queue.Queue()
        threading.Thread(target=lambda peers=peers: peers.put(hub.shaken()), daemon=True).start()
        peer.send(call("Again", number))
        peer = peers.get(timeout=5)
        assert [number, "close", "open"] == [client.next() for _ in range(3)]
        assert 1 == sum(thread.name == "topstep-signalrcore-callbacks" for thread in threading.enumerate())
    assert [True] * 3 == most
    client.connection.stop()


def test_every_vain_attempt_is_told(hub: RudeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """on_reconnect comes for each, also before the first open."""
    monkeypatch.setattr("topstep_sync.compat._WAIT", 1.0)
    hub.stop_listening()
    client = Client(hub, {"type": "interval", "intervals": [0, 0.01]})
    with pytest.raises(HubConnectionError, match="refused"):
        client.connection.start()
    assert ["reconnect", "reconnect", "close"] == [client.next() for _ in range(3)]


def test_what_it_does_not_speak_is_refused_when_built() -> None:
    """Other transports and MessagePack; the JSON protocol by any name is fine."""
    builder = HubConnectionBuilder().with_url("http://127.0.0.1:1/hub")
    builder.with_hub_protocol(JsonHubProtocol()).build()
    builder.with_hub_protocol(HubProtocolEncoding.text).build()
    with pytest.raises(ValueError, match="MessagePack"):
        HubConnectionBuilder().with_url("http://x/hub").with_hub_protocol(MessagePackHubProtocol()).build()
    with pytest.raises(ValueError, match="MessagePack"):
        HubConnectionBuilder().with_url("http://x/hub").with_hub_protocol(HubProtocolEncoding.binary).build()
    options = {"transport": HttpTransportType.long_polling}
    with pytest.raises(ValueError, match="expected WebSockets"):
        HubConnectionBuilder().with_url("http://x/hub", options=options).build()
