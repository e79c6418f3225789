"""Whatever the gateway sends, over the hub or over REST: it is told and passed, and the stream goes on."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rude_hub import call, soon
from test_feeds import ODD, invocations
from test_reconcile import START, order, position, trade
from test_stream import MNQ, Hubs
from test_stream import trade as fields
from test_wire import ORDER

from topstep_sync.clock import ManualClock
from topstep_sync.events import Event, QuoteEvent, Reconnected, TradeEvent
from topstep_sync.realtime.feeds import Route
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.signalr import Fault, general
from topstep_sync.realtime.user_feed import RETRY, UserFeed

IDS = itertools.count(10**15)
NEVER, ZONELESS = "0001-01-01T00:00:00", "2026-11-24T08:00:00.1234567"


class Live:
    """Both hubs of one stream, connected."""

    def __init__(self) -> None:
        self.hubs = Hubs()
        self.user = self.hubs.subscribe(accounts=[5])
        self.market = self.hubs.subscribe(count=1, quotes=[MNQ])

    def goes_on(self, *records: bytes, hub: str = "user") -> None:
        """After *records* a sound one comes through, on the same connection."""
        events, peer = self.user if hub == "user" else self.market
        number = next(IDS)
        quote = call("GatewayQuote", MNQ, {"volume": number})
        peer.send(*records, call("GatewayUserTrade", fields(number)) if hub == "user" else quote)

        def is_it(event: Event) -> bool:
            if isinstance(event, QuoteEvent):
                return event.data.volume == number
            return isinstance(event, TradeEvent) and event.data.id == number

        assert events.wait_for(is_it, 5)
        health = self.hubs.stream.health()
        assert [(State.CONNECTED, 0)] * 2 == [(hub.state, hub.reconnects) for hub in (health.user, health.market)]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    made = Live()
    yield made
    made.hubs.stream.close()
    for hub in (made.hubs.user, made.hubs.market):
        hub.__exit__()


def of_5(**changes: Any) -> dict[str, Any]:
    return {**ORDER, "accountId": 5, **changes}


@pytest.mark.parametrize(
    "arguments",
    [
        [[of_5(id=1, updateTimestamp=NEVER), of_5(id=1, updateTimestamp=NEVER, size=3)]],
        [[of_5(id=2, creationTimestamp=ZONELESS), of_5(id=2, size=3)]],
        [[of_5(id=3, creationTimestamp=NEVER), of_5(id=3, creationTimestamp=NEVER + "Z", size=3)]],
        [[of_5(id=4, updateTimestamp=f"{NEVER}+14:00"), of_5(id=4, updateTimestamp="9999-12-31T23:59:59Z")]],
        ["[" * 100_000],
        ['{"data":' * 100_000],
        [{"action": "[" * 9, "data": of_5()}],
        [{"action": [[[]]], "data": of_5()}],
        [[[[[[1]]]]]],
        [10**30, -1, None],
    ],
)
def test_no_record_ends_the_user_stream(live: Live, arguments: list[Any]) -> None:
    """Times of year 1, times without a zone, texts of brackets without end: at most one record the fewer."""
    live.goes_on(call("GatewayUserOrder", *arguments), call("GatewayUserTrade", *arguments))


def test_any_record_at_all(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """What anybody thought of that a gateway might send, through both live connections."""
    caplog.set_level(100, "topstep_sync.realtime")
    for hub, target, arguments in invocations(2_000, seed=3):
        record = call(target, *arguments)
        if not isinstance(general(record[:-1]), Fault):  # what is no JSON to msgspec is a broken connection
            (live.user if hub == "user" else live.market)[1].send(record)
    live.goes_on()
    live.goes_on(hub="market")


VALUES = st.recursive(
    st.sampled_from([odd for odd in ODD if odd != 10**400 and odd != "\ud800"])
    | st.integers(-(2**63), 2**63 - 1)
    | st.text("[]{}x1Z:-", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "data", "action", "orderId", *ORDER]), inner, max_size=6)
        | st.dictionaries(st.sampled_from(sorted(ORDER)), inner, max_size=3).map(lambda some: of_5(**some))
    ),
    max_leaves=12,
)
TARGETS = [
    "GatewayUserAccount", "GatewayUserOrder", "GatewayUserPosition", "GatewayUserTrade",
    "GatewayQuote", "GatewayTrade", "GatewayDepth", "GatewayLogout",
]  # fmt: skip
RECORDS = st.tuples(st.sampled_from(TARGETS), st.lists(VALUES, max_size=3))


@given(st.lists(RECORDS, max_size=8), st.sampled_from(["user", "market"]))
def test_any_records_in_a_row(live: Live, told: list[tuple[str, list[Any]]], hub: str) -> None:
    """Whatever is made up, the next sound record comes through."""
    live.goes_on(*(call(target, *arguments) for target, arguments in told), hub=hub)


################################################## snapshots ##################################################


class Asking:
    """A user feed whose snapshots come at once, on a clock that is moved by hand."""

    def __init__(self, snapshot: Any) -> None:
        self.snapshot = snapshot
        self.clock = ManualClock(START.timestamp())
        self.feed = UserFeed(self.clock, lambda accounts, since: self.snapshot, 2.0, lambda: 0.0)
        self.feed.aside = lambda work: work()
        self.queue = EventQueue(clock=self.clock)
        self.feed.routes = (Route(self.queue, frozenset([5]), True),)
        self.feed.watch([5])
        self.feed.changed(State.CONNECTING, None)
        self.feed.established(self.clock.epoch() - 9.0, self.clock.epoch())
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for _ in range(3):
            self.feed.due(self.clock.monotonic())


NAIVE = datetime(2026, 11, 24, 15, 0, 3)
ODD_TIMES = [
    NAIVE,
    datetime.min,
    datetime.min.replace(tzinfo=UTC),
    datetime.max,
    datetime.max.replace(tzinfo=UTC),
    None,
    7,
]
BROKEN = st.one_of(
    st.just(None),
    st.builds(lambda when: msgspec.structs.replace(order(3), update_timestamp=when), st.sampled_from(ODD_TIMES)),
    st.builds(lambda when: msgspec.structs.replace(order(3), creation_timestamp=when), st.sampled_from(ODD_TIMES)),
    st.builds(lambda when: msgspec.structs.replace(trade(3), creation_timestamp=when), st.sampled_from(ODD_TIMES)),
    st.builds(lambda odd: msgspec.structs.replace(position(1), size=odd), st.sampled_from(ODD)),
    st.builds(lambda odd: order(3, status=odd), st.sampled_from(ODD)),
    st.sampled_from(ODD),
)


@given(st.fixed_dictionaries({part: st.lists(BROKEN, max_size=3) for part in Snapshot.__struct_fields__}))
def test_no_snapshot_ends_the_user_stream(parts: dict[str, list[Any]]) -> None:
    """It is taken in, or it is told why not and asked for again; what it said rightly beside is then told, and once."""
    parts["orders"] = [order(1, updated=2.0), *parts["orders"], order(2, updated=2.0)]
    parts["trades"] = [trade(9, 2.0), *parts["trades"]]
    made = Asking(Snapshot(**parts))
    if made.feed.trouble is not None:
        assert [] == [event for event in made.queue.drain() if not event.kind.startswith(("connection", "reconnected"))]
        made.snapshot = Snapshot(orders=[order(1, updated=2.0), order(2, updated=2.0)], trades=[trade(9, 2.0)])
        made.turn(RETRY[0])
    got = made.queue.drain()
    assert (None, True) == (made.feed.trouble, made.feed.caught_up.is_set())
    assert [True] == [event.reconciled for event in got if isinstance(event, Reconnected)]
    assert [9] == [event.data.id for event in got if isinstance(event, TradeEvent) and event.data.id == 9]
    assert {1, 2} <= set(made.feed.reconciler.state.orders)


@pytest.mark.slow
def test_an_odd_snapshot_is_told_and_asked_for_again() -> None:
    """Live: what cannot be worked in makes the hub degraded with the reason, not FAILED; a sound one mends it."""
    hubs = Hubs()
    hubs.snapshot = Snapshot(trades=[msgspec.structs.replace(trade(7), creation_timestamp=None)])  # type: ignore[arg-type]
    try:
        hubs.subscribe(accounts=[5])
        assert soon(lambda: "not reconciled: it makes no sense" in str(hubs.stream.health().user.reasons))
        hubs.snapshot = Snapshot()
        assert soon(lambda: hubs.stream.state.reconciled)
        assert (State.CONNECTED, ()) == (hubs.stream.health().user.state, hubs.stream.health().user.reasons)
    finally:
        hubs.stream.close()
        for hub in (hubs.user, hubs.market):
            hub.__exit__()
