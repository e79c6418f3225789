"""Gaps that are easily overlooked: an account that is added, a hub that gave up, consumers that share a queue."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rude_hub import RS, call, record, soon, waiters
from test_stream import MNQ, Hubs, trade

from topstep_sync.clock import ManualClock
from topstep_sync.errors import ConnectionLost
from topstep_sync.events import ConnectionEvent, Reconnected, TradeEvent
from topstep_sync.models import Position, Trade
from topstep_sync.realtime.calls import Call, Outbox
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.subscriptions import Subscriptions, Want
from topstep_sync.realtime.user_feed import RELOOK, UserFeed


@pytest.fixture
def two() -> Iterator[Hubs]:
    made = Hubs()
    yield made
    for hub in (made.user, made.market):
        hub.stop_listening()
        for peer in hub.peers:
            peer.fin()
    made.stream.close()


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_no_snapshot_is_fetched_before_the_subscriptions_of_its_account_stand(two: Hubs) -> None:
    """What a slow hub does not send yet, and an early snapshot did not hold yet, would be in neither."""
    _, peer = two.subscribe(accounts=[5])
    before = len(two.asked)
    found: list[EventQueue] = []
    thread = in_thread(lambda: found.append(two.stream.subscribe(accounts=[6])))
    for _ in range(3):
        asked = peer.read_call()
        assert not soon(lambda: len(two.asked) > before, timeout=0.05)
        peer.send(record(type=3, invocationId=asked["invocationId"], result=None))
    thread.join(5)
    assert soon(lambda: len(two.asked) > before)
    assert [6] == two.asked[before][0]
    assert 1 == len(found)


def test_what_was_missed_since_a_hub_gave_up_is_recovered_by_the_next_subscription(two: Hubs) -> None:
    """Even when the queue of before was never closed: the believed state is not believed for ever."""
    first, peer = two.subscribe(accounts=[5])
    assert soon(lambda: two.stream.state.reconciled)
    peer.fin()
    refusing = two.user.upgraded()
    refusing.read_record()
    refusing.send(b'{"error":"not supported"}' + RS)
    assert soon(lambda: two.stream.health().user.state is State.FAILED)
    two.snapshot = Snapshot(trades=[msgspec.convert(trade(77), Trade)])
    second, peer = two.subscribe(accounts=[5])
    peer.send(call("GatewayUserTrade", trade(78)))
    told = [second.get(timeout=5)]
    while not (isinstance(told[-1], TradeEvent) and told[-1].data.id == 78):
        told.append(second.get(timeout=5))
    assert [77, 78] == [event.data.id for event in told if isinstance(event, TradeEvent)]
    assert [True] == [event.reconciled for event in told if isinstance(event, Reconnected)]
    assert two.stream.state.reconciled
    assert first.closed


def test_a_want_without_a_holder_is_not_agreed() -> None:
    """It is about to be taken back, whatever stands at the moment."""
    subscriptions, want = Subscriptions(), Want("SubscribeOrders", (5,))
    assert not subscriptions.agreed([want])
    subscriptions.add([want], "a")
    assert not subscriptions.agreed([want])
    (step,) = subscriptions.due()
    subscriptions.answered(step, None)
    assert subscriptions.agreed([want])
    subscriptions.remove([want], "a")
    assert not subscriptions.agreed([want])


def test_a_consumer_is_woken_by_what_another_puts_back() -> None:
    """The event that `wait_for` had in its hands is for whoever waits, not only for whoever comes next."""
    events, taken, got = EventQueue(), threading.Event(), []
    refused = threading.Event()

    def picky(event: Any) -> bool:
        taken.set()
        refused.wait(5)
        raise ZeroDivisionError

    def pick() -> None:
        with pytest.raises(ZeroDivisionError):
            events.wait_for(picky)

    events.put([ConnectionEvent(source="user", state="1")])
    one = in_thread(pick)
    assert taken.wait(5)
    other = in_thread(lambda: got.append(events.get(timeout=5)))
    assert soon(lambda: waiters(events) == 1)
    refused.set()
    one.join(5)
    other.join(2)
    assert ["1"] == [event.state for event in got]


def test_two_threads_may_fail_an_outbox_at_once() -> None:
    """The one that comes second finds it empty, and that is no error."""

    class Contested(deque[Call]):
        def popleft(self) -> Call:
            self.clear()
            return super().popleft()

    outbox = Outbox()
    outbox.calls = Contested([Call("Echo", (), 0.0)])
    outbox.fail(ConnectionLost("gone"))
    assert not outbox.calls


def test_a_first_connection_that_takes_minutes_hides_nothing() -> None:
    """The snapshot reaches back to when the account was asked for, not to when the hub at last agreed."""
    clock, asked = ManualClock(), []
    came = threading.Event()

    def fetch(account_ids: list[int], since: float) -> Snapshot:
        asked.append((account_ids, since))
        came.set()
        return Snapshot()

    feed = UserFeed(clock, fetch, 2.0, lambda: 0.0)
    start = clock.epoch()
    feed.watch([5])
    feed.changed(State.CONNECTING, None)
    clock.advance(300)
    feed.established(None, clock.epoch())
    feed.due(clock.monotonic())
    assert came.wait(5)
    ((accounts, since),) = asked
    assert [5] == accounts
    assert since <= start


def test_a_record_that_makes_no_sense_takes_no_other_with_it(two: Hubs) -> None:
    """A list of fills of which one is garbled: the others are delivered, and the garbled one is counted."""
    events, peer = two.subscribe(accounts=[5])
    peer.send(call("GatewayUserTrade", [trade(1), {"id": 2, "accountId": 5}, trade(3)]))
    told: list[Any] = []
    while len(told) < 2:
        event = events.get(timeout=5)
        if isinstance(event, TradeEvent):
            told.append(event)
    assert [1, 3] == [event.data.id for event in told]
    assert 1 == two.stream.health().user.malformed


def test_a_book_of_before_a_gap_is_not_shown_after_it(two: Hubs) -> None:
    """Levels that were taken away meanwhile do not stay for ever, though the hub sends no reset."""

    def levels(ask: float) -> bytes:
        row = {"timestamp": "2026-11-24T08:00:00Z", "type": 3, "price": ask, "volume": 5, "currentVolume": 5}
        return call("GatewayDepth", MNQ, [row])

    events, peer = two.subscribe(1, depth=[MNQ])
    peer.send(levels(101.0))
    book = events.book(MNQ)
    assert soon(lambda: bool(events.drain()) and book.best_ask == 101.0)
    peer.fin()
    peer = two.again(1, two.market)
    peer.send(levels(105.0))
    assert soon(lambda: bool(events.drain()) and book.best_ask == 105.0)
    assert [(105.0, 5)] == book.asks()


def test_what_could_not_be_read_is_looked_up(two: Hubs) -> None:
    """A fill whose record is garbled is recovered over REST, though the connection never ended; and not twice."""
    events, peer = two.subscribe(accounts=[5])
    assert soon(lambda: two.stream.state.reconciled)
    before = len(two.asked)
    two.snapshot = Snapshot(trades=[msgspec.convert(trade(2), Trade)])
    peer.send(call("GatewayUserTrade", {"id": 2, "accountId": 5}), call("GatewayUserTrade", {"id": 2}))
    peer.send(call("GatewayUserTrade", trade(3)))
    told: list[Any] = []
    while len(told) < 2:
        event = events.get(timeout=5)
        if isinstance(event, TradeEvent):
            told.append((event.data.id, event.recovered))
    assert {(2, True), (3, False)} == set(told)
    assert before + 1 == len(two.asked)


class Feeding:
    """A user feed by itself, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.asked: list[float] = []
        self.broken = False
        self.feed = UserFeed(self.clock, self.fetch, 2.0, lambda: 0.0)
        self.feed.watch([5])
        self.feed.changed(State.CONNECTING, None)
        self.feed.established(None, self.clock.epoch())
        self.turn(1)

    def fetch(self, account_ids: list[int], since: float) -> Snapshot:
        self.asked.append(since)
        if self.broken:
            raise OSError("down")
        return Snapshot()

    def turn(self, asked: int) -> float:
        """The feed has done what is due, and *asked* snapshots were fetched so far."""
        self.feed.due(self.clock.monotonic())
        assert soon(lambda: asked == len(self.asked) and (not self.feed._busy or bool(self.feed._commands)))
        return self.feed.due(self.clock.monotonic())

    def garble(self) -> None:
        self.feed.invocation("GatewayUserTrade", [{"id": 2}], 0.0, 0.0)


