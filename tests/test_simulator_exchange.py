"""The exchange: how orders live, fill and end."""

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from simulator_world import BUY, MNQ, SELL, Desk, stop_loss, take_profit

from topstep_sync.messages import ModifyOrder
from topstep_sync.models import OrderStatus, OrderType
from topstep_sync.simulator.settings import ACCOUNTS, AccountSpec

LIVE = (OrderStatus.OPEN, OrderStatus.PENDING, OrderStatus.SUSPENDED)


def bracketed(desk: Desk, **fields: object):
    """A market buy of two with a stop 40 ticks below and a target 80 above."""
    entry = desk.place(size=2, stop_loss_bracket=stop_loss(-40), take_profit_bracket=take_profit(80), **fields)
    return entry, *entry.children


def test_a_market_order_fills_at_the_last_price() -> None:
    """A market order is filled at once, wholly, at the price the market stands at."""
    desk = Desk()
    order = desk.place(size=3)
    assert (OrderStatus.FILLED, 3, 21000.0) == (order.status, order.filled, order.wire()["filledPrice"])
    assert 3 == desk.held()


@pytest.mark.parametrize(("side", "rest", "touch"), [(BUY, 20990.0, 20990.0), (SELL, 21010.0, 21010.0)])
def test_a_resting_limit_fills_at_its_own_price(side: int, rest: float, touch: float) -> None:
    """A limit order rests until the market reaches it, and then gets its own price."""
    desk = Desk()
    order = desk.limit(rest, side=side)
    assert OrderStatus.OPEN is order.status
    desk.move(touch + (0.25 if side == BUY else -0.25))
    assert OrderStatus.OPEN is order.status
    desk.move(touch - (5 if side == BUY else -5))
    assert (OrderStatus.FILLED, rest) == (order.status, order.wire()["filledPrice"])


def test_an_arriving_limit_beyond_the_market_gets_the_market(desk: Desk) -> None:
    """A limit order that could trade at once gets the better price."""
    assert 21000.0 == desk.limit(21050.0).wire()["filledPrice"]


@pytest.mark.parametrize(("side", "level", "gap"), [(BUY, 21010.0, 21020.0), (SELL, 20990.0, 20980.0)])
def test_a_stop_fills_where_the_market_is(side: int, level: float, gap: float) -> None:
    """A stop that is jumped over fills at the market, not at its own price."""
    desk = Desk()
    order = desk.stop(level, side=side)
    desk.move(gap)
    assert (OrderStatus.FILLED, gap) == (order.status, order.wire()["filledPrice"])


def test_a_trailing_stop_follows_and_never_goes_back(desk: Desk) -> None:
    """A sell trail of 40 ticks climbs with the market, stays when it falls, and fills there."""
    desk.place()
    order = desk.place(type=OrderType.TRAILING_STOP, side=SELL, trail_price=20990.0)
    assert (20990.0, 40, 10.0) == tuple(order.wire()[k] for k in ("stopPrice", "trailDistance", "trailPrice"))
    desk.move(21020.0)
    assert 21010.0 == order.wire()["stopPrice"]
    desk.move(21015.0)
    assert 21010.0 == order.wire()["stopPrice"]
    desk.move(21010.0)
    assert OrderStatus.FILLED is order.status


def test_a_buy_trail_comes_down(desk: Desk) -> None:
    """A buy trail follows a falling market."""
    order = desk.place(type=OrderType.TRAILING_STOP, trail_price=21010.0)
    desk.move(20980.0)
    assert 20990.0 == order.wire()["stopPrice"]
    assert desk.modify(order, trail_price=20985.0).code == 0
    assert 20985.0 == order.wire()["stopPrice"]


def test_a_stop_limit_needs_its_stop_first() -> None:
    """Order type 3, where it is taken, becomes a limit order once its stop was reached."""
    desk = Desk(stop_limit=True)
    order = desk.place(type=OrderType.STOP_LIMIT, stop_price=21010.0, limit_price=21012.0)
    desk.move(21020.0)
    assert (OrderStatus.OPEN, True) == (order.status, order.triggered)
    desk.move(21011.0)
    assert (OrderStatus.FILLED, 21012.0) == (order.status, order.wire()["filledPrice"])


@pytest.mark.parametrize(
    ("kind", "side", "expected"), [(OrderType.JOIN_BID, BUY, 20999.75), (OrderType.JOIN_ASK, SELL, 21000.25)]
)
def test_a_join_order_rests_at_the_best_price(desk: Desk, kind: int, side: int, expected: float) -> None:
    """Joining the bid or the ask is a limit order at it."""
    order = desk.place(type=kind, side=side)
    assert (OrderStatus.OPEN, expected) == (order.status, order.wire()["limitPrice"])
    desk.move(expected)
    assert OrderStatus.FILLED is order.status


