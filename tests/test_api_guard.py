"""The daily guard."""

import threading
from datetime import UTC, datetime, time
from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, GatewayModel
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync import errors
from topstep_sync.api import exposure, guard
from topstep_sync.api.rooms import Rooms
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.messages import OrderFilter
from topstep_sync.models import OrderSide, OrderStatus, PositionType, Trade


def guarded(model: GatewayModel, **rules: Any) -> Rooms:
    return Rooms(model.call, get=str, config=Config(guard=rules), clock=model.clock)


def at(hour: int, minute: int = 0, *, day: int = 24) -> GatewayModel:
    """A gateway at a Chicago time of day of November 2026 (UTC-6)."""
    when = datetime(2026, 11, day, hour, minute, tzinfo=guard.calendar.CHICAGO)
    return GatewayModel(ManualClock(epoch=when.timestamp(), auto=True))


def trade(profit: float | None, when: datetime, *, voided: bool = False) -> Trade:
    return Trade(
        id=1, account_id=ACCOUNT, contract_id=MNQ.id, creation_timestamp=when, price=21000.0, profit_and_loss=profit,
        fees=0.36, commissions=0.25, side=OrderSide.SELL, size=1, voided=voided, order_id=1,
    )  # fmt: skip


def sent(model: GatewayModel) -> int:
    return sum(path == "/api/Order/place" for path, _ in model.calls)


def test_no_rule_asks_nothing() -> None:
    """Off by default: an order costs one call."""
    model = GatewayModel()
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 500)
    assert 1 == len(model.calls)


def test_an_order_that_is_too_big() -> None:
    """More contracts than allowed are refused, and nothing was sent."""
    model = GatewayModel()
    rooms = guarded(model, max_order_size=5)
    with pytest.raises(errors.RiskRefused, match="an order of 6; max_order_size is 5") as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 6)
    assert (errors.Fate.NOT_SENT, 0) == (caught.value.fate, sent(model))
    assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 5).id


def test_a_position_that_would_be_too_big() -> None:
    """What is held and what still works on the same side count together."""
    model = GatewayModel()
    rooms = guarded(model, max_position=3)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    with pytest.raises(errors.RiskRefused, match=r"could become \+4; max_position is 3"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    rooms.orders.buy(ACCOUNT, MES.id, 3)
    with pytest.raises(errors.RiskRefused, match=r"could become -4"):
        rooms.orders.sell(704, MNQ.id, 4)


def test_getting_out_is_always_allowed() -> None:
    """An order that only reduces the position passes every rule; one that turns it over does not."""
    model = at(16)
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 8)
    rooms = guarded(model, max_order_size=1, max_position=2, max_daily_loss=1.0, open_until="15:10")
    model.trades = [trade(-500.0, model.now())]
    with pytest.raises(errors.RiskRefused):
        rooms.orders.sell(ACCOUNT, MNQ.id, 9)
    rooms.orders.sell(ACCOUNT, MNQ.id, 3)
    rooms.orders.sell(ACCOUNT, MNQ.id, 5)
    assert {} == model.positions


def test_an_overweight_may_shrink_but_not_turn_over() -> None:
    """A position above its limit may be reduced as far as one likes, and turned over only into one within the limit."""
    model = GatewayModel()
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 8)
    rooms = guarded(model, max_position=2)
    assert rooms.orders.sell(ACCOUNT, MNQ.id, 3)
    with pytest.raises(errors.RiskRefused, match=r"could become -3; max_position is 2"):
        rooms.orders.sell(ACCOUNT, MNQ.id, 8)
    assert rooms.orders.sell(ACCOUNT, MNQ.id, 7)
    assert (PositionType.SHORT, 2) == ((held := next(iter(model.positions.values()))).type, held.size)


def test_many_ways_out_are_ways_in() -> None:
    """One contract is held: of four sells that each would close it, those are refused that could pile up short."""
    model = GatewayModel()
    rooms = guarded(model, max_position=1)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    rooms.orders.sell(ACCOUNT, MNQ, 1, limit_price=21010.0)
    rooms.orders.sell(ACCOUNT, MNQ, 1, limit_price=21020.0)  # flat, and then one short: within the limit
    message = r"could become -2; max_position is 1; \+1 is held and sells of 2 may still fill: cancel them first, or"
    with pytest.raises(errors.RiskRefused, match=message):
        rooms.orders.sell(ACCOUNT, MNQ, 1, limit_price=21030.0)
    with pytest.raises(errors.RiskRefused, match="could become -2"):
        rooms.orders.sell(ACCOUNT, MNQ.id, 1)
    assert 3 == sent(model)


