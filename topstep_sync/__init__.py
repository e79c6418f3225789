"""A synchronous, thread-based client for the ProjectX Gateway API that TopstepX traders use."""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from topstep_sync.auth.token_manager import TokenManager
    from topstep_sync.auth.token_policy import TokenState
    from topstep_sync.auth.token_storage import TokenStorage
    from topstep_sync.clock import Clock, Deadline, ManualClock, SystemClock
    from topstep_sync.config import Config
    from topstep_sync.errors import (
        APIError,
        Category,
        Fate,
        OrderStateUnknown,
        PermanentError,
        TopstepError,
        TransientError,
    )
    from topstep_sync.events import (
        AccountEvent,
        BookReset,
        ConnectionEvent,
        DepthEvent,
        Event,
        Gap,
        OrderEvent,
        PositionEvent,
        QuoteEvent,
        Reconnected,
        SessionConflict,
        SubscriptionFailed,
        TradeEvent,
        TradesEvent,
    )
    from topstep_sync.http.circuit_breaker import CircuitBreaker
    from topstep_sync.http.rate_limiter import RateLimiter
    from topstep_sync.http.retry import ErrorHandler
    from topstep_sync.models import (
        Account,
        Action,
        Bar,
        BarUnit,
        Contract,
        Depth,
        DepthType,
        MarketTrade,
        Order,
        OrderSide,
        OrderStatus,
        OrderType,
        Position,
        PositionType,
        Quote,
        Token,
        Trade,
    )
    from topstep_sync.realtime.connection import SignalRConnectionManager
    from topstep_sync.realtime.queue import EventQueue
    from topstep_sync.realtime.reconcile import Reconciler
    from topstep_sync.redact import Secret
    from topstep_sync.session import Session

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "Account",
    "AccountEvent",
    "Action",
    "Bar",
    "BarUnit",
    "BookReset",
    "Category",
    "CircuitBreaker",
    "Clock",
    "Config",
    "ConnectionEvent",
    "Contract",
    "Deadline",
    "Depth",
    "DepthEvent",
    "DepthType",
    "ErrorHandler",
    "Event",
    "EventQueue",
    "Fate",
    "Gap",
    "ManualClock",
    "MarketTrade",
    "Order",
    "OrderEvent",
    "OrderSide",
    "OrderStateUnknown",
    "OrderStatus",
    "OrderType",
    "PermanentError",
    "Position",
    "PositionEvent",
    "PositionType",
    "Quote",
    "QuoteEvent",
    "RateLimiter",
    "Reconciler",
    "Reconnected",
    "Secret",
    "Session",
    "SessionConflict",
    "SignalRConnectionManager",
    "SubscriptionFailed",
    "SystemClock",
    "Token",
    "TokenManager",
    "TokenState",
    "TokenStorage",
    "TopstepError",
    "Trade",
    "TradeEvent",
    "TradesEvent",
    "TransientError",
]

# Public names are looked up when first used, so that a program pays only for the rooms it enters.
_ROOMS: Final = {
    "auth.token_manager": ("TokenManager",),
    "auth.token_policy": ("TokenState",),
    "auth.token_storage": ("TokenStorage",),
    "clock": ("Clock", "Deadline", "ManualClock", "SystemClock"),
    "config": ("Config",),
    "errors": ("APIError", "Category", "Fate", "OrderStateUnknown", "PermanentError", "TopstepError", "TransientError"),
    "events": (
        "AccountEvent", "BookReset", "ConnectionEvent", "DepthEvent", "Event", "Gap", "OrderEvent",
        "PositionEvent", "QuoteEvent", "Reconnected", "SessionConflict", "SubscriptionFailed", "TradeEvent",
        "TradesEvent",
    ),
    "http.circuit_breaker": ("CircuitBreaker",),
    "http.rate_limiter": ("RateLimiter",),
    "http.retry": ("ErrorHandler",),
    "models": (
        "Account", "Action", "Bar", "BarUnit", "Contract", "Depth", "DepthType", "MarketTrade", "Order",
        "OrderSide", "OrderStatus", "OrderType", "Position", "PositionType", "Quote", "Token", "Trade",
    ),
    "realtime.connection": ("SignalRConnectionManager",),
    "realtime.queue": ("EventQueue",),
    "realtime.reconcile": ("Reconciler",),
    "redact": ("Secret",),
    "session": ("Session",),
}  # fmt: skip

_ROOM_OF: Final = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