def test_prices_that_a_type_has_no_use_for_mean_nothing(desk: Desk) -> None:
    """A stop price on a limit order, or a limit on a stop or market order, neither holds it back nor prices it."""
    limit = desk.limit(20990.0, stop_price=22000.0)
    stop = desk.stop(21010.0, limit_price=20000.0)
    market = desk.place(limit_price=20000.0)
    assert [OrderStatus.OPEN, OrderStatus.OPEN, OrderStatus.FILLED] == [o.status for o in (limit, stop, market)]
    desk.move(21010.0)
    desk.move(20990.0)
    assert [20990.0, 21010.0, 21000.0] == [o.wire()["filledPrice"] for o in (limit, stop, market)]


def test_partial_fills_average_and_finish() -> None:
    """With three contracts of liquidity an order of seven takes three steps, and its price is their average."""
    desk = Desk(liquidity=3)
    order = desk.place(size=7)
    assert (OrderStatus.OPEN, 3) == (order.status, order.filled)
    desk.move(21001.0)
    desk.move(21002.0)
    assert (OrderStatus.FILLED, 7) == (order.status, order.filled)
    assert pytest.approx((3 * 21000 + 3 * 21001 + 21002) / 7) == order.wire()["filledPrice"]
    assert 3 == len(desk.exchange.ledger.trades)


def test_brackets_are_born_suspended_and_work_after_the_fill() -> None:
    """Entry N, stop N+1 and target N+2 are made together; the legs get their prices from the fill."""
    desk = Desk()
    entry = desk.limit(
        20990.0, size=2, custom_tag="t", stop_loss_bracket=stop_loss(-40), take_profit_bracket=take_profit(80)
    )
    stop, target = entry.children
    assert [1, 2] == [stop.id - entry.id, target.id - entry.id]
    assert [OrderStatus.SUSPENDED] * 2 == [stop.status, target.status]
    assert (None, None) == (stop.wire()["stopPrice"], target.wire()["limitPrice"])
    assert ("t-SL", "t-TP") == (stop.custom_tag, target.custom_tag)
    assert (entry.id, entry.id, None, stop.id) == (stop.parent_id, target.parent_id, stop.linked_id, target.linked_id)
    desk.move(20990.0)
    assert [OrderStatus.OPEN] * 2 == [stop.status, target.status]
    assert (20980.0, 21010.0) == (stop.wire()["stopPrice"], target.wire()["limitPrice"])


@pytest.mark.parametrize(("price", "winner"), [(20990.0, 0), (21020.0, 1)])
def test_one_leg_fills_and_the_other_is_cancelled(desk: Desk, price: float, winner: int) -> None:
    """Legs of a bracket exclude each other, and the position is flat after one."""
    _, *legs = bracketed(desk)
    desk.move(price)
    assert OrderStatus.FILLED is legs[winner].status
    assert OrderStatus.CANCELLED is legs[1 - winner].status
    assert 0 == desk.held()


def test_moving_one_leg_leaves_the_other(desk: Desk) -> None:
    """A change of the stop does not touch the target."""
    _, stop, target = bracketed(desk)
    before = target.wire()
    assert 0 == desk.modify(stop, stop_price=20995.0).code
    assert (20995.0, before) == (stop.wire()["stopPrice"], target.wire())


def test_cancelling_an_entry_cancels_its_legs(desk: Desk) -> None:
    """Suspended legs end with an entry that never filled."""
    entry = desk.limit(20000.0, stop_loss_bracket=stop_loss(-40))
    assert 0 == desk.exchange.cancel(704, entry.id).code
    assert [OrderStatus.CANCELLED] * 2 == [entry.status, entry.children[0].status]


def test_a_partly_filled_entry_protects_what_it_got() -> None:
    """When the rest of an entry is cancelled, its legs work for the part that filled."""
    desk = Desk(liquidity=2)
    entry = desk.place(size=5, stop_loss_bracket=stop_loss(-40), take_profit_bracket=take_profit(40))
    assert 0 == desk.exchange.cancel(704, entry.id).code
    assert [(OrderStatus.OPEN, 2)] * 2 == [(leg.status, leg.size) for leg in entry.children]