def test_a_way_out_twice_is_new_risk() -> None:
    """After hours the first order that closes a position passes, the second one would open the opposite."""
    model = at(16)
    guarded(model).orders.buy(ACCOUNT, MNQ.id, 1)
    rooms = guarded(model, open_until="15:10")
    rooms.orders.sell(ACCOUNT, MNQ, 1, limit_price=21010.0)
    with pytest.raises(errors.RiskRefused, match=r"it is 16:00 in Chicago; .*sells of 1 may still fill"):
        rooms.orders.sell(ACCOUNT, MNQ.id, 1)
    assert rooms.positions.close(ACCOUNT, MNQ, cancel_orders=True).swept
    assert ({}, True) == (model.positions, bool(rooms.flatten(ACCOUNT)))


def test_of_a_stop_and_a_target_only_one_counts() -> None:
    """Legs that wait for their entry add nothing; once it has filled, the pair can only close it, once."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    entry = rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0, stop_loss_ticks=40, take_profit_ticks=80)
    short = rooms.orders.sell(ACCOUNT, MNQ, 2, limit_price=22000.0)  # were the legs counted, it could become -6
    rooms.orders.cancel(short)
    model.complete(entry.id)
    for order in model.orders.values():
        if order.status is OrderStatus.SUSPENDED:
            model.put(replace(order, status=OrderStatus.OPEN))
    assert rooms.orders.sell(ACCOUNT, MNQ, 2, limit_price=22000.0)  # +2, the pair takes 2, this one 2 more
    with pytest.raises(errors.RiskRefused, match=r"could become -3"):
        rooms.orders.sell(ACCOUNT, MNQ, 1, limit_price=22000.0)


def test_linked_orders_are_one() -> None:
    """Two orders that the gateway has linked count as the bigger of the two, whichever of them names the other."""
    made = GatewayModel()
    plain = made.orders[guarded(made).orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0).id]
    for first, second in ((UNSET, 9), (7, UNSET), (7, 9)):
        pair = [replace(plain, id=9, size=3, linked_order_id=first), replace(plain, id=7, linked_order_id=second)]
        assert 3 == exposure.worst(0, exposure.pending(pair), OrderSide.BUY)
    assert 4 == exposure.worst(0, exposure.pending([replace(plain, id=9, size=3), plain]), OrderSide.BUY)
    assert 0 == exposure.worst(0, exposure.pending([plain]), OrderSide.SELL)


def test_a_leg_outlives_its_entry() -> None:
    """A leg whose entry has gone counts, waiting or not: an orphan that fills opens a position."""
    model = GatewayModel()
    entry = guarded(model).orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0, stop_loss_ticks=40)
    model.complete(entry.id, OrderStatus.CANCELLED)
    with pytest.raises(errors.RiskRefused, match="could become -3"):
        guarded(model, max_position=2).orders.sell(ACCOUNT, MNQ.id, 1)


def test_an_order_of_unknown_fate_counts_until_it_is_settled() -> None:
    """After a reply that was lost for good, its order is counted as one that may fill; `verify` ends that."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    model.faults = {"Order/place": ["dropped"], "Order/search": ["500"] * 6}
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    with pytest.raises(errors.RiskRefused, match=r"could become \+3"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert None is rooms.orders.verify(caught.value.tag)
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 2)


def test_an_order_of_unknown_fate_is_counted_once() -> None:
    """An order that arrived although nobody knows is counted as the gateway shows it, and not twice."""
    model = GatewayModel()
    rooms = guarded(model, max_position=3)
    after_the_guard = ["", *["500"] * 6]
    model.faults = {"Order/place": ["lost"], "Order/search": ["500"] * 6}
    model.faults |= {"Order/searchOpen": after_the_guard, "Order/v2/query": list(after_the_guard)}
    with pytest.raises(errors.OrderStateUnknown) as caught:
        rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)
    assert rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    assert 2 == rooms.orders.verify(caught.value.tag).size
    with pytest.raises(errors.RiskRefused, match=r"could become \+4"):
        rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)


