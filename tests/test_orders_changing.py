"""Cancelling, changing and waiting for orders, and getting out."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from gateway_model import ACCOUNT, MES, MNQ, GatewayModel
from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync import errors
from topstep_sync.api.results import Change, PlacedOrder
from topstep_sync.api.rooms import Rooms
from topstep_sync.models import Bar, Order, OrderStatus, PositionType


@pytest.fixture
def model() -> GatewayModel:
    return GatewayModel()


@pytest.fixture
def rooms(model: GatewayModel) -> Rooms:
    return Rooms(model.call, get=str, clock=model.clock, listen=model.listen)


@pytest.fixture
def order(rooms: Rooms) -> PlacedOrder:
    return rooms.orders.buy(ACCOUNT, MNQ, 2, limit_price=20900.0)


def paths(model: GatewayModel) -> list[str]:
    return [path.removeprefix("/api/") for path, _ in model.calls]


################################################ cancel ################################################


def test_a_cancelled_order_does_not_work(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """A confirmed cancellation is one call, with priority 0 and past the breaker."""
    result = rooms.orders.cancel(order)
    assert (Change.DONE, OrderStatus.CANCELLED) == (result.change, result.status)
    assert (["Order/place", "Order/cancel"], True) == (paths(model), model.options[-1]["must_try"])


@pytest.mark.parametrize(
    ("ended", "change"),
    [
        (OrderStatus.CANCELLED, Change.ALREADY), (OrderStatus.FILLED, Change.TOO_LATE),
        (OrderStatus.EXPIRED, Change.TOO_LATE), (OrderStatus.REJECTED, Change.TOO_LATE),
    ],
)  # fmt: skip
def test_an_order_that_has_ended_says_how(
    model: GatewayModel, rooms: Rooms, order: PlacedOrder, ended: OrderStatus, change: Change
) -> None:
    """Cancelling what has ended reads it back and says which; it is no error."""
    model.complete(order.id, ended)
    result = rooms.orders.cancel(ACCOUNT, order.id)
    assert (change, ended, order.id) == (result.change, result.status, result.order.id)


@pytest.mark.parametrize("fault", ["lost", "500-after", "truncated"])
def test_a_lost_cancellation_is_read_back(model: GatewayModel, rooms: Rooms, order: PlacedOrder, fault: str) -> None:
    """When the reply is lost the order is looked at, and is found cancelled."""
    model.faults["Order/cancel"] = [fault]
    result = rooms.orders.cancel(order)
    assert (Change.DONE, OrderStatus.CANCELLED) == (result.change, result.status)
    assert result.order is UNSET or OrderStatus.CANCELLED is result.order.status
    assert [f"cancel {order.id}"] == model.executed[1:]


def test_a_cancellation_that_never_arrived_is_repeated(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """An order that still works after a lost cancellation is cancelled again: the second changes nothing else."""
    model.faults["Order/cancel"] = ["dropped", "dropped"]
    result = rooms.orders.cancel(order)
    assert (Change.DONE, OrderStatus.CANCELLED) == (result.change, result.status)
    assert result.order is UNSET or OrderStatus.CANCELLED is result.order.status
    assert 3 == paths(model).count("Order/cancel")


def test_a_cancellation_under_way_is_waited_for(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """A refusal of an order that is being cancelled already is not the end: it is read back until it is."""
    model.put(replace(model.orders[order.id], status=OrderStatus.PENDING_CANCELLATION))
    model.faults["Order/cancel"] = ["dropped"]
    model.late.append((model.clock.monotonic() + 1.0, lambda: model.complete(order.id, OrderStatus.CANCELLED)))
    assert (Change.DONE, 1) == (rooms.orders.cancel(order).change, paths(model).count("Order/cancel"))


def test_a_cancellation_that_cannot_be_settled(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """When neither the cancellation nor the look-up gets through, that is what is said."""
    model.faults = {"Order/cancel": ["dropped"] * 9, "Order/searchById": ["500"] * 9}
    with pytest.raises(errors.OrderStateUnknown, match=f"the cancellation of order {order.id} may or may not"):
        rooms.orders.cancel(order)


def test_closing_ends_the_reading_back(model: GatewayModel, order: PlacedOrder) -> None:
    """A closed session stops looking at once."""
    closed = threading.Event()
    closed.set()
    rooms = Rooms(model.call, get=str, clock=model.clock, closed=closed)
    model.faults = {"Order/cancel": ["dropped"]}
    before = len(model.calls)
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.cancel(order)
    assert 1 == len(model.calls) - before


def test_there_is_nothing_to_cancel(rooms: Rooms) -> None:
    """An id that no order has is an error."""
    with pytest.raises(errors.OrderNotFound) as caught:
        rooms.orders.cancel(ACCOUNT, 1)
    assert ["order 1 is not there"] == caught.value.__notes__


@pytest.mark.parametrize("fault", ["refused", "401", "400"])
def test_a_refused_cancellation_is_raised(model: GatewayModel, rooms: Rooms, order: PlacedOrder, fault: str) -> None:
    """What was not sent, or was refused for another reason, is an error at once."""
    model.faults["Order/cancel"] = [fault]
    with pytest.raises(errors.RequestError):
        rooms.orders.cancel(order)
    assert "Order/cancel" == paths(model)[-1]


def test_a_working_order_that_may_not_be_cancelled(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """The gateway refuses, and the order still works: that is an error, not a result."""
    model.do_order_cancel = lambda request: (3, None, {})
    with pytest.raises(errors.OrderRejected):
        rooms.orders.cancel(order)


################################################ modify ################################################


def test_an_order_is_changed(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """What is given changes, in whole ticks; what is left out is not sent."""
    result = rooms.orders.modify(order, limit_price=20901.0 + 0.25, size=3)
    sent = model.calls[-1][1]
    assert (Change.DONE, 20901.25, 3) == (result.change, sent.limit_price, sent.size)
    assert (20901.25, 3) == (model.orders[order.id].limit_price, model.orders[order.id].size)


@pytest.mark.parametrize("given", [lambda o: (o,), lambda o: (ACCOUNT, o), lambda o: (ACCOUNT, o.id)])
def test_an_order_is_named_in_any_way(model: GatewayModel, rooms: Rooms, order: PlacedOrder, given: Any) -> None:
    """An order placed here needs no look-up of its contract, however it is named."""
    rooms.orders.modify(*given(order), limit_price=20901.0)
    assert ["Order/place", "Contract/searchById", "Order/modify"] == paths(model)


def test_an_order_of_another_process_is_looked_up(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """A bare id that is not known here is read, to know its tick size."""
    other = Rooms(model.call, get=str, clock=model.clock)
    other.orders.modify(ACCOUNT, order.id, limit_price=20901.0)
    assert ["Order/searchById", "Contract/searchById", "Order/modify"] == paths(model)[1:]
    other.orders.modify(ACCOUNT, order.id, size=5)
    assert "Order/modify" == paths(model)[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing to change"), ({"size": 0}, "size is 0"), ({"limit_price": 20900.1}, "trades in steps of 0.25"),
        ({"stop_price": float("nan")}, "expected a finite number"), ({"trail_ticks": 1001}, "expected 1000 at most"),
        ({"trail_ticks": 5, "trail_price": 1.0}, "twice"),
    ],
)  # fmt: skip
def test_bad_changes_are_refused(
    model: GatewayModel, rooms: Rooms, order: PlacedOrder, changes: dict[str, Any], message: str
) -> None:
    """A change that cannot be meant is refused before it is sent."""
    with pytest.raises(errors.InvalidRequest, match=message):
        rooms.orders.modify(order, **changes)
    assert "Order/modify" not in paths(model)


def test_a_distance_is_no_trail_price(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """A `trail_price` read from an order is a distance; written back it is refused instead of misunderstood."""
    with_bars(model, 21000.0)
    with pytest.raises(errors.InvalidRequest, match="expected an absolute price"):
        rooms.orders.modify(order, trail_price=10.0)
    with pytest.raises(errors.InvalidRequest, match="expected an absolute price"):
        rooms.orders.sell(ACCOUNT, MNQ, 1, trail_price=10.0)
    model.clock.advance(300)
    assert rooms.orders.sell(ACCOUNT, MNQ, 1, trail_price=10.0)  # an old price proves nothing: the gateway decides


def with_bars(model: GatewayModel, price: float) -> None:
    opened = datetime.fromtimestamp(model.clock.epoch() // 60 * 60, UTC)
    model.bars = [Bar(opened, price, price, price, price, 1)]


@pytest.mark.parametrize("fault", ["lost", "500-after", "truncated"])
def test_a_lost_change_is_compared(model: GatewayModel, rooms: Rooms, order: PlacedOrder, fault: str) -> None:
    """When the reply is lost the order is compared with what was wanted, in whole ticks; it is never sent twice."""
    model.faults["Order/modify"] = [fault]
    result = rooms.orders.modify(order, limit_price=20901.0, size=3)
    assert (Change.DONE, 20901.0) == (result.change, result.order.limit_price)
    assert 1 == paths(model).count("Order/modify")


def test_a_change_that_did_not_happen_is_unknown(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """An order that never shows the change may still get it."""
    model.faults["Order/modify"] = ["dropped"]
    with pytest.raises(errors.OrderStateUnknown, match="the change of order"):
        rooms.orders.modify(order, size=3)
    assert 1 == paths(model).count("Order/modify")


def test_a_change_of_a_trail_is_compared_as_a_distance(model: GatewayModel, rooms: Rooms) -> None:
    """The trail is written as a price and read as ticks; a lost change is found by the ticks."""
    with_bars(model, 21000.0)
    placed = rooms.orders.sell(ACCOUNT, MNQ, 1, trail_ticks=40)
    assert 20990.0 == placed.trail_price
    trailing = replace(model.orders[placed.id], trail_distance=40)
    model.put(trailing)
    model.faults["Order/modify"] = ["dropped", "dropped", "dropped"]
    model.late.append((model.clock.monotonic() + 1.0, lambda: model.put(replace(trailing, trail_distance=60))))
    assert Change.DONE is rooms.orders.modify(placed, trail_ticks=60).change
    model.put(replace(trailing, trail_distance=None))
    with pytest.raises(errors.OrderStateUnknown):
        rooms.orders.modify(placed, trail_ticks=60)


def test_a_change_of_an_order_that_ended_is_too_late(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """When the reply is lost and the order has ended, the result says so."""
    model.faults["Order/modify"] = ["dropped"]
    model.complete(order.id)
    assert Change.TOO_LATE is rooms.orders.modify(order, size=3).change


def test_a_refused_change_says_how_the_order_stands(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """The error of a refused change carries a note; where the order cannot be read, it goes without."""
    model.complete(order.id)
    with pytest.raises(errors.OrderRejected) as caught:
        rooms.orders.modify(order, size=3)
    assert [f"order {order.id} is FILLED"] == caught.value.__notes__
    with pytest.raises(errors.OrderNotFound) as missing:
        rooms.orders.modify(ACCOUNT, 1, size=3)
    assert ["order 1 is not there"] == missing.value.__notes__
    model.faults["Order/searchById"] = ["500"]
    with pytest.raises(errors.OrderRejected) as bare:
        rooms.orders.modify(order, size=3)
    assert [] == getattr(bare.value, "__notes__", [])
    model.faults["Order/modify"] = ["refused"]
    with pytest.raises(errors.ConnectFailed):
        rooms.orders.modify(order, size=3)


################################################# wait #################################################


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "rest"])
def test_waiting_ends_with_the_order(model: GatewayModel, rooms: Rooms, order: PlacedOrder, hub: bool) -> None:
    """`wait` returns the order as it ended, by event or by polling."""
    model.hub_open = hub
    before = len(model.calls)
    model.late.append((model.clock.monotonic() + 7.0, lambda: model.complete(order.id)))
    assert OrderStatus.FILLED is rooms.orders.wait(order).status
    assert (1 if hub else 7) >= len(model.calls) - before


def test_waiting_is_over_when_the_time_is(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """An order that does not end raises, with its last state; one minute of polling costs less than 20 calls."""
    before = len(model.calls)
    with pytest.raises(errors.OrderStillWorking, match="is still OPEN after 60") as caught:
        rooms.orders.wait(order)
    assert isinstance(caught.value, TimeoutError)
    assert (order.id, True) == (caught.value.order.id, len(model.calls) - before < 20)


def test_waiting_for_nothing(model: GatewayModel, rooms: Rooms) -> None:
    """An order that is not to be seen, or cannot be read, is waited for all the same, and the error says so."""
    model.faults["Order/searchById"] = ["500"]
    with pytest.raises(errors.OrderStillWorking, match="was not to be seen"):
        rooms.orders.wait(ACCOUNT, 1, timeout=3)


def test_an_update_is_not_the_end(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """Events of a working order, and of other orders, do not end the wait."""
    model.hub_open = True
    other = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    at = model.clock.monotonic()
    model.late += [
        (at + 1.0, lambda: model.complete(other.id)),
        (at + 2.0, lambda: model.put(replace(model.orders[order.id], fill_volume=1))),
        (at + 3.0, lambda: model.complete(order.id, OrderStatus.CANCELLED)),
    ]
    ended = rooms.orders.wait(order, timeout=10)
    assert (order.id, OrderStatus.CANCELLED, at + 3.0) == (
        ended.id,
        ended.status,
        pytest.approx(model.clock.monotonic()),
    )


def test_closing_ends_the_wait(model: GatewayModel, order: PlacedOrder) -> None:
    """A session that closes ends every wait."""
    closed = threading.Event()
    closed.set()
    rooms = Rooms(model.call, get=str, clock=model.clock, closed=closed)
    with pytest.raises(errors.SessionClosed):
        rooms.orders.wait(order)


def test_a_stream_that_ends_is_replaced_by_polling(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """When the queue closes under the wait, the rest of it is polled."""
    model.hub_open = True

    def gone(self: Any, **_: Any) -> None:
        raise errors.StreamError("the queue is closed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway_model.Hub.get", gone)
        model.late.append((model.clock.monotonic() + 5.0, lambda: model.complete(order.id)))
        assert OrderStatus.FILLED is rooms.orders.wait(order, timeout=20).status


################################################ getting out ################################################


def test_everything_of_an_account_is_cancelled(model: GatewayModel, rooms: Rooms) -> None:
    """Working orders are cancelled, bracket legs after their entry; others are left alone."""
    entries = [rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0 + n, stop_loss_ticks=40) for n in range(3)]
    other = rooms.orders.buy(704, MNQ, 1, limit_price=20000.0)
    report = rooms.orders.cancel_all(ACCOUNT)
    assert (True, True, ()) == (bool(report), report.verified, report.orders_left)
    assert {order.id for order in entries} <= set(report.cancelled)
    assert OrderStatus.OPEN is model.orders[other.id].status


def test_one_contract_only(model: GatewayModel, rooms: Rooms) -> None:
    """With a contract, orders of others keep working."""
    kept = rooms.orders.buy(ACCOUNT, MES, 1, limit_price=5000.0)
    gone = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    assert (gone.id,) == rooms.orders.cancel_all(ACCOUNT, MNQ).cancelled
    assert OrderStatus.OPEN is model.orders[kept.id].status


def test_a_fill_between_the_two_readings_is_seen(model: GatewayModel) -> None:
    """An order that fills after the positions were read and before the orders are: its position is closed, too."""
    read = threading.Event()

    def call(path: str, *rest: Any, **options: Any) -> Any:
        if path.endswith("Order/searchOpen") and not read.is_set():
            assert read.wait(10.0)
            model.complete(placed.id)
        reply = model.call(path, *rest, **options)
        if path.endswith("Position/searchOpen"):
            read.set()
        return reply

    rooms = Rooms(call, get=lambda path: "pong", clock=model.clock)
    placed = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    report = rooms.flatten(ACCOUNT)
    assert (True, (MNQ.id,)) == (bool(report), report.closed)
    assert not model.positions


def test_orders_that_cannot_be_read_in_time_keep_no_position_open(model: GatewayModel) -> None:
    """The look at the orders outlasts the whole time: the position was closed meanwhile, and the report is false."""

    def call(path: str, *rest: Any, **options: Any) -> Any:
        if path.endswith(("Order/searchOpen", "Order/v2/query")):
            assert closed.wait(10.0)
            model.clock.advance(5.0)
            raise errors.ReplyTimedOut("no reply", endpoint=path)
        try:
            return model.call(path, *rest, **options)
        finally:
            if path.endswith("Position/closeContract"):
                closed.set()

    closed = threading.Event()
    rooms = Rooms(call, get=lambda path: "pong", clock=model.clock)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    report = rooms.flatten(ACCOUNT, timeout=5.0)
    assert (False, False) == (bool(report), report.verified)
    assert not model.positions


def test_an_account_is_flattened(model: GatewayModel, rooms: Rooms) -> None:
    """The kill switch leaves no order and no position, has priority 0, and passes an open breaker."""
    rooms.orders.buy(ACCOUNT, MNQ, 2, stop_loss_ticks=40, take_profit_ticks=80)
    rooms.orders.sell(ACCOUNT, MES, 1)
    before = len(model.calls)
    report = rooms.flatten(ACCOUNT)
    assert (True, {MNQ.id, MES.id}) == (bool(report), set(report.closed))
    assert ({}, []) == (model.positions, [o for o in model.of(ACCOUNT) if o.status.working])
    assert {(0, True)} == {(o["priority"], o["must_try"]) for o in model.options[before:]}


def test_a_row_without_contracts_is_no_position(model: GatewayModel, rooms: Rooms) -> None:
    """A position that is shown with size 0 is flat: nothing is closed, and the report is true."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    held = model.positions[ACCOUNT, MNQ.id]
    model.positions[ACCOUNT, MNQ.id] = replace(held, size=0, type=PositionType.UNDEFINED)
    assert rooms.flatten(ACCOUNT)
    assert 0 == paths(model).count("Position/closeContract")