def test_a_trailing_leg_echoes_its_signed_distance(desk: Desk) -> None:
    """A trailing stop as bracket shows signed ticks, and trails from the fill on."""
    entry = desk.place(stop_loss_bracket=stop_loss(-40, OrderType.TRAILING_STOP))
    leg = entry.children[0]
    assert (-40, -10.0, 20990.0) == tuple(leg.wire()[k] for k in ("trailDistance", "trailPrice", "stopPrice"))
    desk.move(21010.0)
    assert 21000.0 == leg.wire()["stopPrice"]


def test_a_price_given_to_a_suspended_leg_stands(desk: Desk) -> None:
    """A leg that was moved while suspended keeps that price when it goes to work."""
    entry = desk.limit(20990.0, stop_loss_bracket=stop_loss(-40), take_profit_bracket=take_profit(40))
    stop, target = entry.children
    desk.modify(stop, stop_price=20900.0)
    desk.modify(target, limit_price=21100.0)
    desk.move(20990.0)
    assert (20900.0, 21100.0) == (stop.wire()["stopPrice"], target.wire()["limitPrice"])


def test_events_come_in_the_recorded_order(desk: Desk) -> None:
    """Stop, entry and target are announced; then the fill, position, trade, account; then target and stop at work."""
    desk.published.clear()
    entry, stop, target = bracketed(desk)
    expected = [
        ("GatewayUserOrder", stop.id, 8), ("GatewayUserOrder", entry.id, 6), ("GatewayUserOrder", target.id, 8),
        ("GatewayUserOrder", entry.id, 2), ("GatewayUserPosition", 6124, 2), ("GatewayUserTrade", None, 2),
        ("GatewayUserAccount", 704, None), ("GatewayUserOrder", target.id, 1), ("GatewayUserOrder", stop.id, 1),
    ]  # fmt: skip
    seen = []
    for publication in desk.published:
        record = publication.arguments[0]["data"]
        number = None if publication.target == "GatewayUserTrade" else record["id"]
        seen.append((publication.target, number, record.get("status", record.get("size"))))
    assert expected == seen


def test_an_exit_is_told_in_the_recorded_order(desk: Desk) -> None:
    """The leg that filled, the leg that is cancelled, the flat position, the trade with its profit, the account."""
    _, stop, target = bracketed(desk)
    desk.published.clear()
    desk.move(21020.0)
    user = [p for p in desk.published if p.hub == "user"]
    assert ["Order", "Order", "Position", "Trade", "Account"] == [p.target.removeprefix("GatewayUser") for p in user]
    first, second, position, trade, _ = (p.arguments[0]["data"] for p in user)
    assert [(target.id, 2), (stop.id, 3)] == [(o["id"], o["status"]) for o in (first, second)]
    assert (0, 80.0) == (position["size"], trade["profitAndLoss"])


def test_a_rejected_order_leaves_a_record_and_burns_its_tag(desk: Desk) -> None:
    """A refused order has an id, status 5 and no fill, and its tag is gone for ever."""
    order_id, refusal = desk.ask(size=0, custom_tag="once")
    assert (2, "Invalid order size specified") == refusal
    assert OrderStatus.REJECTED is desk.exchange.orders[order_id or 0].status
    assert (2, "Specified custom tag is already in use") == desk.ask(custom_tag="once")[1]
    assert desk.ask(custom_tag="once", account_id=536)[1] is None


def test_unknown_ids_and_ended_orders(desk: Desk) -> None:
    """Account, contract and order are looked up in that order, each with its code."""
    filled = desk.place()
    assert [1, 8] == [desk.ask(account_id=1)[1].code, desk.ask(contract_id="x")[1].code]  # type: ignore[union-attr]
    assert [1, 2, 3, 2] == [
        desk.exchange.cancel(account, order).code
        for account, order in ((1, 1), (704, 1), (704, filled.id), (536, filled.id))
    ]
    assert 3 == desk.modify(filled, size=2).code
    assert [1, 3, 2, 2] == [
        desk.exchange.close(account, contract, None)
        for account, contract in ((1, MNQ), (704, "x"), (536, MNQ), (704, "CON.F.US.MES.Z26"))
    ]


def test_a_change_is_checked_and_may_fill(desk: Desk) -> None:
    """Modify refuses misaligned prices and bad sizes, leaves what is not named, and can make an order fill."""
    order = desk.limit(20990.0, size=2)
    assert (3, "Invalid limit price. Price is not aligned to tick size.") == desk.modify(order, limit_price=20990.1)
    assert (3, "Invalid order size specified") == desk.modify(order, size=0)
    assert 0 == desk.modify(order, size=3).code
    assert (3, 20990.0) == (order.size, order.wire()["limitPrice"])
    assert 0 == desk.modify(order, limit_price=21000.0).code
    assert OrderStatus.FILLED is order.status


