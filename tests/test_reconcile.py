"""Reconciliation: whatever is lost, held, repeated or overtaken, each thing is told once and the state is true."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync.events import AccountEvent, OrderEvent, PositionEvent, SessionConflict, TradeEvent
from topstep_sync.models import Account, Action, Order, OrderStatus, Position, PositionType, Trade
from topstep_sync.realtime.reconcile import MARGIN, REACH, Reconciler, Snapshot
from topstep_sync.realtime.versions import account_of

START = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
NEVER = datetime.min.replace(tzinfo=UTC)
EPOCH = START.timestamp()
CONTRACT = "CON.F.US.MNQ.Z26"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def order(number: int = 1, status: OrderStatus = OrderStatus.OPEN, updated: float = 1.0, **more: Any) -> Order:
    fields = {"account_id": 5, "contract_id": CONTRACT, "type": 1, "side": 0, "size": 1, **more}
    return Order(
        id=number, status=status, creation_timestamp=at(more.pop("created", 0.5)), update_timestamp=at(updated),
        **{k: v for k, v in fields.items() if k != "created"},
    )  # fmt: skip


def trade(number: int, when: float = 1.0, voided: bool = False, account: int = 5) -> Trade:
    return Trade(
        id=number, account_id=account, contract_id=CONTRACT, creation_timestamp=at(when), price=1.0, fees=0.1,
        side=0, size=1, voided=voided, order_id=1,
    )  # fmt: skip


def position(size: int, price: float = 100.0, account: int = 5) -> Position:
    kind = PositionType.LONG if size else PositionType.UNDEFINED
    return Position(
        id=1, account_id=account, contract_id=CONTRACT, creation_timestamp=at(0), type=kind, size=size,
        average_price=price,
    )  # fmt: skip


def account(balance: float, number: int = 5) -> Account:
    return Account(id=number, name="PRAC", balance=balance, can_trade=True, is_visible=True)


def told(value: Any, action: Action = Action.UPDATE) -> Any:
    kinds = {Order: OrderEvent, Trade: TradeEvent, Position: PositionEvent, Account: AccountEvent}
    return kinds[type(value)](action=action, data=value)


def known(*live: Any, **snapshot: Any) -> Reconciler:
    """A reconciler that watches account 5 since START, has its first snapshot, and was told *live*."""
    reconciler = Reconciler()
    reconciler.watch(5, EPOCH)
    reconciler.apply(Snapshot(**snapshot), [5], 0.0, EPOCH)
    reconciler.release()
    reconciler.live([told(value) for value in live])
    return reconciler


def recovered(reconciler: Reconciler, **snapshot: Any) -> list[Any]:
    """What a snapshot adds, as plain records; every event says that it was recovered."""
    events, _ = reconciler.apply(Snapshot(**snapshot), [5], 9.0, EPOCH + 9)
    assert all(event.recovered and (9.0, EPOCH + 9) == (event.received_at, event.received_epoch) for event in events)
    return [event.data for event in events]


################################################### live events ###################################################


def test_what_is_said_twice_is_told_once() -> None:
    """A trade, order, position or account that the gateway repeats is delivered once."""
    reconciler = known()
    values = [order(), trade(1), position(1), account(5.0)]
    assert values == [event.data for event in reconciler.live([told(value) for value in values])]
    assert [] == reconciler.live([told(value) for value in values])


def test_a_voided_trade_is_news() -> None:
    """It bears the id of the trade it takes back, and is still told."""
    reconciler = known(trade(1))
    assert 1 == len(reconciler.live([told(trade(1, voided=True)), told(trade(1, voided=True))]))


def test_an_order_never_goes_back() -> None:
    """Of two versions out of order, only the later one counts; after it the earlier one is not told."""
    reconciler = known()
    filled = order(status=OrderStatus.FILLED, updated=2.0, fill_volume=1)
    assert [filled] == [e.data for e in reconciler.live([told(filled), told(order(updated=1.0))])]
    assert {} == reconciler.state.orders


@pytest.mark.parametrize("times", [(UNSET, UNSET, UNSET), (1.0, 5.0, 5.001), (1.0, 5.0, 5.0)])
def test_a_refused_cancellation_is_told(times: tuple[Any, ...]) -> None:
    """The order works on: what the hub tells last counts, whether or not its times tell the versions apart."""
    pending, asked, back = (
        replace(order(status=status), update_timestamp=time if time is UNSET else at(time))
        for status, time in zip(
            (OrderStatus.OPEN, OrderStatus.PENDING_CANCELLATION, OrderStatus.OPEN), times, strict=True
        )
    )
    reconciler = known()
    assert [pending, asked, back] == [event.data for event in reconciler.live(map(told, (pending, asked, back)))]
    assert OrderStatus.OPEN is reconciler.state.orders[1].status
    assert [] == reconciler.live([told(back)])


@pytest.mark.parametrize("before", [OrderStatus.PENDING, OrderStatus.SUSPENDED, OrderStatus.PENDING_CANCELLATION])
def test_what_the_hub_told_meanwhile_stands_where_nothing_tells_the_later(before: OrderStatus) -> None:
    """Of a working order the hub tells the rest; what a snapshot says within the same moment is not put in between."""
    opened, other = order(), order(status=before)
    for one, two in ((opened, other), (other, opened)):
        reconciler = known()
        held(reconciler, two)
        assert [(False, two)] == after(reconciler, open_orders=[one])
        reconciler = known(two)
        assert [(True, one)] == after(reconciler, open_orders=[one])


def test_flat_after_flat_is_a_repetition() -> None:
    """A position that is flat already cannot go flat again; DELETE means flat whatever the size says."""
    reconciler = known(position(2))
    gone = [told(position(0), Action.DELETE), told(position(0), Action.DELETE), told(position(3), Action.DELETE)]
    assert (1, {}) == (len(reconciler.live(gone)), reconciler.state.positions)
    assert None is reconciler.state.position(5, CONTRACT)


def test_the_state_is_kept_live() -> None:
    """Working orders, open positions and accounts can be read at any time; what was read does not change."""
    reconciler = known(order(1), order(2), position(2), account(7.0))
    before = reconciler.state
    reconciler.live([told(order(1, OrderStatus.CANCELLED, 2.0)), told(position(0), Action.DELETE)])
    assert ([1, 2], 2, 7.0) == (list(before.orders), before.position(5, CONTRACT).size, before.accounts[5].balance)  # type: ignore[union-attr]
    assert ([2], {}, True) == (list(reconciler.state.orders), reconciler.state.positions, reconciler.state.reconciled)
    assert "TradingState(1 accounts, 1 working orders, 0 positions, reconciled)" == repr(reconciler.state)
    reconciler.doubt()
    assert "not reconciled" in repr(reconciler.state)
    with pytest.raises(TypeError):
        before.orders[1] = order()  # type: ignore[index]


def test_other_events_pass() -> None:
    """What is about no account is not looked at."""
    conflict = SessionConflict(source="user")
    assert ([conflict], None) == (known().live([conflict]), account_of(conflict))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest trades and finished orders are forgotten in time; working orders never."""
    monkeypatch.setattr("topstep_sync.realtime.reconcile._KEPT_IDS", 100)
    monkeypatch.setattr("topstep_sync.realtime.reconcile._KEPT_ORDERS", 100)
    reconciler = known()
    reconciler.live([told(order(i)) for i in range(50)])
    reconciler.live([told(order(1000 + i, OrderStatus.FILLED)) for i in range(500)])
    reconciler.live([told(trade(i)) for i in range(500)])
    assert (50, True, True) == (
        len(reconciler.state.orders),
        len(reconciler._orders) <= 150,
        len(reconciler._trades) <= 100,
    )
    assert len(reconciler._ended) <= 100