@pytest.mark.parametrize("fault", ["lost", "500-after"])
def test_a_lost_close_is_not_repeated_too_soon(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """A close whose reply is lost is sent again only after the horizon: twice would open the other side."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    model.faults["Position/closeContract"] = [fault]
    assert rooms.flatten(ACCOUNT)
    assert 1 == paths(model).count("Position/closeContract")


def test_a_close_that_never_arrived_is_repeated_after_the_horizon(model: GatewayModel, rooms: Rooms) -> None:
    """A position that is still there after the horizon is closed again."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    model.faults["Position/closeContract"] = ["dropped"]
    begun = model.clock.monotonic()
    assert rooms.flatten(ACCOUNT)
    assert 15.75 < model.clock.monotonic() - begun < 30


def test_what_cannot_be_done_is_reported(model: GatewayModel, rooms: Rooms) -> None:
    """The rest is done where one thing fails; the report is false and names what is left, and why."""
    order = rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.do_order_cancel = lambda request: (6, "Follower accounts cannot cancel orders", {})
    report = rooms.flatten(ACCOUNT, timeout=5)
    assert (False, True, (MNQ.id,)) == (bool(report), report.verified, report.closed)
    assert [order.id] == [left.id for left in report.orders_left]
    assert [f"cancelling order {order.id}"] == [failure.what for failure in report.failures]
    assert "Follower accounts" in report.failures[0].error


def test_what_cannot_be_read_is_not_called_flat(model: GatewayModel, rooms: Rooms) -> None:
    """While the gateway does not answer, the account is not known to be flat, and the report says so."""
    model.faults = {"Position/searchOpen": ["500"] * 999}
    report = rooms.flatten(ACCOUNT, timeout=5)
    assert (False, False) == (bool(report), report.verified)
    assert ["reading the positions"] == [failure.what for failure in report.failures]


def test_what_can_be_read_is_acted_upon(model: GatewayModel, rooms: Rooms) -> None:
    """One source that fails does not keep the others' orders and positions from being cancelled and closed."""
    rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0)
    rooms.orders.buy(ACCOUNT, MES.id, 1)
    model.faults = {"Order/v2/query": ["500"] * 999}
    report = rooms.flatten(ACCOUNT, timeout=5)
    assert (False, False, ()) == (bool(report), report.verified, report.orders_left)
    assert (1, (MES.id,)) == (len(report.cancelled), report.closed)
    assert ["reading the orders"] == [failure.what for failure in report.failures]
    with pytest.raises(errors.TransientError):
        rooms.orders.working(ACCOUNT)


