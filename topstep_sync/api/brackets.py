"""Bracket distances. On the wire they are signed ticks relative to the entry; people think in magnitudes or prices.

A buy has its stop below (negative) and its target above (positive), a sell the other way round. The documentation
shows positive numbers for both; the gateway refuses them. Source: field reports of 2025 and 2026.
"""

from typing import Final

from topstep_sync.api.arguments import whole
from topstep_sync.errors import InvalidRequest
from topstep_sync.messages import Bracket
from topstep_sync.models import Contract, OrderSide, OrderType

LEAST_TICKS: Final = 4  # "Price should be at least 4 ticks away.": the gateway's refusal, seen 2025 and 2026
STOP_TYPES: Final = (OrderType.STOP, OrderType.TRAILING_STOP)
TARGET_TYPES: Final = (OrderType.LIMIT,)


def sign(side: OrderSide, *, target: bool) -> int:
    """+1 for a leg above the entry, -1 for one below it."""
    return 1 if (side is OrderSide.BUY) == target else -1


def from_ticks(magnitude: int, side: OrderSide, kind: OrderType, *, target: bool) -> Bracket:
    """A leg *magnitude* ticks away from the entry, on the side where it belongs."""
    name = "take_profit_ticks" if target else "stop_loss_ticks"
    if isinstance(magnitude, int) and magnitude < 0:
        raise InvalidRequest(f"{name} is {magnitude}; expected a distance, without a sign: the side says which way")
    distance = whole(magnitude, name, least=LEAST_TICKS)
    return checked(Bracket(ticks=distance * sign(side, target=target), type=kind), side, target=target)


def from_price(
    price: float, entry: float, contract: Contract, side: OrderSide, kind: OrderType, *, target: bool
) -> Bracket:
    """A leg at *price*, for an entry at *entry*; both in whole ticks."""
    name = "take_profit_price" if target else "stop_loss_price"
    if not contract.aligned(price):
        raise InvalidRequest(f"{name} is {price!r}; expected a multiple of {contract.tick_size!r}")
    distance = contract.ticks(price) - contract.ticks(entry)
    if distance * sign(side, target=target) <= 0:
        where = "above" if sign(side, target=target) > 0 else "below"
        raise InvalidRequest(f"{name} is {price!r}; for a {side.name.lower()} at {entry!r} it belongs {where}")
    return checked(Bracket(ticks=distance, type=kind), side, target=target)


def checked(leg: Bracket, side: OrderSide, *, target: bool) -> Bracket:
    """*leg*, if the gateway can be expected to take it: sign by side, distance, type."""
    name = "take_profit" if target else "stop_loss"
    allowed = TARGET_TYPES if target else STOP_TYPES
    if leg.type not in allowed:
        names = " or ".join(kind.name for kind in allowed)
        raise InvalidRequest(f"{name} is a {leg.type.name}; expected {names}")
    expected = sign(side, target=target)
    if leg.ticks * expected < LEAST_TICKS:
        shown = f"{expected * LEAST_TICKS:+d} or {'more' if expected > 0 else 'less'}"
        raise InvalidRequest(f"{name} is {leg.ticks:+d} ticks; for a {side.name.lower()} expected {shown}")
    return leg