def test_an_order_that_ended_long_ago_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that reaches back to an old working order tells of more orders than versions are kept of."""
    monkeypatch.setattr("topstep_sync.realtime.reconcile._KEPT_ORDERS", 100)
    ended = [order(1000 + i, OrderStatus.FILLED, 2.0 + i) for i in range(500)]
    reconciler = known(order(1), *ended)
    assert [] == recovered(reconciler, open_orders=[order(1)], orders=[order(1), *ended])
    assert [] == reconciler.live([told(version) for version in ended])


################################################### the snapshot ###################################################


def test_the_first_snapshot_tells_nothing_that_happened_before() -> None:
    """Orders, fills, positions and balances from before the subscription fill the state and make no event."""
    reconciler = Reconciler()
    reconciler.watch(5, EPOCH)
    old = Snapshot(
        accounts=[account(1.0), account(2.0, 6)],
        open_orders=[order(1, updated=-5.0)],
        orders=[order(2, OrderStatus.FILLED, -3.0)],
        positions=[position(2), position(1, account=6)],
        trades=[trade(1, -3.0), trade(2, -1.0, account=6)],
    )
    assert ([], 0) == reconciler.apply(old, [5], 0.0, EPOCH)
    state = reconciler.state
    assert ([5], [1], [(5, CONTRACT)], True) == (
        list(state.accounts),
        list(state.orders),
        list(state.positions),
        state.reconciled,
    )


def test_what_happened_since_subscribing_is_told_by_the_first_snapshot() -> None:
    """An order placed and filled right after subscribing is not lost with the connection."""
    reconciler = Reconciler()
    reconciler.watch(5, EPOCH)
    filled = order(1, OrderStatus.FILLED, 2.0)
    assert [filled, trade(7, 2.0)] == recovered(reconciler, orders=[filled], trades=[trade(7, 2.0), trade(6, -1.0)])


def test_a_gap_is_told_in_the_order_of_its_events() -> None:
    """Fills by time, then the positions and balances they led to."""
    reconciler = known(order(1), position(1), account(10.0))
    filled, fresh = order(1, OrderStatus.FILLED, 5.0), order(2, updated=3.0)
    got = recovered(
        reconciler,
        accounts=[account(11.0)],
        open_orders=[fresh],
        orders=[filled],
        trades=[trade(9, 6.0), trade(8, 4.0)],
    )
    flat = replace(position(0), average_price=100.0)
    assert [fresh, trade(8, 4.0), filled, trade(9, 6.0), flat, account(11.0)] == got
    assert [] == recovered(
        reconciler,
        accounts=[account(11.0)],
        open_orders=[fresh],
        orders=[filled],
        trades=[trade(9, 6.0), trade(8, 4.0)],
    )


def test_the_actions_say_what_happened() -> None:
    """New records are created, changed ones updated, positions that are gone deleted."""
    reconciler = known(order(1), position(1))
    events, _ = reconciler.apply(
        Snapshot(orders=[order(1, OrderStatus.FILLED, 3.0), order(2, updated=4.0)], trades=[trade(1)]), [5], 0.0, EPOCH
    )
    assert [Action.CREATE, Action.UPDATE, Action.CREATE, Action.DELETE] == [event.action for event in events]
    events, _ = reconciler.apply(
        Snapshot(positions=[position(3)], open_orders=[order(2, updated=4.0)]), [5], 0.0, EPOCH
    )
    assert [Action.CREATE] == [event.action for event in events]


def test_of_two_lists_the_later_version_counts() -> None:
    """An order that filled between the two calls of a snapshot is filled, whichever list says so."""
    filled, working = order(1, OrderStatus.FILLED, 3.0), order(1, updated=1.0)
    assert [filled] == recovered(known(working), orders=[filled], open_orders=[working])
    assert [filled] == recovered(known(working), orders=[working], open_orders=[filled])


def test_a_working_order_nobody_knows_any_more_is_lost_and_counted() -> None:
    """It leaves the state, no event is made up for it, and the count says so."""
    reconciler = known(order(1), order(2))
    events, lost = reconciler.apply(Snapshot(open_orders=[order(2)]), [5], 0.0, EPOCH)
    assert ([], 1, [2]) == (events, lost, list(reconciler.state.orders))


def test_the_snapshot_reaches_back_to_the_oldest_working_order() -> None:
    """It is found by its creation, so that its fill in the gap is found; with a margin for the gateway's clock."""
    assert EPOCH + 100 - MARGIN == known().since(EPOCH + 100)
    assert EPOCH + 0.5 - MARGIN == known(order(1)).since(EPOCH + 100)
    undated = replace(order(1), creation_timestamp=NEVER)
    assert EPOCH + 100 - REACH - MARGIN == known(undated).since(EPOCH + 100)


