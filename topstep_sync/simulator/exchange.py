"""The exchange: accepts, fills, trails and cancels orders against the market, and publishes what happens."""

import functools
import itertools
from collections.abc import Callable, Sequence

from topstep_sync.messages import Bracket, ModifyOrder, PlaceOrder
from topstep_sync.models import OrderSide, OrderStatus, OrderType, given
from topstep_sync.simulator.book import SimAccount, SimOrder
from topstep_sync.simulator.bus import Bus
from topstep_sync.simulator.catalogue import Catalogue, Instrument
from topstep_sync.simulator.ledger import Ledger
from topstep_sync.simulator.market import Market, Markets
from topstep_sync.simulator.matching import LIVE, Matcher, set_trail
from topstep_sync.simulator.rules import Circumstances, Refusal, refuse_account, refuse_modify, refuse_place
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock

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
        self._ids = itertools.count(settings.first_order_id)
        self.reset()

    def reset(self) -> None:
        """Accounts and books are as at the start, without orders. Order ids go on: none is used twice."""
        self.accounts = {spec.id: SimAccount.of(spec) for spec in self._settings.accounts}
        self.orders = {}
        self.ledger = Ledger(self._settings.first_order_id + _TRADE_IDS_AFTER)
        self._matcher = Matcher(self._settings, self._clock, self._bus, self._markets, self.ledger, self.accounts)

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
        last = market.last if market and market.priced else None
        here = Circumstances(account, instrument, last, self.trading(), held)
        refusal = refuse_place(request, here, self._settings)
        order = self._record(request, instrument)
        if refusal:
            self._matcher.end(order, OrderStatus.REJECTED)
            return order.id, refusal
        assert market is not None  # an active contract has a market
        self._add_brackets(order, request)
        # As recorded: the stop, the entry, the target.
        for one in (*order.children[:1], order, *order.children[1:]):
            self._matcher.publish_order(one)
        trail = instrument.ticks(request.trail_price) if given(request.trail_price) else None  # type: ignore[arg-type]
        arrive = functools.partial(self._matcher.work, order, market, trail)
        if self._settings.fill_delay:
            self._clock.call_later(self._settings.fill_delay, arrive)
        else:
            arrive()
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
        if order.status not in LIVE:
            return Refusal(3)
        self._matcher.end(order, OrderStatus.CANCELLED)
        self._matcher.settle_children(order)
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
        if not text and given(request.trail_price) and not (market and market.priced):
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
            self._matcher.cancel_resting(account, contract_id)
        return 0

    def order(self, account_id: int, order_id: int) -> SimOrder | None:
        """That order of that account."""
        order = self.orders.get(order_id)
        return order if order is not None and order.account_id == account_id else None

    def fill(self, order: SimOrder, size: int, ticks: int) -> None:
        """*size* contracts of the working order are filled at *ticks*, booked, and everybody has been told."""
        self._matcher.fill(order, size, ticks)

    def expire(self) -> None:
        """Every working order has expired, as at the end of a session."""
        self._matcher.expire()

    def orders_of(self, account_id: int) -> Sequence[SimOrder]:
        """The account's orders, oldest first."""
        return self.accounts[account_id].orders

    def open_orders(self, account_id: int) -> list[SimOrder]:
        """The account's orders of status 1, oldest first."""
        return self._matcher.open_orders(account_id)

    def _remember(self, order: SimOrder) -> None:
        self.orders[order.id] = order
        self.accounts[order.account_id].orders.append(order)

    ############################################## making them ##############################################

    def _record(self, request: PlaceOrder, instrument: Instrument) -> SimOrder:
        ticks = instrument.ticks
        order = SimOrder(
            next(self._ids), request.account_id, instrument, self._clock.epoch(), int(request.type), int(request.side),
            request.size,
            limit=ticks(request.limit_price) if given(request.limit_price) else None,  # type: ignore[arg-type]
            stop=ticks(request.stop_price) if given(request.stop_price) else None,  # type: ignore[arg-type]
            custom_tag=request.custom_tag if given(request.custom_tag) else None,  # type: ignore[arg-type]
        )  # fmt: skip
        self._remember(order)
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
            self._remember(child)

    def _change(self, order: SimOrder, request: ModifyOrder, market: Market) -> None:
        ticks = order.instrument.ticks
        if given(request.size):
            order.size = request.size  # type: ignore[assignment]
        if given(request.limit_price):
            order.limit = ticks(request.limit_price)  # type: ignore[arg-type]
        if given(request.stop_price):
            order.stop, order.triggered = ticks(request.stop_price), False  # type: ignore[arg-type]
        if given(request.trail_price) and order.trails:
            set_trail(order, ticks(request.trail_price), market)  # type: ignore[arg-type]
        self._matcher.meet(order, market)
