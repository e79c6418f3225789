"""What is believed of the accounts, and how it is made true again after a gap (STATE-001).

SignalR replays nothing: what happens while a connection is down is never told. So after every connect a snapshot is
fetched over REST, and what it says beyond the believed state comes out as ordinary events marked `recovered`. Live
events that arrive meanwhile are held, and come after. What happened since the subscription was asked for is delivered
exactly once, recovered or live, even when the gateway itself sends it twice.

Trades have ids. Orders have versions: status, filled volume, and the time of their last update. Positions and
accounts have neither; they are compared as they are. Where a held event says what the snapshot says, the gateway's
own event is the one that is delivered.
"""

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Final

import msgspec

from topstep_sync.events import AccountEvent, OrderEvent, PositionEvent, TradeEvent
from topstep_sync.models import Account, Action, Order, OrderStatus, Position, PositionType, Trade, given
from topstep_sync.realtime.state import TradingState

MARGIN: Final = 60.0  # GUESS: seconds by which the gateway's clock may differ from ours
_SAME_INSTANT: Final = 0.002  # seconds; the hub sends 7 digits, REST 6, and either may round
_SAME_PRICE: Final = 1e-9
_KEPT_ORDERS: Final = 5_000
_KEPT_TRADES: Final = 200_000

# How far an order has come, where two versions bear the same time. Anything else is an end.
_PROGRESS: Final = {
    OrderStatus.NONE: 0,
    OrderStatus.PENDING: 1,
    OrderStatus.SUSPENDED: 2,
    OrderStatus.OPEN: 3,
    OrderStatus.PENDING_CANCELLATION: 4,
}
_END: Final = 5

