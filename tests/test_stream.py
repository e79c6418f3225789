"""The stream as a user meets it: queues, drops, recovery, state, health, the end."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
import timeit
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from rude_hub import Peer, RudeHub, call, record, soon

from topstep_sync.clock import SystemClock
from topstep_sync.config import Config
from topstep_sync.errors import InvalidRequest, SessionClosed, StreamError, StreamFailed
from topstep_sync.events import (
    BookReset,
    ConnectionEvent,
    OrderEvent,
    QuoteEvent,
    Reconnected,
    SessionConflict,
    SubscriptionFailed,
    TradeEvent,
)
from topstep_sync.models import Trade
from topstep_sync.realtime.health import Status
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.stream import Stream
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

MNQ, MES = "CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26"
QUICK = {"backoff_seconds": (0.0, 0.05), "hold_seconds": 2.0}

############################################## against the simulator ##############################################


@pytest.fixture
def session(gateway: Any) -> Iterator[Session]:
    with Session(config=gateway.config_with(stream=QUICK)) as made:
        yield made


def until(events: EventQueue, kind: type, timeout: float = 5.0) -> list[Any]:
    """Everything up to and with the first event of *kind*."""
    got = []
    while not got or not isinstance(got[-1], kind):
        got.append(events.get(timeout=timeout))
    return got


def only(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def settled(events: EventQueue, pause: float = 0.3) -> list[Any]:
    """Everything, once nothing has come for a while."""
    got: list[Any] = []
    while more := events.drain(timeout=pause):
        got += more
    return got


def test_an_order_s_life_arrives_and_the_state_follows(gateway: Any, session: Session) -> None:
    """Order, trade, position and account of a market order, live and once, and the state agrees."""
    gateway.set_price(MNQ, 21000.0)
    with session.subscribe(accounts=[536], quotes=[MNQ]) as events:
        session.orders.place(536, MNQ, side="buy", size=1)
        got = settled(events)
        assert {"order", "trade", "position", "account", "quote"} <= {event.kind for event in got}
        assert (1, False) == (len(only(got, TradeEvent)), any(event.recovered for event in got))
        position = session.state.position(536, MNQ)
        assert position is not None
        assert (1, True, 0) == (position.size, session.state.reconciled, len(session.state.orders))
    assert not [t.name for t in threading.enumerate() if t.name in ("topstep-user", "topstep-market")]


def _is_back(event: Any, hub: str) -> bool:
    return isinstance(event, Reconnected) and event.source == hub


@pytest.mark.parametrize(
    "how", ["abort", "close", *(pytest.param(how, marks=pytest.mark.slow) for how in ("fin", "rst", "close-reconnect"))]
)
def test_what_happens_while_the_hubs_are_down_is_told_once(gateway: Any, how: str) -> None:
    """After every kind of drop: subscriptions back, each fill of the gap once, then Reconnected, then live again."""
    gateway.set_price(MNQ, 21000.0)
    config = gateway.config_with(stream={**QUICK, "backoff_seconds": (0.3, 0.3)})
    with Session(config=config) as session, session.subscribe(accounts=[536], quotes=[MNQ]) as events:
        settled(events, 0.1)
        gateway.drop_hubs(how=how)
        until(events, ConnectionEvent)
        placed = [session.orders.place(536, MNQ, side="buy", size=1).id for _ in range(3)]
        back = [
            events.wait_for(lambda e, hub=hub: e.kind == "reconnected" and e.source == hub, 5)
            for hub in ("user", "market")
        ]
        got = settled(events)
        live = session.orders.place(536, MNQ, side="sell", size=1).id
        more = settled(events)
        assert ([True, False], True) == ([event.reconciled for event in back], back[0].gap_start < back[0].gap_end)
        assert placed == [event.data.order_id for event in only(got, TradeEvent)]
        assert all(event.recovered for event in only(got, TradeEvent))
        assert back[0].recovered_count == sum(event.recovered for event in got)
        assert [live] == [event.data.order_id for event in only(more, TradeEvent)]
        assert not any(event.recovered for event in more)
        assert session.state.position(536, MNQ).size == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("most", [7, pytest.param(0, marks=pytest.mark.slow)])
def test_more_happens_in_a_gap_than_a_page_holds(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Forty fills, twenty-five resting orders, seven a page: each is told once, and all that rest are in the state.

    So it is where the searches give no more than the seven oldest orders and the seven latest trades.
    """
    monkeypatch.setattr("topstep_sync.api.lookup.PAGE", 7)
    monkeypatch.setattr("topstep_sync.snapshots.MANY", 7)
    with Gateway(limiter="none", search_rows=most) as gateway:
        gateway.set_price(MNQ, 21000.0)
        config = gateway.config_with(stream={**QUICK, "backoff_seconds": (1.0,)})
        http = requests.Session()
        with Session(config=config) as session, session.subscribe(accounts=[536]) as events:
            http.headers["Authorization"] = f"Bearer {session.tokens.get_token()}"
            settled(events, 0.1)
            gateway.drop_hubs(how="rst")
            until(events, ConnectionEvent)

            def place(**more: Any) -> int:
                body = {"accountId": 536, "contractId": MNQ, "side": 0, "size": 1, **more}
                return int(http.post(f"{gateway.url}/api/Order/place", json=body, timeout=5).json()["orderId"])

            filled = [place(type=2) for _ in range(40)]
            resting = [place(type=1, limitPrice=20000.0 + i) for i in range(25)]
            events.wait_for(lambda event: _is_back(event, "user"), 15)
            got = settled(events)
            assert filled == [event.data.order_id for event in only(got, TradeEvent)]
            ended = [event.data.id for event in only(got, OrderEvent) if event.data.id in filled]
            assert sorted(filled) == sorted(ended)
            assert set(resting) == set(session.state.orders)