def test_the_same_tag_again_is_the_same_risk() -> None:
    """An order whose fate is open may be placed again under its tag: it does not stand in its own way."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    model.faults = {"Order/place": ["dropped"], "Order/search": ["500"] * 6}
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.buy(ACCOUNT, MNQ.id, 2, custom_tag="entry-1")
    assert 2 == rooms.orders.buy(ACCOUNT, MNQ.id, 2, custom_tag="entry-1").size


def test_threads_share_the_limit() -> None:
    """32 threads ask before the first order is executed: as many pass as the limit has room for."""
    model, lock, all_asked, refused = GatewayModel(), threading.Lock(), threading.Event(), [0, 0]
    plain = model.call

    def note(index: int) -> None:
        refused[index] += 1
        if sum(refused) == 32:
            all_asked.set()

    def call(path: str, *rest: Any, **options: Any) -> Any:
        if path == "/api/Order/place":
            with lock:
                note(0)
            assert all_asked.wait(30)
        with lock:
            return plain(path, *rest, **options)

    model.call = call  # type: ignore[method-assign]
    rooms = guarded(model, max_position=3)

    def buy() -> None:
        try:
            rooms.orders.buy(ACCOUNT, MNQ.id, 1)
        except errors.RiskRefused:
            with lock:
                note(1)

    threads = [threading.Thread(target=buy) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ([3, 29], 3) == (refused, next(iter(model.positions.values())).size)


def test_what_settles_during_a_look_is_not_counted_twice() -> None:
    """An order of another thread that is executed between the first look and the verdict leads to a second look."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    searches = iter([lambda: rooms.orders.buy(ACCOUNT, MNQ.id, 1)])
    plain = model.do_position_searchopen

    def meanwhile(request: Any) -> Any:
        next(searches, lambda: None)()
        return plain(request)

    model.do_position_searchopen = meanwhile  # type: ignore[method-assign]
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert 2 == next(iter(model.positions.values())).size


class Slow:
    """A gateway that shows what it accepts only when told: its look-ups are as they were before."""

    def __init__(self, model: GatewayModel) -> None:
        self.model, self.blind = model, True
        self._before: dict[str, Any] = {}
        for name in ("order_search", "order_searchopen", "order_v2_query", "position_searchopen"):
            self._before[name] = getattr(model, f"do_{name}")(_Asked())
            setattr(model, f"do_{name}", self._shown(name, getattr(model, f"do_{name}")))

    def _shown(self, name: str, plain: Any) -> Any:
        return lambda request: self._before[name] if self.blind else plain(request)


class _Asked:
    account_id, start_timestamp, page_offset, page_size = ACCOUNT, datetime.min.replace(tzinfo=UTC), 0, 500
    filter = OrderFilter(account_id=ACCOUNT)


@pytest.mark.parametrize("price", [None, 20000.0], ids=["market", "limit"])
def test_an_accepted_order_counts_until_the_gateway_shows_it(price: float | None) -> None:
    """Of two quick orders the second is judged with the first, which nothing shows yet; once shown, it counts once."""
    model = GatewayModel()
    rooms, gateway = guarded(model, max_position=2), Slow(model)
    words = {} if price is None else {"limit_price": price}
    rooms.orders.buy(ACCOUNT, MNQ, 1, **words)
    with pytest.raises(errors.RiskRefused, match=r"could become \+3"):
        rooms.orders.buy(ACCOUNT, MNQ, 2, **words)
    gateway.blind = False
    assert rooms.orders.buy(ACCOUNT, MNQ, 1, **words)
    with pytest.raises(errors.RiskRefused, match=r"could become \+3"):
        rooms.orders.buy(ACCOUNT, MNQ, 1, **words)