def test_a_kill_switch_ends_with_the_session(model: GatewayModel) -> None:
    """A closed session does one round, and reports."""
    closed = threading.Event()
    closed.set()
    rooms = Rooms(model.call, get=str, clock=model.clock, closed=closed)
    Rooms(model.call, get=str, clock=model.clock).orders.buy(ACCOUNT, MNQ.id, 1)
    report = rooms.flatten(ACCOUNT)
    assert (False, 1) == (bool(report), len(report.positions_left))


################################################ positions ################################################


def test_a_position_is_closed(model: GatewayModel, rooms: Rooms) -> None:
    """One call closes it; a second finds nothing and says so."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    assert [2] == [position.size for position in rooms.positions.search_open(ACCOUNT)]
    assert (Change.DONE, None) == (rooms.positions.close(ACCOUNT, MNQ).change, model.positions.get((ACCOUNT, MNQ.id)))
    assert Change.ALREADY is rooms.positions.close(ACCOUNT, MNQ).change


def test_orders_left_behind_are_swept(model: GatewayModel, rooms: Rooms) -> None:
    """The gateway may leave protective orders; with `cancel_orders` none works afterwards, and that is read back."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 2)
    stop = rooms.orders.sell(ACCOUNT, MNQ, 2, stop_price=20900.0)
    result = rooms.positions.close(ACCOUNT, MNQ, cancel_orders=True)
    assert ((stop.id,), (), True, None) == (result.cancelled, result.orders_left, result.swept, result.position)