def test_two_queues_share_the_hubs(gateway: Any, session: Session) -> None:
    """Each gets what it asked for and nothing else; what one lets go of, the other keeps."""
    with session.subscribe(quotes=[MNQ]) as one, session.subscribe(quotes=[MNQ, MES]) as two:
        settled(one, 0.1)
        settled(two, 0.1)
        gateway.set_price(MNQ, 21001.0)
        gateway.set_price(MES, 5001.0)
        assert {MNQ} == {event.contract_id for event in only(settled(one), QuoteEvent)}
        assert {MNQ, MES} == {event.contract_id for event in only(settled(two), QuoteEvent)}
        two.close()
        gateway.set_price(MNQ, 21002.0)
        gateway.set_price(MES, 5002.0)
        assert {MNQ} == {event.contract_id for event in only(settled(one), QuoteEvent)}


def test_an_account_nobody_has(gateway: Any, session: Session) -> None:
    """A subscription that the hub refuses is told by name, and the others stand."""
    events = session.subscribe(accounts=[536], wait=5)
    with events, session.subscribe(accounts=[704, 424242], wait=5) as other:
        failed = other.wait_for(lambda event: isinstance(event, SubscriptionFailed), 5)
        assert ("424242", "user", {536, 704}) == (failed.argument, failed.source, set(session.state.accounts))
        session.orders.place(536, MNQ, side="buy", size=1, limit_price=100.0)
        assert events.wait_for(lambda event: isinstance(event, OrderEvent), 5).data.account_id == 536


def test_orders_while_a_token_dies_with_its_connections(gateway: Any, session: Session) -> None:
    """Revoked tokens and dropped hubs: the stream logs in again, and each fill comes once."""
    gateway.set_price(MNQ, 21000.0)
    with session.subscribe(accounts=[536]) as events:
        settled(events, 0.1)
        gateway.revoke_tokens()
        gateway.drop_hubs(how="fin")
        placed = [session.orders.place(536, MNQ, side="buy", size=1).id for _ in range(2)]
        events.wait_for(lambda event: isinstance(event, Reconnected) and event.reconciled, 10)
        assert placed == [event.data.order_id for event in only(settled(events), TradeEvent)]