def test_year_1_is_no_time() -> None:
    """A version whose time nobody has set is not the older one for it."""
    for time in (1.0, 5.0):
        reconciler = known(order(updated=time))
        filled = replace(order(status=OrderStatus.FILLED, fill_volume=1), update_timestamp=NEVER)
        assert [filled] == [event.data for event in reconciler.live([told(filled), told(order(updated=time))])]


def test_a_snapshot_that_makes_no_sense_changes_nothing() -> None:
    """Half of it would be believed and never told; the next one tells all of it."""
    reconciler = known(order(1), position(1))
    held(reconciler, trade(8))
    fresh, fill = order(2, updated=3.0), trade(7, 3.0)
    before = reconciler.state
    with pytest.raises(AttributeError):
        reconciler.apply(Snapshot(open_orders=[fresh], trades=[fill, "x"]), [5], 0.0, EPOCH)  # type: ignore[list-item]
    assert before == reconciler.state
    got = after(reconciler, open_orders=[order(1), fresh], trades=[fill], positions=[position(1)])
    assert [(True, fresh), (True, fill), (False, trade(8))] == got


def test_the_first_snapshot_reaches_back_a_day() -> None:
    """Which orders worked when the subscription was asked for nobody knows; that one of them ended since is told."""
    reconciler = Reconciler()
    reconciler.watch(5, EPOCH)
    assert EPOCH - REACH - MARGIN == reconciler.since(EPOCH + 100, [5])
    filled = order(1, OrderStatus.FILLED, 2.0, created=-3600.0)
    assert [filled] == recovered(reconciler, orders=[filled, order(2, OrderStatus.FILLED, -2.0, created=-3600.0)])