@pytest.mark.parametrize("fault", ["lost", "500-after", "truncated"])
def test_a_lost_close_is_compared(model: GatewayModel, rooms: Rooms, fault: str) -> None:
    """When the reply is lost the positions are read, and nothing is sent twice."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 3)
    model.faults = {"Position/closeContract": [fault], "Position/partialCloseContract": [fault]}
    part = rooms.positions.close_part(ACCOUNT, MNQ, 1)
    assert (Change.DONE, 2) == (part.change, part.position.size)
    assert Change.DONE is rooms.positions.close(ACCOUNT, MNQ).change
    assert [f"partial {MNQ.id} 1", f"close {MNQ.id}"] == model.executed[1:]


@pytest.mark.parametrize("part", [True, False], ids=["part", "whole"])
def test_a_close_that_never_arrived_is_unknown(model: GatewayModel, rooms: Rooms, part: bool) -> None:
    """A position that does not change may still: nothing is sent again, and the error says what was seen."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 3)
    model.faults = {"Position/closeContract": ["dropped"], "Position/partialCloseContract": ["dropped"]}
    model.faults["Position/searchOpen"] = ["", "500"] if part else ["500"]
    with pytest.raises(errors.OrderStateUnknown, match="it is LONG 3"):
        rooms.positions.close_part(ACCOUNT, MNQ, 1) if part else rooms.positions.close(ACCOUNT, MNQ)
    assert 1 == len([path for path in paths(model) if "lose" in path])


