"""The exchange's own records, and how each looks on the wire."""

from dataclasses import dataclass, field
from typing import Any

from topstep_sync.models import OrderSide, OrderStatus, OrderType, PositionType
from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.settings import AccountSpec
from topstep_sync.simulator.wire import wire_time


@dataclass(slots=True)
class SimAccount:
    """An account and its money."""

    spec: AccountSpec
    balance: float
    can_trade: bool
    auto_oco: bool
    follower: bool
    violation: bool
    tags: set[str] = field(default_factory=set)
    """Every custom tag ever used, also by orders that were refused."""
    orders: "list[SimOrder]" = field(default_factory=list)
    """Every order ever, oldest first."""

    @classmethod
    def of(cls, spec: AccountSpec) -> "SimAccount":
        return cls(spec, spec.balance, spec.can_trade, spec.auto_oco, spec.follower, spec.violation)

    @property
    def id(self) -> int:
        return self.spec.id

    def wire(self) -> dict[str, Any]:
        return {
            "id": self.spec.id,
            "name": self.spec.name,
            "balance": round(self.balance, 2),
            "canTrade": self.can_trade,
            "isVisible": True,
            "simulated": self.spec.simulated,
        }


@dataclass(slots=True, eq=False)
class SimOrder:
    """An order. Levels are whole ticks; `created` and `updated` seconds since 1970."""

    id: int
    account_id: int
    instrument: Instrument
    created: float
    type: int
    side: int
    size: int
    status: OrderStatus = OrderStatus.PENDING
    updated: float = 0.0
    limit: int | None = None
    stop: int | None = None
    filled: int = 0
    paid: int = 0
    """Sum of ticks × contracts over all fills."""
    custom_tag: str | None = None
    distance: int | None = None
    """Ticks: the trail of a trailing stop, or the signed distance of a bracket's leg from its entry."""
    parent_id: int | None = None
    linked_id: int | None = None
    triggered: bool = False
    """Whether the market has reached the stop."""
    children: "list[SimOrder]" = field(default_factory=list)
    parent: "SimOrder | None" = None

    @property
    def buys(self) -> bool:
        return self.side == OrderSide.BUY

    @property
    def sign(self) -> int:
        return 1 if self.buys else -1

    @property
    def remaining(self) -> int:
        return self.size - self.filled

    @property
    def trails(self) -> bool:
        return self.type == OrderType.TRAILING_STOP

    @property
    def stops(self) -> bool:
        """Whether it waits for its stop; a stop price that another type carries means nothing."""
        return self.type in (OrderType.STOP, OrderType.TRAILING_STOP, OrderType.STOP_LIMIT)

    @property
    def limited(self) -> bool:
        """Whether its limit binds; a limit price that another type carries means nothing."""
        return self.type in (OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.JOIN_BID, OrderType.JOIN_ASK)

    def wire(self, digits: int = 6) -> dict[str, Any]:
        price = self.instrument.price
        average = None if not self.filled else round(self.paid / self.filled * self.instrument.root.tick_size, 9)
        return {
            "id": self.id,
            "accountId": self.account_id,
            "contractId": self.instrument.id,
            "symbolId": self.instrument.symbol_id,
            "creationTimestamp": wire_time(self.created, digits),
            "updateTimestamp": wire_time(self.updated or self.created, digits),
            "status": int(self.status),
            "type": self.type,
            "side": self.side,
            "size": self.size,
            "limitPrice": None if self.limit is None else price(self.limit),
            "stopPrice": None if self.stop is None else price(self.stop),
            "fillVolume": self.filled,
            "filledPrice": average,
            "customTag": self.custom_tag,
            "trailDistance": self.distance,
            "trailPrice": None if self.distance is None else price(self.distance),
            "parentOrderId": self.parent_id,
            "linkedOrderId": self.linked_id,
        }


@dataclass(slots=True)
class SimPosition:
    """What an account holds of a contract. `held` is signed; `average` in ticks."""

    id: int
    account_id: int
    instrument: Instrument
    created: float
    held: int = 0
    average: float = 0.0

    def wire(self, digits: int = 6) -> dict[str, Any]:
        kind = PositionType.LONG if self.held > 0 else PositionType.SHORT if self.held < 0 else PositionType.UNDEFINED
        return {
            "id": self.id,
            "accountId": self.account_id,
            "contractId": self.instrument.id,
            "contractDisplayName": self.instrument.display_name,
            "creationTimestamp": wire_time(self.created, digits),
            "type": int(kind),
            "size": abs(self.held),
            "averagePrice": round(self.average * self.instrument.root.tick_size, 9),
        }


@dataclass(slots=True, frozen=True)
class SimTrade:
    """One fill. `profit` is gross of fees and None where the fill opened."""

    id: int
    account_id: int
    instrument: Instrument
    created: float
    ticks: int
    profit: float | None
    fees: float
    commissions: float
    side: int
    size: int
    order_id: int

    def wire(self, digits: int = 6) -> dict[str, Any]:
        return {
            "id": self.id,
            "accountId": self.account_id,
            "contractId": self.instrument.id,
            "creationTimestamp": wire_time(self.created, digits),
            "price": self.instrument.price(self.ticks),
            "profitAndLoss": self.profit,
            "fees": self.fees,
            "commissions": self.commissions,
            "side": self.side,
            "size": self.size,
            "voided": False,
            "orderId": self.order_id,
        }
