"""Gaps that are easily overlooked: an account that is added, a hub that gave up, consumers that share a queue."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rude_hub import RS, call, record, soon
from test_stream import MNQ, Hubs, trade

from topstep_sync.clock import ManualClock
from topstep_sync.errors import ConnectionLost
from topstep_sync.events import ConnectionEvent, Reconnected, TradeEvent
from topstep_sync.models import Trade
from topstep_sync.realtime.feeds import UserFeed
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.link import Call, Outbox
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.subscriptions import Subscriptions, Want


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
    refusing.send(b'{"error":"no"}' + RS)
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
    assert soon(lambda: events._waiting == 1)
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
