"""What is believed of the accounts, and how it is made true again after a gap (STATE-001).

SignalR replays nothing: what happens while a connection is down is never told. So after every connect a snapshot is
fetched over REST, and what it says beyond the believed state comes out as ordinary events marked `recovered`. Live
events that arrive meanwhile are held, and come after. What happened since the subscription was asked for is delivered
exactly once, recovered or live, even when the gateway itself sends it twice.

Trades have ids. Orders have versions: the time of their last update, their end, and the filled volume. Positions and
accounts have neither, nor do orders within one moment: once the hub has told of one on a connection, it tells the rest,
in order, and the snapshot is not asked about it. So a snapshot must be read in such an order that what the hub sent
before its positions were read is here when it is applied (see `snapshots.fetch`). Where a held event says what the
snapshot says, the gateway's own event is the one that is delivered.
"""

import copy
import itertools
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Final

import msgspec

from topstep_sync.events import AccountEvent, OrderEvent, PositionEvent, TradeEvent
from topstep_sync.models import Account, Action, Order, Position, PositionType, Trade
from topstep_sync.realtime.state import TradingState
from topstep_sync.realtime.versions import Key, account_of, changed_at, dated, is_newer, key_of, lead_of, same

MARGIN: Final = 60.0  # GUESS: seconds by which the gateway's clock may differ from ours
REACH: Final = 86_400.0  # GUESS: seconds for which an order works at most; Topstep ends each trading day flat
_KEPT_ORDERS: Final = 5_000
_KEPT_IDS: Final = 200_000  # of trades, and of finished orders beyond those


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
        self._ended: dict[int, None] = {}  # finished orders of which no version is kept any more, oldest first
        self._working: dict[int, Order] = {}
        self._positions: dict[tuple[int, str], Position] = {}
        self._trades: dict[tuple[int, bool], None] = {}  # delivered: (id, voided), oldest first
        self._before: dict[tuple[int, bool], None] = {}  # the same, of trades of before, which are not delivered
        self._since: dict[int, float] = {}  # watched account → seconds since 1970 from which its events are wanted
        self._known: set[int] = set()  # accounts that a snapshot has told of
        self._holding: frozenset[int] = frozenset()
        self._held: list[Any] = []
        self._unread = 0  # how many of them came before a record that could not be read
        self._old = 0  # how many of them are older than the snapshot under way, whatever else comes
        self._sure = False  # whether a snapshot was applied since the connection was last lost
        self._asking = False  # a snapshot is under way
        self._told: set[Key] = set()  # what live events told of meanwhile
        self._left: set[int] = set()  # accounts that were let go meanwhile, whoever watches them now
        self._heard: set[Key] = set()  # positions and accounts of whose present state an event has told
        self.odd: list[Exception] = []
        """What believing live events raised; for the owner, who takes them out and tells."""

    ################################################ live events ################################################

    def watch(self, account_id: int, epoch: float) -> None:
        """What happens to the account from *epoch* on is wanted, or from an earlier such moment on."""
        self._since[account_id] = min(epoch, self._since.get(account_id, epoch))
        self._publish(self.state.as_of)

    def forget(self, account_id: int) -> None:
        """Nobody watches the account any more."""
        self._since.pop(account_id, None)
        self._known.discard(account_id)
        self._accounts.pop(account_id, None)
        self._orders = {k: v for k, v in self._orders.items() if v.account_id != account_id}
        self._working = {k: v for k, v in self._working.items() if v.account_id != account_id}
        self._positions = {k: v for k, v in self._positions.items() if k[0] != account_id}
        self._heard = {key for key in self._heard if key[1] != account_id}
        self._left.add(account_id)
        self._holding -= {account_id}  # what the hub still sends of it is nobody's, and must not wait to be believed
        kept = [account_of(event) != account_id for event in self._held]
        self._old, self._unread = sum(kept[: self._old]), sum(kept[: self._unread])
        self._held = list(itertools.compress(self._held, kept))
        self._publish(self.state.as_of)

    def asking(self) -> None:
        """A snapshot is asked for now: what live events tell from here on may be newer than what it says."""
        self._asking = True
        self._old, self._unread = max(self._old, self._unread), 0  # the last attempt may have failed
        self._told.clear()
        self._left.clear()

    def hold(self, account_ids: Iterable[int]) -> None:
        """Events of these accounts wait for the snapshot from here on."""
        self._holding |= frozenset(account_ids)

    def doubt(self) -> None:
        """The connection was lost: the believed state may be wrong, and a snapshot under way is of no use."""
        self._asking = False
        self._told.clear()
        self._sure = False
        self._publish(self.state.as_of)

    def missed(self) -> None:
        """What waits need not be the hub's last word: it told, or tells, something that does not get here."""
        self._unread = len(self._held)

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
        """What of *events* is to be delivered now: not duplicates, not what has to wait, not what nobody watches."""
        news = []
        for event in events:
            account_id = account_of(event)
            if account_id in self._holding:
                self._held.append(event)
            elif account_id is None or account_id in self._since:
                if self._asking:
                    self._told.add(key_of(event))
                if self._is_news(event):
                    news.append(event)
        if news:
            self._publish(news[-1].received_epoch)
        return news

    def release(self) -> list[Any]:
        """What of the held events is to be delivered; nothing waits any more."""
        older = self._older()
        held, self._held, self._holding, self._unread = self._held, [], frozenset(), 0
        if older:
            self._publish(older[-1].received_epoch)
        return older + self.live(held)

    def _older(self) -> list[Any]:
        """What is news of the held events that are older than the snapshot under way; they are held no more."""
        older, self._held = self._held[: self._old], self._held[self._old :]
        self._unread, self._old = max(0, self._unread - self._old), 0
        return [event for event in older if self._is_news(event)]

    def _is_news(self, event: Any) -> bool:
        """Whether *event* says something new; if so, it is believed from now on."""
        try:
            return self._believe(event)
        except Exception as error:  # one event that nobody thought of must not take those along that waited with it
            self.odd.append(error)
            return False

    def _believe(self, event: Any) -> bool:
        if isinstance(event, TradeEvent):
            return self._believe_trade(event.data)
        if isinstance(event, OrderEvent):
            return self._believe_order(event.data)
        if isinstance(event, PositionEvent):
            return self._hear(event, self._believe_position(event.data, event.action))
        if isinstance(event, AccountEvent):
            return self._hear(event, self._believe_account(event.data))
        return True

    def _believe_trade(self, trade: Trade) -> bool:
        key = (trade.id, trade.voided)  # a trade is voided under its old id
        if key in self._trades:
            return False
        _remember(self._trades, key)
        return True

    def _believe_order(self, order: Order) -> bool:
        if order.id in self._ended:
            return False
        known = self._orders.get(order.id)
        if known is not None and not is_newer(order, known):
            return False
        self._orders.pop(order.id, None)
        self._orders[order.id] = order
        if order.status.working:
            self._working[order.id] = order
        else:
            self._working.pop(order.id, None)
        if len(self._orders) > _KEPT_ORDERS + len(self._working):
            for key in [key for key in self._orders if key not in self._working][: _KEPT_ORDERS // 10]:
                del self._orders[key]
                _remember(self._ended, key)  # a snapshot that reaches far back tells of it again
        return True

    def _hear(self, event: Any, changed: bool) -> bool:
        """Whether *event* is news: it changes what was believed, or is the first to tell what a snapshot filled in."""
        key = key_of(event)
        news = changed or key not in self._heard
        self._heard.add(key)
        return news

    def _believe_position(self, position: Position, action: Action | None) -> bool:
        """Whether it is another than was believed."""
        key = (position.account_id, position.contract_id)
        if position.size == 0 or action == Action.DELETE:
            return self._positions.pop(key, None) is not None
        known = self._positions.get(key)
        news = known is None or not same(position, known)
        self._positions[key] = position
        return news

    def _believe_account(self, account: Account) -> bool:
        """Whether it is another than was believed."""
        known = self._accounts.get(account.id)
        news = known is None or not same(account, known)
        self._accounts[account.id] = account
        return news

    ################################################# snapshots #################################################

    def since(self, start: float, account_ids: Iterable[int] = ()) -> float:
        """From when a snapshot must tell of orders and trades, in seconds since 1970, if the gap began at *start*.

        An order that was working before the gap is found by its creation, so the oldest of them counts. An account of
        which nothing is known is wanted since it was asked for; the first connection may have taken long. An order
        that was working by then, and ended before the snapshot, may be as old as an order can be.
        """
        asked = [self._since[account_id] - REACH for account_id in self.unknown.intersection(account_ids)]
        created = [order.creation_timestamp for order in self._working.values()]
        working = [moment.timestamp() if dated(moment) else start - REACH for moment in created]
        return min([start, *asked, *working]) - MARGIN

    def apply(self, snapshot: Snapshot, account_ids: Iterable[int], now: float, epoch: float) -> tuple[list[Any], int]:
        """Believe *snapshot*, asked for these accounts; return the events it adds, and how many orders it lost.

        Lost are orders that were working and of which neither the snapshot nor a held event tells. The events bear
        the times given; before them come held ones that are older than the snapshot. Call `release` next. If anything
        is raised, nothing of it is believed.
        """
        before = {name: copy.copy(value) for name, value in vars(self).items()}
        try:
            return self._apply(snapshot, account_ids, now, epoch)
        except BaseException:
            vars(self).update(before)
            raise

    def _apply(self, snapshot: Snapshot, account_ids: Iterable[int], now: float, epoch: float) -> tuple[list[Any], int]:
        asked = set(account_ids) & set(self._since) - self._left
        older = self._older()
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
        self._sure = True
        self._publish(epoch)
        return older + events, lost

    def _held_by_key(self) -> dict[Key, list[Any]]:
        held: dict[Key, list[Any]] = {}
        for event in self._held:
            held.setdefault(key_of(event), []).append(event)
        return held

    def _apply_orders(
        self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]], dated: list[tuple[float, Any]]
    ) -> None:
        for order in _latest(snapshot, asked).values():
            key, known = (OrderEvent, order.id), self._orders.get(order.id)
            told = [event.data for event in held.get(key, ())] + ([known] if known and key in self._told else [])
            if any(lead_of(order, version) <= 0 for version in told):
                continue  # the hub told as much meanwhile, or more; or tells the rest
            changed = changed_at(order)
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
            if not self._is_wanted(trade, at):
                _remember(self._before, (trade.id, trade.voided))
            elif self._believe_trade(trade):
                dated.append((at, TradeEvent(action=Action.CREATE, data=trade)))

    def _is_wanted(self, trade: Trade, at: float) -> bool:
        """Whether *trade*, made at *at*, is to be told, unless it was."""
        if (trade.id, trade.voided) in self._before:
            return False
        if trade.voided and ((trade.id, False) in self._before or (trade.id, False) in self._trades):
            return True  # voiding leaves its time as it was
        # The first snapshot reached a margin further back, so what it did not tell is new, whatever the clocks say.
        return at >= self._since[trade.account_id] - (MARGIN if trade.account_id in self._known else 0.0)

    def _apply_positions(self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]]) -> list[Any]:
        told = {(p.account_id, p.contract_id): p for p in snapshot.positions if p.account_id in asked and p.size}
        flat = {key: _flat(p) for key, p in self._positions.items() if key[0] in asked and key not in told}
        events = []
        for key, position in {**told, **flat}.items():
            if self._hub_tells((PositionEvent, *key), held):
                continue
            known = self._positions.get(key)
            action = Action.DELETE if position.size == 0 else Action.CREATE if known is None else Action.UPDATE
            if self._believe_position(position, action):
                events.append(PositionEvent(action=action, data=position))
        return self._after_a_gap(events)

    def _apply_accounts(self, snapshot: Snapshot, asked: set[int], held: dict[Key, list[Any]]) -> list[Any]:
        events = []
        for account in snapshot.accounts:
            if account.id not in asked or self._hub_tells((AccountEvent, account.id), held):
                continue
            if self._believe_account(account):
                events.append(AccountEvent(action=Action.UPDATE, data=account))
        return self._after_a_gap(events)

    def _hub_tells(self, key: Key, held: dict[Key, list[Any]]) -> bool:
        """Whether the hub has told of it on this connection.

        It tells everything from there on, in order; whether the snapshot is older or newer, nobody can say.
        """
        return key in self._told or key in held

    def _after_a_gap(self, events: list[Any]) -> list[Any]:
        """Those of *events* that are to be told: what changed in a gap is, how all began is not."""
        events = [event for event in events if account_of(event) in self._known or key_of(event) in self._heard]
        self._heard.update(map(key_of, events))
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

    def _publish(self, epoch: float) -> None:
        self.state = TradingState(
            accounts=MappingProxyType(dict(self._accounts)),
            orders=MappingProxyType(dict(self._working)),
            positions=MappingProxyType(dict(self._positions)),
            as_of=epoch,
            reconciled=self._sure and not self.unknown,
        )


def _remember(ids: dict[Any, None], key: Any) -> None:
    """*key* is among *ids*; the oldest are forgotten in time."""
    ids[key] = None
    if len(ids) > _KEPT_IDS:
        for oldest in list(ids)[: _KEPT_IDS // 10]:
            del ids[oldest]


def _latest(snapshot: Snapshot, asked: set[int]) -> dict[int, Order]:
    """The orders of a snapshot; its two lists are of two moments, the second later, and the later version counts."""
    found: dict[int, Order] = {}
    for order in (*snapshot.open_orders, *snapshot.orders):
        if order.account_id in asked and (order.id not in found or is_newer(order, found[order.id])):
            found[order.id] = order
    return found


def _flat(position: Position) -> Position:
    return msgspec.structs.replace(position, type=PositionType.UNDEFINED, size=0)