def test_what_the_gateway_never_shows_counts_for_a_while() -> None:
    """An accepted order that no look shows, or whose look fails, stands in the way until it would have been shown."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    Slow(model)
    rooms.orders.buy(ACCOUNT, MNQ, 1)
    model.faults = {"Order/search": ["500"]}
    for _ in range(2):
        with pytest.raises(errors.RiskRefused, match=r"could become \+3"):
            rooms.orders.buy(ACCOUNT, MNQ, 2)
    model.clock.advance(guard.SHOWN)
    assert rooms.orders.buy(ACCOUNT, MNQ, 2)


def test_a_bigger_size_counts_until_the_gateway_shows_it() -> None:
    """The same for a change: until it is shown, or the order is changed again, the bigger size may come."""
    model = GatewayModel()
    rooms = guarded(model, max_position=4)
    order = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    gateway = Slow(model)
    rooms.orders.modify(order, size=3)
    with pytest.raises(errors.RiskRefused, match=r"could become \+5"):
        rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)
    gateway.blind = False
    rooms.orders.modify(order, size=2)
    assert rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)


def test_an_order_that_was_refused_leaves_its_room() -> None:
    """What the gateway rejected, or never got, counts for nothing from then on."""
    model = GatewayModel()
    rooms = guarded(model, max_position=2)
    model.reject = (3, None)
    with pytest.raises(errors.InsufficientFunds):
        rooms.orders.buy(ACCOUNT, MNQ, 2)
    model.reject, model.faults = None, {"Order/place": ["refused"]}
    with pytest.raises(errors.ConnectFailed):
        rooms.orders.buy(ACCOUNT, MNQ, 2)
    assert rooms.orders.buy(ACCOUNT, MNQ, 2)


def test_an_endless_stream_of_others_ends_in_a_verdict() -> None:
    """Where orders keep settling during every look, the most that could be there decides."""
    model = GatewayModel()
    rooms = guarded(model, max_position=60)
    plain, deep = model.do_position_searchopen, [0]

    def meanwhile(request: Any) -> Any:
        deep[0] += 1
        if deep[0] % 2:  # every look of the outer order, and not of the inner ones
            rooms.orders.buy(ACCOUNT, MNQ.id, 10)
        return plain(request)

    model.do_position_searchopen = meanwhile  # type: ignore[method-assign]
    with pytest.raises(errors.RiskRefused, match=r"could become \+85; max_position is 60"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 45)
    assert 30 == next(iter(model.positions.values())).size


def test_a_day_that_lost_enough() -> None:
    """Losses since 17:00 Chicago count after fees; voided fills and those of yesterday do not."""
    model = at(10)
    rooms = guarded(model, max_daily_loss=100.0)
    yesterday = datetime(2026, 11, 23, 16, 59, tzinfo=guard.calendar.CHICAGO)
    evening = datetime(2026, 11, 23, 17, 1, tzinfo=guard.calendar.CHICAGO)
    model.trades = [trade(-98.0, evening), trade(None, evening), trade(-500.0, evening, voided=True)]
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    asked = next(request for path, request in model.calls if path == "/api/Trade/search")
    assert yesterday < asked.start_timestamp == datetime(2026, 11, 23, 23, tzinfo=UTC)
    model.trades.append(trade(0.5, evening))
    assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.trades.append(trade(-1.0, evening))
    with pytest.raises(errors.RiskRefused, match=r"100\.94 lost since 17:00 Chicago; max_daily_loss is 100\.00"):
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)


@pytest.mark.parametrize(
    ("hour", "rules", "allowed"),
    [
        (9, {"open_from": "8:30", "open_until": "15:10"}, True),
        (8, {"open_from": "8:30", "open_until": "15:10"}, False),
        (16, {"open_from": "8:30", "open_until": "15:10"}, False),
        (16, {"open_until": "15:10"}, False), (9, {"open_until": "15:10"}, True),
        (7, {"open_from": "8"}, False), (8, {"open_from": "8"}, True),
        (18, {"open_from": "17:00", "open_until": "15:10"}, True),
        (3, {"open_from": "17:00", "open_until": "15:10"}, True),
        (16, {"open_from": "17:00", "open_until": "15:10"}, False),
    ],
)  # fmt: skip
def test_hours(hour: int, rules: dict[str, str], allowed: bool) -> None:
    """New risk is taken inside the window of Chicago time, which may pass midnight."""
    rooms = guarded(at(hour), **rules)
    if allowed:
        assert rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    else:
        with pytest.raises(errors.RiskRefused, match=f"it is {hour:02}:00 in Chicago"):
            rooms.orders.buy(ACCOUNT, MNQ.id, 1)


def test_a_blind_guard_refuses() -> None:
    """What the rules need and cannot find out is a refusal."""
    model = GatewayModel()
    model.faults["Position/searchOpen"] = ["500"]
    with pytest.raises(errors.RiskRefused, match="cannot be sure") as caught:
        guarded(model, max_position=2).orders.buy(ACCOUNT, MNQ.id, 1)
    assert (0, True) == (sent(model), isinstance(caught.value.__cause__, errors.TransientError))


def test_a_guard_that_is_blind_to_the_loss_lets_out() -> None:
    """While the day's fills cannot be read nothing new is taken, and a position can still be closed by an order."""
    model = GatewayModel()
    rooms = guarded(model, max_daily_loss=100.0)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.faults["Trade/search"] = ["500"] * 2
    with pytest.raises(errors.RiskRefused, match=r"cannot be found out \(TransientError: 500\)") as caught:
        rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    assert isinstance(caught.value.__cause__, errors.TransientError)
    rooms.orders.sell(ACCOUNT, MNQ.id, 1)
    assert {} == model.positions


def test_a_bigger_order_is_new_risk() -> None:
    """Making an order bigger is checked like a new one; making it smaller, or moving it, is not."""
    model = GatewayModel()
    rooms = guarded(model, max_order_size=3, max_position=4)
    order = rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)
    with pytest.raises(errors.RiskRefused, match="an order of 4"):
        rooms.orders.modify(order, size=4)
    rooms.orders.modify(order, size=3)
    rooms.orders.modify(order, limit_price=20001.0)
    rooms.orders.modify(ACCOUNT, order.id, size=1)
    assert 1 == model.orders[order.id].size


