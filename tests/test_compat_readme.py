"""signalrcore's own README, taken from the installed package: its examples run after one import is changed."""

import importlib.metadata
import io
import logging
import queue
import re
import textwrap
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from rude_hub import Peer, RudeHub, call, record

from topstep_sync.compat import HubConnectionBuilder
from topstep_sync.testing import Gateway

ORIGINAL, OURS = "from signalrcore.hub_connection_builder import", "from topstep_sync.compat import"
MNQ = "CON.F.US.MNQ.Z26"


def examples() -> list[str]:
    readme = importlib.metadata.distribution("signalrcore").read_text("METADATA")
    return [textwrap.dedent(block) for block in re.findall(r"```python *\n(.*?)```", readme or "", re.DOTALL)]


def example(*marks: str) -> str:
    """The one example that holds all of *marks* and no omission."""
    whole = (text for text in examples() if not any(line.strip() == "..." for line in text.splitlines()))
    found = [text for text in whole if all(mark in text for mark in marks)]
    assert found, f"none of the {len(examples())} examples in signalrcore's README holds {marks} any more"
    return found[0]


class ChatHub:
    """The chat hub of signalrcore's test server: says what was said to all, counts, takes uploads."""

    def __init__(self, hub: RudeHub) -> None:
        self.hub, self.uploaded, self.done = hub, [], threading.Event()
        self.peers: queue.Queue[Peer] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        peer = self.hub.shaken()
        self.peers.put(peer)
        try:
            while True:
                self._answer(peer, peer.read_record())
        except (EOFError, OSError):
            self.done.set()

    def _answer(self, peer: Peer, asked: dict[str, Any]) -> None:
        key = asked.get("invocationId")
        if asked.get("target") == "SendMessage":
            peer.send(call("ReceiveMessage", *asked["arguments"]), record(type=3, invocationId=key, result=None))
        elif asked.get("target") == "Counter":
            for number in range(asked["arguments"][0]):
                peer.send(record(type=2, invocationId=key, item=number))
            peer.send(record(type=3, invocationId=key))
        elif asked["type"] == 2:
            self.uploaded.append(asked["item"])
        elif asked["type"] == 3:
            self.uploaded.append("end")


@pytest.fixture
def hub() -> Iterator[RudeHub]:
    with RudeHub() as made:
        yield made


def names(hub: RudeHub, **more: Any) -> dict[str, Any]:
    return {"HubConnectionBuilder": HubConnectionBuilder, "logging": logging, "server_url": hub.url, **more}


def test_the_whole_example(hub: RudeHub) -> None:
    """The program at the end of the README: connects, sends what is typed, prints what is heard, and leaves."""
    ChatHub(hub)
    heard, printed = threading.Event(), io.StringIO()
    typed = iter([hub.url.replace("http", "ws"), "me", "hello"])

    def type_in(prompt: str) -> str:
        if (text := next(typed, None)) is not None:
            return text
        assert heard.wait(5)
        return "exit()"

    def show(*values: Any) -> None:
        print(*values, file=printed)
        if values == (["me", "hello"],):
            heard.set()

    program = example("import sys", "input_with_default").replace(ORIGINAL, OURS)
    assert OURS in program
    with pytest.raises(SystemExit) as ended, redirect_stdout(printed):
        exec(compile(program, "README of signalrcore", "exec"), {"input": type_in, "print": show})
    assert 0 == ended.value.code
    assert "connection opened" in printed.getvalue()


