"""Prices in whole ticks. Floats are never compared with `==`: 0.1 + 0.2 is not 0.3, but both are three ticks of 0.1."""

from decimal import Decimal
from typing import Final

# Share of a tick within which a price counts as aligned. Floats of 15 digits and 10⁸ ticks err by 10⁻⁷ of a tick.
SLACK: Final = 1e-6


def ticks(price: float, tick_size: float) -> int:
    """The nearest whole number of ticks; a price midway goes to the even one."""
    return round(price / tick_size)


def aligned(price: float, tick_size: float) -> bool:
    """Whether *price* is a whole number of ticks, but for the error that floats bring along."""
    quotient = price / tick_size
    return abs(quotient - round(quotient)) <= max(SLACK, abs(quotient) * 1e-14)


def price_of(count: int, tick_size: float) -> float:
    """The price that is *count* ticks, exactly: the float whose shortest decimal is the product of the two decimals."""
    return float(count * Decimal(repr(tick_size)))


def nearest(price: float, tick_size: float) -> float:
    """*price* rounded to a whole number of ticks."""
    return price_of(ticks(price, tick_size), tick_size)
