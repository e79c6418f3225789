"""Exactly once: whatever is lost, held, repeated or late between an exchange and the user hub's feed."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from user_world import CONTRACTS, HOLD, Reading, World, working

from topstep_sync.clock import ManualClock
from topstep_sync.events import Reconnected
from topstep_sync.models import OrderStatus
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.user_feed import UserFeed

Move = Callable[[World, int], Any]


def _some(rows: Any, number: int) -> Any:
    """One of *rows*, or None where there is none."""
    rows = list(rows)
    return rows[number % len(rows)] if rows else None


def place(world: World, number: int) -> None:
    world.exchange.place(5 + number % 2, CONTRACTS[number // 2 % 2], 1 + number // 4 % 2)


def fill(world: World, number: int) -> None:
    order = _some(filter(working, world.exchange.orders.values()), number)
    if order is not None:
        world.exchange.fill(order.id)


def cancel(world: World, number: int) -> None:
    order = _some(filter(working, world.exchange.orders.values()), number)
    if order is not None:
        world.exchange.change(order.id, status=OrderStatus.CANCELLED)


def modify(world: World, number: int) -> None:
    order = _some(filter(working, world.exchange.orders.values()), number)
    if order is not None:
        after = (0.01, 0.001)[number // 4 % 2]  # the latter is less than the versions of an order are told apart by
        world.exchange.change(order.id, after, limit_price=float(world.exchange.next()))


def pend(world: World, number: int) -> None:
    """Somebody asks for a cancellation; or it is refused, within the same moment as likely as not."""
    order = _some(filter(working, world.exchange.orders.values()), number)
    if order is not None:
        pending = order.status is OrderStatus.PENDING_CANCELLATION
        status = OrderStatus.OPEN if pending else OrderStatus.PENDING_CANCELLATION
        after = (0.01, 0.001)[number // 4 % 2]
        world.exchange.change(order.id, after, status=status, limit_price=float(world.exchange.next()))


def void(world: World, number: int) -> None:
    trade = _some((t for t in world.exchange.trades.values() if not t.voided), number)
    if trade is not None:
        world.exchange.void(trade.id)


def flatten(world: World, number: int) -> None:
    key = _some(world.exchange.positions, number)
    if key is not None:
        world.exchange.hold(*key, 0)


def reopen(world: World, number: int) -> None:
    """Flat and back again, within one gap as likely as not."""
    flatten(world, number)
    world.exchange.hold(5, CONTRACTS[number % 2], 1 + number % 3)


def add(world: World, number: int) -> None:
    account = 6 - number // 2 % 2
    world.watch(account)
    if world.up and number % 2:
        world.subscribe(account)


def forget(world: World, number: int) -> None:
    world.forget(6 - number % 2)


def agree(world: World, number: int) -> None:
    account = _some(sorted(world.watched), number)
    if world.up and account is not None:
        world.subscribe(account)


MOVES: dict[str, Move] = {
    "place": place,
    "fill": fill,
    "cancel": cancel,
    "modify": modify,
    "pend": pend,
    "void": void,
    "flatten": flatten,
    "reopen": reopen,
    "add": add,
    "forget": forget,
    "agree": agree,
    "connect": lambda world, number: world.connect(agreed=number % 2 == 0),
    "establish": lambda world, number: world.establish(),
    "drop": lambda world, number: world.drop(),
    "deliver": lambda world, number: world.deliver(1 + number % 4),
    "repeat": lambda world, number: world.deliver(1, twice=True),
    "garble": lambda world, number: world.garble(1 + number % 4 // 2),
    "read": lambda world, number: world.read(1 + number % Reading.PARTS),
    "fail": lambda world, number: world.fail(),
    "jump": lambda world, number: world.jump((-3600.0, -20.0, 20.0, 3600.0)[number % 4]),
    "wait": lambda world, number: world.turn((0.1, 0.6, HOLD + 0.1, 35.0)[number % 4]),
}


def play(moves: list[tuple[str, int]], ahead: float = 0.0, off: float = 0.0) -> World:
    world = World(ahead, off)
    for name, number in moves:
        MOVES[name](world, number)
    for number in range(2):
        agree(world, number)
    world.settle()
    world.check()
    return world


SCRIPTS = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 15)), max_size=60)


# What once went wrong: a position that nobody ever told of, as the first snapshot had it already; one that went flat in
# a gap before the first snapshot; the last word on a position, garbled between two that waited; an account that was
# added while the hub was away; what waited through a second gap; what came of an account that was let go,
# and a state that was called unreconciled for ever because of it, or had that account's orders for ever, or an old
# position for ever because the account was wanted again while the connection was coming up; the end of an order that
# was working long before its account was added; a trade, garbled before somebody set the clock back; what happened
# after it was set forward, as the next reply of REST was the first to show; two versions of an order within a moment,
# the later one garbled; a cancellation that was refused within a moment, live or in a gap.
@example([("reopen", 0), ("read", 4)], 0.0, 0.0)
@example([("reopen", 0), ("reopen", 1), ("repeat", 0), ("drop", 0)], 0.0, 0.0)
@example(
    [("drop", 0), ("connect", 0), ("reopen", 0), ("reopen", 0), ("repeat", 0), ("repeat", 0), ("garble", 0)], 0.0, 0.0
)
@example([("drop", 0), ("place", 1), ("add", 0), ("wait", 2)], 0.0, 0.0)
@example(
    [("read", 4), ("drop", 0), ("connect", 0), ("reopen", 0), ("deliver", 0), ("drop", 0), ("reopen", 0)], 0.0, 0.0
)
@example([("add", 1), ("place", 1), ("forget", 0)], 0.0, 0.0)
@example([("add", 0), ("read", 4), ("forget", 0)], 0.0, 0.0)
@example([("add", 1), ("fail", 0), ("place", 1), ("deliver", 0), ("forget", 0), ("garble", 0)], 0.0, 0.0)
@example([("add", 1), ("fail", 0), ("place", 1), ("fill", 0), ("forget", 0), ("add", 0), ("reopen", 0)], 0.0, 0.0)
@example([("add", 1), ("fail", 0), ("place", 1), ("forget", 0), ("repeat", 0), ("garble", 0)], 0.0, 0.0)
@example([("place", 1), ("wait", 3), ("wait", 3), ("add", 0), ("fill", 0)], 0.0, 0.0)
@example(
    [("drop", 0), ("add", 0), ("connect", 0), ("place", 5), ("fill", 0), ("forget", 0), ("fill", 0), ("add", 0)],
    0.0,
    0.0,
)
@example(
    [
        ("read", 4),
        ("place", 0),
        ("deliver", 1),
        ("fill", 0),
        ("deliver", 0),
        ("wait", 3),
        ("jump", 0),
        ("garble", 0),
        ("fail", 0),
    ],
    0.0,
    0.0,
)
@example([("jump", 2), ("add", 0), ("place", 1)], 0.0, 0.0)
@example([("drop", 0), ("jump", 2), ("add", 0), ("place", 1), ("wait", 2)], 0.0, 0.0)
@example([("read", 4), ("jump", 3), ("drop", 0), ("place", 0), ("cancel", 0)], 0.0, 0.0)
@example([("place", 0), ("deliver", 1), ("modify", 4), ("garble", 0)], 0.0, 0.0)
@example([("read", 4), ("place", 0), ("pend", 0), ("pend", 4), ("deliver", 3)], 0.0, 0.0)
@example([("read", 4), ("place", 0), ("pend", 0), ("deliver", 3), ("drop", 0), ("pend", 4)], 0.0, 0.0)
@example(
    [("read", 4), ("place", 0), ("pend", 0), ("deliver", 3), ("drop", 0), ("connect", 0), ("pend", 4), ("deliver", 0)],
    0.0,
    0.0,
)
@settings(max_examples=max(500, settings().max_examples))
@given(SCRIPTS, st.sampled_from([0.0, 40.0, -40.0, 7200.0]), st.sampled_from([0.0, 0.9, -0.9]))
def test_everything_is_told_exactly_once(moves: list[tuple[str, int]], ahead: float, off: float) -> None:
    """Any drops, delays, repeats, failures of REST and clocks: each fill once, each order to its end, a true state."""
    play([("connect", 0), ("establish", 0), *moves], ahead, off)


@pytest.mark.parametrize("late", [False, True])
def test_an_account_that_becomes_wanted_is_waited_for(late: bool) -> None:
    """Caught up is never said of an account that was asked for just before a snapshot of others was taken in."""
    clock = ManualClock()
    jobs: list[Callable[[], None]] = []
    feed = UserFeed(clock, lambda account_ids, since: Snapshot(), HOLD, lambda: 0.0)
    feed.aside = jobs.append
    feed.watch([5])
    feed.established(None, clock.epoch())
    feed.due(clock.monotonic())
    jobs.pop()()

    def turn() -> float:
        feed._skew = lambda: 0.0
        feed.due(clock.monotonic())
        return 0.0

    if late:  # in the middle of `watch`, the owner has its turn
        feed._skew = turn
    feed.watch([6])
    feed.due(clock.monotonic())
    assert (False, {6}) == (feed.caught_up.is_set(), feed.reconciler.unknown)
    jobs.pop()()
    feed.due(clock.monotonic())
    assert (True, set()) == (feed.caught_up.is_set(), feed.reconciler.unknown)


def test_a_gap_ends_with_the_connection_that_nobody_wants() -> None:
    """Who subscribes anew, after a gap that was never reconciled, is told of no gap."""
    clock = ManualClock()
    jobs: list[Callable[[], None]] = []
    feed = UserFeed(clock, lambda account_ids, since: Snapshot(), HOLD, lambda: 0.0)
    feed.aside = jobs.append
    heard: list[Any] = []
    feed.report = heard.append
    feed.watch([5])
    feed.established(clock.epoch() - 5.0, clock.epoch())
    feed.due(clock.monotonic())
    for _ in range(2):
        feed.missed()
    feed.forget([5])
    feed.changed(State.DISCONNECTED, None)
    feed.watch([5])
    feed.changed(State.CONNECTING, None)
    feed.established(None, clock.epoch())
    feed.due(clock.monotonic())
    jobs.pop()()
    assert feed.due(clock.monotonic()) > clock.monotonic()
    assert (True, []) == (feed.caught_up.is_set(), [event for event in heard if isinstance(event, Reconnected)])


def test_whatever_ends_a_snapshot_another_follows() -> None:
    """Even where what it runs through takes it for a program of its own, which may end itself."""
    clock = ManualClock()
    jobs: list[Callable[[], None]] = []

    def fetch(account_ids: list[int], since: float) -> Snapshot:
        raise SystemExit(1)

    feed = UserFeed(clock, fetch, HOLD, lambda: 0.0)
    feed.aside = jobs.append
    feed.watch([5])
    feed.established(None, clock.epoch())
    feed.due(clock.monotonic())
    jobs.pop()()
    clock.advance(feed.due(clock.monotonic()) - clock.monotonic())
    feed.due(clock.monotonic())
    assert ("SystemExit: 1", 1) == (feed.trouble, len(jobs))


def test_a_snapshot_whose_thread_cannot_start_is_tried_again() -> None:
    """A system that has no thread to spare costs a while, and not the connection."""
    clock = ManualClock()
    jobs: list[Callable[[], None]] = []
    feed = UserFeed(clock, lambda account_ids, since: Snapshot(), HOLD, lambda: 0.0)

    def exhausted(job: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    feed.aside = exhausted
    feed.watch([5])
    feed.established(None, clock.epoch())
    due = feed.due(clock.monotonic())
    assert ("RuntimeError: can't start new thread", True) == (feed.trouble, due > clock.monotonic())
    feed.aside = jobs.append
    clock.advance(due - clock.monotonic())
    feed.due(clock.monotonic())
    jobs.pop()()
    feed.due(clock.monotonic())
    assert (None, True) == (feed.trouble, feed.caught_up.is_set())