def test_a_position_that_vanishes_meanwhile_is_no_part_close(model: GatewayModel, rooms: Rooms) -> None:
    """Something else closed the position while the reply was lost: what the part came to cannot be known."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 3)
    model.faults = {"Position/partialCloseContract": ["dropped"]}
    model.late.append((model.clock.monotonic() + 0.2, model.positions.clear))
    with pytest.raises(errors.OrderStateUnknown, match="it is flat"):
        rooms.positions.close_part(ACCOUNT, MNQ, 1)


def test_the_last_part_closes_everything(model: GatewayModel, rooms: Rooms) -> None:
    """Closing as many as there are leaves nothing."""
    rooms.orders.sell(ACCOUNT, MNQ.id, 2)
    model.faults = {"Position/partialCloseContract": ["lost"]}
    assert None is rooms.positions.close_part(ACCOUNT, MNQ, 2).position


def test_parts_that_are_not_there(model: GatewayModel, rooms: Rooms) -> None:
    """More than is open, and anything of nothing, is refused here; what goes in between is the gateway's refusal."""
    with pytest.raises(errors.PositionNotFound) as caught:
        rooms.positions.close_part(ACCOUNT, MNQ, 1)
    assert errors.Fate.NOT_SENT is caught.value.fate
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    with pytest.raises(errors.InvalidRequest, match="size is 2; the position has 1"):
        rooms.positions.close_part(ACCOUNT, MNQ, 2)
    assert "Position/partialCloseContract" not in paths(model)
    model.do_position_partialclosecontract = lambda request: (2, None, {})
    with pytest.raises(errors.PositionNotFound):
        rooms.positions.close_part(ACCOUNT, MNQ, 1)
    model.do_position_closecontract = lambda request: (5, None, {})
    with pytest.raises(errors.OrderRejected):
        rooms.positions.close(ACCOUNT, MNQ)


