"""The exchange: accepts, fills, trails and cancels orders against the market, and publishes what happens."""

import itertools
from collections.abc import Callable, Iterable

from topstep_sync.messages import Bracket, ModifyOrder, PlaceOrder
from topstep_sync.models import Action, OrderSide, OrderStatus, OrderType, given
from topstep_sync.simulator.book import SimAccount, SimOrder
from topstep_sync.simulator.bus import USER_HUB, Bus, Publication
from topstep_sync.simulator.catalogue import Catalogue, Instrument
from topstep_sync.simulator.ledger import Ledger
from topstep_sync.simulator.market import Market, Markets
from topstep_sync.simulator.rules import Circumstances, Refusal, refuse_account, refuse_modify, refuse_place
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock

_LIVE = (OrderStatus.OPEN, OrderStatus.PENDING, OrderStatus.SUSPENDED)
_TRADE_IDS_AFTER = 1_000_000_000  # trades have a number range of their own, as far as anybody saw


class Exchange:
    """Accounts, orders and what follows from them. Loop thread only."""

    def __init__(self, settings: Settings, clock: SimClock, bus: Bus, catalogue: Catalogue, markets: Markets) -> None:
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._catalogue = catalogue
        self._markets = markets
        self.trading: Callable[[], bool] = lambda: True
        self.accounts: dict[int, SimAccount] = {}
        self.orders: dict[int, SimOrder] = {}
        """Every order ever, by id, oldest first."""
        self._working: dict[str, dict[int, SimOrder]] = {}
        self._ids = itertools.count(settings.first_order_id)
        self.reset()
        markets.on_price = self._on_price

    def reset(self) -> None:
        """Accounts and books are as at the start, without orders. Order ids go on: none is used twice."""
        self.accounts = {spec.id: SimAccount.of(spec) for spec in self._settings.accounts}
        self.orders = {}
        self.ledger = Ledger(self._settings.first_order_id + _TRADE_IDS_AFTER)
        self._working = {}

    ############################################### requests ###############################################

    def place(self, request: PlaceOrder) -> tuple[int | None, Refusal | None]:
        """The order's id, and why it was refused. A refused order has an id and a record, too, and burns its tag."""
        account = self.accounts.get(request.account_id)
        if account is None:
            return None, Refusal(1)
        instrument = self._catalogue.get(request.contract_id)
        if instrument is None:
            return None, Refusal(8)
        market = self._markets.watch(instrument.id)
        held = self.ledger.held(account.id, instrument.id)
        last = market.last if market else None
        here = Circumstances(account, instrument, last, self.trading(), held)
        refusal = refuse_place(request, here, self._settings)
        order = self._record(request, instrument)
        if refusal:
            self._end(order, OrderStatus.REJECTED)
            return order.id, refusal
        assert market is not None  # an active contract has a market
        self._add_brackets(order, request)
        # As recorded: the stop, the entry, the target.
        for one in (*order.children[:1], order, *order.children[1:]):
            self._publish_order(one)
        if self._settings.fill_delay:
            self._clock.call_later(self._settings.fill_delay, lambda: self._work(order, market, request))
        else:
            self._work(order, market, request)
        return order.id, None

    def cancel(self, account_id: int, order_id: int) -> Refusal:
        """The order is cancelled, with whatever waited for it; or the code and text that say why not."""
        account = self.accounts.get(account_id)
        if account is None:
            return Refusal(1)
        order = self.order(account_id, order_id)
        if order is None:
            return Refusal(2)
        text = refuse_account(account)
        if text:
            return Refusal(6, text)
        if order.status not in _LIVE:
            return Refusal(3)
        self._end(order, OrderStatus.CANCELLED)
        self._settle_children(order)
        return Refusal(0)

    def modify(self, request: ModifyOrder) -> Refusal:
        """The order has the new size and prices; or the code and text that say why not."""
        account = self.accounts.get(request.account_id)
        if account is None:
            return Refusal(1)
        order = self.order(request.account_id, request.order_id)
        if order is None:
            return Refusal(2)
        if refuse_account(account):
            return Refusal(6)
        if order.status not in (OrderStatus.OPEN, OrderStatus.SUSPENDED):
            return Refusal(3)
        text = refuse_modify(request, order.instrument)
        market = self._markets.get(order.instrument.id)
        if not text and given(request.trail_price) and market is None:
            text = "Cannot trail without a last price"
        if not text and given(request.size) and request.size <= order.filled:  # type: ignore[operator]
            text = "Invalid order size specified"
        if text or market is None:
            return Refusal(3, text)
        self._change(order, request, market)
        return Refusal(0)

    def close(self, account_id: int, contract_id: str, size: int | None) -> int:
        """A market order for the whole position or *size* of it is placed; else the errorCode of the endpoint."""
        partial = size is not None
        account = self.accounts.get(account_id)
        if account is None:
            return 1
        instrument = self._catalogue.get(contract_id)
        if instrument is None:
            return 3
        held = self.ledger.held(account_id, contract_id)
        if held == 0:
            return 2
        if not account.can_trade or refuse_account(account):
            return 9 if partial else 8
        if size is not None and not 0 < size <= abs(held):
            return 5
        side = OrderSide.SELL if held > 0 else OrderSide.BUY
        request = PlaceOrder(
            account_id=account_id, contract_id=contract_id, type=OrderType.MARKET, side=side, size=size or abs(held)
        )
        _, refusal = self.place(request)
        if refusal:
            return 6 if partial else 5
        if self._settings.close_cancels_brackets and not partial:
            self._cancel_resting(account_id, contract_id)
        return 0

    def order(self, account_id: int, order_id: int) -> SimOrder | None:
        """That order of that account."""
        order = self.orders.get(order_id)
        return order if order is not None and order.account_id == account_id else None

    def orders_of(self, account_id: int) -> Iterable[SimOrder]:
        """The account's orders, oldest first."""
        return (order for order in self.orders.values() if order.account_id == account_id)

    ########################################## the life of an order ##########################################

    def _record(self, request: PlaceOrder, instrument: Instrument) -> SimOrder:
        ticks = instrument.ticks
        order = SimOrder(
            next(self._ids), request.account_id, instrument, self._clock.epoch(), int(request.type), int(request.side),
            request.size,
            limit=ticks(request.limit_price) if given(request.limit_price) else None,  # type: ignore[arg-type]
            stop=ticks(request.stop_price) if given(request.stop_price) else None,  # type: ignore[arg-type]
            custom_tag=request.custom_tag if given(request.custom_tag) else None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.orders[order.id] = order
        if order.custom_tag is not None:
            self.accounts[order.account_id].tags.add(order.custom_tag)
        return order

    def _add_brackets(self, order: SimOrder, request: PlaceOrder) -> None:
        for bracket, suffix in ((request.stop_loss_bracket, "-SL"), (request.take_profit_bracket, "-TP")):
            if not isinstance(bracket, Bracket):
                continue
            child = SimOrder(
                next(self._ids), order.account_id, order.instrument, order.created, int(bracket.type),
                OrderSide.SELL if order.buys else OrderSide.BUY, order.size, OrderStatus.SUSPENDED,
                custom_tag=None if order.custom_tag is None else order.custom_tag + suffix,
                distance=bracket.ticks, parent_id=order.id, parent=order,
                linked_id=order.children[0].id if order.children else None,
            )  # fmt: skip
            order.children.append(child)
            self.orders[child.id] = child

    def _work(self, order: SimOrder, market: Market, request: PlaceOrder) -> None:
        if order.status is not OrderStatus.PENDING:  # cancelled while in flight
            return
        if order.type == OrderType.JOIN_BID:
            order.limit = market.bid
        elif order.type == OrderType.JOIN_ASK:
            order.limit = market.ask
        elif order.trails:
            self._set_trail(order, market.instrument.ticks(request.trail_price), market)  # type: ignore[arg-type]
        self._open(order)
        if not self._try_fill(order, market, arriving=True):
            self._publish_order(order)

    def _open(self, order: SimOrder) -> None:
        order.status = OrderStatus.OPEN
        order.updated = self._clock.epoch()
        self._working.setdefault(order.instrument.id, {})[order.id] = order

    def _change(self, order: SimOrder, request: ModifyOrder, market: Market) -> None:
        ticks = order.instrument.ticks
        if given(request.size):
            order.size = request.size  # type: ignore[assignment]
        if given(request.limit_price):
            order.limit = ticks(request.limit_price)  # type: ignore[arg-type]
        if given(request.stop_price):
            order.stop, order.triggered = ticks(request.stop_price), False  # type: ignore[arg-type]
        if given(request.trail_price) and order.trails:
            self._set_trail(order, ticks(request.trail_price), market)  # type: ignore[arg-type]
        order.updated = self._clock.epoch()
        if order.status is not OrderStatus.OPEN or not self._try_fill(order, market, arriving=True):
            self._publish_order(order)

    @staticmethod
    def _set_trail(order: SimOrder, level: int, market: Market) -> None:
        order.distance = abs(market.last - level)
        order.stop = market.last + order.sign * order.distance

    def _on_price(self, instrument: Instrument) -> None:
        working = self._working.get(instrument.id)
        if not working:
            return
        market = self._markets.get(instrument.id)
        assert market is not None
        for order in list(working.values()):
            if order.status is OrderStatus.OPEN and not self._try_fill(order, market) and order.trails:
                self._follow(order, market.last)

    def _follow(self, order: SimOrder, last: int) -> None:
        assert order.stop is not None
        assert order.distance is not None
        level = last + order.sign * abs(order.distance)
        if (level < order.stop) if order.buys else (level > order.stop):
            order.stop = level
            order.updated = self._clock.epoch()
            self._publish_order(order)

    def _try_fill(self, order: SimOrder, market: Market, *, arriving: bool = False) -> bool:
        """Whether the market filled (some of) the order: at its own price if resting, at the market's if arriving."""
        if not _reached(order, market.last):
            return False
        ticks = market.last
        if order.limit is not None and not arriving:
            ticks = order.limit
        size = min(order.remaining, self._settings.liquidity or order.remaining)
        self.fill(order, size, ticks)
        return True

    def fill(self, order: SimOrder, size: int, ticks: int) -> None:
        """*size* contracts of the order are filled at *ticks*, booked, and everybody has been told."""
        now = self._clock.epoch()
        order.filled += size
        order.paid += size * ticks
        account = self.accounts[order.account_id]
        if order.remaining:
            order.updated = now
            self._publish_order(order)
        else:
            self._end(order, OrderStatus.FILLED)
        trade, position = self.ledger.book(account, order, size, ticks, now)
        action = Action.UPDATE if position.held else Action.DELETE
        self._publish("GatewayUserPosition", position.wire(7), action, account.id)
        self._publish("GatewayUserTrade", trade.wire(7), Action.CREATE, account.id)
        self._publish("GatewayUserAccount", account.wire(), Action.UPDATE, account.id)
        self._judge(account)
        if not order.remaining:
            self._settle_children(order)
            self._cancel_sibling(order)

    def _judge(self, account: SimAccount) -> None:
        """An account that has lost more than it may is in violation: what it has working ends, what it holds stays."""
        limit = account.spec.max_loss
        if limit is None or account.violation or account.balance > account.spec.balance - limit:
            return
        account.violation = True
        for working in list(self._working.values()):
            for order in list(working.values()):
                if order.account_id == account.id:
                    self._end(order, OrderStatus.CANCELLED)

    def expire(self) -> None:
        """Every working order has expired, as at the end of a session."""
        for order in list(self.orders.values()):
            if order.status in _LIVE:
                self._end(order, OrderStatus.EXPIRED)

    def _settle_children(self, order: SimOrder) -> None:
        """The entry has ended: its legs go to work for what was filled, or end with it."""
        for child in reversed(order.children):  # as recorded: the target first
            if child.status is not OrderStatus.SUSPENDED:
                continue
            if not order.filled:
                self._end(child, OrderStatus.CANCELLED)
                continue
            child.size = order.filled
            level = round(order.paid / order.filled) + (child.distance or 0)
            # GUESS: a price given to a leg while it was suspended stands; an experiment on the live gateway would tell.
            if child.type == OrderType.LIMIT:
                child.limit = level if child.limit is None else child.limit
            else:
                child.stop = level if child.stop is None else child.stop
            self._open(child)
            self._publish_order(child)

    def _cancel_sibling(self, order: SimOrder) -> None:
        for sibling in order.parent.children if order.parent else ():
            if sibling is not order and sibling.status in _LIVE:
                self._end(sibling, OrderStatus.CANCELLED)

    def _cancel_resting(self, account_id: int, contract_id: str) -> None:
        for order in list(self._working.get(contract_id, {}).values()):
            if order.account_id == account_id:
                self._end(order, OrderStatus.CANCELLED)

    def _end(self, order: SimOrder, status: OrderStatus) -> None:
        order.status = status
        order.updated = self._clock.epoch()
        self._working.get(order.instrument.id, {}).pop(order.id, None)
        self._publish_order(order)

    ################################################ telling ################################################

    def _publish_order(self, order: SimOrder) -> None:
        self._publish("GatewayUserOrder", order.wire(7), Action.UPDATE, order.account_id)

    def _publish(self, target: str, record: dict[str, object], action: Action, account_id: int) -> None:
        arguments = ({"action": int(action), "data": record},)
        self._bus.publish(Publication(USER_HUB, target, arguments, account_id))


def _reached(order: SimOrder, last: int) -> bool:
    """Whether the market stands where the order fills. A stop-limit that was reached once is a limit from then on."""
    if order.type == OrderType.MARKET:
        return True
    if order.stop is not None and not order.triggered:
        order.triggered = last >= order.stop if order.buys else last <= order.stop
        if not order.triggered:
            return False
    if order.limit is None:
        return True
    return last <= order.limit if order.buys else last >= order.limit
