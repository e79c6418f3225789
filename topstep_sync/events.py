"""What comes out of an event queue.

Market events: `QuoteEvent`, `TradesEvent`, `DepthEvent`. User events: `AccountEvent`, `OrderEvent`, `PositionEvent`,
`TradeEvent`. About the stream itself: `ConnectionEvent`, `Reconnected`, `Gap`, `BookReset`, `SessionConflict`,
`SubscriptionFailed`. Each has a `kind`, the `hub` it came from, and `received_at`.
"""

from typing import ClassVar

import msgspec

from topstep_sync.models import Account, Action, Depth, MarketTrade, Order, Position, Quote, Trade


class Event(msgspec.Struct, kw_only=True, gc=False):
    """What every event has. Not frozen: the hub's thread stamps it before anybody sees it; read-only afterwards."""

    kind: ClassVar[str] = ""
    hub: ClassVar[str] = ""
    received_at: float = 0.0
    """Seconds of the monotonic clock at which the message was complete."""
    received_epoch: float = 0.0
    """The same instant in seconds since 1970."""
    recovered: bool = False
    """True when it comes from the reconciliation after a gap, not from the hub."""
    first_at: float | None = None
    """Where quotes were merged into one: the `received_at` of the oldest of them."""


# A market event is decoded straight from the two arguments of the invocation that brings it, hence array_like and
# the two fields in front; it costs no second object. gc=False: these trees hold no cycles, and there are many.
class MarketEvent(Event, array_like=True, gc=False):
    """What every event of the market hub has."""

    hub: ClassVar[str] = "market"
    contract_id: str


class QuoteEvent(MarketEvent, array_like=True, gc=False):
    """The best prices changed. Conflated for a slow consumer: `data` is then the merged image.

    `received_at` is then that of the freshest quote in it, and `first_at` that of the oldest.
    """

    kind: ClassVar[str] = "quote"
    data: Quote


class TradesEvent(MarketEvent, array_like=True, gc=False):
    """Trades of the market, oldest first."""

    kind: ClassVar[str] = "trades"
    data: list[MarketTrade]


class DepthEvent(MarketEvent, array_like=True, gc=False):
    """Changes of the order book, oldest first."""

    kind: ClassVar[str] = "depth"
    data: list[Depth]


class UserEvent(Event, kw_only=True):
    """What every event of the user hub has."""

    hub: ClassVar[str] = "user"
    action: Action | None = None
    """Null where the gateway sent the record without its envelope."""


class AccountEvent(UserEvent, kw_only=True):
    """An account's balance or permission changed."""

    kind: ClassVar[str] = "account"
    data: Account


class OrderEvent(UserEvent, kw_only=True):
    """An order came about, changed or ended."""

    kind: ClassVar[str] = "order"
    data: Order


class PositionEvent(UserEvent, kw_only=True):
    """A position changed; size 0 and action DELETE when it went flat."""

    kind: ClassVar[str] = "position"
    data: Position


class TradeEvent(UserEvent, kw_only=True):
    """A fill of one of the user's orders."""

    kind: ClassVar[str] = "trade"
    data: Trade


############################################ about the stream itself ############################################


class StreamEvent(Event, kw_only=True):
    """What every event about the stream itself has."""

    source: str = ""
    """The hub it is about: ``user`` or ``market``."""


class ConnectionEvent(StreamEvent, kw_only=True):
    """A hub connection changed its state."""

    kind: ClassVar[str] = "connection"
    state: str
    reason: str | None = None


class Reconnected(StreamEvent, kw_only=True):
    """The connection is back, subscribed, and (user hub) reconciled."""

    kind: ClassVar[str] = "reconnected"
    gap_start: float
    """Seconds since 1970 from which on something was missed: just before the last byte that was read."""
    gap_end: float
    """Seconds since 1970 at which the subscriptions stood again."""
    recovered_count: int = 0
    """Differences found by reconciliation and delivered as events before this one."""
    lost: int = 0
    """Orders that were working before the gap and of which the gateway tells nothing any more."""
    reconciled: bool = False
    """False when the hub needs no reconciliation, or it has not succeeded yet."""


class Gap(StreamEvent, kw_only=True):
    """Market trades were dropped because the consumer was too slow."""

    kind: ClassVar[str] = "gap"
    contract_id: str
    count: int


class BookReset(StreamEvent, kw_only=True):
    """Depth updates were dropped: the book of this contract must be built anew."""

    kind: ClassVar[str] = "book_reset"
    contract_id: str
    count: int


class SessionConflict(StreamEvent, kw_only=True):
    """The gateway said GatewayLogout: another program of this user, or a token that died."""

    kind: ClassVar[str] = "session_conflict"
    reason: str | None = None


class SubscriptionFailed(StreamEvent, kw_only=True):
    """The hub refused one subscription; the others stand."""

    kind: ClassVar[str] = "subscription_failed"
    target: str
    argument: str | None = None
    reason: str
