"""Microsoft's SignalR client for .NET (the probe beside the reference gateway) against the simulator."""

import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Self

import aspnetcore
import pytest

pytestmark = [pytest.mark.interop, aspnetcore.needed]

MNQ = "CON.F.US.MNQ.Z26"
PATIENCE = 60.0


class Probe:
    """The probe, told what to do and heard, a JSON line each."""

    def __init__(self, url: str, token: str, retry: str | None = None) -> None:
        command = [str(aspnetcore.FOLDER / "start"), "probe", url, token, *([retry] if retry else [])]  # type: ignore[operator]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.overdue = threading.Timer(PATIENCE, self.process.kill)
        self.overdue.start()
        self.early: list[Any] = []

    def say(self, action: str, **more: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": action, **more}) + "\n")
        self.process.stdin.flush()

    def hear(self, event: str) -> Any:
        """The next line of that event; others are kept for later."""
        for line in self.early:
            if line["event"] == event:
                self.early.remove(line)
                return line
        assert self.process.stdout
        while text := self.process.stdout.readline():
            line = json.loads(text)
            if line["event"] == event:
                return line
            self.early.append(line)
        raise AssertionError(f"the probe ended before {event!r}; it said {self.early}")

    def invoke(self, target: str, *arguments: Any) -> Any:
        self.say("invoke", target=target, arguments=list(arguments))
        return self.hear("result")["result"]

    def fails(self, target: str, *arguments: Any) -> str:
        self.say("invoke", target=target, arguments=list(arguments))
        return str(self.hear("failed")["error"])

    def start(self) -> None:
        self.say("start")
        self.hear("started")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.overdue.cancel()
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def token(gateway: Any) -> str:
    return str(gateway.run(lambda world: world.tokens.issue()))


@pytest.fixture
def user(gateway: Any, token: str) -> Iterator[Probe]:
    with Probe(gateway.user_hub_url, token, "0,100,200,400") as probe:
        yield probe


def test_market_stream(gateway: Any, token: str) -> None:
    """It subscribes, gets the first quote, later ones, and every one of a flood, whatever shares a message."""
    with Probe(gateway.market_hub_url, token) as probe:
        probe.say("on", target="GatewayQuote")
        probe.hear("listening")
        probe.start()
        assert None is probe.invoke("SubscribeContractQuotes", MNQ)
        assert MNQ == probe.hear("received")["arguments"][0]
        gateway.set_price(MNQ, 21000.0)
        assert 20999.75 == probe.hear("received")["arguments"][1]["bestBid"]
        gateway.hubs.blast("market", 300, burst=20)
        assert list(range(300)) == [probe.hear("received")["arguments"][1]["volume"] for _ in range(300)]


def test_results_errors_and_large_records(gateway: Any) -> None:
    """Results of all kinds come back, errors with the framework's words, large records out of fragments."""
    with Probe(f"{gateway.url}/hubs/echo", "") as probe:
        probe.start()
        assert 42 == probe.invoke("Add", 40, 2)
        assert {"a": [1, None, "é"]} == probe.invoke("Echo", {"a": [1, None, "é"]})
        assert "é" * 60_000 == probe.invoke("Big", 60_000)
        assert "HubException: boom" in probe.fails("Throw", "boom")
        assert probe.fails("Nope").endswith("HubException: Method does not exist.")


def test_it_answers_the_gateway(gateway: Any) -> None:
    """A call of the client's method brings its result, and an error where it has none."""
    with Probe(f"{gateway.url}/hubs/echo", "") as probe:
        probe.say("answer", target="AskMe", result=42)
        probe.hear("listening")
        probe.start()
        assert [{"result": 42}] == gateway.hubs.ask("echo", "AskMe", 1)
        assert gateway.hubs.ask("echo", "Unknown", 1)[0]["error"]


@pytest.mark.parametrize("how", ["close-reconnect", "shutdown", "rst", "fin"])
def test_it_reconnects(gateway: Any, user: Probe, how: str) -> None:
    """After a Close with allowReconnect, and after a lost connection, it comes back and works."""
    user.start()
    gateway.drop_hubs("user", how)
    user.hear("reconnecting")
    user.hear("reconnected")
    assert None is user.invoke("SubscribeOrders", 536)


@pytest.mark.parametrize("how", ["abort", "close"])
def test_it_stays_away(gateway: Any, user: Probe, how: str) -> None:
    """After a Close without allowReconnect it stays disconnected, though told to reconnect."""
    user.start()
    gateway.drop_hubs("user", how)
    user.hear("closed")
    user.say("state")
    assert "Disconnected" == user.hear("state")["state"]
    assert not [line for line in user.early if line["event"] == "reconnected"]


def test_it_outlives_refused_connects(gateway: Any, user: Probe) -> None:
    """Refused upgrades and handshakes between two connections are survived."""
    user.start()
    gateway.faults.add("hubs/user", "refuse")
    gateway.faults.add("hubs/user", "handshake-error")
    gateway.drop_hubs("user", "rst")
    user.hear("reconnected")
    assert None is user.invoke("SubscribeAccounts")


def test_a_bad_token_is_told(gateway: Any) -> None:
    """A 401 at the upgrade reaches it as a failed start."""
    with Probe(gateway.user_hub_url, "nonsense") as probe:
        probe.say("start")
        assert "401" in probe.hear("failed")["error"]


def test_order_on_the_stream(gateway: Any, user: Probe) -> None:
    """An order's states reach it, wrapped."""
    from topstep_sync.messages import PlaceOrder
    from topstep_sync.models import OrderSide, OrderType

    user.say("on", target="GatewayUserOrder")
    user.hear("listening")
    user.start()
    user.invoke("SubscribeOrders", 536)
    order = PlaceOrder(account_id=536, contract_id=MNQ, type=OrderType.MARKET, side=OrderSide.BUY, size=1)
    gateway.run(lambda world: world.exchange.place(order))
    assert [6, 2] == [user.hear("received")["arguments"][0]["data"]["status"] for _ in range(2)]