def test_a_size_below_what_is_filled_is_refused() -> None:
    """An order cannot be made smaller than it already is."""
    desk = Desk(liquidity=2)
    order = desk.place(size=4)
    assert (3, "Invalid order size specified") == desk.modify(order, size=2)


def test_closing_whole_and_in_part(desk: Desk) -> None:
    """A partial close takes its size, a wrong size is code 5, and the rest goes with the next close."""
    desk.place(size=3)
    assert [5, 5, 5, 0] == [desk.exchange.close(704, MNQ, size) for size in (0, -1, 4, 1)]
    assert 2 == desk.held()
    assert 0 == desk.exchange.close(704, MNQ, None)
    assert 0 == desk.held()


def test_a_short_is_closed_by_buying(desk: Desk) -> None:
    """Closing a short position buys it back."""
    desk.place(side=SELL, size=2)
    assert 0 == desk.exchange.close(704, MNQ, None)
    assert [(SELL, 2), (BUY, 2)] == [(t.side, t.size) for t in desk.exchange.ledger.trades]


@pytest.mark.parametrize(("switch", "expected"), [(False, OrderStatus.OPEN), (True, OrderStatus.CANCELLED)])
def test_closing_leaves_protective_orders_unless_told(switch: bool, expected: OrderStatus) -> None:
    """The real gateway was seen to leave them working; a switch gives the other reading."""
    desk = Desk(close_cancels_brackets=switch)
    _, stop, target = bracketed(desk)
    other = desk.limit(20000.0, account_id=536)
    desk.exchange.close(704, MNQ, None)
    assert [expected] * 2 == [stop.status, target.status]
    assert OrderStatus.OPEN is other.status


def test_orders_in_flight_can_be_cancelled() -> None:
    """With a delay an order is pending (6), and a cancel in that time prevents it."""
    desk = Desk(fill_delay=0.1)
    first, second = desk.place(), desk.place()
    assert OrderStatus.PENDING is first.status
    assert 0 == desk.exchange.cancel(704, first.id).code
    desk.world.clock.advance(0.1)
    assert [OrderStatus.CANCELLED, OrderStatus.FILLED] == [first.status, second.status]


def test_closed_markets_refuse_and_orders_expire() -> None:
    """In CME's daily break an order is refused with the text seen in the field; others expire at the close."""
    desk = Desk(hours="cme", expire_at_close=True)
    resting = desk.limit(20000.0)
    desk.place(size=2)
    desk.world.clock.advance(7 * 3600 + 60)
    assert OrderStatus.EXPIRED is resting.status
    text = "Trading is currently unavailable. The instrument is not in an active trading status."
    assert (2, text) == desk.ask()[1]
    assert [6, 5] == [desk.exchange.close(704, MNQ, 1), desk.exchange.close(704, MNQ, None)]
    desk.world.clock.advance(3600)
    assert desk.ask()[1] is None


def test_followers_and_live_accounts_may_not_change_orders() -> None:
    """Cancel says why with code 6, modify with code 6, close with 8 or 9."""
    accounts = (AccountSpec(1, "F", 1e5), AccountSpec(2, "L", 1e5))
    desk = Desk(accounts=accounts)
    for account_id, text in ((1, "Follower accounts cannot cancel orders"), (2, "Live accounts not supported")):
        order = desk.limit(20000.0, account_id=account_id)
        desk.place(account_id=account_id)
        account = desk.exchange.accounts[account_id]
        if account_id == 1:
            account.follower = True
        else:
            account.spec = AccountSpec(2, "L", 1e5, simulated=False)
        assert (6, text) == desk.exchange.cancel(account_id, order.id)
        assert (6, None) == desk.modify(order, size=2)
        assert [8, 9] == [desk.exchange.close(account_id, MNQ, size) for size in (None, 1)]


def test_an_account_that_lost_too_much_is_in_violation() -> None:
    """Beyond its loss limit an account's working orders end and new ones get code 4."""
    desk = Desk(accounts=(AccountSpec(704, "X", 1000.0, max_loss=50.0),))
    desk.place(size=10)
    resting = desk.limit(20000.0)
    desk.move(20989.0)
    desk.exchange.close(704, MNQ, None)
    assert OrderStatus.CANCELLED is resting.status
    assert (4, None) == desk.ask()[1]