def test_health_tells_the_truth(gateway: Any, session: Session) -> None:
    """Healthy while all is well, unhealthy with the reason while it is not, reconnects counted."""
    with session.subscribe(accounts=[536], quotes=[MNQ]):
        stream = session._streaming()
        assert (Status.HEALTHY, ()) == (stream.health().status, stream.health().reasons)
        gateway.drop_hubs(hub="market", how="fin")
        assert soon(lambda: stream.health().market.reconnects == 1)
        assert soon(lambda: stream.health().market.state is State.CONNECTED)
        assert ("SubscribeContractQuotes(CON.F.US.MNQ.Z26)",) == tuple(stream.health().market.since_data)
        assert (0, ["account 536"]) == (stream.health().user.reconnects, list(stream.health().user.since_data))


def test_a_second_queue_of_an_account_stands_at_once(session: Session) -> None:
    """What is reconciled already is not waited for: nothing but the owner's next turn is."""
    with session.subscribe(accounts=[536]):
        begun = time.monotonic()
        for _ in range(4):
            session.subscribe(accounts=[536]).close()
        assert time.monotonic() - begun < 2.0


@pytest.mark.slow
def test_many_threads_subscribe_and_let_go(gateway: Any, session: Session) -> None:
    """Whoever subscribes while the last one lets go gets a connection all the same."""
    gateway.set_market_rate(50.0)
    troubles: list[BaseException] = []

    def work(contract: str) -> None:
        try:
            for _ in range(10):
                with session.subscribe(quotes=[contract]) as events:
                    events.wait_for(lambda event: isinstance(event, QuoteEvent), 10)
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=((MNQ, MES)[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == troubles


############################################ against hubs that do anything ############################################


class Hubs:
    """A stream with two rude hubs and a snapshot of one's own making."""

    def __init__(self) -> None:
        self.user, self.market = RudeHub(), RudeHub()
        self.snapshot = Snapshot()
        self.failures: list[Exception] = []
        self.asked: list[tuple[list[int], float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.stream = self.make()

    def make(self, **stream: Any) -> Stream:
        config = Config(user_hub_url=self.user.url, market_hub_url=self.market.url, stream={**QUICK, **stream})  # type: ignore[arg-type]
        return Stream(config, lambda: "token", snapshot=self.fetch)

    def fetch(self, account_ids: list[int], since: float) -> Snapshot:
        self.asked.append((account_ids, since))
        self.gate.wait(5)
        if self.failures:
            raise self.failures.pop(0)
        return self.snapshot

    def subscribe(self, count: int = 4, **wanted: Any) -> tuple[EventQueue, Peer]:
        """A queue that stands, and the hub's end of its connection."""
        hub = self.user if "accounts" in wanted else self.market
        peers: queue.Queue[Peer] = queue.Queue()

        def serve() -> None:
            peer = hub.shaken()
            peer.agree(count)
            peers.put(peer)

        threading.Thread(target=serve, daemon=True).start()
        events = self.stream.subscribe(**wanted)
        return events, peers.get(timeout=5)

    def again(self, count: int = 4, hub: RudeHub | None = None) -> Peer:
        """The next connection, with its subscriptions agreed."""
        peer = (hub or self.user).shaken()
        peer.agree(count)
        return peer


@pytest.fixture
def hubs() -> Iterator[Hubs]:
    made = Hubs()
    yield made
    made.gate.set()
    for hub in (made.user, made.market):
        hub.stop_listening()
        for peer in hub.peers:
            peer.fin()
    made.stream.close()
    for hub in (made.user, made.market):
        hub.__exit__()


def trade(number: int) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {
        "id": number, "accountId": 5, "contractId": MNQ, "creationTimestamp": now, "price": 1.0, "fees": 0.0,
        "side": 0, "size": 1, "voided": False, "orderId": 1,
    }  # fmt: skip


def as_trade(fields: dict[str, Any]) -> Trade:
    import msgspec

    return msgspec.convert(fields, Trade)


def told(target: str, fields: dict[str, Any]) -> bytes:
    return call(target, {"action": 0, "data": fields})


def test_the_calls_of_both_hubs(hubs: Hubs) -> None:
    """Accounts ask for accounts, orders, positions and trades; contracts for what was named; nothing twice."""
    asked: list[str] = []

    def serve() -> None:
        asked.extend(hubs.user.shaken().agree(7))
        asked.extend(hubs.market.shaken().agree(4))

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with hubs.stream.subscribe(accounts=[5, 6, 5], quotes=[MNQ, MES], trades=[MNQ], depth=[MES]):
        server.join(5)
    topics = [f"Subscribe{topic}({n})" for n in (5, 6) for topic in ("Orders", "Positions", "Trades")]
    assert ["SubscribeAccounts()", *topics] == asked[:7]
    contracts = [f"SubscribeContractQuotes({MNQ})", f"SubscribeContractQuotes({MES})"]
    assert [*contracts, f"SubscribeContractTrades({MNQ})", f"SubscribeContractMarketDepth({MES})"] == asked[7:]


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ({}, "at least one of accounts"),
        ({"accounts": ["536"]}, "accounts holds '536'; expected account ids"),
        ({"accounts": [True]}, "accounts holds True"),
        ({"accounts": 536}, "expected a list of account ids"),
        ({"quotes": MNQ}, "expected a list of contract ids"),
        ({"depth": [""]}, "depth holds ''"),
        ({"quotes": [MNQ], "max_trades": 0}, "max_trades is 0"),
        ({"quotes": [MNQ], "colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_subscribed_to(hubs: Hubs, wanted: dict[str, Any], word: str) -> None:
    """Refused before anything is connected, with what was expected."""
    with pytest.raises(InvalidRequest, match=word):
        hubs.stream.subscribe(**wanted)


def test_a_fill_during_the_snapshot_comes_after_it_and_once(hubs: Hubs) -> None:
    """Held while REST is asked; the gateway's own repetition is dropped."""
    events, first = hubs.subscribe(accounts=[5])
    first.send(told("GatewayUserTrade", trade(1)))
    assert 1 == events.wait_for(lambda event: isinstance(event, TradeEvent), 5).data.id
    hubs.gate.clear()
    first.rst()
    peer = hubs.again()
    lost, live = trade(2), trade(3)
    hubs.snapshot = Snapshot(trades=[as_trade(fields) for fields in (lost, live)])
    peer.send(told("GatewayUserTrade", live), told("GatewayUserTrade", live))
    assert soon(lambda: len(hubs.asked) == 2)
    peer.send(record(type=6))
    with pytest.raises(queue.Empty):
        events.wait_for(lambda event: isinstance(event, TradeEvent), 0.1)
    hubs.gate.set()
    got = [
        event for event in until(events, Reconnected) + settled(events, 0.1) if event.kind in ("trade", "reconnected")
    ]
    assert [("trade", True), ("reconnected", False), ("trade", False)] == [(e.kind, e.recovered) for e in got]
    assert (2, 1, 3) == (got[0].data.id, got[1].recovered_count, got[2].data.id)
    ids, since = hubs.asked[-1]
    assert ([5], True) == (ids, since < got[1].gap_start)


def test_a_snapshot_that_fails_is_told_and_tried_again(hubs: Hubs) -> None:
    """Live events go on after the hold, the gap is told as not reconciled, and is recovered when REST is back."""
    hubs.stream = hubs.make(hold_seconds=0.3)
    events, first = hubs.subscribe(accounts=[5])
    hubs.failures = [RuntimeError("503"), RuntimeError("503 again")]
    hubs.snapshot = Snapshot(trades=[as_trade(trade(7))])
    first.rst()
    peer = hubs.again()
    peer.send(told("GatewayUserTrade", trade(8)))
    got = until(events, Reconnected) + settled(events, 0.1)
    assert ([False], [8]) == (
        [e.reconciled for e in only(got, Reconnected)],
        [e.data.id for e in only(got, TradeEvent)],
    )
    assert any("not reconciled: RuntimeError: 503" in reason for reason in hubs.stream.health().reasons)
    assert not hubs.stream.state.reconciled
    late = until(events, Reconnected)
    assert ([7], True) == ([e.data.id for e in only(late, TradeEvent)], late[-1].reconciled)
    assert (True, Status.HEALTHY) == (hubs.stream.state.reconciled, hubs.stream.health().status)


def test_a_drop_during_the_snapshot(hubs: Hubs) -> None:
    """The old snapshot is of no use any more; the next connection asks again, for the whole gap, once."""
    events, first = hubs.subscribe(accounts=[5])
    hubs.gate.clear()
    first.rst()
    second = hubs.again()
    assert soon(lambda: len(hubs.asked) == 2)
    second.rst()
    hubs.again()
    hubs.snapshot = Snapshot(trades=[as_trade(trade(1))])
    hubs.gate.set()
    got = until(events, Reconnected) + settled(events, 0.2)
    assert (1, 1) == (len(only(got, TradeEvent)), len(only(got, Reconnected)))
    assert 3 == len(hubs.asked)


def test_another_account_is_added_to_a_stream_that_runs(hubs: Hubs) -> None:
    """Only its own calls are made, only it is asked for, and its events go to its own queue."""
    one, peer = hubs.subscribe(accounts=[5])
    serving = threading.Thread(target=lambda: peer.agree(3), daemon=True)
    serving.start()
    two = hubs.stream.subscribe(accounts=[6])
    assert [[5], [6]] == [ids for ids, _ in hubs.asked]
    peer.send(told("GatewayUserTrade", {**trade(1), "accountId": 6}))
    assert 6 == two.wait_for(lambda event: isinstance(event, TradeEvent), 5).data.account_id
    assert [] == only(one.drain(), TradeEvent)
    serving.join(5)
    undo = threading.Thread(target=lambda: peer.agree(3), daemon=True)
    undo.start()
    two.close()
    undo.join(5)
    assert not undo.is_alive()


def test_an_account_that_is_added_during_a_snapshot_gets_its_own(hubs: Hubs) -> None:
    """The snapshot under way does not know it, so another follows, and no event of it is lost meanwhile."""
    events, first = hubs.subscribe(accounts=[5])
    hubs.gate.clear()
    first.rst()
    peer = hubs.again()
    assert soon(lambda: len(hubs.asked) == 2)
    threading.Thread(target=lambda: peer.agree(3), daemon=True).start()
    other = hubs.stream.subscribe(accounts=[6], wait=0)
    assert soon(lambda: len(hubs.stream._hubs["user"].connection.subscriptions.standing()) == 7)
    peer.send(told("GatewayUserTrade", {**trade(9), "accountId": 6}))
    hubs.gate.set()
    assert 9 == other.wait_for(lambda event: isinstance(event, TradeEvent), 5).data.id
    assert soon(lambda: hubs.stream.state.reconciled)
    assert [[5], [5], [6]] == [ids for ids, _ in hubs.asked]
    assert 1 == len(only(events.drain(), Reconnected))


def test_accounts_let_go_during_a_gap_are_not_asked_for(hubs: Hubs) -> None:
    """Nobody is left who would want to know; a queue of quotes goes on."""
    one, first = hubs.subscribe(accounts=[5])
    two, _ = hubs.subscribe(count=1, quotes=[MNQ])
    hubs.gate.clear()
    first.rst()
    hubs.user.shaken()
    one.close()
    hubs.gate.set()
    assert [] == [event for event in settled(two, 0.2) if event.kind == "reconnected"]
    assert (1, {}) == (len(hubs.asked), dict(hubs.stream.state.accounts))


def test_a_conflict_is_told_and_not_fought(hubs: Hubs) -> None:
    """GatewayLogout becomes an event, and the way back starts at the third step."""
    hubs.stream = hubs.make(backoff_seconds=(0.0, 0.0, 0.4))
    events, peer = hubs.subscribe(accounts=[5])
    peer.send(call("gatewayLogout", "another session"))
    conflict = events.wait_for(lambda event: isinstance(event, SessionConflict), 5)
    assert ("another session", "user") == (conflict.reason, conflict.source)
    peer.fin()
    assert hubs.user.silent(0.2)
    hubs.again()


def test_a_logout_that_led_to_nothing_is_forgotten(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that outlives its GatewayLogout by far comes back at once when it ends, as any other."""
    hubs.stream = hubs.make(backoff_seconds=(0.0, 0.0, 600.0))
    events, peer = hubs.subscribe(accounts=[5])
    peer.send(call("GatewayLogout"))
    assert isinstance(events.wait_for(lambda event: isinstance(event, SessionConflict), 5), SessionConflict)
    # The owner's clock is the machine's; that the logout is old is told by counting it for less than no time.
    monkeypatch.setattr("topstep_sync.realtime.lifecycle.LOGOUT_COUNTS", -1.0)
    peer.fin()
    hubs.again()


def test_a_stream_that_gives_up_ends_the_loop_with_the_reason(hubs: Hubs) -> None:
    """Iterating raises StreamFailed after the events before it; a new subscription is told at once, or starts anew."""
    hubs.stream = hubs.make(max_attempts=0)
    events, peer = hubs.subscribe(accounts=[5])
    peer.rst()
    with pytest.raises(StreamFailed, match="user hub gave up"):
        for _ in events:
            pass
    assert not hubs.stream.health()
    events.close()
    again, _ = hubs.subscribe(accounts=[5])
    again.close()


def test_hubs_that_do_not_agree_in_time(hubs: Hubs) -> None:
    """Nothing is left subscribed, and the error says what the hub is doing; wait=0 does not wait."""
    with pytest.raises(StreamError, match="hub did not agree in time, and is connecting") as caught:
        hubs.stream.subscribe(quotes=[MNQ], wait=0.05)
    assert caught.value.retryable
    hubs.market.peers.append(hubs.market.tcp())
    events = hubs.stream.subscribe(quotes=[MNQ], wait=0)
    peer = hubs.market.shaken()
    peer.agree(1)
    assert events.wait_for(lambda event: isinstance(event, ConnectionEvent) and event.state == "connected", 5)


def test_a_hub_that_refuses_the_token(hubs: Hubs) -> None:
    """Subscribing raises with the reason."""
    threading.Thread(target=lambda: hubs.market.tcp().read_request().answer("401 Unauthorized"), daemon=True).start()
    with pytest.raises(StreamFailed, match=r"market hub gave up: .*log in again"):
        hubs.stream.subscribe(quotes=[MNQ])


def test_records_that_make_no_sense_are_counted_and_dropped(hubs: Hubs) -> None:
    """A malformed record and a target of tomorrow end nothing; an odd but readable quote is delivered."""
    events, peer = hubs.subscribe(count=1, quotes=[MNQ])
    good = {"symbol": "F", "lastPrice": 5.0}
    peer.send(
        call("GatewayQuote", MNQ, {"lastPrice": "much"}), call("Tomorrow", 1), call("gatewayquote", MNQ, good),
        call("GatewayTrade", MNQ), call("GatewayQuote", MES, good),
    )  # fmt: skip
    assert 5.0 == events.wait_for(lambda event: isinstance(event, QuoteEvent), 5).data.last_price
    assert soon(lambda: hubs.stream.health().market.malformed == 2)


def test_a_dropped_book_is_asked_for_anew(hubs: Hubs) -> None:
    """A consumer too slow for the depth gets a BookReset, and the hub is asked for a fresh snapshot."""
    events, peer = hubs.subscribe(count=1, depth=[MNQ], max_depth=10)
    level = {"type": 2, "price": 1.0, "volume": 1}
    for _ in range(30):
        peer.send(call("GatewayDepth", MNQ, [level]))
    asked = peer.agree(2)
    assert [f"UnsubscribeContractMarketDepth({MNQ})", f"SubscribeContractMarketDepth({MNQ})"] == asked
    assert 0 < sum(event.count for event in only(events.drain(), BookReset)) == events.dropped


def test_closing_the_last_queue_ends_the_connection_and_subscribing_begins_another(hubs: Hubs) -> None:
    """As a notebook's cell does that is run again and again."""
    for _ in range(3):
        events, peer = hubs.subscribe(count=1, quotes=[MNQ])
        events.close()
        assert "close" == peer.until_end()
        assert not [t for t in threading.enumerate() if t.name == "topstep-market"]


def test_closing_the_stream_ends_every_queue(hubs: Hubs) -> None:
    """Loops end, a new subscription is refused, closing again is nothing."""
    events, _ = hubs.subscribe(count=1, quotes=[MNQ])
    with hubs.stream:
        pass
    hubs.stream.close()
    events.drain()
    assert [] == list(events)
    with pytest.raises(SessionClosed):
        hubs.stream.subscribe(quotes=[MNQ])


def test_closing_takes_less_than_a_second_whoever_does_not_answer(hubs: Hubs) -> None:
    """Two hubs that never read the goodbye, a snapshot that hangs, a listener that sleeps: only theirs go on, named."""
    stuck, release, heard = threading.Event(), threading.Event(), []

    def listen(event: Any) -> None:
        heard.append(event)
        stuck.set()
        release.wait(10)

    config = Config(user_hub_url=hubs.user.url, market_hub_url=hubs.market.url, stream=QUICK)  # type: ignore[arg-type]
    hubs.stream = Stream(config, lambda: "token", snapshot=hubs.fetch, listener=lambda: listen)
    hubs.subscribe(1, quotes=[MNQ])
    hubs.gate.clear()
    threading.Thread(target=lambda: hubs.again(), daemon=True).start()
    hubs.stream.subscribe(accounts=[5], wait=0)
    assert stuck.wait(5)
    assert soon(lambda: len(hubs.asked) == 1)
    start = time.perf_counter()
    hubs.stream.close()
    assert time.perf_counter() - start < 0.9
    mine = lambda: sorted({t.name for t in threading.enumerate() if t.name.startswith("topstep-")})  # noqa: E731
    assert ["topstep-reconcile", "topstep-stream-listeners"] == mine()
    release.set()
    hubs.gate.set()
    assert soon(lambda: not mine())
    assert ("market", "connecting") == (heard[0].source, heard[0].state)


def test_without_snapshots_the_gap_is_told_unreconciled(hubs: Hubs) -> None:
    """A stream of its own, without REST, still reconnects and says what it does not know."""
    config = Config(user_hub_url=hubs.user.url, market_hub_url=hubs.market.url, stream=QUICK)  # type: ignore[arg-type]
    hubs.stream = Stream(config, lambda: "token")
    events, peer = hubs.subscribe(accounts=[5])
    peer.rst()
    again = hubs.again()
    assert not until(events, Reconnected)[-1].reconciled
    again.send(told("GatewayUserTrade", trade(1)))
    assert 1 == events.wait_for(lambda event: isinstance(event, TradeEvent), 5).data.id


def test_a_silent_feed_is_probed_and_then_replaced(hubs: Hubs) -> None:
    """No data though the market is open: the subscription is made anew, and then the connection."""
    hubs.stream = hubs.make(stale_seconds=0.2, heartbeat_seconds=0.1)
    opened = datetime(2026, 11, 24, 15, tzinfo=UTC).timestamp()
    hubs.stream._hubs["market"].monitor._clock = Shifted(opened)  # type: ignore[assignment]
    events, peer = hubs.subscribe(count=1, quotes=[MNQ])
    assert [f"UnsubscribeContractQuotes({MNQ})", f"SubscribeContractQuotes({MNQ})"] == peer.agree(2)
    hubs.again(1, hubs.market)
    lost = events.wait_for(lambda event: isinstance(event, ConnectionEvent) and event.state == "reconnecting", 5)
    assert "no market data" in lost.reason


class Shifted:
    """The machine's clock, on another day."""

    def __init__(self, epoch: float) -> None:
        self._shift = epoch - time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def epoch(self) -> float:
        return time.time() + self._shift


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_parent_s_connection_alone(hubs: Hubs) -> None:
    """The child knows that it has no connection and can end; the parent's goes on as if nothing had happened."""
    events, peer = hubs.subscribe(count=1, quotes=[MNQ])
    events.drain()
    with events._lock:  # as a hub's thread may hold it at that moment
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child, which pytest must not see the end of
            signal.alarm(20)
            os._exit(in_child(hubs, events))
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    peer.send(call("GatewayQuote", MNQ, {"lastPrice": 5.0}))
    assert 5.0 == events.wait_for(lambda event: isinstance(event, QuoteEvent), 5).data.last_price


def in_child(hubs: Hubs, events: EventQueue) -> int:  # pragma: no cover - in another process
    """0 when the child knows what it has lost, and can subscribe for itself."""
    try:
        events.get(timeout=5)
        return 1
    except StreamFailed as error:
        if "forked" not in str(error):
            return 2
    mine, _ = hubs.subscribe(count=1, quotes=[MNQ])
    mine.close()
    hubs.stream.close()
    return 0


def test_the_end_of_the_program_is_quick_and_polite(hubs: Hubs) -> None:
    """A script that just ends closes its connections, without hanging and without a traceback."""
    script = textwrap.dedent(f"""
        from topstep_sync.config import Config
        from topstep_sync.realtime.stream import Stream
        config = Config(user_hub_url={hubs.user.url!r}, market_hub_url={hubs.market.url!r})
        print("imported", flush=True)
        events = Stream(config, "token").subscribe(quotes=["X"])
        print("up", flush=True)
    """)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            # How long Python takes to start on a busy machine is no matter of the hub's patience.
            assert b"imported\n" == program.stdout.readline()
            peer = hubs.market.shaken()
            peer.agree(1)
            start = time.perf_counter()
            assert ("close", 1000) == (peer.until_end(), peer.close_code)
            peer.fin()
            out, err = program.communicate(timeout=10)
        finally:
            program.kill()  # left behind, it would fail whichever test runs when it is collected
    assert (b"up\n", b"", 0) == (out, err, program.returncode)
    assert time.perf_counter() - start < 5


def test_reading_the_state_costs_nothing(session: Session) -> None:
    """A read of `session.state` takes no more than a microsecond; nothing is locked, copied or asked for."""
    with session.subscribe(accounts=[536]):
        assert session.state is session.state
        tracing = sys.gettrace()
        sys.settrace(None)  # whoever counts lines takes longer than what is measured
        try:
            # The best of many short rounds: a busy machine makes a round slower, and never quicker.
            best = min(timeit.repeat(lambda: session.state, number=1_000, repeat=300)) / 1_000
        finally:
            sys.settrace(tracing)
        assert best <= 1e-6


class WrongClock(SystemClock):
    """A machine whose wall clock is minutes off."""

    def __init__(self, off: float) -> None:
        self._off = off

    def epoch(self) -> float:
        return super().epoch() + self._off


@pytest.mark.parametrize("off", [300.0, pytest.param(-300.0, marks=pytest.mark.slow)])
def test_fills_in_a_gap_are_told_whatever_the_clocks_say(gateway: Any, off: float) -> None:
    """A fill while the hub was down is told once, though this machine's clock is wrong."""
    with Session(config=gateway.config, clock=WrongClock(off)) as session:
        contract = session.contracts.search("MNQ")[0]
        gateway.set_price(contract.id, 21000.0)
        with session.subscribe(accounts=[704]) as events:
            gateway.faults.add("hubs/user", "refuse", status=503)
            gateway.drop_hubs("user", "rst")
            order = session.orders.buy(704, contract, 1)
            seen = until(events, Reconnected, timeout=10.0)

    assert [order.id] == [event.data.order_id for event in only(seen, TradeEvent)]


def test_in_a_forked_child_nothing_is_subscribed(hubs: Hubs) -> None:
    """The stream forgets its routes and accounts, and a new subscription connects anew."""
    hubs.stream.forked()
    events, peer = hubs.subscribe(accounts=[5])
    peer.send(told("GatewayUserTrade", trade(1)))
    assert 1 == events.wait_for(lambda event: isinstance(event, TradeEvent), 5).data.id
