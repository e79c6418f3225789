"""The gateway's words: enums and records. Source: gateway documentation and swagger, 2026-09.

snake_case here, camelCase on the wire. Unknown fields are ignored and unknown enum values kept, because both appear
over time. A field the gateway left out is `UNSET`, one it sent as null is `None`; neither is ever a zero.
Ids of orders and trades exceed 2³¹. Prices are floats, to be compared in whole ticks. Times are aware; one that comes
without a zone is read as UTC (`read`).
"""

import enum
import re
from datetime import datetime
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from topstep_sync import ticks
from topstep_sync.redact import Secret
from topstep_sync.tables import Shown

################################################## enums ##################################################


class OpenEnum(enum.IntEnum):
    """An integer enum that keeps values it does not know, as `UNKNOWN_<value>`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


class OrderType(OpenEnum):
    """How an order is priced."""

    UNKNOWN = 0
    LIMIT = 1
    MARKET = 2
    STOP_LIMIT = 3
    STOP = 4
    TRAILING_STOP = 5
    JOIN_BID = 6
    JOIN_ASK = 7


class OrderSide(OpenEnum):
    """Buy or sell; the gateway calls them bid and ask."""

    BUY = 0
    SELL = 1


class OrderStatus(OpenEnum):
    """What became of an order so far."""

    NONE = 0
    OPEN = 1
    FILLED = 2
    CANCELLED = 3
    EXPIRED = 4
    REJECTED = 5
    PENDING = 6
    PENDING_CANCELLATION = 7
    SUSPENDED = 8

    @property
    def working(self) -> bool:
        """Whether the order may still fill."""
        return self in (OrderStatus.OPEN, OrderStatus.PENDING, OrderStatus.PENDING_CANCELLATION, OrderStatus.SUSPENDED)


class PositionType(OpenEnum):
    """Which way a position points."""

    UNDEFINED = 0
    LONG = 1
    SHORT = 2


class BarUnit(OpenEnum):
    """What a bar's length is counted in."""

    UNSPECIFIED = 0
    SECOND = 1
    MINUTE = 2
    HOUR = 3
    DAY = 4
    WEEK = 5
    MONTH = 6
    TICK = 7  # swagger of 2026 only; meaning undocumented


class DepthType(OpenEnum):
    """What a line of market depth says."""

    UNKNOWN = 0
    ASK = 1
    BID = 2
    BEST_ASK = 3
    BEST_BID = 4
    TRADE = 5
    RESET = 6
    LOW = 7
    HIGH = 8
    NEW_BEST_BID = 9
    NEW_BEST_ASK = 10
    FILL = 11


class OrderSortField(OpenEnum):
    """What `Order/v2/query` sorts by."""

    CREATED_AT = 0
    ID = 1


class SortDirection(OpenEnum):
    """Which end comes first."""

    ASCENDING = 0
    DESCENDING = 1


class Action(OpenEnum):
    """What a user-hub event did to the record it carries."""

    CREATE = 0
    UPDATE = 1
    DELETE = 2


################################################# the token #################################################


class Token(msgspec.Struct, frozen=True):
    """A bearer and what is known of it. Published by one reference assignment, so it is read without a lock."""

    value: Secret
    generation: int
    """Grows by one with every token of this login; tells an old 401 from a new one."""
    issued_at: float
    """Seconds since 1970."""
    expires_at: float
    """Seconds since 1970."""


