"""A gateway of a page: what `Session.call` would do, without sockets, on a clock that a test moves.

It knows the rules that matter to an order (a tag is taken once; legs wait for their entry) and executes each accepted
request once. Faults are put in front of it: `faults[path]` is a list of names, used up from the front.
"""

import itertools
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync import errors
from topstep_sync.clock import ManualClock
from topstep_sync.codes import failure
from topstep_sync.events import Event, OrderEvent
from topstep_sync.models import (
    Account,
    Bar,
    BarUnit,
    Contract,
    Order,
    OrderSide,
    OrderStatus,
    OrderType,
    Position,
    PositionType,
    Trade,
)

MNQ = Contract(
    id="CON.F.US.MNQ.Z26", name="MNQZ6", description="Micro E-mini Nasdaq-100: December 2026", tick_size=0.25,
    tick_value=0.5, active_contract=True, symbol_id="F.US.MNQ",
)  # fmt: skip
MNQ_OLD = replace(MNQ, id="CON.F.US.MNQ.U26", name="MNQU6", active_contract=False)
MES = replace(MNQ, id="CON.F.US.MES.Z26", name="MESZ6", symbol_id="F.US.MES", tick_value=1.25)
ACCOUNT = 536


class Hub(queue.Queue[Event]):
    """A queue of events whose waits pass on the model's clock."""

    def __init__(self, model: "GatewayModel") -> None:
        super().__init__()
        self._model = model

    def get(self, block: bool = True, timeout: float | None = None) -> Event:
        end = self._model.clock.monotonic() + (timeout or 0.0)
        while True:
            try:
                return super().get(block=False)
            except queue.Empty:
                if not self._model.pass_time(end):
                    raise