def test_a_stale_record_does_not_hide_a_bigger_order() -> None:
    """A change is judged by what the order is now, not by the record from before it was made smaller."""
    model = GatewayModel()
    rooms = guarded(model, max_position=4)
    order = rooms.orders.buy(ACCOUNT, MNQ, 4, limit_price=20000.0)
    rooms.orders.modify(order, size=1)
    rooms.orders.buy(ACCOUNT, MNQ, 3, limit_price=20000.0)
    with pytest.raises(errors.RiskRefused, match=r"could become \+5"):
        rooms.orders.modify(order, size=2)
    with pytest.raises(errors.OrderNotFound):
        rooms.orders.modify(ACCOUNT, 1, size=2)


def test_a_change_of_unknown_fate_counts_until_the_next_one() -> None:
    """A bigger size that may still come counts, until another change of the order is certain."""
    model = GatewayModel()
    rooms = guarded(model, max_position=4)
    order = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    model.faults = {"Order/modify": ["dropped"]}
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.modify(order, size=4)
    with pytest.raises(errors.RiskRefused, match=r"could become \+5"):
        rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    rooms.orders.modify(order, size=1)
    assert rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    model.faults = {"Order/modify": ["429"]}
    with pytest.raises(errors.RateLimited):
        rooms.orders.modify(order, size=3)
    assert rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)


@pytest.mark.parametrize("size", [1, 5])
def test_a_change_that_is_under_way_counts_whatever_another_one_comes_to(size: int) -> None:
    """A size that another thread's change may still bring counts, though a later change has come about meanwhile."""
    model = GatewayModel()
    rooms = guarded(model, max_position=6)
    placed = rooms.orders.buy(ACCOUNT, MNQ, size, limit_price=20000.0)
    order, room = rooms.orders.get(placed), rooms.orders._guard
    assert room is not None
    with room.changing(order, 5):
        rooms.orders.modify(placed, size=2)
        with pytest.raises(errors.RiskRefused, match=r"could become \+7"):
            rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20000.0)
    rooms.orders.modify(placed, size=2)
    assert rooms.orders.buy(ACCOUNT, MNQ, 4, limit_price=20000.0)


@pytest.mark.parametrize(("until", "sends"), [("15:10", 1), ("15:11", 2)])
def test_an_order_is_sent_again_only_while_it_still_may_be(until: str, sends: int) -> None:
    """A window that closes during the look-up closes for the second attempt, too."""
    model = at(15, 9)
    model.clock.advance(55.0)
    rooms = guarded(model, open_until=until, max_position=2)
    model.faults = {"Order/place": ["dropped"]}
    if sends == 1:
        with pytest.raises(errors.OrderStateUnknown):
            rooms.orders.buy(ACCOUNT, MNQ.id, 2, resend=True)
    else:
        assert 9056 == rooms.orders.buy(ACCOUNT, MNQ.id, 2, resend=True).id
    assert sends == sent(model)


def test_a_dry_run_is_not_guarded() -> None:
    """Showing what would be sent asks nothing."""
    model = GatewayModel()
    guarded(model, max_order_size=1, max_position=1).orders.place(ACCOUNT, MNQ.id, side="buy", size=9, dry_run=True)
    assert [] == model.calls


@given(st.integers(-9, 9), st.lists(st.tuples(st.sampled_from(list(OrderSide)), st.integers(1, 9))), st.data())
def test_no_fill_goes_beyond_the_worst_case(net: int, orders: list[tuple[OrderSide, int]], data: st.DataObject) -> None:
    """Whatever part of what is pending fills, the position stays between the two worst cases."""
    items = [exposure.Pending(exposure.signed(side, size), number) for number, (side, size) in enumerate(orders)]
    filled = data.draw(st.lists(st.sampled_from(items), unique=True)) if items else []
    low, high = exposure.worst(net, items, OrderSide.SELL), exposure.worst(net, items, OrderSide.BUY)
    assert low <= net + sum(item.change for item in filled) <= high


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)))
def test_a_trading_day_begins_at_five(when: datetime) -> None:
    """The day of any instant began at 17:00 Chicago, at most 25 hours before."""
    moment = when.replace(tzinfo=UTC)
    begin = guard.day_start(moment)
    assert time(17) == begin.astimezone(guard.calendar.CHICAGO).time()
    assert 0 <= (moment - begin).total_seconds() < 25 * 3600
