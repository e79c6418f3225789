"""What comes in at a hub's feed, whatever it is: events, or one malformed record more; never an exception."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_wire import ORDER

from topstep_sync.clock import ManualClock
from topstep_sync.events import SessionConflict
from topstep_sync.realtime.feeds import Feed, MarketFeed, Route
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.user_feed import UserFeed

HUBS = json.loads((Path(__file__).parent / "golden" / "hubs.json").read_text())
ACCOUNTS = (123, 704)
ODD = [
    None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308, "", "x", "1", "1.5", "NaN", "\x1e",
    "\ud800",
    "2026-08-03T13:31:31.348+00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00",
    "2026-08-03T13:31:31.348", "0001-01-01T00:00:00", "9999-12-31T23:59:59.9999999", "0001-01-01T00:00:00.0000001",
    [], {}, [[]], {"data": {}}, {"action": 9, "data": {}}, "[]", "{", '{"id":1}',
    "[" * 5_000, "[" * 400 + "]" * 400, json.loads("[" * 400 + "]" * 400), '{"data":' * 5_000,
]  # fmt: skip


class Fed:
    """Both feeds with one queue that wants everything."""

    def __init__(self) -> None:
        clock = ManualClock()
        self.queue = EventQueue(clock=clock)
        user = UserFeed(clock, None, 2.0, lambda: 0.0)
        self.feeds: dict[str, Feed] = {"market": MarketFeed(clock), "user": user}
        self.feeds["market"].routes = (Route(self.queue, frozenset(), True),)
        user.routes = (Route(self.queue, frozenset(ACCOUNTS), True),)
        user.watch(ACCOUNTS)

    def take(self, hub: str, target: str, arguments: list[Any]) -> list[Any]:
        self.feeds[hub].invocation(target, arguments, 0.0, 0.0)
        return self.queue.drain()


def odder(value: Any, chance: random.Random) -> Any:
    """*value* with some of its parts replaced, taken away or added."""
    if chance.random() < 0.12:
        return chance.choice(ODD)
    if isinstance(value, dict):
        kept = {k: odder(v, chance) if chance.random() < 0.1 else v for k, v in value.items() if chance.random() > 0.04}
        return (
            {**kept, chance.choice(("id", "data", "action", "x")): chance.choice(ODD)}
            if chance.random() < 0.1
            else kept
        )
    if isinstance(value, list):
        kept = [odder(v, chance) if chance.random() < 0.4 else v for v in value if chance.random() > 0.04]
        if chance.random() < 0.2:
            kept.insert(chance.randrange(len(kept) + 1), chance.choice(ODD))
        return kept
    return chance.choice(ODD) if chance.random() < 0.5 else value


def invocations(count: int, seed: int) -> Iterator[tuple[str, str, list[Any]]]:
    chance = random.Random(seed)
    for _ in range(count):
        known = chance.choice(HUBS)
        arguments = odder(known["arguments"], chance)
        target = known["target"] if chance.random() < 0.95 else "GatewayLogout"
        yield known["hub"], target, arguments if isinstance(arguments, list) else [arguments]


@pytest.mark.parametrize(
    ("count", "seed"), [(5_000, 1), pytest.param(1_000_000, 2, marks=[pytest.mark.nightly, pytest.mark.timeout(0)])]
)
def test_no_payload_harms_a_feed(count: int, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Fields of any type, missing, nested or huge: events or a count, and afterwards the feed works as before."""
    caplog.set_level(100, "topstep_sync.realtime")
    fed, events = Fed(), 0
    for hub, target, arguments in invocations(count, seed):
        events += len(fed.take(hub, target, arguments))
    assert events > count / 10
    assert all(count / 2 > feed.malformed > count / 20 for feed in fed.feeds.values())
    trade = {"id": 5, "accountId": 704, "contractId": "C", "creationTimestamp": "2026-11-24T15:00:00Z", "price": 1.0}
    trade |= {"fees": 0.0, "side": 0, "size": 1, "voided": False, "orderId": 1}
    for hub, target, sound in (
        ("market", "GatewayQuote", ["C", {"lastPrice": 1.0}]),
        ("user", "GatewayUserTrade", [trade]),
    ):
        assert 1 == len(fed.take(hub, target, sound))


def test_whatever_goes_wrong_with_one_event_is_told_and_passed(caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours in taking an event in costs that event: it is counted, logged, and REST is asked what it said."""
    fed = Fed()
    user = fed.feeds["user"]
    assert isinstance(user, UserFeed)
    believe, missed = user.reconciler._believe_order, []
    user.missed = lambda: missed.append(1)  # type: ignore[method-assign]

    def broken(order: Any) -> bool:
        return bool(1 / (order.id - 2)) and believe(order)

    user.reconciler._believe_order = broken  # type: ignore[method-assign]
    for wait in (False, True):
        rows = [{**ORDER, "accountId": 704, "id": number, "size": 1 + wait} for number in (1, 2, 3)]
        if wait:  # what waits for a snapshot is taken in all at once, and must not be lost all at once
            user.reconciler.hold([704])
        told = fed.take("user", "GatewayUserOrder", [rows])
        user._deliver(user.reconciler.release())
        assert [1, 3] == [event.data.id for event in told + fed.queue.drain()]

    def talkative(events: list[Any], now: float, epoch: float) -> None:
        raise ValueError("access_token=secret-of-mine")

    user.take = talkative  # type: ignore[method-assign]
    fed.take("user", "GatewayUserOrder", [[{**ORDER, "accountId": 704}]])
    assert (3, [1, 1, 1]) == (user.malformed, missed)
    assert ["ZeroDivisionError", "ZeroDivisionError", "ValueError"] == [
        record.message.partition("dropped: ")[2].partition(":")[0] for record in caplog.records
    ]
    assert (True, False) == ("division by zero" in caplog.text, "secret-of-mine" in caplog.text)
    assert 3 == caplog.text.count("Traceback")


def test_a_program_that_ends_is_not_held_up() -> None:
    """Ctrl-C and the end of the interpreter are no odd records."""
    fed = Fed()

    def end(events: list[Any], now: float, epoch: float) -> None:
        raise KeyboardInterrupt

    fed.feeds["user"].take = end  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fed.take("user", "GatewayUserOrder", [[{**ORDER, "accountId": 704}]])


def test_a_logout_is_told_whatever_it_carries() -> None:
    """Words that cannot be written down are left out; that another program took over is not."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for words in (deep, 10**5_000):
        fed = Fed()
        (event,) = fed.take("user", "GatewayLogout", [words])
        assert (SessionConflict, None) == (type(event), event.reason)


def test_a_conflict_tells_the_queue_and_the_connection() -> None:
    """GatewayLogout with anything in it is one event, and the connection is told to be careful."""
    fed, told = Fed(), []
    fed.feeds["market"].conflicted = lambda: told.append(1)
    (event,) = fed.take("market", "gatewayLOGOUT", [None, {"a": 1}])
    assert (SessionConflict, "market", "{'a': 1}", [1]) == (type(event), event.source, event.reason, told)


def test_a_target_nobody_knows_is_no_trouble() -> None:
    """A new event of the gateway's is passed over, and is not malformed."""
    fed = Fed()
    assert ([], 0) == (fed.take("user", "GatewaySomethingNew", [1]), fed.feeds["user"].malformed)