def test_records_that_make_no_sense_are_looked_up_at_most_every_half_minute() -> None:
    """A gateway that garbles everything costs a handful of requests, and the last garbled record is looked up, too."""
    made = Feeding()
    for _ in range(5):
        made.garble()
    assert made.turn(2) > made.clock.monotonic()
    came = made.clock.epoch()
    made.garble()
    assert made.clock.monotonic() + RELOOK == made.turn(2)
    made.clock.advance(RELOOK + 100)
    made.turn(3)
    assert came >= made.asked[2]
    assert float("inf") == made.turn(3)


def test_a_look_that_fails_is_tried_again() -> None:
    """What a garbled record said is not forgotten because REST was down, or because the hub was lost meanwhile."""
    made = Feeding()
    came = made.clock.epoch()
    made.broken = True
    made.garble()
    made.turn(2)
    made.clock.advance(RELOOK)
    made.broken = False
    made.turn(3)
    assert came >= made.asked[2]
    made.clock.advance(RELOOK)
    made.garble()
    came = made.clock.epoch()
    made.feed.due(made.clock.monotonic())
    made.feed.changed(State.RECONNECTING, "lost")
    made.clock.advance(500)
    made.feed.established(made.clock.epoch() - 1, made.clock.epoch())
    made.turn(5)
    assert came >= made.asked[4]


