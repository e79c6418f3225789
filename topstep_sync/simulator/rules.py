"""Why an order is refused: every rule of Order/place and Order/modify, with the gateway's own words.

Sources of the texts: gateway documentation 2026-09 and several clients' field reports of 2025 and 2026.
"""

from typing import Final, NamedTuple

from topstep_sync.messages import Bracket, ModifyOrder, PlaceOrder
from topstep_sync.models import OrderSide, OrderType, given
from topstep_sync.simulator.book import SimAccount
from topstep_sync.simulator.catalogue import Instrument
from topstep_sync.simulator.settings import Settings

# Codes of Order/place; Order/modify says 3 wherever place says 2.
REJECTED, VIOLATION, NOT_ACTIVE, ACCOUNT_REJECTED = 2, 4, 9, 10

MAX_SIZE: Final = 1_000_000
MAX_TRAIL: Final = 1000
MIN_BRACKET: Final = 4

CLOSED_TEXTS: Final = {
    "2026": "Trading is currently unavailable. The instrument is not in an active trading status.",
    "2025": "Outside of trading hours.",
}
FUNDS_TEXT: Final = "Not enough margin."
FOLLOWER_TEXT: Final = "Follower accounts cannot cancel orders"
LIVE_TEXT: Final = "Live accounts not supported"
MODE_TEXT: Final = "Brackets cannot be used with Position Brackets. You must enable Auto OCO Brackets."
TAG_TEXT: Final = "Specified custom tag is already in use"
SIZE_TEXT: Final = "Invalid order size specified"

_TYPES: Final = (
    OrderType.LIMIT, OrderType.MARKET, OrderType.STOP, OrderType.TRAILING_STOP, OrderType.JOIN_BID, OrderType.JOIN_ASK,
)  # fmt: skip


class Refusal(NamedTuple):
    """An error code and the message with it; most have none."""

    code: int
    message: str | None = None


class Circumstances(NamedTuple):
    """What the rules need to know of the world."""

    account: SimAccount
    instrument: Instrument
    last: int | None
    """Ticks; None when the contract has no price."""
    open: bool
    held: int
    """Signed contracts the account holds."""


def refuse_place(request: PlaceOrder, here: Circumstances, settings: Settings) -> Refusal | None:
    """Why the order is refused; None when it is accepted."""
    account = here.account
    if not account.can_trade or account.follower:
        return Refusal(ACCOUNT_REJECTED)
    if account.violation:
        return Refusal(VIOLATION)
    if not here.instrument.active:
        return Refusal(NOT_ACTIVE)
    text = _shape(request, settings)
    if text:
        return Refusal(REJECTED, text)
    if not here.open:
        return Refusal(settings.closed_code, CLOSED_TEXTS[settings.closed_text])
    text = _tag(request, account) or _prices(request, here) or _brackets(request, account)
    if text:
        return Refusal(REJECTED, text)
    # A market order without a price is refused in silence, as a close is (documentation of 2026: code 6, no text).
    if here.last is None and request.type == OrderType.MARKET:
        return Refusal(REJECTED)
    return _funds(request, here, settings)


def refuse_account(account: SimAccount) -> str | None:
    """Why nothing of the account may be changed (code 6 of cancel and modify); None when it may."""
    if account.follower:
        return FOLLOWER_TEXT
    return None if account.spec.simulated else LIVE_TEXT


def refuse_modify(request: ModifyOrder, instrument: Instrument) -> str | None:
    """Why a change is refused (code 3); None when it is accepted."""
    if given(request.size) and not 0 < request.size <= MAX_SIZE:  # type: ignore[operator]
        return SIZE_TEXT
    return _alignment(request, instrument)


def _shape(request: PlaceOrder, settings: Settings) -> str | None:
    if request.type not in _TYPES and not (settings.stop_limit and request.type == OrderType.STOP_LIMIT):
        return "Invalid order type specified"
    if int(request.side) not in (0, 1):
        return "Invalid order side specified"
    if not 0 < request.size <= MAX_SIZE:
        return SIZE_TEXT
    if request.type in (OrderType.LIMIT, OrderType.STOP_LIMIT) and not given(request.limit_price):
        return "Limit price not set."
    if request.type in (OrderType.STOP, OrderType.STOP_LIMIT) and not given(request.stop_price):
        return "Stop price not set."
    return None


def _tag(request: PlaceOrder, account: SimAccount) -> str | None:
    return TAG_TEXT if given(request.custom_tag) and request.custom_tag in account.tags else None


def _prices(request: PlaceOrder, here: Circumstances) -> str | None:
    if request.type == OrderType.TRAILING_STOP:
        if not given(request.trail_price):
            return "Trail Distance not set."
        if here.last is None:
            return "Cannot trail without a last price"
    text = _alignment(request, here.instrument)
    if text or request.type != OrderType.TRAILING_STOP or here.last is None:
        return text
    away = abs(here.last - here.instrument.ticks(request.trail_price))  # type: ignore[arg-type]
    return f"Trail Distance exceeds maximum ({MAX_TRAIL})" if away > MAX_TRAIL else None


def _alignment(request: PlaceOrder | ModifyOrder, instrument: Instrument) -> str | None:
    prices = (("trail", request.trail_price), ("stop", request.stop_price), ("limit", request.limit_price))
    for name, price in prices:
        if given(price) and not instrument.aligned(price):  # type: ignore[arg-type]
            return f"Invalid {name} price. Price is not aligned to tick size."
    return None


def _brackets(request: PlaceOrder, account: SimAccount) -> str | None:
    stop, target = request.stop_loss_bracket, request.take_profit_bracket
    if not given(stop) and not given(target):
        return None
    if not account.auto_oco:
        return MODE_TEXT
    longs = request.side == OrderSide.BUY
    text = None
    if isinstance(stop, Bracket):
        text = _stop_loss(stop, longs=longs)
    if text is None and isinstance(target, Bracket):
        text = _take_profit(target, longs=longs)
    return text


def _stop_loss(bracket: Bracket, *, longs: bool) -> str | None:
    if bracket.type == OrderType.LIMIT:
        return "Invalid stop loss type (Limit)"
    if bracket.type not in (OrderType.STOP, OrderType.TRAILING_STOP):
        return "Invalid stop loss type"
    if bracket.ticks >= 0 if longs else bracket.ticks <= 0:
        wanted = "less than zero when longing" if longs else "greater than zero when going short"
        return f"Invalid stop loss ticks ({bracket.ticks}). Ticks should be {wanted}."
    if abs(bracket.ticks) < MIN_BRACKET:
        return f"Invalid stop loss ticks ({bracket.ticks}). Price should be at least {MIN_BRACKET} ticks away."
    return None


def _take_profit(bracket: Bracket, *, longs: bool) -> str | None:
    if bracket.type != OrderType.LIMIT:
        return "Invalid take profit type"
    if bracket.ticks <= 0 if longs else bracket.ticks >= 0:
        wanted = "greater than zero when longing" if longs else "less than zero when going short"
        return f"Invalid take profit ticks ({bracket.ticks}). Ticks should be {wanted}."
    return None


def _funds(request: PlaceOrder, here: Circumstances, settings: Settings) -> Refusal | None:
    after = abs(here.held + (request.size if request.side == OrderSide.BUY else -request.size))
    grows = after > abs(here.held)
    if not grows or after * settings.margin <= here.account.balance:
        return None
    return Refusal(settings.funds_code, FUNDS_TEXT if settings.funds_code == REJECTED else None)