Key = tuple[Any, ...]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What REST says about some accounts."""

    accounts: list[Account] = []
    open_orders: list[Order] = []
    """Every order that may still fill: open, pending and suspended."""
    positions: list[Position] = []
    orders: list[Order] = []
    """Every order created since the time that was asked for, whatever became of it."""
    trades: list[Trade] = []
    """Every trade since the time that was asked for."""


class Reconciler:
    """The believed state of the user hub. Belongs to one thread; `state` may be read by any."""

    def __init__(self) -> None:
        self.state = TradingState()
        self._accounts: dict[int, Account] = {}
        self._orders: dict[int, Order] = {}  # the last known version, of finished ones too; latest change last
        self._working: dict[int, Order] = {}
        self._positions: dict[tuple[int, str], Position] = {}
        self._trades: dict[tuple[int, bool], None] = {}  # delivered: (id, voided), oldest first
        self._since: dict[int, float] = {}  # watched account → seconds since 1970 from which its events are wanted
        self._known: set[int] = set()  # accounts that a snapshot has told of
        self._holding: frozenset[int] = frozenset()
        self._held: list[Any] = []
        self._asking = False  # a snapshot is under way
        self._told: set[Key] = set()  # what live events told of meanwhile

    ################################################ live events ################################################

    def watch(self, account_id: int, epoch: float) -> None:
        """What happens to the account from *epoch* on is wanted; an earlier such moment stays."""
        self._since.setdefault(account_id, epoch)
        self._publish(self.state.as_of, self.state.reconciled)

    def forget(self, account_id: int) -> None:
        """Nobody watches the account any more."""
        self._since.pop(account_id, None)
        self._known.discard(account_id)
        self._accounts.pop(account_id, None)
        self._orders = {k: v for k, v in self._orders.items() if v.account_id != account_id}
        self._working = {k: v for k, v in self._working.items() if v.account_id != account_id}
        self._positions = {k: v for k, v in self._positions.items() if k[0] != account_id}
        self._publish(self.state.as_of, self.state.reconciled)

    def asking(self) -> None:
        """A snapshot is asked for now: what live events tell from here on may be newer than what it says."""
        self._asking = True
        self._told.clear()

    def hold(self, account_ids: Iterable[int]) -> None:
        """Events of these accounts wait for the snapshot from here on."""
        self._holding |= frozenset(account_ids)

    def doubt(self) -> None:
        """The connection was lost: the believed state may be wrong."""
        self._publish(self.state.as_of, reconciled=False)

    @property
    def holding(self) -> frozenset[int]:
        """The accounts whose live events wait."""
        return self._holding

    @property
    def watched(self) -> set[int]:
        """The accounts that somebody watches."""
        return set(self._since)

    @property
    def unknown(self) -> set[int]:
        """Watched accounts that no snapshot has told of."""
        return set(self._since) - self._known

    def live(self, events: Iterable[Any]) -> list[Any]:
        """What of *events* is to be delivered now: neither duplicates nor what has to wait."""
        news = []
        for event in events:
            if account_of(event) in self._holding:
                self._held.append(event)
            else:
                if self._asking:
                    self._told.add(_key(event))
                if self._is_news(event):
                    news.append(event)
        if news:
            self._publish(news[-1].received_epoch, self.state.reconciled)
        return news

    def release(self) -> list[Any]:
        """What of the held events is to be delivered; nothing waits any more."""
        held, self._held, self._holding = self._held, [], frozenset()
        return self.live(held)

    def _is_news(self, event: Any) -> bool:
        """Whether *event* says something new; if so, it is believed from now on."""
        if isinstance(event, TradeEvent):
            return self._believe_trade(event.data)
        if isinstance(event, OrderEvent):
            return self._believe_order(event.data)
        if isinstance(event, PositionEvent):
            return self._believe_position(event.data, event.action)
        if isinstance(event, AccountEvent):
            return self._believe_account(event.data)
        return True

    def _believe_trade(self, trade: Trade) -> bool:
        key = (trade.id, trade.voided)  # a trade is voided under its old id
        if key in self._trades:
            return False
        self._trades[key] = None
        if len(self._trades) > _KEPT_TRADES:
            for oldest in list(self._trades)[: _KEPT_TRADES // 10]:
                del self._trades[oldest]
        return True

    def _believe_order(self, order: Order) -> bool:
        known = self._orders.pop(order.id, None)
        if known is not None and not is_newer(order, known):
            self._orders[order.id] = known
            return False
        self._orders[order.id] = order
        if order.status.working:
            self._working[order.id] = order
        else:
            self._working.pop(order.id, None)
        if len(self._orders) > _KEPT_ORDERS + len(self._working):
            for key in [key for key in self._orders if key not in self._working][: _KEPT_ORDERS // 10]:
                del self._orders[key]
        return True

    def _believe_position(self, position: Position, action: Action | None) -> bool:
        key = (position.account_id, position.contract_id)
        if position.size == 0 or action == Action.DELETE:
            # Flat after flat is a repetition, unless nothing was known of the account.
            return self._positions.pop(key, None) is not None or position.account_id not in self._known
        known = self._positions.get(key)
        self._positions[key] = position
        return known is None or not same(position, known)

    def _believe_account(self, account: Account) -> bool:
        known = self._accounts.get(account.id)
        self._accounts[account.id] = account
        return known is None or not same(account, known)

    ################################################# snapshots #################################################

    def since(self, start: float, account_ids: Iterable[int] = ()) -> float:
        """From when a snapshot must tell of orders and trades, in seconds since 1970, if the gap began at *start*.

        An order that was working before the gap is found by its creation, so the oldest of them counts. An account of
        which nothing is known is wanted since it was asked for; the first connection may have taken long.
        """
        asked = [self._since[account_id] for account_id in self.unknown.intersection(account_ids)]
        return min([start, *asked, *(o.creation_timestamp.timestamp() for o in self._working.values())]) - MARGIN

    def apply(self, snapshot: Snapshot, account_ids: Iterable[int], now: float, epoch: float) -> tuple[list[Any], int]:
        """Believe *snapshot*, asked for these accounts; return the events it adds, and how many orders it lost.

        Lost are orders that were working and of which neither the snapshot nor a held event tells. The events bear
        the times given. Call `release` next.
        """
        asked = set(account_ids) & set(self._since)
        held = self._held_by_key()
        dated: list[tuple[float, Any]] = []
        self._apply_orders(snapshot, asked, held, dated)
        self._apply_trades(snapshot, asked, held, dated)
        events = [event for _, event in sorted(dated, key=lambda pair: pair[0])]
        events += self._apply_positions(snapshot, asked, held)
        events += self._apply_accounts(snapshot, asked, held)
        lost = self._lose_orders(snapshot, asked, held)
        self._known |= asked
        self._asking = False
        self._told.clear()
        for event in events:
            event.recovered, event.received_at, event.received_epoch = True, now, epoch
        self._publish(epoch, reconciled=True)
        return events, lost

    def _held_by_key(self) -> dict[Key, list[Any]]:
        held: dict[Key, list[Any]] = {}
        for event in self._held:
            held.setdefault(_key(event), []).append(event)
        return held

    def _apply_orders(
        self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]], dated: list[tuple[float, Any]]
    ) -> None:
        for order in _latest(snapshot, asked).values():
            told = held.get((OrderEvent, order.id), ())
            if any(not is_newer(order, event.data) for event in told):
                continue  # a held event knows as much, or more
            known = self._orders.get(order.id)
            changed = _changed(order)
            if self._believe_order(order) and (known is not None or changed >= self._since[order.account_id]):
                action = Action.CREATE if known is None else Action.UPDATE
                dated.append((changed, OrderEvent(action=action, data=order)))

    def _apply_trades(
        self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]], dated: list[tuple[float, Any]]
    ) -> None:
        for trade in snapshot.trades:
            if trade.account_id not in asked or (TradeEvent, trade.id, trade.voided) in held:
                continue
            at = trade.creation_timestamp.timestamp()
            if at >= self._since[trade.account_id] and self._believe_trade(trade):
                dated.append((at, TradeEvent(action=Action.CREATE, data=trade)))

    def _apply_positions(self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]]) -> list[Any]:
        told = {(p.account_id, p.contract_id): p for p in snapshot.positions if p.account_id in asked and p.size}
        flat = {key: _flat(p) for key, p in self._positions.items() if key[0] in asked and key not in told}
        events = []
        for key, position in {**told, **flat}.items():
            waiting = held.get((PositionEvent, *key), ())
            if (PositionEvent, *key) in self._told or any(same(event.data, position) for event in waiting):
                continue  # the gateway's own events tell it, in order
            known = self._positions.get(key)
            action = Action.DELETE if position.size == 0 else Action.CREATE if known is None else Action.UPDATE
            if self._believe_position(position, action) and key[0] in self._known:
                events.append(PositionEvent(action=action, data=position))
        return events

    def _apply_accounts(self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]]) -> list[Any]:
        events = []
        for account in snapshot.accounts:
            if account.id not in asked:
                continue
            waiting = held.get((AccountEvent, account.id), ())
            if (AccountEvent, account.id) in self._told or any(same(event.data, account) for event in waiting):
                continue
            if self._believe_account(account) and account.id in self._known:
                events.append(AccountEvent(action=Action.UPDATE, data=account))
        return events

    def _lose_orders(self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]]) -> int:
        told = _latest(snapshot, asked)
        lost = [
            order.id
            for order in self._working.values()
            if order.account_id in asked
            and order.id not in told
            and (OrderEvent, order.id) not in held
            and (OrderEvent, order.id) not in self._told
        ]
        for key in lost:
            del self._working[key], self._orders[key]
        return len(lost)

    def _publish(self, epoch: float, reconciled: bool) -> None:
        self.state = TradingState(
            accounts=MappingProxyType(dict(self._accounts)),
            orders=MappingProxyType(dict(self._working)),
            positions=MappingProxyType(dict(self._positions)),
            as_of=epoch,
            reconciled=reconciled and not self.unknown,
        )


def account_of(event: Any) -> int | None:
    """The account a user event is about."""
    if isinstance(event, AccountEvent):
        return event.data.id
    data = getattr(event, "data", None)
    return getattr(data, "account_id", None)


def is_newer(order: Order, known: Order) -> bool:
    """Whether *order* is a later version of *known*; False for the same one."""
    # The hub leaves out what is null, the time of the update included; its creation is no stand-in for that.
    if given(order.update_timestamp) == given(known.update_timestamp):
        ahead = _changed(order) - _changed(known)
        if abs(ahead) > _SAME_INSTANT:
            return ahead > 0
    progress, before = (_PROGRESS.get(o.status, _END) for o in (order, known))
    filled, filled_before = (o.fill_volume if given(o.fill_volume) else 0 for o in (order, known))
    if (progress, filled) != (before, filled_before):
        return (progress, filled) > (before, filled_before)
    return not same(order, known)


def same(one: Any, other: Any) -> bool:
    """Whether two records say the same, in all that both tell and times aside.

    The hub leaves out what is null, and REST may know fields the hub does not; neither is a difference.
    """
    for name in one.__struct_fields__:
        if name.endswith("_timestamp") or name == "contract_display_name":
            continue
        left, right = getattr(one, name), getattr(other, name)
        if not given(left) or not given(right) or left == right:
            continue
        if not (isinstance(left, float) and isinstance(right, float) and abs(left - right) < _SAME_PRICE):
            return False
    return True


def _changed(order: Order) -> float:
    """When the order last changed, in seconds since 1970."""
    updated = order.update_timestamp
    return (updated if given(updated) else order.creation_timestamp).timestamp()  # type: ignore[union-attr]


def _latest(snapshot: Snapshot, asked: set[int]) -> dict[int, Order]:
    """The orders of a snapshot; its two lists are of two moments, and the later version counts."""
    found: dict[int, Order] = {}
    for order in (*snapshot.orders, *snapshot.open_orders):
        if order.account_id in asked and (order.id not in found or is_newer(order, found[order.id])):
            found[order.id] = order
    return found


def _flat(position: Position) -> Position:
    return msgspec.structs.replace(position, type=PositionType.UNDEFINED, size=0)


def _key(event: Any) -> Key:
    """What tells whether two events are about the same thing."""
    if isinstance(event, PositionEvent):
        return (PositionEvent, event.data.account_id, event.data.contract_id)
    if isinstance(event, TradeEvent):
        return (TradeEvent, event.data.id, event.data.voided)
    return (type(event), event.data.id)