################################################# the records #################################################

Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""An instant. Without the zone it would be local time to `datetime`, and not comparable with its like."""


class Record(Shown, msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """What the gateway sends or takes."""


class Account(Record, frozen=True, kw_only=True):
    """A trading account. `simulated` is true for practice *and* evaluation accounts; the name tells them apart."""

    id: int
    name: str
    balance: float
    """Account currency."""
    can_trade: bool
    is_visible: bool
    simulated: bool | UnsetType = UNSET


class Contract(Record, frozen=True, kw_only=True):
    """A futures contract. Ids are opaque: `CON.F.US.ENQ.U26` is the E-mini NASDAQ-100 of September 2026."""

    id: str
    name: str
    description: str
    tick_size: float
    """Smallest price step, in price units."""
    tick_value: float
    """Money per tick and contract."""
    active_contract: bool
    symbol_id: str

    def ticks(self, price: float) -> int:
        """*price* in whole ticks, the nearest; this is how two prices are compared."""
        return ticks.ticks(price, self.tick_size)

    def round(self, price: float) -> float:
        """*price* on the nearest tick, as the float with the shortest decimal."""
        return ticks.nearest(price, self.tick_size)

    def aligned(self, price: float) -> bool:
        """Whether *price* is on a tick."""
        return ticks.aligned(price, self.tick_size)

    def price(self, count: int) -> float:
        """The price that is *count* ticks above zero."""
        return ticks.price_of(count, self.tick_size)

    def money(self, count: float) -> float:
        """What a move of *count* ticks is worth for one contract, in account currency."""
        return count * self.tick_value


class Bar(Shown, msgspec.Struct, frozen=True, gc=False):
    """One bar. `t` is its opening instant."""

    # gc=False: a bar holds no containers, and a year of minutes is 350 000 of them.

    t: Time
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name, and every charting library's
    c: float
    v: int
    """Contracts traded."""


class Order(Record, frozen=True, kw_only=True):
    """An order, as the gateway last knew it."""

    id: int
    account_id: int
    contract_id: str
    creation_timestamp: Time
    update_timestamp: Time | UnsetType | None = UNSET
    status: OrderStatus
    type: OrderType
    side: OrderSide
    size: int
    """Contracts, always positive."""
    symbol_id: str | UnsetType = UNSET
    fill_volume: int | UnsetType | None = UNSET
    limit_price: float | UnsetType | None = UNSET
    stop_price: float | UnsetType | None = UNSET
    filled_price: float | UnsetType | None = UNSET
    custom_tag: str | UnsetType | None = UNSET
    trail_distance: int | UnsetType | None = UNSET
    """Ticks; signed on bracket children."""
    trail_price: float | UnsetType | None = UNSET
    """A *distance* in price units here, though an absolute price where an order is placed."""
    parent_order_id: int | UnsetType | None = UNSET
    linked_order_id: int | UnsetType | None = UNSET

    @property
    def trail_ticks(self) -> int | None:
        """How far a trailing stop trails, as `place` and `modify` take it; `None` for other orders."""
        distance = self.trail_distance
        return abs(distance) if isinstance(distance, int) and self.type is OrderType.TRAILING_STOP else None


class Position(Record, frozen=True, kw_only=True):
    """An open position: one row per account and contract."""

    id: int
    account_id: int
    contract_id: str
    creation_timestamp: Time
    type: PositionType
    size: int
    """Contracts, always positive; `type` is the direction."""
    average_price: float
    contract_display_name: str | UnsetType = UNSET


class Trade(Record, frozen=True, kw_only=True):
    """A half-turn: one fill of one order."""

    id: int
    account_id: int
    contract_id: str
    creation_timestamp: Time
    price: float
    profit_and_loss: float | UnsetType | None = UNSET
    """Account currency, before fees; null for a fill that opened."""
    fees: float
    commissions: float | UnsetType = UNSET
    side: OrderSide
    size: int
    voided: bool
    order_id: int


class Quote(Record, frozen=True, kw_only=True, gc=False):
    """What changed of the best prices. Sparse: a price that is `UNSET` did not change."""

    symbol: str | UnsetType = UNSET
    contract: str | UnsetType = UNSET
    last_price: float | UnsetType | None = UNSET
    best_bid: float | UnsetType | None = UNSET
    best_ask: float | UnsetType | None = UNSET
    change: float | UnsetType | None = UNSET
    change_percent: float | UnsetType | None = UNSET
    open: float | UnsetType | None = UNSET
    high: float | UnsetType | None = UNSET
    low: float | UnsetType | None = UNSET
    volume: float | UnsetType | None = UNSET
    last_updated: Time | UnsetType | None = UNSET
    timestamp: Time | UnsetType | None = UNSET


class MarketTrade(Record, frozen=True, kw_only=True, gc=False):
    """A trade of the market, by anybody."""

    symbol_id: str | UnsetType = UNSET
    contract_id: str | UnsetType = UNSET
    price: float
    timestamp: Time
    type: OrderSide
    """Which side was the aggressor."""
    volume: int


class Depth(Record, frozen=True, kw_only=True, gc=False):
    """A change of the order book. What `volume` and `current_volume` mean apart is undocumented."""

    timestamp: Time | UnsetType = UNSET
    type: DepthType
    price: float
    volume: int
    current_volume: int | UnsetType | None = UNSET


def given(value: Any) -> bool:
    """Whether the gateway sent a value at all: neither left out nor null."""
    return value is not UNSET and value is not None


################################################# reading them #################################################

T = TypeVar("T")

_TIMES: Final = frozenset({"creationTimestamp", "updateTimestamp", "lastUpdated", "timestamp", "t"})
# What .NET writes of a DateTime whose kind is unspecified: its default, year 1, and what a database has no zone of.
_ZONELESS: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?")


def read(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """*value*, as the JSON decoder left it, as a *kind*; times without a zone are taken for UTC.

    Raises:
        msgspec.ValidationError: it is not what the contract says.
    """
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError:
        return msgspec.convert(_zoned(value), kind, strict=strict)


def _zoned(value: Any) -> Any:
    """*value* with the zone of every time that has none. Texts that only look like times stay as they are."""
    if isinstance(value, list):
        return [_zoned(item) for item in value]
    if isinstance(value, dict):
        return {name: _utc(item) if name in _TIMES else _zoned(item) for name, item in value.items()}
    return value


def _utc(value: Any) -> Any:
    return f"{value}Z" if isinstance(value, str) and _ZONELESS.fullmatch(value) else value