def test_without_a_price_nothing_fills_and_nothing_trails() -> None:
    """Until a first price comes: market orders and closes are refused in silence, trails with a text, limits rest."""
    desk = Desk()
    desk.place(size=2)
    trail = desk.place(type=OrderType.TRAILING_STOP, side=SELL, trail_price=20990.0)
    desk.world.markets.set_price(MNQ, None)
    assert [(2, None)] * 2 == [desk.ask()[1], desk.ask(size=2, side=SELL)[1]]
    assert [6, 5] == [desk.exchange.close(704, MNQ, 1), desk.exchange.close(704, MNQ, None)]
    text = "Cannot trail without a last price"
    assert (2, text) == desk.ask(type=OrderType.TRAILING_STOP, trail_price=20990.0)[1]
    assert (3, text) == desk.modify(trail, trail_price=20990.0)
    resting = desk.limit(21050.0)
    assert OrderStatus.OPEN is resting.status
    assert "lastPrice" not in (desk.world.markets.quote(MNQ) or {})
    assert [] == desk.world.markets.depth(MNQ)
    desk.move(21000.0)
    assert OrderStatus.FILLED is resting.status


def test_a_leg_that_fills_in_part_shrinks_the_other() -> None:
    """With little liquidity both legs together never protect more than is held."""
    desk = Desk(liquidity=2)
    entry = desk.place(size=5, stop_loss_bracket=stop_loss(-40), take_profit_bracket=take_profit(40))
    desk.move(21000.0)
    desk.move(21000.0)
    stop, target = entry.children
    assert [5, 5] == [stop.size, target.size]
    desk.move(21010.0)
    assert (2, 3) == (target.filled, stop.size)
    desk.move(21010.0)
    assert (4, 1) == (target.filled, stop.size)
    desk.move(21010.0)
    assert (OrderStatus.FILLED, OrderStatus.CANCELLED, 0) == (target.status, stop.status, desk.held())


def test_a_change_of_an_unknown_account_or_order() -> None:
    """Modify looks up the account first, then the order."""
    desk = Desk()
    codes = [desk.exchange.modify(ModifyOrder(account_id=a, order_id=1)).code for a in (1, 704)]
    assert [1, 2] == codes


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["market", "limit", "stop", "trail", "bracket", "cancel", "modify", "close", "move"]),
        st.sampled_from([BUY, SELL]),
        st.integers(1, 5),
        st.integers(-60, 60),
    ),
    max_size=40,
)


def act(desk: Desk, kind: str, side: int, size: int, ticks: int) -> None:
    market = desk.world.markets.get(MNQ)
    assert market is not None
    price = market.instrument.price(market.last + ticks)
    working = [order for order in desk.exchange.orders.values() if order.status in LIVE]
    if kind == "market":
        desk.place(side=side, size=size)
    elif kind == "limit":
        desk.limit(price, side=side, size=size)
    elif kind == "stop":
        desk.stop(price, side=side, size=size)
    elif kind == "trail":
        desk.place(type=OrderType.TRAILING_STOP, side=side, size=size, trail_price=price)
    elif kind == "bracket":
        away = (abs(ticks) + 4) * (1 if side == BUY else -1)
        legs = {"stop_loss_bracket": stop_loss(-away), "take_profit_bracket": take_profit(away)}
        desk.place(side=side, size=size, **legs)
    elif kind == "move":
        desk.move(price)
    elif kind == "close":
        desk.exchange.close(704, MNQ, None)
    elif working:
        chosen = working[ticks % len(working)]
        if kind == "cancel":
            desk.exchange.cancel(704, chosen.id)
        else:
            desk.modify(chosen, size=size, limit_price=price, stop_price=price)


@examples(STEPS, st.integers(0, 3))
def test_books_always_balance(steps: list[tuple[str, int, int, int]], liquidity: int) -> None:
    """Whatever happens: fills never exceed sizes, the position is the sum of the fills, and money is accounted for."""
    desk = Desk(liquidity=liquidity)
    for step in steps:
        act(desk, *step)
        ledger = desk.exchange.ledger
        assert desk.held() == sum(t.size if t.side == BUY else -t.size for t in ledger.trades)
        earned = sum((t.profit or 0.0) - t.fees - t.commissions for t in ledger.trades)
        assert pytest.approx(ACCOUNTS[1].balance + earned) == desk.exchange.accounts[704].balance
        for order in desk.exchange.orders.values():
            assert 0 <= order.filled <= order.size
            assert (order.filled == order.size) == (order.status is OrderStatus.FILLED)
            filled = sum(t.size for t in ledger.trades if t.order_id == order.id)
            assert filled == order.filled
            legs = [leg for leg in order.children if leg.status is OrderStatus.FILLED]
            assert len(legs) <= 1


@pytest.fixture
def desk() -> Desk:
    """A world with MNQ at 21 000."""
    return Desk()