def test_the_small_examples(hub: RudeHub) -> None:
    """Building, callbacks, receiving, sending with and without a callback, streams both ways: one after the other."""
    chat = ChatHub(hub)
    heard: queue.Queue[Any] = queue.Queue()
    items: list[Any] = []
    complete = threading.Event()
    scope = names(
        hub, username="me", message="hello", threading=threading, print=heard.put, iteration=7,
        self=SimpleNamespace(
            username="me", message="again", items=[0, 0, 0], on_next=items.append,
            on_complete=lambda message: complete.set(), on_error=items.append,
        ),
    )  # fmt: skip

    def run(*marks: str) -> None:
        exec(example(*marks), scope)

    run("hub_connection = HubConnectionBuilder()", '"raw"')
    run("on_open", "on_close")
    run('hub_connection.on("ReceiveMessage", print)')
    connection = scope["hub_connection"]
    scope["self"].connection = connection
    assert connection.start()
    run('hub_connection.send("SendMessage", [username, message])')
    run("send_callback_received")
    told = [heard.get(timeout=5) for _ in range(3)]
    assert told[0].startswith("connection opened")
    assert [["me", "hello"], ["me", "again"]] == told[1:]
    run("hub_connection.stream", "subscribe")
    assert complete.wait(5)
    assert [0, 1, 2] == items
    run("UploadStream", "subject.complete()")
    connection.stop()
    assert chat.done.wait(5)
    assert ["7", "end"] == chat.uploaded
    assert "connection closed" == heard.get(timeout=5)


def test_logging_in(hub: RudeHub) -> None:
    """The example with a token and a header: both are in the upgrade; what the login raises comes out of `start`."""
    scope = names(hub, login_function=lambda: "secret")
    exec(example("access_token_factory", "mycustomheader", "login_function"), scope)
    chat = ChatHub(hub)
    assert scope["hub_connection"].start()
    headers = chat.peers.get(timeout=5).headers
    assert ("Bearer secret", "mycustomheadervalue") == (headers["authorization"], headers["mycustomheader"])
    scope["hub_connection"].stop()

    def fail() -> str:
        raise requests.exceptions.ConnectionError("no")

    scope["login_function"] = fail
    exec(example("access_token_factory", "mycustomheader", "login_function"), scope)
    for _ in range(2):
        with pytest.raises(requests.exceptions.ConnectionError, match="no"):
            scope["hub_connection"].start()


def test_more_in_the_address(hub: RudeHub) -> None:
    """Parameters in the query arrive as they are written."""
    text = example("myQueryStringParam").replace("http.... /", hub.url)
    scope = names(hub)
    exec(text, scope)
    chat = ChatHub(hub)
    assert scope["connection"].start()
    assert "/hub?myQueryStringParam=134&foo=bar" == chat.peers.get(timeout=5).path
    scope["connection"].stop()


@pytest.mark.parametrize("where", ["header", "query"])
def test_a_gateway_s_user_hub(gateway: Gateway, where: str) -> None:
    """As programs for this gateway are written with signalrcore: a token, subscriptions, handlers, orders."""
    login = {"userName": gateway.user_name, "apiKey": gateway.api_key}
    token = requests.post(f"{gateway.url}/api/Auth/loginKey", json=login, timeout=5).json()["token"]
    orders: queue.Queue[Any] = queue.Queue()
    query = f"?access_token={token}" if where == "query" else ""
    options = {} if query else {"access_token_factory": lambda: token}
    connection = (
        HubConnectionBuilder()
        .with_url(f"{gateway.url}/hubs/user{query}", options={"skip_negotiation": True, **options})
        .with_automatic_reconnect({"type": "raw", "keep_alive_interval": 10, "reconnect_interval": 0.01})
        .build()
    )
    answered: queue.Queue[Any] = queue.Queue()

    connection.on_open(lambda: connection.send("SubscribeOrders", [704], answered.put))
    connection.on("GatewayUserOrder", orders.put)
    assert connection.start()

    def place() -> int:
        body = {"accountId": 704, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
        bearer = {"Authorization": f"Bearer {token}"}
        reply = requests.post(f"{gateway.url}/api/Order/place", json=body, headers=bearer, timeout=5)
        return int(reply.json()["orderId"])

    assert (None, True) == ((done := answered.get(timeout=5)).error, done.result is None)
    placed = place()
    (first,) = orders.get(timeout=5)
    assert placed == first["data"]["id"]
    gateway.drop_hubs(how="rst")
    assert None is answered.get(timeout=5).error  # subscribed anew, by on_open
    while not orders.empty():
        orders.get()
    placed = place()
    (again,) = orders.get(timeout=5)
    assert placed == again["data"]["id"]
    connection.stop()