def test_accounts_nobody_watches_are_not_told_of() -> None:
    """Forgotten accounts leave the state; what a snapshot says of them makes no event."""
    reconciler = known(order(1), position(1), account(1.0))
    reconciler.forget(5)
    assert ([], set()) == (recovered(reconciler, trades=[trade(1)], orders=[order(3)]), reconciler.watched)
    assert (0, 0, 0) == tuple(
        map(len, (reconciler.state.accounts, reconciler.state.orders, reconciler.state.positions))
    )


def test_what_was_told_of_an_account_before_it_was_let_go_counts_no_more() -> None:
    """Watched again, it waits for a snapshot of its own: what waited and what was asked for before are of no use."""
    reconciler = known(position(1))
    reconciler.watch(6, EPOCH)
    reconciler.asking()
    held(reconciler, position(2), trade(1))
    reconciler.missed()
    reconciler.forget(5)
    reconciler.watch(5, EPOCH + 5)
    assert [] == after(reconciler, positions=[position(3)])
    assert ({5, 6}, {}) == (reconciler.unknown, reconciler.state.positions)
    reconciler.asking()
    assert [] == after(reconciler, positions=[position(4)], trades=[trade(1)])
    assert 4 == reconciler.state.position(5, CONTRACT).size  # type: ignore[union-attr]


def test_a_snapshot_that_fails_leaves_what_was_unreadable() -> None:
    """The next one is asked as well what came after the last event that could be read."""
    reconciler = known(position(1))
    held(reconciler, position(2))
    reconciler.missed()
    reconciler.asking()
    reconciler.asking()
    assert [(False, position(2)), (True, position(3))] == after(reconciler, positions=[position(3)])


def test_giving_up_on_a_slow_snapshot_makes_old_news_no_newer() -> None:
    """What came before something unreadable is told at last; a snapshot that comes later still has the last word."""
    reconciler = known(position(1))
    held(reconciler, position(2))
    reconciler.missed()
    reconciler.asking()
    assert [position(2)] == [event.data for event in reconciler.release()]
    assert 2 == reconciler.state.position(5, CONTRACT).size  # type: ignore[union-attr]
    assert [(True, position(3))] == after(reconciler, positions=[position(3)])


def test_what_the_hub_still_sends_of_a_forgotten_account_is_not_believed() -> None:
    """It was on its way when the account was let go; the state is of the accounts that are watched."""
    reconciler = known(order(1))
    reconciler.hold([5])
    reconciler.live([told(trade(1))])
    reconciler.forget(5)
    late = [told(order(1, OrderStatus.OPEN, 2.0)), told(position(1)), told(account(1.0)), told(trade(2))]
    assert [] == reconciler.live(late) + reconciler.release()
    assert (0, 0, 0) == tuple(
        map(len, (reconciler.state.accounts, reconciler.state.orders, reconciler.state.positions))
    )


################################################### held events ###################################################


def held(reconciler: Reconciler, *live: Any) -> None:
    reconciler.hold([5])
    assert [] == reconciler.live([told(value) for value in live])