def test_a_closed_session_does_not_compare(model: GatewayModel) -> None:
    """The comparison ends with the session."""
    closed = threading.Event()
    closed.set()
    model.faults = {"Position/closeContract": ["dropped"]}
    with pytest.raises(errors.OrderStateUnknown, match="the position was not read back"):
        Rooms(model.call, get=str, clock=model.clock, closed=closed).positions.close(ACCOUNT, MNQ)


################################################ looking ################################################


def test_one_order_by_its_id(model: GatewayModel, rooms: Rooms, order: PlacedOrder) -> None:
    """`get` reads one order, and says when there is none."""
    found = rooms.orders.get(ACCOUNT, order.id)
    assert isinstance(found, Order)
    assert order.id == found.id
    with pytest.raises(errors.OrderNotFound, match="account 536 has no order 1"):
        rooms.orders.get(ACCOUNT, 1)
    model.missing.add("Order/searchById")
    with pytest.raises(errors.OrderNotFound):
        rooms.orders.get(ACCOUNT, 1)


def test_suspended_legs_are_shown_by_query(model: GatewayModel, rooms: Rooms) -> None:
    """Legs that wait for their entry are not open; `query` and `working` show them."""
    rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0, stop_loss_ticks=40)
    assert 1 == len(rooms.orders.search_open(ACCOUNT))
    assert 2 == len(rooms.orders.working(ACCOUNT)) == len(rooms.orders.working(ACCOUNT, MNQ))
    assert 1 == len(rooms.orders.query(ACCOUNT, statuses=["suspended"], contract_id=MNQ))
    assert [] == rooms.orders.working(ACCOUNT, MES)
    everything = rooms.orders.query(ACCOUNT, start="2026-01-01", end="2027-01-01")
    assert 2 == len(everything)
    with pytest.raises(errors.InvalidRequest, match="status is 'done'"):
        rooms.orders.query(ACCOUNT, statuses=["done"])


