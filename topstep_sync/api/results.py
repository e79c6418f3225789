"""What the typed calls give back where the gateway's own records do not say enough."""

import enum
from typing import Self

from msgspec import UNSET, UnsetType

from topstep_sync.api.intent import State
from topstep_sync.messages import Bracket, PlaceOrder
from topstep_sync.models import Order, OrderSide, OrderStatus, OrderType, Position, Record


class PlacedOrder(Record, frozen=True, kw_only=True):
    """An order that the gateway has: what was asked for, and the id it got."""

    id: int
    custom_tag: str
    account_id: int
    contract_id: str
    side: OrderSide
    size: int
    type: OrderType
    limit_price: float | UnsetType | None = UNSET
    stop_price: float | UnsetType | None = UNSET
    trail_price: float | UnsetType | None = UNSET
    stop_loss_bracket: Bracket | UnsetType | None = UNSET
    take_profit_bracket: Bracket | UnsetType | None = UNSET
    record: Order | UnsetType = UNSET
    """The order as it was found, where the reply was lost and it had to be looked up."""

    @classmethod
    def of(cls, request: PlaceOrder, order_id: int, record: Order | UnsetType = UNSET) -> Self:
        tag = request.custom_tag
        assert isinstance(tag, str), "no order is placed without its tag"
        return cls(
            id=order_id,
            custom_tag=tag,
            account_id=request.account_id,
            contract_id=request.contract_id,
            side=request.side,
            size=request.size,
            type=request.type,
            limit_price=request.limit_price,
            stop_price=request.stop_price,
            trail_price=request.trail_price,
            stop_loss_bracket=request.stop_loss_bracket,
            take_profit_bracket=request.take_profit_bracket,
            record=record,
        )


class Change(enum.Enum):
    """What a cancellation or a change came to."""

    DONE = "done"  # the gateway confirmed it
    ALREADY = "already"  # it was so before: nothing was left to do
    TOO_LATE = "too late"  # the order ended otherwise first


class CancelResult(Record, frozen=True, kw_only=True):
    """What became of a cancellation, and of the order. True where the order does not work any more."""

    order_id: int
    account_id: int
    change: Change
    status: OrderStatus
    """As read back; CANCELLED where the gateway simply confirmed."""
    order: Order | UnsetType = UNSET
    """The order as it was read back, where it was."""


class ModifyResult(Record, frozen=True, kw_only=True):
    """What became of a change."""

    order_id: int
    account_id: int
    change: Change
    order: Order | UnsetType = UNSET
    """The order as it was read back, where it was."""


class CloseResult(Record, frozen=True, kw_only=True):
    """What became of closing a position, wholly or in part."""

    account_id: int
    contract_id: str
    change: Change
    position: Position | UnsetType | None = UNSET
    """What is left, by the gateway's word or as read back; `None` when flat."""
    cancelled: tuple[int, ...] = ()
    """Ids of the orders that were swept."""
    orders_left: tuple[Order, ...] = ()
    """Orders that still work after the sweep."""
    swept: bool = False
    """Whether a sweep was asked for and its end read back."""


class Recovered(Record, frozen=True, kw_only=True):
    """What became of an intent that an earlier process left open."""

    custom_tag: str
    account_id: int
    state: State
    """accepted or rejected: see `order`; absent: there is no such order; unknown: the look-ups failed, ask again."""
    order: Order | UnsetType = UNSET
    error: str | UnsetType = UNSET
    """Why it is unknown."""


class Failure(Record, frozen=True, kw_only=True):
    """One thing that could not be done, and why."""

    what: str
    error: str


class Report(Record, frozen=True, kw_only=True):
    """What a sweep did, and what it could not do. True when everything is as it was asked to be."""

    account_id: int
    cancelled: tuple[int, ...] = ()
    """Ids of the orders whose cancellation was confirmed."""
    closed: tuple[str, ...] = ()
    """Ids of the contracts whose positions are gone after they were closed here."""
    orders_left: tuple[Order, ...] = ()
    positions_left: tuple[Position, ...] = ()
    failures: tuple[Failure, ...] = ()
    verified: bool = False
    """Whether the end was read back from the gateway; without it, what is left is not known."""

    def __bool__(self) -> bool:
        return self.verified and not self.orders_left and not self.positions_left