def test_a_wall_clock_that_is_set_back_in_a_gap_hides_nothing() -> None:
    """What is asked for begins with the gap, not an hour later than now."""
    made = Feeding()
    start = made.clock.epoch()
    made.feed.changed(State.RECONNECTING, "lost")
    made.clock.jump(-3600)
    made.clock.advance(10)
    made.feed.established(start, made.clock.epoch())
    made.turn(2)
    assert start - 3600 >= made.asked[1]


def test_a_snapshot_that_comes_too_late_takes_nothing_back_that_was_live() -> None:
    """Events are not held for ever; one that was let through while REST was slow is newer than what REST saw."""
    gate = threading.Event()
    clock = ManualClock()
    working = {
        "id": 9, "accountId": 5, "contractId": MNQ, "creationTimestamp": "2026-11-24T08:00:00Z",
        "status": 1, "type": 1, "side": 0, "size": 1,
    }  # fmt: skip

    def row(size: int) -> dict[str, Any]:
        return {
            "id": 1, "accountId": 5, "contractId": MNQ, "creationTimestamp": "2026-11-24T08:00:00Z",
            "type": 1, "size": size, "averagePrice": 1.0,
        }  # fmt: skip

    def fetch(account_ids: list[int], since: float) -> Snapshot:
        gate.wait(5)
        return Snapshot(positions=[msgspec.convert(row(1), Position)])

    feed = UserFeed(clock, fetch, 2.0, lambda: 0.0)
    feed.watch([5])
    feed.changed(State.CONNECTING, None)
    feed.established(None, clock.epoch())
    feed.due(clock.monotonic())
    clock.advance(3)
    feed.due(clock.monotonic())
    feed.invocation("GatewayUserPosition", [row(3)], clock.monotonic(), clock.epoch())
    feed.invocation("GatewayUserOrder", [working], clock.monotonic(), clock.epoch())
    gate.set()
    assert soon(lambda: bool(feed._commands))
    feed.due(clock.monotonic())
    assert [3] == [position.size for position in feed.reconciler.state.positions.values()]
    assert [9] == list(feed.reconciler.state.orders)
    assert feed.reconciler.state.reconciled


def test_who_subscribes_while_the_last_queue_closes_is_connected(two: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub that was about to be left is connected to again, though nobody asked it to after its end."""
    first, peer = two.subscribe(accounts=[5])
    connection = two.stream._hubs["user"].connection
    see_off, found = connection.see_off, []

    def see_off_late(owner: Any) -> None:
        monkeypatch.undo()
        found.append(two.stream.subscribe(accounts=[5], wait=0))
        see_off(owner)

    monkeypatch.setattr(connection, "see_off", see_off_late)
    in_thread(peer.until_end)
    first.close()
    peer = two.again()
    peer.send(call("GatewayUserTrade", trade(9)))
    assert 9 == found[0].wait_for(lambda event: isinstance(event, TradeEvent), 5).data.id
