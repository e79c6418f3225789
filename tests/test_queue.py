"""The event queue: order, policies by kind, waiting, ending."""

import contextlib
import itertools
import queue
import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from rude_hub import soon, waiters

from topstep_sync.clock import SYSTEM_CLOCK, ManualClock
from topstep_sync.errors import StreamError, StreamFailed
from topstep_sync.events import BookReset, ConnectionEvent, DepthEvent, Gap, OrderEvent, QuoteEvent, TradesEvent
from topstep_sync.models import Depth, MarketTrade, Quote
from topstep_sync.realtime.backlog import PILE, Backlog, merged
from topstep_sync.realtime.book import Book
from topstep_sync.realtime.queue import EventQueue

TRADE = MarketTrade(price=1.0, timestamp="2026-11-24T00:00:00Z", type=0, volume=1)  # type: ignore[arg-type]


def quote(contract: str = "A", at: float = 0.0, **fields: Any) -> QuoteEvent:
    return QuoteEvent(contract, Quote(**fields), received_at=at, received_epoch=at)


def trade(contract: str = "A", at: float = 0.0) -> TradesEvent:
    return TradesEvent(contract, [TRADE], received_at=at)


def depth(contract: str = "A", at: float = 0.0, **fields: Any) -> DepthEvent:
    return DepthEvent(contract, [Depth(**{"type": 2, "price": 1.0, "volume": 1, **fields})], received_at=at)


def note(n: int, at: float = 0.0) -> ConnectionEvent:
    """An event that is never dropped; *n* tells it from others."""
    return ConnectionEvent(source="user", state=str(n), received_at=at)


def order(n: int) -> OrderEvent:
    return OrderEvent(data=n)  # type: ignore[arg-type]


def test_events_come_out_in_the_order_they_went_in() -> None:
    """A consumer that keeps up gets every event once, whichever way it takes them."""
    events = EventQueue(clock=ManualClock(0.0))
    sent = [note(i) if i % 3 else quote("AB"[i % 2], last_price=float(i)) for i in range(100)]
    for i in range(0, 100, 7):
        events.put(sent[i : i + 7])
    got = [events.get(), events.get_nowait(), *events.drain(10), *events.drain(), *events.drain()]
    assert (sent, 100, True) == (got, events.received, events.empty())


def test_an_empty_queue_is_told_as_by_the_standard_one() -> None:
    """queue.Empty after the timeout, at once without one; a negative timeout is refused."""
    clock = ManualClock(auto=True)
    events = EventQueue(clock=clock)
    start = clock.monotonic()
    for attempt in (events.get_nowait, lambda: events.get(timeout=5.0), lambda: events.get(block=False)):
        with pytest.raises(queue.Empty):
            attempt()
    assert (5.0, [], bool(events)) == (clock.monotonic() - start, events.drain(), True)
    with pytest.raises(ValueError, match="0 or more"):
        events.get(timeout=-1)


