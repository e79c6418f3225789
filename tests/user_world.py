"""A gateway in one thread: its exchange, the wire of its user hub, its REST; and a client's feed at the other end.

Everything happens when it is told to: a message waits on the wire until it is delivered, a snapshot is read part by
part while the exchange goes on. So any interleaving can be played, and each is the same every time.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from topstep_sync.clock import ManualClock
from topstep_sync.events import AccountEvent, OrderEvent, PositionEvent, Reconnected, StreamEvent, TradeEvent
from topstep_sync.models import Account, Action, Order, OrderStatus, Position, PositionType, Trade
from topstep_sync.realtime.feeds import Route
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.user_feed import UserFeed

CONTRACTS = ("CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26")
HOLD = 2.0
KINDS: dict[type, type] = {Account: AccountEvent, Order: OrderEvent, Position: PositionEvent, Trade: TradeEvent}


def working(order: Order) -> bool:
    return order.status.working


class Exchange:
    """The truth, and its whole history."""

    def __init__(self, clock: ManualClock, ahead: float) -> None:
        self._clock, self.ahead = clock, ahead
        self.orders: dict[int, Order] = {}
        self.trades: dict[int, Trade] = {}
        self.accounts = {n: Account(id=n, name="PRAC", balance=0.0, can_trade=True, is_visible=True) for n in (5, 6)}
        self.positions: dict[tuple[int, str], Position] = {}
        self.history: list[Any] = []  # every version of everything
        self.publish: Callable[[Any], None] = lambda record: None
        self._number = 0

    def next(self) -> int:
        self._number += 1
        return self._number

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.epoch() + self.ahead, UTC)

    def tell(self, record: Any) -> None:
        self.history.append(record)
        self.publish(record)

    def place(self, account: int, contract: str, size: int = 2) -> None:
        number = self.next()
        self.orders[number] = order = Order(
            id=number, account_id=account, contract_id=contract, creation_timestamp=self.now(),
            status=OrderStatus.PENDING, type=1, side=0, size=size, fill_volume=0, limit_price=0.0,
        )  # fmt: skip
        self.tell(order)
        self.change(number, status=OrderStatus.OPEN)

    def change(self, number: int, after: float = 0.01, **fields: Any) -> None:
        self._clock.advance(after)
        self.orders[number] = replace(self.orders[number], update_timestamp=self.now(), **fields)
        self.tell(self.orders[number])

    def fill(self, number: int) -> None:
        order = self.orders[number]
        filled = (order.fill_volume or 0) + 1  # type: ignore[operator]
        done = filled >= order.size
        self.change(number, fill_volume=filled, status=OrderStatus.FILLED if done else OrderStatus.OPEN)
        self.trade(order)
        held = self.positions.get((order.account_id, order.contract_id))
        self.hold(order.account_id, order.contract_id, 1 if held is None else held.size + 1)

    def trade(self, order: Order) -> None:
        number = self.next()
        self.trades[number] = Trade(
            id=number, account_id=order.account_id, contract_id=order.contract_id, creation_timestamp=self.now(),
            price=1.0, fees=0.1, side=0, size=1, voided=False, order_id=order.id,
        )  # fmt: skip
        self.tell(self.trades[number])
        account = self.accounts[order.account_id]
        self.accounts[account.id] = replace(account, balance=account.balance - 0.25 * self.next())
        self.tell(self.accounts[account.id])

    def void(self, number: int) -> None:
        self.trades[number] = replace(self.trades[number], voided=True)
        self.tell(self.trades[number])

    def hold(self, account: int, contract: str, size: int) -> None:
        """The average price is another each time, so that every version can be told from every other."""
        kind = PositionType.LONG if size else PositionType.UNDEFINED
        position = Position(
            id=1, account_id=account, contract_id=contract, creation_timestamp=self.now(), type=kind, size=size,
            average_price=float(self.next()),
        )  # fmt: skip
        if size:
            self.positions[account, contract] = position
        else:
            self.positions.pop((account, contract), None)
        self.tell(position)


class Reading:
    """A snapshot that is read part by part, in the order of `snapshots.fetch`."""

    PARTS = 5
    POSITIONS = 3

    def __init__(self, exchange: Exchange, accounts: list[int], since: float, done: Callable[[Any], None]) -> None:
        self._exchange, self._accounts, self._since, self._done = exchange, set(accounts), since, done
        self._parts: list[list[Any]] = []
        self.overtaken: list[Any] = []

    def step(self, wire: list[Any]) -> bool:
        """One more part was read; whether that was the last. What is on the *wire* by then is `overtaken`."""
        exchange, wanted = self._exchange, self._accounts
        part = len(self._parts)
        if part <= self.POSITIONS:
            self.overtaken = list(wire)
        rows: Any = (
            exchange.accounts.values(),
            [o for o in exchange.orders.values() if working(o)],
            [o for o in exchange.orders.values() if o.creation_timestamp.timestamp() >= self._since],
            exchange.positions.values(),
            [t for t in exchange.trades.values() if t.creation_timestamp.timestamp() >= self._since],
        )[part]
        self._parts.append([as_rest_tells(row) for row in rows if account_of(row) in wanted])
        return part + 1 == self.PARTS

    def finish(self) -> None:
        accounts, open_orders, orders, positions, trades = self._parts
        self._done(
            Snapshot(accounts=accounts, open_orders=open_orders, orders=orders, positions=positions, trades=trades)
        )

    def fail(self) -> None:
        self._done(OSError("REST is down"))


def account_of(record: Any) -> int:
    return int(record.id if isinstance(record, Account) else record.account_id)


def as_rest_tells(record: Any) -> Any:
    """REST says what the hub says, in other words: null where the hub says nothing, times of fewer digits."""
    if isinstance(record, Order):
        updated = record.update_timestamp
        rounded = updated + timedelta(microseconds=1) if isinstance(updated, datetime) else None
        limit = record.limit_price if isinstance(record.limit_price, float) else None
        return replace(record, update_timestamp=rounded, limit_price=limit, custom_tag=None)
    if isinstance(record, Position):
        moment = record.creation_timestamp + timedelta(microseconds=1)
        return replace(record, creation_timestamp=moment, contract_display_name="MNQZ6")
    return replace(record, simulated=True) if isinstance(record, Account) else record


def version_of(record: Any) -> tuple[Any, ...]:
    """What tells it from every other record, whoever tells of it."""
    if isinstance(record, Order):
        limit = record.limit_price if isinstance(record.limit_price, float) else None
        return (Order, record.id, record.status, record.fill_volume, limit)
    if isinstance(record, Position):
        return (Position, record.account_id, record.contract_id, record.size, record.average_price)
    return (type(record), record.id, record.balance if isinstance(record, Account) else record.voided)


def key_of(record: Any) -> tuple[Any, ...]:
    if isinstance(record, Position):
        return (Position, record.account_id, record.contract_id)
    return (type(record), record.id)


class World:
    """The exchange, the feed, and what lies between them.

    *ahead* is the gateway's clock; *off* our error about it, which we only know by what REST last replied.
    """

    def __init__(self, ahead: float = 0.0, off: float = 0.0) -> None:
        self.clock = ManualClock()
        self.exchange = Exchange(self.clock, ahead)
        self.exchange.publish = self._publish
        self._off, self._skew = off, ahead + off
        self.feed = UserFeed(self.clock, self._fetch, HOLD, lambda: self._skew)
        self.feed.aside = self._read
        self.feed.sure = self._sure
        self.feed.agreed = lambda account: account in self.standing
        self.queue = EventQueue(clock=self.clock)
        self.standing: set[int] = set()  # accounts whose events go onto the wire
        self.wire: list[tuple[tuple[float, float], Any]] = []  # (when, record): what the hub sent, and nobody has yet
        self.received: list[Any] = []  # records that the hub delivered, each once
        self.readings: list[Reading] = []
        self.told: list[Any] = []
        self.told_others: set[Any] = set()  # trades that whoever let an account go was told
        self.watched: dict[int, int] = {}  # account → how much had happened before; no clock tells that as well
        self.up = False
        self._lost_at: float | None = None
        self._result: Any = None
        self.watch(5)

    ################################################ between the two ################################################

    def _publish(self, record: Any) -> None:
        if account_of(record) in self.standing:
            self.wire.append(((self.clock.monotonic(), self.clock.epoch()), record))

    def _sure(self) -> tuple[float, float]:
        """While something is on the wire, nothing that was sent later can have been heard."""
        return self.wire[0][0] if self.wire else (self.clock.monotonic(), self.clock.epoch())

    def _fetch(self, accounts: list[int], since: float) -> Snapshot:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result  # type: ignore[no-any-return]

    def _read(self, work: Any) -> None:
        """Instead of a thread: what is asked for is read step by step, and then the work is done in one go."""
        _, _, accounts, since = work.args

        def done(result: Any) -> None:
            self._result = result
            work()

        self.readings.append(Reading(self.exchange, accounts, since, done))

    ################################################### the moves ###################################################

    def watch(self, account: int) -> None:
        self.watched.setdefault(account, len(self.exchange.history))
        self.feed.routes = (Route(self.queue, frozenset(self.watched), True),)
        self.feed.watch([account])
        self.turn()

    def forget(self, account: int) -> None:
        """Nobody wants it any more; what is on the wire comes all the same."""
        if self.watched.pop(account, None) is not None:
            self.feed.routes = (Route(self.queue, frozenset(self.watched), True),)
            self.feed.forget([account])
            self.standing.discard(account)
            self.received = [record for record in self.received if account_of(record) != account]
            self.turn()
            # Whoever wants it next is somebody else, who was told nothing.
            self.told_others |= {(t.id, t.voided) for t in self.records(Trade) if t.account_id == account}
            self.told = [e for e in self.told if isinstance(e, StreamEvent) or account_of(e.data) != account]

    def subscribe(self, account: int) -> None:
        """The hub has answered the subscriptions of an account; the answer is behind all that it sent before."""
        if account not in self.standing:
            self.deliver(len(self.wire))
            self.standing.add(account)
        self.turn()

    def jump(self, seconds: float) -> None:
        """Somebody sets our wall clock; the time of the exchange goes on."""
        self.clock.jump(seconds)
        self.exchange.ahead -= seconds

    def connect(self, agreed: bool = True) -> None:
        """Subscriptions stand one by one, here or by `subscribe`; what happens in between is on the wire already."""
        if self.up:
            return
        self.feed.changed(State.CONNECTING if self._lost_at is None else State.RECONNECTING, None)
        self.up = True
        self.standing = set(self.watched) if agreed else set()

    def establish(self) -> None:
        if self.up and self.feed._up is False:
            for account in self.watched:
                self.subscribe(account)
            self.feed.changed(State.CONNECTED, None)
            self.feed.established(self._lost_at, self.clock.epoch())
            self._lost_at = None
            self.turn()

    def drop(self) -> None:
        if not self.up:
            return
        self.up = False
        if self.feed._up:
            self._lost_at = self._sure()[1]
        self.feed.changed(State.RECONNECTING, "lost")
        self.wire.clear()
        self.standing.clear()

    def deliver(self, count: int = 1, twice: bool = False) -> None:
        for _, record in self.wire[:count]:
            if account_of(record) in self.watched:
                self.received.append(record)
            for _ in range(1 + twice):
                self._take(record)
        del self.wire[:count]
        self.turn()

    def garble(self, count: int = 1) -> None:
        """The next messages cannot be read."""
        for _ in self.wire[:count]:
            self.feed.missed()
            self.wire.pop(0)
        self.turn()

    def _take(self, record: Any) -> None:
        flat = isinstance(record, Position) and record.size == 0
        event = KINDS[type(record)](action=Action.DELETE if flat else Action.UPDATE, data=record)
        self.feed.take([event], self.clock.monotonic(), self.clock.epoch())

    def read(self, steps: int = 1) -> None:
        """Another *steps* parts of the latest snapshot were read. The last takes a round trip to the gateway, in which
        the hub's messages arrive that the part about positions has overtaken."""
        for _ in range(steps):
            if not self.readings:
                break
            done = self.readings[-1].step(self.wire)
            self._skew = self.exchange.ahead + self._off
            if done:
                reading = self.readings.pop()
                ahead = [sent for sent in self.wire if any(sent is other for other in reading.overtaken)]
                self.deliver(len(ahead))
                reading.finish()
        self.turn()

    def fail(self) -> None:
        if self.readings:
            self.readings.pop().fail()
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        if self.up:
            self.feed.due(self.clock.monotonic())
        self.told += self.queue.drain()

    def settle(self) -> None:
        """Connected, everything delivered, nothing left to ask."""
        self.connect()
        self.deliver(len(self.wire))
        self.establish()
        for _ in range(4):
            self.read(Reading.PARTS * len(self.readings))
            self.deliver(len(self.wire))
            self.turn(31.0)
        assert not self.readings

    ################################################## what must hold ##################################################

    def records(self, kind: type) -> list[Any]:
        return [event.data for event in self.told if isinstance(event, KINDS[kind])]

    def check(self) -> None:
        """Everything since the subscription was told once, in order, and the state is the truth."""
        self._check_trades()
        self._check_orders()
        self._check_positions()
        self._check_state()
        assert all(event.reconciled or event.lost == 0 for event in self.told if isinstance(event, Reconnected))

    def _since(self, kind: type) -> list[Any]:
        return [
            record
            for number, record in enumerate(self.exchange.history)
            if isinstance(record, kind) and number >= self.watched.get(account_of(record), float("inf"))
        ]

    def _check_trades(self) -> None:
        told = Counter((t.id, t.voided) for t in self.records(Trade))
        assert [] == [key for key, count in told.items() if count > 1], "told twice"
        # One of before the subscription may still come in; told to whoever was subscribed then, it is not told again.
        heard = {(t.id, t.voided) for t in self.received if isinstance(t, Trade)} - self.told_others
        # Of a trade that was voided before anybody could tell it, only that is told. That an old one was voided while
        # the hub was away is nowhere to be found: it bears its old time.
        made = {(t.id, False) for t in self._since(Trade) if not t.voided and (t.id, True) not in told}
        assert set() == (made | heard) - set(told), "never told"

    def _check_orders(self) -> None:
        number = {version_of(record): n for n, record in enumerate(self.exchange.history)}
        told: dict[int, list[int]] = {}
        for order in self.records(Order):
            told.setdefault(order.id, []).append(number[version_of(order)])
        for versions in told.values():
            assert sorted(set(versions)) == versions, "went back, or was told twice"
        for order in {order.id: order for order in self._since(Order)}.values():
            assert [number[version_of(order)]] == told.get(order.id, [])[-1:], "the last version was never told"

    def _check_positions(self) -> None:
        """Versions are told from each other by their price; flat ones that were made up have an older one's."""
        order = {p.average_price: n for n, p in enumerate(self.exchange.history) if isinstance(p, Position)}
        last: dict[Any, int] = {}
        for position in self.records(Position):
            key, number = key_of(position), order[position.average_price]
            made_up = position.size == 0 and self.exchange.history[number].size
            assert number >= last.get(key, -1) if made_up else number > last.get(key, -1), "went back, or told twice"
            last[key] = number
        told = Counter((p.average_price, p.size) for p in self.records(Position))
        heard = [p for p in self.received if isinstance(p, Position) and p.size]
        assert [] == [p for p in heard if told[p.average_price, p.size] != 1], "came in, and was not told once"
        for position in {key_of(p): p for p in self.records(Position)}.values():
            place = (position.account_id, position.contract_id)
            assert position.size == (self.exchange.positions[place].size if place in self.exchange.positions else 0)

    def _check_state(self) -> None:
        state, exchange = self.feed.reconciler.state, self.exchange
        assert state.reconciled or not self.watched, "there was nobody to ask for"
        for true, believed in (
            (filter(working, exchange.orders.values()), state.orders),
            (exchange.positions.values(), state.positions),
            (exchange.accounts.values(), state.accounts),
        ):
            watched = {version_of(record) for record in true if account_of(record) in self.watched}
            assert watched == set(map(version_of, believed.values()))
