"""Matching: how working orders meet the market, fill, follow it and end, and who is told."""

from topstep_sync.models import Action, OrderStatus, OrderType
from topstep_sync.simulator.book import SimAccount, SimOrder
from topstep_sync.simulator.bus import USER_HUB, Bus, Publication
from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.ledger import Ledger
from topstep_sync.simulator.market import Market, Markets
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock

LIVE = (OrderStatus.OPEN, OrderStatus.PENDING, OrderStatus.SUSPENDED)


class Matcher:
    """The working orders of all accounts, by contract. Loop thread only.

    Args:
        accounts: every account, by id.
    """

    def __init__(
        self,
        settings: Settings,
        clock: SimClock,
        bus: Bus,
        markets: Markets,
        ledger: Ledger,
        accounts: dict[int, SimAccount],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._markets = markets
        self._ledger = ledger
        self._accounts = accounts
        self._working: dict[str, dict[int, SimOrder]] = {}
        markets.on_price = self._on_price

    def work(self, order: SimOrder, market: Market, trail: int | None) -> None:
        """A pending order has arrived: it works, or is filled. *trail*: a trailing stop's start level in ticks."""
        if order.status is not OrderStatus.PENDING:  # cancelled while in flight
            return
        if order.type == OrderType.JOIN_BID:
            order.limit = market.bid
        elif order.type == OrderType.JOIN_ASK:
            order.limit = market.ask
        elif order.trails and trail is not None:
            set_trail(order, trail, market)
        self._open(order)
        self.meet(order, market)

    def open_orders(self, account_id: int) -> list[SimOrder]:
        """The account's open orders, oldest first."""
        found = [o for working in self._working.values() for o in working.values() if o.account_id == account_id]
        return sorted(found, key=lambda order: order.id)

    def meet(self, order: SimOrder, market: Market) -> None:
        """A new or changed order has been filled, or else told of."""
        order.updated = self._clock.epoch()
        if order.status is not OrderStatus.OPEN or not self._try_fill(order, market, arriving=True):
            self.publish_order(order)

    def _on_price(self, instrument: Instrument) -> None:
        working = self._working.get(instrument.id)
        if not working:
            return
        market = self._markets.get(instrument.id)
        assert market is not None
        for order in sorted(working.values(), key=lambda order: order.id):  # the older order comes first
            if order.status is OrderStatus.OPEN and not self._try_fill(order, market) and order.trails:
                self._follow(order, market.last)

    def _follow(self, order: SimOrder, last: int) -> None:
        assert order.stop is not None
        assert order.distance is not None
        level = last + order.sign * abs(order.distance)
        if (level < order.stop) if order.buys else (level > order.stop):
            order.stop = level
            order.updated = self._clock.epoch()
            self.publish_order(order)

    def _try_fill(self, order: SimOrder, market: Market, *, arriving: bool = False) -> bool:
        """Whether the market filled (some of) the order: at its own price if resting, at the market's if arriving."""
        if not market.priced or not _reached(order, market.last):
            return False
        ticks = market.last
        if order.limited and not arriving:
            assert order.limit is not None
            ticks = order.limit
        size = min(order.remaining, self._settings.liquidity or order.remaining)
        self.fill(order, size, ticks)
        return True

    def fill(self, order: SimOrder, size: int, ticks: int) -> None:
        """*size* contracts of the order are filled at *ticks*, booked, and everybody has been told."""
        now = self._clock.epoch()
        order.filled += size
        order.paid += size * ticks
        account = self._accounts[order.account_id]
        if order.remaining:
            order.updated = now
            self.publish_order(order)
        else:
            self.end(order, OrderStatus.FILLED)
            self._cancel_sibling(order)  # as recorded: before the position and the trade
        trade, position = self._ledger.book(account, order, size, ticks, now)
        action = Action.UPDATE if position.held else Action.DELETE
        self._publish("GatewayUserPosition", position.wire(7), action, account.id)
        self._publish("GatewayUserTrade", trade.wire(7), Action.CREATE, account.id)
        self._publish("GatewayUserAccount", account.wire(), Action.UPDATE, account.id)
        self._judge(account)
        if order.remaining:
            self._shrink_sibling(order, size)
        else:
            self.settle_children(order)

    def _judge(self, account: SimAccount) -> None:
        """An account that has lost more than it may is in violation: what it has working ends, what it holds stays."""
        limit = account.spec.max_loss
        if limit is None or account.violation or account.balance > account.spec.balance - limit:
            return
        account.violation = True
        self._end_all(OrderStatus.CANCELLED, account)

    def expire(self) -> None:
        """Every working order has expired, as at the end of a session."""
        self._end_all(OrderStatus.EXPIRED)

    def _end_all(self, status: OrderStatus, account: SimAccount | None = None, contract_id: str | None = None) -> None:
        for working in list(self._working.values()):
            for order in list(working.values()):
                of_account = account is None or order.account_id == account.id
                if of_account and contract_id in (None, order.instrument.id) and order.status in LIVE:
                    self.end(order, status)
                    self.settle_children(order)

    def _open(self, order: SimOrder) -> None:
        order.status = OrderStatus.OPEN
        order.updated = self._clock.epoch()
        self._working.setdefault(order.instrument.id, {})[order.id] = order

    def settle_children(self, order: SimOrder) -> None:
        """The entry has ended: its legs go to work for what was filled, or end with it."""
        for child in reversed(order.children):  # as recorded: the target first
            if child.status is not OrderStatus.SUSPENDED:
                continue
            if not order.filled:
                self.end(child, OrderStatus.CANCELLED)
                continue
            child.size = order.filled
            level = round(order.paid / order.filled) + (child.distance or 0)
            # GUESS: a price given to a leg while it was suspended stands; an experiment on the live gateway would tell.
            if child.type == OrderType.LIMIT:
                child.limit = level if child.limit is None else child.limit
            else:
                child.stop = level if child.stop is None else child.stop
            self._open(child)
            self.publish_order(child)

    def _shrink_sibling(self, order: SimOrder, size: int) -> None:
        """A leg has filled in part: the other one protects only what is left."""
        # GUESS: nobody has recorded a partial fill of a leg; anything else would let both legs together oversell.
        for sibling in order.parent.children if order.parent else ():
            if sibling is not order and sibling.status in LIVE:
                sibling.size -= min(size, sibling.remaining - 1)
                self.publish_order(sibling)

    def _cancel_sibling(self, order: SimOrder) -> None:
        for sibling in order.parent.children if order.parent else ():
            if sibling is not order and sibling.status in LIVE:
                self.end(sibling, OrderStatus.CANCELLED)

    def cancel_resting(self, account: SimAccount, contract_id: str) -> None:
        """Whatever the account has working in the contract is cancelled."""
        self._end_all(OrderStatus.CANCELLED, account, contract_id)

    def end(self, order: SimOrder, status: OrderStatus) -> None:
        order.status = status
        order.updated = self._clock.epoch()
        self._working.get(order.instrument.id, {}).pop(order.id, None)
        self.publish_order(order)

    ################################################ telling ################################################

    def publish_order(self, order: SimOrder) -> None:
        self._publish("GatewayUserOrder", order.wire(7), Action.UPDATE, order.account_id)

    def _publish(self, target: str, record: dict[str, object], action: Action, account_id: int) -> None:
        arguments = ({"action": int(action), "data": record},)
        self._bus.publish(Publication(USER_HUB, target, arguments, account_id))


def _reached(order: SimOrder, last: int) -> bool:
    """Whether the market stands where the order fills. A stop-limit that was reached once is a limit from then on."""
    if order.stops and not order.triggered:
        assert order.stop is not None
        order.triggered = last >= order.stop if order.buys else last <= order.stop
        if not order.triggered:
            return False
    if not order.limited:
        return True
    assert order.limit is not None
    return last <= order.limit if order.buys else last >= order.limit


def set_trail(order: SimOrder, level: int, market: Market) -> None:
    """The order trails the market by the distance between the two, from *level* on."""
    order.distance = abs(market.last - level)
    order.stop = market.last + order.sign * order.distance