@pytest.mark.parametrize("options", [{"max_trades": 0}, {"max_depth": -1}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    """A limit below one is refused, with its name."""
    with pytest.raises(ValueError, match="max_"):
        EventQueue(**options)  # type: ignore[arg-type]


################################################### quotes ###################################################


def test_quotes_merge_only_while_the_consumer_is_behind() -> None:
    """Behind by more than 0.1 s, one image a contract is left, in the place of the oldest and as fresh as the last."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    events.put([quote("A", 0.0, last_price=1.0, best_bid=0.5), note(1), quote("B", 0.0, last_price=9.0)])
    clock.advance(1.0)
    events.put([quote("A", 1.0, last_price=2.0), quote("A", 1.0, best_ask=3.0)])
    first, second, third = events.drain()
    assert ("A", 2.0, 0.5, 3.0, 1.0) == (
        first.contract_id,
        first.data.last_price,
        first.data.best_bid,
        first.data.best_ask,
        first.received_at,
    )
    assert ("1", "B", 2, []) == (second.state, third.contract_id, events.merged, events.drain())


def test_get_merges_what_came_meanwhile() -> None:
    """A consumer that takes one event a second gets the freshest image each time, not a backlog."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    prices = []
    for second in range(5):
        events.put([quote("A", clock.monotonic(), last_price=second * 100.0 + i) for i in range(42)])
        clock.advance(1.0)
        prices.append(events.get().data.last_price)
    assert [41.0, 141.0, 241.0, 341.0, 441.0] == prices


def test_every_quote_is_kept_where_that_is_asked_for() -> None:
    """Without conflation nothing is merged, however far behind the consumer is."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock, conflate=False)
    events.put([quote(last_price=float(i)) for i in range(10_000)])
    clock.advance(60.0)
    assert [float(i) for i in range(10_000)] == [event.data.last_price for event in events.drain()]


def test_merging_changes_no_event_that_another_queue_holds() -> None:
    """Two queues may hold the same event; one that merges makes a copy."""
    clock = ManualClock(0.0)
    slow, every = EventQueue(clock=clock), EventQueue(clock=clock, conflate=False)
    batch = [quote("A", 0.0, last_price=1.0), quote("A", 0.0, last_price=2.0)]
    slow.put(batch)
    every.put(batch)
    clock.advance(1.0)
    assert [2.0] == [event.data.last_price for event in slow.drain()]
    assert [1.0, 2.0] == [event.data.last_price for event in every.drain()]


def test_a_price_left_out_is_not_a_price_taken_away() -> None:
    """What is left out and what is null keep the old value; where there is none, neither is ever zero."""
    image = merged(Quote(last_price=5.0, best_bid=4.0, low=None), Quote(best_bid=None, best_ask=6.0))
    assert (5.0, 4.0, 6.0, UNSET, None) == (image.last_price, image.best_bid, image.best_ask, image.open, image.low)


def test_a_null_is_shown_as_it_came_and_erases_nothing() -> None:
    """A consumer that keeps up sees the null itself; the image that a slow one gets has the price known before."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    sent = [quote(best_bid=4.0, best_ask=5.0), quote(best_bid=None), quote(best_ask=6.0)]
    for event in sent:
        events.put([event])
        assert event is events.get()
    events.put(list(sent))
    clock.advance(1.0)
    (image,) = events.drain()
    assert (4.0, 6.0) == (image.data.best_bid, image.data.best_ask)


FIELDS = st.fixed_dictionaries(
    {}, optional={name: st.one_of(st.none(), st.floats(0, 9)) for name in ("last_price", "best_bid", "volume")}
)


@given(st.lists(st.tuples(st.sampled_from("ABC"), FIELDS, st.floats(0, 0.2)), max_size=40), st.randoms())
def test_whatever_is_merged_the_last_image_is_the_same(rows: list[Any], chance: random.Random) -> None:
    """Any taking at any pace ends with the image that all quotes together make."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    expected: dict[str, Quote] = {}
    images: dict[str, Quote] = {}

    def see(event: QuoteEvent) -> None:
        images[event.contract_id] = merged(images.get(event.contract_id, Quote()), event.data)

    for contract, fields, pause in rows:
        event = quote(contract, clock.monotonic(), **fields)
        expected[contract] = merged(expected.get(contract, Quote()), event.data)
        events.put([event])
        clock.advance(pause)
        if chance.random() < 0.3 and not events.empty():
            see(events.get())
        if chance.random() < 0.1:
            for taken in events.drain():
                see(taken)
    for taken in events.drain():
        see(taken)
    assert expected == images


################################################ the other kinds ################################################


def test_user_events_are_never_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A million quotes later, every user event is still there, in order, and the growth was told."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock, max_trades=10, max_depth=10)
    sent = [order(i) for i in range(60_000)]
    for i in range(0, 60_000, 100):
        events.put([*sent[i : i + 100], *(quote() for _ in range(50)), trade(), depth()])
    kept = [event for event in events.drain() if event.kind == "order"]
    assert sent == kept
    assert "events wait for a consumer" in caplog.text


def test_the_oldest_market_trades_are_dropped_and_counted() -> None:
    """Beyond the limit the oldest go, a Gap in their place says how many, and the newest stay."""
    events = EventQueue(clock=ManualClock(0.0), max_trades=100)
    for i in range(1000):
        events.put([trade("AB"[i % 2], i), note(i)])
    got = events.drain()
    gaps = [event for event in got if isinstance(event, Gap)]
    trades = [event for event in got if isinstance(event, TradesEvent)]
    assert (1000, {"A", "B"}) == (sum(gap.count for gap in gaps) + len(trades), {gap.contract_id for gap in gaps})
    assert 100 <= len(trades) <= 300
    assert [float(999 - i) for i in range(len(trades))] == [event.received_at for event in reversed(trades)]
    assert [str(i) for i in range(1000)] == [event.state for event in got if isinstance(event, ConnectionEvent)]
    assert events.dropped == sum(gap.count for gap in gaps)
    assert max(got.index(gap) for gap in gaps) < got.index(trades[0])


def test_depth_overflow_drops_the_books_and_asks_for_new_ones() -> None:
    """All depth that waited is gone, a BookReset for each contract says so, and both books are asked for anew."""
    asked: list[str] = []
    events = EventQueue(clock=ManualClock(0.0), max_depth=100, on_reset=asked.append)
    events.put([depth("A", price=5.0), depth("B", price=6.0)])
    assert (2, 5.0, 6.0) == (len(events.drain()), events.book("A").best_bid, events.book("B").best_bid)
    for i in range(150):
        events.put([depth("AB"[i % 2]), depth("A")])
    got = events.drain()
    resets = [event for event in got if isinstance(event, BookReset)]
    assert {"A", "B"} == {reset.contract_id for reset in resets} == set(asked)
    assert 300 == sum(reset.count for reset in resets) + sum(isinstance(event, DepthEvent) for event in got)
    assert (None, events.dropped) == (
        events.book("B").best_bid if not any(isinstance(e, DepthEvent) for e in got) else None,
        sum(reset.count for reset in resets),
    )


def test_a_stalled_consumer_costs_little_memory() -> None:
    """However many quotes nobody takes, no more than one pile of them is ever kept."""
    events = EventQueue()
    most = 0
    for i in range(100):
        events.put([quote("ABCDEFGH"[j % 8], 0.0, last_price=float(i)) for j in range(500)])
        most = max(most, events.qsize())
    assert most <= PILE
    assert (8, 50_000) == (len(events.drain()), events.received)


################################################### waiting ###################################################


def test_a_waiting_consumer_is_woken_by_a_batch() -> None:
    """Whoever waits gets the first event of the batch, and finds the rest without waiting."""
    events = EventQueue()
    got: list[Any] = []
    consumer = threading.Thread(target=lambda: got.extend([events.get(timeout=5), *events.drain(timeout=5)]))
    consumer.start()
    events.put([note(1), note(2)])
    consumer.join(5)
    assert ["1", "2"] == [event.state for event in got]


def test_32_consumers_share_a_queue() -> None:
    """Every event reaches exactly one of 32 consumers, and no one sleeps while events wait."""
    events = EventQueue()
    got: list[list[str]] = [[] for _ in range(32)]

    def consume(mine: list[str]) -> None:
        mine.extend(event.state for event in events)

    consumers = [threading.Thread(target=consume, args=(mine,)) for mine in got]
    for consumer in consumers:
        consumer.start()
    for i in range(0, 3200, 4):
        events.put([note(i + j) for j in range(4)])
    events.finish("done")
    for consumer in consumers:
        consumer.join(10)
    assert sorted(range(3200)) == sorted(int(state) for mine in got for state in mine)


def test_an_interrupted_consumer_passes_the_baton() -> None:
    """Ctrl-C in a consumer that was just woken leaves the event, and the turn, to another one that waits."""

    class Interrupting:
        """A clock whose first wait ends with the signal and a Ctrl-C."""

        def __init__(self) -> None:
            self.entered = threading.Semaphore(0)
            self.interrupted = False

        def __getattr__(self, name: str) -> Any:
            return getattr(SYSTEM_CLOCK, name)

        def wait(self, event: Any, timeout: float | None = None) -> bool:
            self.entered.release()
            woken = SYSTEM_CLOCK.wait(event, timeout)
            if not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt
            return woken

    clock = Interrupting()
    events = EventQueue(clock=clock)
    ended: queue.Queue[Any] = queue.Queue()

    def consume() -> None:
        try:
            ended.put(events.get(timeout=10).data)
        except KeyboardInterrupt:
            ended.put("interrupted")

    consumers = [threading.Thread(target=consume) for _ in range(2)]
    for consumer in consumers:
        consumer.start()
    assert clock.entered.acquire(timeout=5)
    assert clock.entered.acquire(timeout=5)
    events.put([order(1)])
    assert {"interrupted", 1} == {ended.get(timeout=5), ended.get(timeout=5)}


@pytest.mark.parametrize("conflate", [True, False])
def test_32_consumers_share_the_events(conflate: bool) -> None:
    """Each event is taken by exactly one of 32 threads, whichever way they take it; the end wakes them all."""
    events, count = EventQueue(conflate=conflate), 6_000
    taken: list[list[int]] = [[] for _ in range(32)]

    def consume(mine: list[int], way: int) -> None:
        try:
            while True:
                found = [events.get()] if way % 3 else events.drain(5, timeout=1.0)
                mine.extend(event.data for event in found if event.kind == "order")
                if way % 3 == 2:
                    with contextlib.suppress(queue.Empty):
                        mine.append(events.wait_for(lambda event: event.kind == "order", 0.001).data)
        except StreamError:
            pass

    consumers = [threading.Thread(target=consume, args=(mine, way)) for way, mine in enumerate(taken)]
    for consumer in consumers:
        consumer.start()
    chance = random.Random(5)
    numbers = iter(range(count))
    while batch := [order(number) for number in itertools.islice(numbers, chance.randint(1, 40))]:
        events.put([*batch, depth()] if chance.random() < 0.3 else batch)
    events.finish("over")
    for consumer in consumers:
        consumer.join(20)
    assert (False, list(range(count))) == (any(c.is_alive() for c in consumers), sorted(itertools.chain(*taken)))


def test_what_is_at_hand_is_merged_once_it_is_late() -> None:
    """Quotes that were let go together are merged after all when their consumer falls behind."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    events.put([quote(last_price=float(n)) for n in range(10)])
    assert 0.0 == events.get().data.last_price
    assert (9, 9, False) == (len(events), events.qsize(), events.empty())
    clock.advance(1.0)
    events.put([quote(at=1.0, last_price=10.0)])
    assert (10.0, 0, 9) == (events.get().data.last_price, len(events), events.merged)


def test_what_is_at_hand_stays_in_front() -> None:
    """`wait_for` and `drain` find it, and put back what they leave in front of the others."""
    events = EventQueue(conflate=False, clock=ManualClock(0.0))
    sent = [order(n) for n in range(10)]
    events.put(sent[:5])
    assert sent[0] is events.get()
    events.put(sent[5:])
    assert sent[7] is events.wait_for(lambda event: event.data == 7)
    assert (sent[1:3], sent[3], 0.0) == (events.drain(2), events.get(), events.lag)
    assert [*sent[4:7], *sent[8:]] == events.drain()


def test_drain_leaves_the_rest_to_whoever_waits() -> None:
    """Of two consumers that wait, the one that drains a part wakes the other for what is left."""
    for _ in range(20):  # whom the batch wakes is for the system to say
        events = EventQueue()
        got: list[Any] = []
        takers = [
            threading.Thread(target=lambda events=events, got=got: got.extend(events.drain(1, 30.0))) for _ in "ab"
        ]
        for number, taker in enumerate(takers, 1):
            taker.start()
            assert soon(lambda events=events, number=number: waiters(events) == number)
        events.put([order(1), order(2)])
        for taker in takers:
            taker.join(5.0)
        assert [1, 2] == sorted(event.data for event in got)


def test_whoever_comes_second_at_what_is_at_hand_takes_the_next() -> None:
    """A consumer that lets a batch go, and finds that another has taken it all, does not sleep beside the next one."""
    events = EventQueue()
    events.put([note(1, SYSTEM_CLOCK.monotonic())])
    events.put([note(2, SYSTEM_CLOCK.monotonic())])
    let_go, stolen = events._let_go, []

    def robbed() -> Any:
        quote = let_go()
        if not stolen:
            stolen.append(events._at_hand.popleft())
        return quote

    events._let_go = robbed  # type: ignore[method-assign]
    assert ("2", ["1"]) == (events.get(timeout=5.0).state, [event.state for event in stolen])


def test_consumers_that_share_a_queue_take_everything_once() -> None:
    """Thirty-two threads that get and drain by turns, and wait in between, miss nothing and share nothing."""
    events = EventQueue()
    taken: list[list[int]] = [[] for _ in range(32)]

    def take(mine: list[int], get: bool) -> None:
        with contextlib.suppress(StreamError):
            while True:
                mine.extend(e.data for e in ([events.get()] if get else events.drain(3, timeout=5.0)))

    threads = [threading.Thread(target=take, args=(mine, at % 3 > 0)) for at, mine in enumerate(taken)]
    for thread in threads:
        thread.start()
    numbers = itertools.count()
    for size in itertools.islice(itertools.cycle([1, 2, 7, 1, 40]), 1000):
        now = SYSTEM_CLOCK.monotonic()
        events.put([OrderEvent(data=next(numbers), received_at=now) for _ in range(size)])  # type: ignore[arg-type]
        if size == 40:
            assert soon(lambda: events.empty())  # so that they all wait now and then
    events.finish("the end")
    for thread in threads:
        thread.join(10.0)
    assert list(range(next(numbers))) == sorted(itertools.chain.from_iterable(taken))
    assert all(mine == sorted(mine) for mine in taken)


def test_drain_refuses_less_than_nothing() -> None:
    """A negative number of events is refused, and nothing is taken; none at all is a number like others."""
    events = EventQueue()
    events.put([order(1)])
    with pytest.raises(ValueError, match=r"max is -1; expected 0 or more events, or None"):
        events.drain(-1)
    assert ([], [1]) == (events.drain(0), [event.data for event in events.drain()])


def test_drain_waits_for_the_first_event_only() -> None:
    """With a timeout, drain returns as soon as something is there, or empty-handed in time."""
    clock = ManualClock(auto=True)
    events = EventQueue(clock=clock)
    start = clock.monotonic()
    assert ([], 2.0) == (events.drain(timeout=2.0), clock.monotonic() - start)


def test_wait_for_leaves_the_others_in_their_order() -> None:
    """The event that was waited for is taken out of the middle."""
    events = EventQueue(clock=ManualClock(0.0))
    events.put([note(i) for i in range(10)])
    assert "4" == events.wait_for(lambda event: event.state == "4").state
    assert ["0", "1", "2", "3", "5", "6", "7", "8", "9"] == [event.state for event in events.drain()]


def test_wait_for_gives_up_in_time_and_loses_nothing() -> None:
    """After the timeout, or when the predicate raises, everything is still there."""
    clock = ManualClock(auto=True)
    events = EventQueue(clock=clock)
    events.put([note(i) for i in range(3)])
    with pytest.raises(queue.Empty):
        events.wait_for(lambda event: False, timeout=3.0)
    with pytest.raises(ZeroDivisionError):
        events.wait_for(lambda event: 1 // 0)
    assert ["0", "1", "2"] == [event.state for event in events.drain()]


def test_wait_for_merges_what_it_keeps_aside() -> None:
    """Waiting for an order through a storm of quotes costs one image a contract, not a million events."""
    events = EventQueue(clock=ManualClock(0.0))
    for i in range(30):
        events.put([quote(last_price=float(i * 1000 + j)) for j in range(1000)])
    events.put([*(note(i) for i in range(10_000)), order(1)])
    assert "order" == events.wait_for(lambda event: event.kind == "order").kind
    left = events.drain()
    assert [str(i) for i in range(10_000)] == [event.state for event in left if event.kind == "connection"]
    assert [29_999.0] == [event.data.last_price for event in left if event.kind == "quote"]


def test_squeezed_keeps_everything_but_quotes() -> None:
    """Merging by itself touches nothing else."""
    kept, resets = Backlog(True, None, None).squeezed(
        [note(1), quote(last_price=1.0), trade(), quote(last_price=2.0), depth()]
    )
    assert ["connection", "quote", "trades", "depth"] == [event.kind for event in kept]
    assert [] == resets


def test_wait_for_keeps_no_more_than_the_limits_of_the_queue() -> None:
    """Waiting for an order for hours holds neither every trade of the market nor every change of the book."""
    reset: list[str] = []
    events = EventQueue(clock=ManualClock(0.0), max_trades=100, max_depth=100, on_reset=reset.append)
    batches = iter([[trade(), depth()] for _ in range(15_000)])

    def wanted(event: Any) -> bool:
        batch = next(batches, None)
        events.put(batch or [order(1)])
        return event.kind == "order"

    events.put([note(1)])
    assert "order" == events.wait_for(wanted).kind
    assert 25_000 > len(events)
    assert events.dropped > 5_000
    assert reset
    left = [event.kind for event in events.drain()]
    assert "gap" in left
    assert "book_reset" in left
    assert "connection" in left


LEVELS = st.builds(
    lambda price, volume: {"price": float(price), "volume": volume}, st.integers(1, 3), st.integers(0, 3)
)


@given(st.lists(st.one_of(LEVELS, st.just("lost")), max_size=20), st.lists(st.integers(0, 5), max_size=20))
def test_every_depth_event_changes_a_book_once(rows: list[Any], looks: list[int]) -> None:
    """However often `wait_for` looks at an event and puts it back, the book is as of the furthest one looked at."""
    gone = ConnectionEvent(source="market", state="reconnecting")
    sent = [gone if row == "lost" else depth(**row) for row in rows]
    events, book, seen, taken = EventQueue(clock=ManualClock(0.0)), Book("A"), 0, 0
    events.put(list(sent))

    def see(until: int) -> None:
        nonlocal seen
        for event in sent[seen:until]:
            book.clear() if event is gone else book.apply(event.data)
        seen = max(seen, until)

    for look in looks:
        left = len(sent) - taken
        if look % 2:
            found = events.drain(look)
            taken += len(found)
            see(taken)
        else:
            countdown = iter(range(look, -1, -1))
            with pytest.raises(ZeroDivisionError if left > look else queue.Empty):
                events.wait_for(lambda event, n=countdown: 1 // next(n) < 0, timeout=0.0)
            see(min(taken + look + 1, len(sent)))
        told = events.book("A")
        assert (book.bids(), book.updates) == (told.bids(), told.updates)
    assert sent[taken:] == events.drain()


def test_a_book_that_was_dropped_while_waiting_is_built_from_what_came_after() -> None:
    """Overflow in the hands of `wait_for` resets the book once; what was looked at behind it is in the book."""
    events = EventQueue(clock=ManualClock(0.0), max_depth=10)
    last = 10_000
    batches = iter([[depth(price=1.0, volume=i)] for i in range(last - 1)] + [[depth(price=2.0, volume=7)], [order(1)]])

    def wanted(event: Any) -> bool:
        events.put(next(batches, []))
        return event.kind == "order"

    events.put([depth(price=3.0)])
    assert "order" == events.wait_for(wanted).kind
    assert [(2.0, 7)] == events.book("A").bids()
    assert ["book_reset", "depth"] == [event.kind for event in events.drain()]
    assert [(2.0, 7)] == events.book("A").bids()


#################################################### ending ####################################################


def test_closing_ends_iteration_after_what_waits() -> None:
    """What was there is still delivered; then the loop ends, and get says why."""
    closed: list[Any] = []
    with EventQueue(on_close=closed.append) as events:
        events.put([note(1)])
    events.close()
    events.put([note(2)])
    assert (["1"], [events]) == ([event.state for event in events], closed)
    assert (True, "the queue was closed") == (events.closed, events.reason)
    for attempt in (events.get, events.drain):
        with pytest.raises(StreamError, match="closed"):
            attempt()


def test_a_stream_that_gave_up_is_not_a_quiet_end() -> None:
    """A main loop learns that the stream failed, and why, instead of ending as if all were well."""
    events = EventQueue()
    events.put([note(1)])
    events.finish("the user hub gave up: 401", failed=True)
    assert "1" == next(events).state
    with pytest.raises(StreamFailed, match="401"):
        next(events)


def test_closing_wakes_who_waits() -> None:
    """A consumer that waits without a timeout is released."""
    events = EventQueue()
    ended = threading.Event()
    consumer = threading.Thread(target=lambda: (list(events), ended.set()))
    consumer.start()
    events.close()
    assert ended.wait(5)
    consumer.join(5)


def test_lag_is_the_age_of_the_oldest() -> None:
    """In seconds; zero when nothing waits."""
    clock = ManualClock(10.0)
    events = EventQueue(clock=clock)
    assert 0.0 == events.lag
    events.put([note(1, at=10.0), note(2, at=11.0)])
    clock.advance(3.0)
    assert (3.0, 2, 2) == (events.lag, events.qsize(), len(events))
    events.get()
    assert 2.0 == events.lag
    assert "EventQueue(1 waiting, lag 2.000 s, 0 dropped)" == repr(events)
    events.close()
    assert "closed: the queue was closed" in repr(events)


@pytest.mark.parametrize("rate", [42, 1000])
def test_the_lag_of_a_stalled_consumer_grows_whatever_is_merged(rate: int) -> None:
    """It counts from the oldest quote in the oldest image, through every merging; the image is as fresh as the last."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    for second in range(300):
        events.put([quote("AB"[i % 2], clock.monotonic(), last_price=float(i)) for i in range(rate)])
        clock.advance(1.0)
        assert second + 1.0 == events.lag
    assert events.merged > PILE
    image = events.get()
    assert ("A", 0.0, 299.0) == (image.contract_id, image.first_at, image.received_at)
    assert 300.0 == events.lag
    events.drain()
    events.put([quote("A", clock.monotonic())])
    clock.advance(0.05)
    assert (pytest.approx(0.05), None) == (events.lag, events.get().first_at)


def test_an_image_that_goes_back_keeps_its_age() -> None:
    """What `wait_for` looked at, or a late consumer put back, has waited since its oldest quote came."""
    clock = ManualClock(0.0)
    events = EventQueue(clock=clock)
    for _ in range(60):
        events.put([quote("A", clock.monotonic()) for _ in range(100)])
        clock.advance(1.0)
    with pytest.raises(queue.Empty):
        events.wait_for(lambda event: False, timeout=0.0)
    assert 60.0 == events.lag
    clock.advance(60.0)
    events.put([quote("A", clock.monotonic(), last_price=5.0)])
    assert 120.0 == events.lag
    image = events.get()
    assert (0.0, 120.0, 5.0) == (image.first_at, image.received_at, image.data.last_price)


################################################### the backlog ###################################################


@given(st.lists(st.sampled_from("qntd"), max_size=300), st.integers(1, 30), st.integers(1, 30), st.randoms())
def test_nothing_is_lost_without_being_counted(
    kinds: list[str], max_trades: int, max_depth: int, chance: random.Random
) -> None:
    """However slow the consumer and small the limits: dropped + merged + delivered = received, notes all in order."""
    clock = ManualClock(0.0)
    backlog = Backlog(True, max_trades, max_depth)
    got: list[Any] = []
    for i, kind in enumerate(kinds):
        now = clock.monotonic()
        backlog.put([{"q": quote("A", now), "n": note(i, now), "t": trade("A", now), "d": depth("A", now)}[kind]])
        clock.advance(chance.random() * 0.2)
        if chance.random() < 0.1:
            got.append(backlog.take(backlog.first(clock)))
    got += backlog.take_all(clock)
    notes = [int(event.state) for event in got if isinstance(event, ConnectionEvent)]
    told = sum(event.count for event in got if isinstance(event, (Gap, BookReset)))
    real = sum(not isinstance(event, (Gap, BookReset)) and event is not None for event in got)
    assert [i for i, kind in enumerate(kinds) if kind == "n"] == notes
    assert len(kinds) == real + backlog.dropped + backlog.merged
    assert (backlog.dropped, 0) == (told, backlog.size)


def test_in_a_forked_child_what_was_here_can_be_taken() -> None:
    """Then the end is told with its reason, whoever held the lock when the process forked; nothing is called back."""
    closed: list[Any] = []
    events = EventQueue(on_close=closed.append)
    events.put([note(1)])
    events._lock.acquire()
    events.forked()
    assert "1" == events.get().state
    with pytest.raises(StreamFailed, match="forked"):
        events.get()
    events.close()
    assert [] == closed


def test_each_of_two_consumers_is_woken_for_what_is_theirs() -> None:
    """One batch of two events, and two batches of one, wake both of two consumers, though each is busy with its own."""
    for batches in ([[order(1), order(2)]], [[order(1)], [order(2)]]):
        events, busy = EventQueue(), threading.Event()
        got: queue.Queue[Any] = queue.Queue()

        def consume(events: EventQueue = events, got: "queue.Queue[Any]" = got, busy: threading.Event = busy) -> None:
            got.put(events.get(timeout=5.0).data)
            busy.wait(5.0)

        consumers = [threading.Thread(target=consume) for _ in range(2)]
        for consumer in consumers:
            consumer.start()
        assert soon(lambda events=events: 2 == waiters(events))
        for batch in batches:
            events.put(batch)
        try:
            assert {1, 2} == {got.get(timeout=2.0), got.get(timeout=2.0)}
        finally:
            busy.set()
            for consumer in consumers:
                consumer.join(5.0)


@pytest.mark.parametrize("take", [lambda events: events.get(timeout=2.0), lambda events: events.drain(timeout=2.0)[0]])
def test_what_is_put_back_beside_a_look_that_found_nothing_is_seen(take: Any) -> None:
    """`wait_for` of another thread puts back what it set aside between our look and our sleep: we do not sleep."""
    events = EventQueue()
    clear = events._arrived.clear

    def put_back_just_before() -> None:
        events._arrived.clear = clear  # type: ignore[method-assign]
        events._at_hand.appendleft(note(7))  # as `_found` does, without the lock
        events._arrived.set()
        clear()

    events._arrived.clear = put_back_just_before  # type: ignore[method-assign]
    started = SYSTEM_CLOCK.monotonic()
    assert "7" == take(events).state
    assert SYSTEM_CLOCK.monotonic() - started < 1.0


def test_a_slow_predicate_does_not_outlive_its_timeout() -> None:
    """Events that come faster than the predicate looks at them keep nobody beyond the time allowed; they stay."""
    clock = ManualClock()
    events = EventQueue(clock=clock)

    def look(event: Any) -> bool:
        clock.advance(1.0)
        fresh = note(8)
        fresh.received_at = clock.monotonic()
        events.put([fresh])
        return False

    first = note(7)
    first.received_at = clock.monotonic()
    events.put([first])
    with pytest.raises(queue.Empty):
        events.wait_for(look, timeout=5.0)
    assert 7 <= len(events) <= 9