@pytest.mark.parametrize("counts", ["rows", "pages", "uncounted"])
def test_all_pages_of_a_query_come(
    model: GatewayModel, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, counts: str
) -> None:
    """Whether the offset counts rows or pages, and whether the total is told, every order comes once."""
    monkeypatch.setattr("topstep_sync.api.lookup.PAGE", 7)
    ids = [rooms.orders.buy(ACCOUNT, MNQ, 1, limit_price=20000.0 + n).id for n in range(24)]
    plain = model.do_order_v2_query

    def query(request: Any) -> Any:
        if counts == "pages":
            request = replace(request, page_offset=request.page_offset * request.page_size)
        code, message, fields = plain(request)
        return code, message, {k: v for k, v in fields.items() if counts != "uncounted" or k == "orders"}

    model.do_order_v2_query = query
    assert ids == [order.id for order in rooms.orders.query(ACCOUNT)]


def test_orders_are_searched_oldest_first(model: GatewayModel, rooms: Rooms) -> None:
    """`search` gives ended orders, too, in the order of their creation, whatever the gateway's."""
    first, second = rooms.orders.buy(ACCOUNT, MNQ.id, 1), rooms.orders.sell(ACCOUNT, MNQ.id, 1)
    model.orders = dict(reversed(model.orders.items()))
    assert [first.id, second.id] == [order.id for order in rooms.orders.search(ACCOUNT, "2026-01-01", "2030-01-01")]
    assert "2030" in str(model.calls[-1][1])


def test_a_close_that_worked_is_no_failure(model: GatewayModel, rooms: Rooms) -> None:
    """A position that is closed stays closed in the result, even if it cannot be read back after the sweep."""
    rooms.orders.buy(ACCOUNT, MNQ.id, 1)
    model.faults = {"Position/searchOpen": ["500"]}
    result = rooms.positions.close(ACCOUNT, MNQ, cancel_orders=True)
    assert (Change.DONE, None, False) == (result.change, result.position, result.swept)