class GatewayModel:
    """Its `call` is what `Session.call` is to the rooms."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock(auto=True)
        self.accounts = [
            Account(id=ACCOUNT, name="PRAC-V2-536", balance=150000.0, can_trade=True, is_visible=True, simulated=True),
            Account(id=704, name="50KTC-V2-704", balance=50000.0, can_trade=True, is_visible=True, simulated=True),
        ]
        self.contracts = [MNQ, MNQ_OLD, MES]
        self.orders: dict[int, Order] = {}
        self.positions: dict[tuple[int, str], Position] = {}
        self.trades: list[Trade] = []
        self.bars: list[Bar] = []
        self.last = {MNQ.id: 21000.0, MES.id: 6000.0}
        self.calls: list[tuple[str, Any]] = []
        self.options: list[dict[str, Any]] = []
        self.faults: dict[str, list[str]] = {}
        self.late: list[tuple[float, Callable[[], Any]]] = []
        self.ids = itertools.count(9056)
        self.hub_open = False
        self.hubs: list[Hub] = []
        self.executed: list[str] = []
        self.missing: set[str] = set()
        self.reject: tuple[int, str | None] | None = None
        self.forgetful = False  # takes a tag twice, which the gateway never does: then only the client can be careful

    ############################################ the seam ############################################

    def call(self, path: str, request: Any, reply: Any, **options: Any) -> Any:
        self.calls.append((path, request))
        self.options.append(options)
        name = path.rpartition("/api/")[2]
        fault = self.faults.get(name, []) and self.faults[name].pop(0)
        self.pass_time(self.clock.monotonic() + 0.001)
        if name in self.missing:
            raise errors.PermanentError(f"{path}: 404", status_code=404, endpoint=path)
        if fault and fault not in ("lost", "500-after", "truncated", "late", "silent", "taken"):
            raise self.error(fault, path)
        work = lambda: getattr(self, "do_" + name.replace("/", "_").lower())(request)  # noqa: E731
        if fault == "late":
            self.late.append((self.clock.monotonic() + 8.0, work))
            raise errors.ReplyTimedOut("no reply", endpoint=path, attempts=1)
        code, message, fields = work()
        if fault == "silent":
            return reply(success=True, error_code=0)
        if fault:
            raise self.error(fault, path)
        if code:
            raise failure(path, code, message, **fields)
        return reply(success=True, error_code=0, error_message=None, **fields)

    @staticmethod
    def error(fault: str, path: str) -> BaseException:
        unknown = {"status_code": 500, "endpoint": path, "attempts": 1}
        made: dict[str, Callable[[], BaseException]] = {
            "lost": lambda: errors.ReplyLost("lost", endpoint=path, attempts=1),
            "dropped": lambda: errors.ReplyLost("lost before it arrived", endpoint=path, attempts=1),
            "500": lambda: errors.TransientError("500", **unknown),
            "500-after": lambda: errors.TransientError("500", **unknown),
            "502": lambda: errors.TransientError("502", **{**unknown, "status_code": 502}),
            "truncated": lambda: errors.BadReply("half a reply", **{**unknown, "status_code": 200}),
            "409": lambda: errors.PermanentError("409", status_code=409, endpoint=path),
            "400": lambda: errors.PermanentError("400", status_code=400, endpoint=path),
            "401": lambda: errors.AuthenticationError("401", status_code=401, endpoint=path, attempts=2),
            "429": lambda: errors.RateLimited("429", status_code=429, endpoint=path, attempts=1),
            "refused": lambda: errors.ConnectFailed("refused", endpoint=path, attempts=1),
            "open": lambda: errors.CircuitOpen("open", endpoint=path),
            "taken": lambda: failure(path, 2, "Specified custom tag is already in use", attempts=1),
            "ctrl-c": lambda: KeyboardInterrupt(),
            "bug": lambda: ZeroDivisionError("a bug"),
        }
        return made[fault]()

    @contextmanager
    def listen(self, account_id: int) -> Iterator[Hub | None]:
        if not self.hub_open:
            yield None
            return
        hub = Hub(self)
        self.hubs.append(hub)
        yield hub
        self.hubs.remove(hub)

    def pass_time(self, until: float) -> bool:
        """Live until *until*, or until something happened before; whether something did."""
        due = sorted((entry for entry in self.late if entry[0] <= until), key=lambda entry: entry[0])
        if due:
            self.late.remove(due[0])
            self.clock.advance(max(0.0, due[0][0] - self.clock.monotonic()))
            due[0][1]()
            return True
        self.clock.advance(max(0.0, until - self.clock.monotonic()))
        return False

    def now(self) -> datetime:
        self.pass_time(self.clock.monotonic())
        while self.late and min(self.late, key=lambda entry: entry[0])[0] <= self.clock.monotonic():
            self.pass_time(self.clock.monotonic())
        return datetime.fromtimestamp(self.clock.epoch(), UTC)

    ############################################ the exchange ############################################

    def put(self, order: Order) -> None:
        self.orders[order.id] = order
        for hub in self.hubs:
            hub.put(OrderEvent(data=order))

    def of(self, account_id: int) -> list[Order]:
        return [order for order in self.orders.values() if order.account_id == account_id]

    def do_order_place(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        now = self.now()
        if r.account_id not in {account.id for account in self.accounts}:
            return 1, None, {}
        if r.contract_id not in {contract.id for contract in self.contracts}:
            return 8, None, {}
        if not self.forgetful and any(order.custom_tag == r.custom_tag for order in self.of(r.account_id)):
            return 2, "Specified custom tag is already in use", {}
        refusal, status = self.reject, OrderStatus.FILLED if r.type is OrderType.MARKET else OrderStatus.OPEN
        if refusal:
            status = OrderStatus.REJECTED
        order = Order(
            id=next(self.ids), account_id=r.account_id, contract_id=r.contract_id, creation_timestamp=now,
            status=status, type=r.type, side=r.side, size=r.size, custom_tag=r.custom_tag,
            limit_price=r.limit_price, stop_price=r.stop_price,
            fill_volume=r.size if status is OrderStatus.FILLED else 0,
        )  # fmt: skip
        self.executed.append(r.custom_tag)
        self.put(order)
        if refusal:
            return refusal[0], refusal[1], {"order_id": order.id}
        if status is OrderStatus.FILLED:
            self.fill(order)
        for leg, suffix in ((r.stop_loss_bracket, "-SL"), (r.take_profit_bracket, "-TP")):
            if leg is not UNSET:
                child = replace(
                    order, id=next(self.ids), side=OrderSide(1 - r.side), type=leg.type, status=OrderStatus.SUSPENDED,
                    custom_tag=r.custom_tag + suffix, parent_order_id=order.id, fill_volume=0,
                )  # fmt: skip
                self.put(child)
        return 0, None, {"order_id": order.id}

    def fill(self, order: Order) -> None:
        key = (order.account_id, order.contract_id)
        held = self.positions.pop(key, None)
        net = 0 if held is None else held.size if held.type is PositionType.LONG else -held.size
        net += order.size if order.side is OrderSide.BUY else -order.size
        if net:
            self.positions[key] = Position(
                id=6124, account_id=key[0], contract_id=key[1], creation_timestamp=self.now(), size=abs(net),
                type=PositionType.LONG if net > 0 else PositionType.SHORT, average_price=self.last[key[1]],
            )  # fmt: skip

    def complete(self, order_id: int, status: OrderStatus = OrderStatus.FILLED) -> None:
        """The order ends, as the market or another program would end it."""
        order = self.orders[order_id]
        self.put(replace(order, status=status, fill_volume=order.size if status is OrderStatus.FILLED else 0))
        if status is OrderStatus.FILLED:
            self.fill(order)

    def find(self, r: Any) -> Order | None:
        order = self.orders.get(r.order_id)
        return order if order is not None and order.account_id == r.account_id else None

    def do_order_cancel(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        order = self.find(r)
        if order is None:
            return 2, None, {}
        if not order.status.working:
            return 3, None, {}
        self.executed.append(f"cancel {order.id}")
        self.put(replace(order, status=OrderStatus.CANCELLED))
        return 0, None, {}

    def do_order_modify(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        order = self.find(r)
        if order is None:
            return 2, None, {}
        if not order.status.working:
            return 3, None, {}
        names = [n for n in ("size", "limit_price", "stop_price") if getattr(r, n) not in (UNSET, None)]
        self.executed.append(f"modify {order.id}")
        self.put(replace(order, **{name: getattr(r, name) for name in names}))
        return 0, None, {}

    def do_order_search(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        found = [order for order in self.of(r.account_id) if order.creation_timestamp >= r.start_timestamp]
        return 0, None, {"orders": [order for order in found if order.status is not OrderStatus.SUSPENDED]}

    def do_order_searchopen(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        return 0, None, {"orders": [order for order in self.of(r.account_id) if order.status is OrderStatus.OPEN]}

    def do_order_searchbyid(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        order = self.find(r)
        return (1, None, {}) if order is None else (0, None, {"order": order})

    def do_order_v2_query(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        wanted = r.filter
        found = [
            order for order in self.of(wanted.account_id)
            if (wanted.statuses is UNSET or order.status in wanted.statuses)
            and wanted.contract_id in (UNSET, order.contract_id)
        ]  # fmt: skip
        return 0, None, {
            "orders": found[r.page_offset : r.page_offset + r.page_size], "total_count": len(found),
        }  # fmt: skip

    def do_account_search(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        return 0, None, {"accounts": list(self.accounts)}

    def do_contract_search(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        found = [] if r.live else [c for c in self.contracts if r.search_text.lower() in c.id.lower()]
        return 0, None, {"contracts": found[:20]}

    def do_contract_available(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        return 0, None, {"contracts": [] if r.live else [c for c in self.contracts if c.active_contract]}

    def do_contract_searchbyid(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        found = [contract for contract in self.contracts if contract.id == r.contract_id]
        return (0, None, {"contract": found[0]}) if found else (1, None, {})

    def do_position_searchopen(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        return 0, None, {"positions": [p for p in self.positions.values() if p.account_id == r.account_id]}

    def do_position_closecontract(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        if self.positions.pop((r.account_id, r.contract_id), None) is None:
            return 2, None, {}
        self.executed.append(f"close {r.contract_id}")
        return 0, None, {}

    def do_position_partialclosecontract(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        self.now()
        held = self.positions.get((r.account_id, r.contract_id))
        if held is None:
            return 2, None, {}
        if r.size > held.size:
            return 5, None, {}
        self.executed.append(f"partial {r.contract_id} {r.size}")
        if r.size == held.size:
            del self.positions[r.account_id, r.contract_id]
        else:
            self.positions[r.account_id, r.contract_id] = replace(held, size=held.size - r.size)
        return 0, None, {}

    def do_trade_search(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        return 0, None, {"trades": [trade for trade in self.trades if trade.account_id == r.account_id][::-1]}

    def do_history_retrievebars(self, r: Any) -> tuple[int, str | None, dict[str, Any]]:
        if r.contract_id not in {contract.id for contract in self.contracts} or r.live:
            return 1, None, {"bars": None}
        if r.unit is BarUnit.UNSPECIFIED:
            return 2, None, {}
        found = [bar for bar in self.bars if r.start_time <= bar.t <= r.end_time]
        return 0, None, {"bars": found[::-1][: r.limit]}
