"""The stream on a real ASP.NET Core: every drop, every timer, every fill once."""

import contextlib
import json
import os
import queue
import random
import signal
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aspnetcore
import pytest
import requests

from tests.rude_hub import soon
from topstep_sync.config import Config
from topstep_sync.errors import ConnectionLost, HubError
from topstep_sync.events import ConnectionEvent, OrderEvent, QuoteEvent, Reconnected, SessionConflict, TradeEvent
from topstep_sync.models import OrderStatus
from topstep_sync.realtime import signalr
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.stream import Stream
from topstep_sync.session import Session

pytestmark = [pytest.mark.interop, aspnetcore.needed]

MNQ = "CON.F.US.MNQ.Z26"
QUICK = {"backoff_seconds": (0.0, 0.1, 0.2)}


class Reference:
    """The reference gateway, its controls, and orders placed past the library."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.ready, self.url, self.pid = ready, ready["url"], ready["pid"]
        self.http = requests.Session()
        self.login()

    def login(self) -> str:
        login = {"userName": self.ready["user_name"], "apiKey": self.ready["api_key"]}
        self.token: str = self.http.post(f"{self.url}/api/Auth/loginKey", json=login, timeout=10).json()["token"]
        return self.token

    def control(self, path: str, body: Any = None) -> Any:
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        answer = self.http.post(f"{self.url}/control{path}", timeout=120, **data)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def order(self, side: int = 0) -> int:
        """A market order that fills at once; its id."""
        body = {"accountId": 536, "contractId": MNQ, "type": 2, "side": side, "size": 1}
        bearer = {"Authorization": f"Bearer {self.token}"}
        answer = self.http.post(f"{self.url}/api/Order/place", json=body, headers=bearer, timeout=10)
        if answer.status_code == 401:
            bearer["Authorization"] = f"Bearer {self.login()}"
            answer = self.http.post(f"{self.url}/api/Order/place", json=body, headers=bearer, timeout=10)
        return int(answer.json()["orderId"])

    def config(self, **stream: Any) -> Config:
        return Config.of(
            {
                "user_name": self.ready["user_name"],
                "api_key": self.ready["api_key"],
                "base_url": self.url,
                "user_hub_url": f"{self.url}/hubs/user",
                "market_hub_url": f"{self.url}/hubs/market",
                "stream": {**QUICK, **stream},
            }
        )


@pytest.fixture(scope="module")
def shared() -> Iterator[Reference]:
    with aspnetcore.reference(limiter="none") as ready:
        yield Reference(ready)


@pytest.fixture
def reference(shared: Reference) -> Reference:
    shared.control("/reset")
    return shared


@pytest.fixture
def echo(reference: Reference) -> Iterator[SignalRConnectionManager]:
    """A connection to the hub that needs no token."""
    with SignalRConnectionManager(None, config=QUICK, url=f"{reference.url}/hubs/echo", name="echo") as made:
        yield made


def quiet(events: EventQueue, pause: float = 0.5) -> list[Any]:
    """Everything, once nothing has come for a while."""
    got: list[Any] = []
    while more := events.drain(timeout=pause):
        got += more
    return got


def until_lost(events: EventQueue) -> list[Any]:
    """Everything up to the news that the connection is gone; after that, each vain attempt is news, too."""
    got: list[Any] = []
    while not (isinstance(event := events.get(timeout=10), ConnectionEvent) and event.state == State.RECONNECTING):
        got.append(event)
    return got


def fills(events: list[Any]) -> list[int]:
    return [event.data.order_id for event in events if isinstance(event, TradeEvent)]


def until_back(events: EventQueue) -> list[Any]:
    """Everything up to the news that the gap is over."""
    got = [events.get(timeout=20)]
    while not isinstance(got[-1], Reconnected):
        got.append(events.get(timeout=20))
    return got


def back(events: EventQueue, hub: str = "user", timeout: float = 20.0) -> Any:
    return events.wait_for(lambda event: isinstance(event, Reconnected) and event.source == hub, timeout)


################################################## a plain hub ##################################################


def test_results_errors_sizes_and_streams(echo: SignalRConnectionManager) -> None:
    """Results of any kind, a HubException with its words, another without, an unknown method, large strings."""
    assert (5, None, {"a": [1, None, "é"]}) == (
        echo.invoke("Add", 2, 3),
        echo.invoke("Flood", 0, 1),
        echo.invoke("Echo", {"a": [1, None, "é"]}),
    )
    assert "é" * 200_000 == echo.invoke("Big", 200_000)
    for target, arguments, words in (
        ("Throw", ["bad"], "HubException: bad"),
        ("Crash", [], "on the server"),
        ("Nope", [], "Method does not exist"),
        ("Add", ["x", 1], "Failed to invoke 'Add'"),
    ):
        with pytest.raises(HubError, match=words):
            echo.invoke(target, *arguments)
    items: list[int] = []
    echo.result(echo.start_call("Counter", 100, on_item=items.append))
    assert list(range(100)) == items


def test_a_flood_keeps_its_order(echo: SignalRConnectionManager) -> None:
    """Fragmented and batched as the framework likes, nothing is lost or swapped."""
    got: queue.Queue[int] = queue.Queue()
    echo.on("Numbered", lambda number, text: got.put(number if len(text) == 5000 else -1))
    echo.invoke("Flood", 2000, 5000, timeout=30)
    assert list(range(2000)) == [got.get(timeout=10) for _ in range(2000)]


def test_the_server_asks_and_is_answered(echo: SignalRConnectionManager, reference: Reference) -> None:
    """A client result we do not have is refused at once, instead of timing out at the server."""
    start = time.monotonic()
    answer = requests.post(f"{reference.url}/control/hubs/echo/ask/AskMe?seconds=5", json=[1], timeout=20)
    assert "Client didn't provide a result." in answer.text
    assert time.monotonic() - start < 3


def test_a_message_that_is_too_large_for_the_hub(echo: SignalRConnectionManager) -> None:
    """Above 32 KiB the framework closes and allows to come back: the call fails, the connection is there again."""
    with pytest.raises(ConnectionLost):
        echo.invoke("Echo", "x" * 40_000)
    assert soon(lambda: echo.state is State.CONNECTED and len(echo.reconnects) == 1)
    assert 5 == echo.invoke("Add", 2, 3)


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_raw_messages(echo: SignalRConnectionManager, reference: Reference, cut: int) -> None:
    """A record split over two messages, odd records before it: all as the official .NET client reads them."""
    got: queue.Queue[Any] = queue.Queue()
    echo.on("Split", got.put)
    record = b'{"type":99}\x1e{"type":1,"target":"Split","arguments":["\xc3\xa9"],"headers":{"a":"b"}}\x1e'
    reference.control("/hubs/echo/raw", record[:cut])
    reference.control("/hubs/echo/raw", record[cut:])
    assert "é" == got.get(timeout=5)


#################################################### the drops ####################################################


@pytest.mark.parametrize("how", ["abort", "shutdown", "error", "error-reconnect", "fin", "rst"])
def test_every_kind_of_drop(reference: Reference, how: str) -> None:
    """Both hubs come back with their subscriptions, and what filled meanwhile is told once, before Reconnected."""
    config = reference.config(backoff_seconds=(0.5, 0.5))
    with Session(config=config) as session, session.subscribe(accounts=[536], quotes=[MNQ]) as events:
        quiet(events, 0.2)
        reference.control(f"/hubs/all/drop?how={how}")
        events.wait_for(lambda event: isinstance(event, ConnectionEvent), 5)
        placed = [reference.order(side % 2) for side in range(4)]
        recovered = back(events)
        assert (True, 0) == (recovered.reconciled, recovered.lost)
        assert soon(lambda: session._streaming().health().market.state is State.CONNECTED)
        live = reference.order()
        got = quiet(events)
        assert [*placed, live] == fills(got)
        assert [True] * 4 + [False] == [event.recovered for event in got if isinstance(event, TradeEvent)]
        done = Counter(e.data.id for e in got if isinstance(e, OrderEvent) and e.data.status is OrderStatus.FILLED)
        assert dict.fromkeys([*placed, live], 1) == done
        reference.control(f"/market?contractId={MNQ}&price=20123.25")
        reference.control("/market/rate?eventsPerSecond=20")
        assert events.wait_for(lambda event: isinstance(event, QuoteEvent), 5)
        reference.control("/market/rate?eventsPerSecond=0")


def test_forty_fills_while_the_hub_is_away(reference: Reference) -> None:
    """All forty are learned, each once; the official clients learn none."""
    config = reference.config(backoff_seconds=(2.0,))
    with Session(config=config) as session, session.subscribe(accounts=[536]) as events:
        reference.control("/hubs/user/drop?how=rst")
        events.wait_for(lambda event: isinstance(event, ConnectionEvent) and event.state == "reconnecting", 5)
        placed = [reference.order(side % 2) for side in range(40)]
        assert back(events).reconciled
        assert placed == fills(quiet(events))


@pytest.mark.slow
def test_hundreds_of_fills_around_twenty_drops(reference: Reference) -> None:
    """Orders flow while connections are cut every way at any moment: each fill once, recovered or live."""
    chance = random.Random(7)
    placed: list[int] = []
    with Session(config=reference.config(backoff_seconds=(0.0, 0.05))) as session:
        with session.subscribe(accounts=[536]) as events:
            stop = threading.Event()

            def trade() -> None:
                while not stop.is_set():
                    placed.append(reference.order(len(placed) % 2))

            trader = threading.Thread(target=trade, daemon=True)
            trader.start()
            other = Reference(reference.ready)
            for _ in range(20):
                time.sleep(chance.random() * 0.3)
                other.control(f"/hubs/user/drop?how={chance.choice(['abort', 'shutdown', 'fin', 'rst'])}")
            time.sleep(0.5)
            stop.set()
            trader.join(10)
            got = quiet(events, 3.0)
        assert len(placed) > 100
        assert (Counter(placed), 1) == (Counter(fills(got)), max(Counter(fills(got)).values()))
        done = Counter(e.data.id for e in got if isinstance(e, OrderEvent) and e.data.status is OrderStatus.FILLED)
        assert dict.fromkeys(placed, 1) == done


def test_three_connections_refused_right_after_the_handshake(reference: Reference) -> None:
    """A hub that fails in OnConnectedAsync is met again, by the schedule."""
    with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
        reference.control("/hubs/fail-connects?count=3")
        reference.control("/hubs/user/drop?how=fin")
        assert back(events).reconciled
        states = [e.reason for e in quiet(events, 0.2) if isinstance(e, ConnectionEvent) and e.state == "reconnecting"]
        assert 3 == sum("refused on connect" in (reason or "") for reason in states)


def test_upgrades_answered_503(reference: Reference) -> None:
    """A gateway that is being deployed is met again."""
    with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
        reference.control("/faults", {"path": "/hubs/user", "kind": "status", "status": 503, "times": 2})
        reference.control("/hubs/user/drop?how=rst")
        assert back(events).reconciled
        reasons = [event.reason or "" for event in quiet(events, 0.2) if isinstance(event, ConnectionEvent)]
        assert 2 == sum("503" in reason for reason in reasons)


def test_a_conflict(reference: Reference) -> None:
    """GatewayLogout, in any case of its letters, is told; the connection goes on if the gateway lets it."""
    with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
        reference.control("/hubs/user/send/gatewaylogout", ["elsewhere"])
        assert "elsewhere" == events.wait_for(lambda event: isinstance(event, SessionConflict), 5).reason


def test_the_same_trade_sent_twice(reference: Reference) -> None:
    """A duplicate by the gateway itself is told once."""
    trade = {
        "id": 77, "accountId": 536, "contractId": MNQ, "creationTimestamp": "2026-11-24T10:00:00.1234567+00:00",
        "price": 1.5, "fees": 0.1, "side": 0, "size": 1, "voided": False, "orderId": 5,
    }  # fmt: skip
    with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
        for _ in range(3):
            reference.control("/hubs/user/send/GatewayUserTrade", [{"action": 0, "data": trade}])
        assert [5] == fills(quiet(events, 0.3))


def test_a_server_that_comes_back_with_another_key() -> None:
    """The process is killed while orders flow; the new one refuses the old token: logged in anew, and orders flow on.

    What the dead process filled and never told is gone with it: nobody has it any more. Of the new one nothing is
    missed, but what bears a number that the dead one used for what it told.
    """
    placed: dict[int, list[int]] = {0: [], 1: []}

    def flow(server: Reference, into: list[int], ended: threading.Event) -> None:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):  # it is killed in mid-sentence
            while not ended.wait(0.02):
                into.append(server.order(len(into) % 2))

    with aspnetcore.reference(limiter="none") as ready:
        first, ended = Reference(ready), threading.Event()
        port = first.url.rsplit(":", 1)[1]
        session = Session(config=first.config(backoff_seconds=(0.0, 0.2)))
        events = session.subscribe(accounts=[536])
        flowing = threading.Thread(target=flow, args=(first, placed[0], ended))
        flowing.start()
        assert soon(lambda: len(placed[0]) >= 30)  # the last ones it may have answered, and told nobody of yet
        os.kill(first.pid, signal.SIGKILL)
        flowing.join(10)
        before = fills(until_lost(events))
    assert placed[0][:20] == before[:20]
    with session, events, aspnetcore.reference(limiter="none", port=port) as ready:
        second, ended = Reference(ready), threading.Event()
        flowing = threading.Thread(target=flow, args=(second, placed[1], ended))
        flowing.start()
        assert soon(lambda: len(placed[1]) >= len(before) + 20, timeout=30)
        assert back(events, timeout=30).reconciled
        count = len(placed[1]) + 20
        assert soon(lambda: len(placed[1]) >= count)
        ended.set()
        flowing.join(10)
        after = fills(quiet(events, 1.0))
        assert max(Counter(after).values()) == 1
        news = [order for order in placed[1] if order not in before]
        assert (news, 20) == (after[-len(news) :], min(20, len(news)))


#################################################### the timers ####################################################


def test_timers_of_the_server() -> None:
    """Its client timeout, its WebSocket pings that must be answered, and our pings keep a quiet connection up."""
    switches = {"clientTimeout": 1, "keepAlive": 0.5, "webSocketKeepAlive": 0.3, "webSocketKeepAliveTimeout": 0.5}
    with aspnetcore.reference(limiter="none", **switches) as ready:
        reference = Reference(ready)
        config = reference.config(ping_interval=0.4, server_timeout=1.5)
        with Stream(config, reference.login) as stream, stream.subscribe(accounts=[536], quotes=[MNQ]) as events:
            quiet(events, 0.2)
            time.sleep(4)
            assert [] == [event for event in events.drain() if isinstance(event, ConnectionEvent)]
            assert (stream.health().user.round_trip or 9) < 0.5


def test_the_server_gives_up_a_client_that_fell_silent() -> None:
    """Its Close allows a return, so we are back by the first step, reconciled, and what was filled is told once."""
    with aspnetcore.reference(limiter="none", clientTimeout=1, keepAlive=0.5) as ready:
        reference = Reference(ready)
        config = reference.config(ping_interval=20.0, backoff_seconds=(0.0, 30.0))
        with Session(config=config) as session, session.subscribe(accounts=[536]) as events:
            quiet(events, 0.2)
            session._streaming()._hubs["user"].connection.post(signalr.PING)  # the first ping arms its timer
            silent = time.monotonic()
            lost = events.wait_for(lambda event: isinstance(event, ConnectionEvent), 10)
            assert ("reconnecting", True) == (lost.state, "Connection closed with an error" in (lost.reason or ""))
            assert 0.9 < time.monotonic() - silent < 4.0
            placed = [reference.order(side % 2) for side in range(4)]
            told = until_back(events)
            assert told[-1].reconciled
            assert time.monotonic() - silent < 6.0
            assert placed == fills([*told, *quiet(events)])


def test_tokens_that_expire_with_their_connections() -> None:
    """The server closes when the token expires; each new connection has a fresh one, and fills go on."""
    with aspnetcore.reference(limiter="none", closeOnExpiry="true", tokenLifetime=3, clockSkew=0) as ready:
        reference = Reference(ready)
        with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
            placed, end = [], time.monotonic() + 10
            while time.monotonic() < end:
                placed.append(reference.order(len(placed) % 2))
                time.sleep(0.2)
            got = quiet(events, 1.5)
            assert Counter(placed) == Counter(fills(got))
            assert sum(isinstance(event, Reconnected) for event in got) >= 2


def frozen(seconds: float, **stream: Any) -> None:
    with aspnetcore.reference(limiter="none") as ready:
        reference = Reference(ready)
        with Session(config=reference.config(**stream)) as session, session.subscribe(accounts=[536]) as events:
            quiet(events, 0.2)
            os.kill(reference.pid, signal.SIGSTOP)
            try:
                lost = events.wait_for(lambda event: isinstance(event, ConnectionEvent), seconds)
                assert "not a byte" in lost.reason
                time.sleep(max(0.0, seconds - 1))
            finally:
                os.kill(reference.pid, signal.SIGCONT)
            assert back(events, timeout=60).reconciled
            placed = reference.order()
            assert [placed] == fills(quiet(events, 1.0))


def test_a_frozen_server_is_left_and_met_again() -> None:
    """SIGSTOP is a silent, half-open connection: noticed by the server timeout, recovered after SIGCONT."""
    frozen(3.0, server_timeout=1.0, ping_interval=0.3, connect_timeout=1.0, handshake_timeout=1.0)


@pytest.mark.nightly
@pytest.mark.timeout(0)
def test_a_server_frozen_for_45_seconds() -> None:
    """The same with the default timers."""
    frozen(45.0)


def test_disconnect_from_a_frozen_server() -> None:
    """Closing takes less than a second, even though nobody answers the goodbye."""
    with aspnetcore.reference(limiter="none") as ready:
        reference = Reference(ready)
        stream = Stream(reference.config(), reference.login)
        stream.subscribe(accounts=[536], quotes=[MNQ])
        os.kill(reference.pid, signal.SIGSTOP)
        try:
            start = time.perf_counter()
            stream.close()
            assert time.perf_counter() - start < 1.0
        finally:
            os.kill(reference.pid, signal.SIGCONT)


###################################################### volume ######################################################


def received(events: EventQueue, count: int, timeout: float = 60.0) -> list[float]:
    """The volumes of so many quotes; the blast numbers its quotes there."""
    volumes: list[Any] = []
    end = time.monotonic() + timeout
    while len(volumes) < count and time.monotonic() < end:
        volumes += [event.data.volume for event in events.drain(timeout=1.0) if isinstance(event, QuoteEvent)]
    return volumes


@pytest.mark.slow
def test_a_million_events(reference: Reference) -> None:
    """As fast as the framework sends them, one and twenty a message: each once."""
    config = reference.config()
    with Stream(config, reference.login) as stream, stream.subscribe(quotes=[MNQ], conflate=False) as events:
        quiet(events, 0.2)
        for burst, count in ((1, 500_000), (20, 500_000)):
            blast = f"/hubs/market/blast?count={count}&burst={burst}&size=275"
            sender = threading.Thread(target=reference.control, args=(blast,), daemon=True)
            sender.start()
            assert list(range(count)) == received(events, count)
            sender.join(10)
        assert stream.health().market.faults == 0


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read as Linux tells it")
def test_ten_million_events_and_a_consumer_that_stalls(reference: Reference) -> None:
    """With conflation they cost at most 8 MB, and the consumer then gets the latest prices."""
    with Stream(reference.config(), reference.login) as stream, stream.subscribe(quotes=[MNQ]) as events:
        count = 10_000_000
        reference.control("/hubs/market/blast?count=200000&burst=20&size=275")
        assert soon(lambda: events.received >= 200_000, timeout=60)
        events.drain()
        before, most, warm = resident(), 0, events.received
        blast = f"/hubs/market/blast?count={count}&burst=20&size=275"
        sender = threading.Thread(target=lambda: requests.post(f"{reference.url}/control{blast}", timeout=3600))
        sender.start()
        while sender.is_alive():
            sender.join(0.2)
            most = max(most, resident() - before)
        assert soon(lambda: events.received >= warm + count, timeout=600)
        print(f"\n{count} events, grown by {most / 1e6:.1f} MB, {events.merged} merged, {events.qsize()} wait")
        assert most <= 8_000_000
        assert count - 1 == events.drain()[-1].data.volume
        assert (0, 0) == (events.dropped, stream.health().market.faults)


def test_tls_with_its_own_certificate(tmp_path: Path) -> None:
    """Verified against the given certificate it works, drops and goodbye included; without it, it is refused."""
    certificate = tmp_path / "gateway.pem"
    with aspnetcore.reference(limiter="none", tls="true", certificate=certificate) as ready:
        url = f"{ready['tls_url']}/hubs/echo"
        tls = ssl.create_default_context(cafile=str(certificate))
        with SignalRConnectionManager(None, config=QUICK, url=url, name="tls", tls=tls) as connection:
            assert "é" * 100_000 == connection.invoke("Big", 100_000)
            requests.post(f"{ready['url']}/control/hubs/echo/drop?how=rst", timeout=5)
            assert soon(lambda: connection.reconnects and connection.state is State.CONNECTED)
            assert 5 == connection.invoke("Add", 2, 3)
        stranger = SignalRConnectionManager(None, config={**QUICK, "max_attempts": 1}, url=url, name="tls")
        stranger.connect(timeout=0)
        assert soon(lambda: stranger.state is State.FAILED)
        assert "certificate" in (stranger.reason or "").lower()
        stranger.disconnect()


@pytest.mark.nightly
@pytest.mark.timeout(0)
def test_a_thousand_tls_connections_under_flood(tmp_path: Path) -> None:
    """A flood in, calls out, over TLS: no connection is lost that nobody cut."""
    certificate = tmp_path / "gateway.pem"
    with aspnetcore.reference(limiter="none", tls="true", certificate=certificate) as ready:
        url = f"{ready['tls_url']}/hubs/echo"
        tls = ssl.create_default_context(cafile=str(certificate))
        for _ in range(1000):
            with SignalRConnectionManager(None, config=QUICK, url=url, name="tls", tls=tls) as connection:
                connection.send("Flood", 500, 300)
                for number in range(40):
                    assert number == connection.invoke("Echo", number)
                assert [] == connection.reconnects


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "drops", [pytest.param(30, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.nightly)]
)
def test_tls_drops_under_flood(tmp_path: Path, drops: int) -> None:
    """Reset again and again while a flood comes in and calls go out: as many reconnects as drops, not one more."""
    certificate = tmp_path / "gateway.pem"
    with aspnetcore.reference(limiter="none", tls="true", certificate=certificate) as ready:
        url = f"{ready['tls_url']}/hubs/echo"
        tls = ssl.create_default_context(cafile=str(certificate))
        control = requests.Session()
        with SignalRConnectionManager(None, config={"backoff_seconds": (0.0,)}, url=url, name="tls", tls=tls) as hub:
            for drop in range(1, drops + 1):
                hub.send("Flood", 200, 300)
                assert drop == hub.invoke("Echo", drop)
                assert control.post(f"{ready['url']}/control/hubs/echo/drop?how=rst", timeout=10).ok
                assert soon(lambda n=drop: len(hub.reconnects) == n and hub.state is State.CONNECTED, timeout=20)
            assert 1001 == hub.invoke("Echo", 1001)
            assert (drops, 0) == (len(hub.reconnects), hub.faults)


def test_json_of_the_gateway_is_what_we_think() -> None:
    """The switches for flat records and explicit nulls give the same events."""
    for switches in ({"envelope": "false"}, {"omitNulls": "false"}):
        with aspnetcore.reference(limiter="none", **switches) as ready:
            reference = Reference(ready)
            with Session(config=reference.config()) as session, session.subscribe(accounts=[536]) as events:
                placed = reference.order()
                got = quiet(events)
                assert [placed] == fills(got)
                assert {"order", "position", "trade", "account"} <= {event.kind for event in got}
                assert json.dumps(session.state.position(536, MNQ).size) == "1"  # type: ignore[union-attr]