def after(reconciler: Reconciler, **snapshot: Any) -> list[tuple[bool, Any]]:
    """(recovered?, record) of all that comes out with the snapshot and after it."""
    events, _ = reconciler.apply(Snapshot(**snapshot), [5], 9.0, EPOCH)
    return [(event.recovered, event.data) for event in events + reconciler.release()]


def test_events_wait_and_come_after_what_was_recovered() -> None:
    """The gap first, then what arrived meanwhile."""
    reconciler = known()
    held(reconciler, trade(2, 6.0))
    assert frozenset({5}) == reconciler.holding
    assert [(True, trade(1, 5.0)), (False, trade(2, 6.0))] == after(reconciler, trades=[trade(1, 5.0)])
    assert frozenset() == reconciler.holding


def test_only_the_accounts_in_question_wait() -> None:
    """Another account's events go on while one is being asked for."""
    reconciler = known()
    reconciler.watch(6, EPOCH)
    reconciler.hold([6])
    assert ({6}, False) == (reconciler.unknown, reconciler.state.reconciled)
    assert 1 == len(reconciler.live([told(trade(1)), told(trade(2, account=6))]))
    assert 1 == len(reconciler.release())


def test_a_held_event_that_the_snapshot_tells_too_comes_once_as_the_gateway_sent_it() -> None:
    """Trade, order, position and account: live, not recovered, and not twice."""
    values = [trade(1), order(1), position(2), account(3.0)]
    reconciler = known()
    held(reconciler, *values)
    got = after(reconciler, trades=[trade(1)], orders=[order(1)], positions=[position(2)], accounts=[account(3.0)])
    assert [(False, value) for value in values] == got


def test_a_held_older_version_is_overtaken_by_the_snapshot() -> None:
    """Pending was held, filled is in the snapshot: filled is told, and pending is not told after it."""
    reconciler = known()
    filled = order(1, OrderStatus.FILLED, 3.0)
    held(reconciler, order(1, OrderStatus.PENDING, 1.0))
    assert [(True, filled)] == after(reconciler, orders=[filled])
    assert [] == reconciler.live([told(filled)])


def test_a_held_newer_version_comes_alone() -> None:
    """The snapshot was older than the event: what comes is the event."""
    reconciler = known(order(1))
    filled = order(1, OrderStatus.FILLED, 3.0)
    held(reconciler, filled)
    assert [(False, filled)] == after(reconciler, open_orders=[order(1, updated=2.0)])


def test_a_new_order_that_only_a_held_event_knows_is_not_lost() -> None:
    """It was placed after the snapshot was taken."""
    reconciler = known()
    held(reconciler, order(7))
    events, lost = reconciler.apply(Snapshot(), [5], 0.0, EPOCH)
    assert ([], 0, [order(7)]) == (events, lost, [event.data for event in reconciler.release()])


def test_positions_end_where_the_gateway_says() -> None:
    """Opened and closed while waiting: whenever the snapshot was taken, the state ends flat."""
    for snapshot in ([], [position(1)]):
        reconciler = known()
        held(reconciler, position(1), position(0))
        after(reconciler, positions=snapshot)
        assert {} == reconciler.state.positions


def test_without_a_snapshot_what_waited_comes_anyway() -> None:
    """Giving up on a snapshot loses no event."""
    reconciler = known()
    held(reconciler, trade(1), trade(1), order(1))
    assert [trade(1), order(1)] == [event.data for event in reconciler.release()]


def test_an_older_position_that_waited_does_not_follow_a_newer_one() -> None:
    """Once the hub has told of a position it tells the rest: the snapshot, older or newer, is not put in between."""
    reconciler = known(position(1))
    held(reconciler, position(2))
    assert [(False, position(2))] == after(reconciler, positions=[position(3)])
    assert [position(3)] == [event.data for event in reconciler.live([told(position(3))])]


def test_what_the_first_snapshot_filled_in_is_told_when_the_hub_tells_it() -> None:
    """A position and a balance of before are no event; the hub's first word on each is, even if it says the same."""
    reconciler = known(accounts=[account(1.0)], positions=[position(1)])
    words = [told(position(1)), told(account(1.0))]
    assert words == reconciler.live(words)
    assert [] == reconciler.live([told(position(1)), told(account(1.0))])


def test_a_position_that_goes_flat_right_after_subscribing_is_told() -> None:
    """It waited for the first snapshot, which knows of no position any more; once is enough."""
    reconciler = Reconciler()
    reconciler.watch(5, EPOCH)
    held(reconciler, position(0), position(0))
    assert [(False, position(0))] == after(reconciler)


def test_a_trade_that_is_voided_in_a_gap_is_told() -> None:
    """Its time is that of the trade, which may lie before the subscription; voided before, it is never told."""
    reconciler = known(trade(1), trades=[trade(2, -1.0), trade(3, -1.0, voided=True)])
    news = [trade(1, voided=True), trade(2, -1.0, voided=True)]
    assert news == sorted(recovered(reconciler, trades=[*news, trade(3, -1.0, voided=True)]), key=lambda t: t.id)
    assert [] == recovered(reconciler, trades=[*news, trade(3, -1.0, voided=True)])


def test_after_the_first_snapshot_no_clock_hides_a_trade() -> None:
    """A gateway whose clock is behind dates a new trade before the subscription; what the first did not tell is new."""
    reconciler = known(trades=[trade(1, -30.0)])
    assert [trade(2, -20.0)] == recovered(reconciler, trades=[trade(1, -30.0), trade(2, -20.0)])


def test_what_came_before_an_unreadable_record_is_not_the_last_word() -> None:
    """It is told, and after it what the snapshot says of the same position; what came after is the last word."""
    reconciler = known(position(1), account(1.0))
    held(reconciler, position(2))
    reconciler.missed()
    held(reconciler, account(2.0))
    reconciler.asking()
    got = after(reconciler, positions=[position(3)], accounts=[account(3.0)])
    assert [(False, position(2)), (True, position(3)), (False, account(2.0))] == got


################################################ exactly once ################################################


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.randoms())
def test_any_pattern_of_drops_tells_every_fill_exactly_once(script: list[int], chance: random.Random) -> None:
    """Fills while up or down, repeats, drops at any moment, snapshots early or late: each trade and end once."""
    reconciler, clock = Reconciler(), 0.0
    reconciler.watch(5, EPOCH)
    orders: dict[int, Order] = {}
    trades: list[Trade] = []
    got: list[Any] = []
    up, late = False, []

    def reconnect() -> None:
        reconciler.hold([5])

    def snapshot() -> Snapshot:
        working = [o for o in orders.values() if o.status.working]
        return Snapshot(orders=list(orders.values()), open_orders=working, trades=list(trades))

    for act in script:
        clock += 1.0
        if act == 0:
            up = not up
            late.clear()  # what was on the wire is gone
            if up:
                reconnect()
        elif act == 3 and up and reconciler.holding:
            taken = snapshot()
            if chance.random() < 0.5:
                got += reconciler.live(late)
                late.clear()
            got += reconciler.apply(taken, [5], clock, EPOCH + clock)[0]
            got += reconciler.release()
        else:
            number = len(trades) + 1
            steps = [order(number, OrderStatus.PENDING, clock), order(number, OrderStatus.FILLED, clock + 0.1)]
            orders[number] = steps[1]
            trades.append(trade(number, clock + 0.1))
            events = [told(value) for value in (*steps, trades[-1])]
            if up:
                late += events + (events if chance.random() < 0.2 else [])
                if chance.random() < 0.7:
                    got += reconciler.live(late)
                    late.clear()
    if not up:
        reconnect()
    got += reconciler.live(late)
    got += reconciler.apply(snapshot(), [5], clock, EPOCH + clock)[0] + reconciler.release()
    fills = [event.data.id for event in got if isinstance(event, TradeEvent)]
    done = [e.data.id for e in got if isinstance(e, OrderEvent) and e.data.status is OrderStatus.FILLED]
    assert sorted(t.id for t in trades) == sorted(fills) == sorted(done)
    assert {} == reconciler.state.orders


def test_a_fill_without_the_time_of_its_update_is_news() -> None:
    """The hub leaves out what is null; what became of the order tells then, in either direction."""
    opened = order(1, OrderStatus.OPEN, updated=1.0, fill_volume=0)
    filled = replace(order(1, OrderStatus.FILLED, fill_volume=1), update_timestamp=UNSET)
    reconciler = known()
    assert 2 == len(reconciler.live([OrderEvent(data=opened), OrderEvent(data=filled)]))
    assert {} == dict(reconciler.state.orders)
    assert [] == reconciler.live([OrderEvent(data=opened)])
    assert {} == dict(reconciler.state.orders)
