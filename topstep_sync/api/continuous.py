"""One history out of several contract months: rolled where the volume went, the rolls listed."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from topstep_sync.api.bars import Bars
from topstep_sync.models import Bar, Contract
from topstep_sync.tables import Rows, Shown

Adjust = Literal["none", "difference", "ratio"]
ADJUSTMENTS: Final = ("none", "difference", "ratio")


class Roll(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """Where one contract month gave way to the next."""

    at: datetime
    """First instant that comes from the later contract; 00:00 UTC of a day."""
    before: str
    after: str
    gap: float
    """Later contract's close minus the earlier one's, on the last day that both had before."""
    ratio: float
    """The same as a quotient."""


class Continuous(Bars):
    """`Bars` of a product rather than a contract; `contract_id` is that of the last month."""

    rolls: Rows[Roll]
    """Oldest first."""
    adjust: Adjust
    contracts: Rows[Contract]
    """The months it is made of, oldest first."""


def roll(before: Contract, after: Contract, old: Sequence[Bar], new: Sequence[Bar]) -> Roll | None:
    """The day after the later contract first traded more than the earlier one; `None` while that has not happened.

    Where the earlier one simply ends, the day after its last.

    Args:
        old, new: daily bars of both, oldest first.
    """
    volumes = {bar.t: bar for bar in new}
    passed: Bar | None = None
    for bar in old:
        other = volumes.get(bar.t)
        if other is not None and other.v > bar.v:
            passed = bar
            break
    if passed is None and old and new and new[-1].t > old[-1].t:
        passed = old[-1]
    if passed is None:
        return None
    both = [(bar.c, volumes[bar.t].c) for bar in old if bar.t <= passed.t and bar.t in volumes]
    a, b = both[-1] if both else (1.0, 1.0)
    at = passed.t + timedelta(days=1)
    return Roll(at=at, before=before.id, after=after.id, gap=b - a, ratio=b / a if a else 1.0)


def chain(contracts: Sequence[Contract], daily: Callable[[Contract], Bars]) -> list[tuple[Contract, Roll | None]]:
    """Each contract that is used, oldest first, with the roll that ends its use; the last has none."""
    links: list[tuple[Contract, Roll | None]] = []
    current: tuple[Contract, Bars] | None = None
    for contract in contracts:
        days = daily(contract)
        if not days:
            continue
        if current is not None:
            change = roll(current[0], contract, current[1], days)
            if change is None:  # nobody trades the later month yet
                continue
            links.append((current[0], change))
        current = contract, days
    if current is not None:
        links.append((current[0], None))
    return links


def stitch(parts: Iterable[tuple[Sequence[Bar], Roll | None]], adjust: Adjust) -> tuple[list[Bar], list[Roll]]:
    """All bars, oldest first, and the rolls between them. Adjusting moves the earlier ones; the last stay as traded."""
    pieces = list(parts)
    rolls = [change for _, change in pieces if change is not None]
    made: list[list[Bar]] = []
    add, factor = 0.0, 1.0
    for bars, change in reversed(pieces):
        if change is not None:
            add, factor = add + change.gap, factor * change.ratio
        made.append(_moved(bars, add, factor, adjust))
    return [bar for piece in reversed(made) for bar in piece], rolls


def _moved(bars: Sequence[Bar], add: float, factor: float, adjust: Adjust) -> list[Bar]:
    if adjust == "none":
        return list(bars)
    if adjust == "difference":
        return [replace(b, o=b.o + add, h=b.h + add, l=b.l + add, c=b.c + add) for b in bars]
    return [replace(b, o=b.o * factor, h=b.h * factor, l=b.l * factor, c=b.c * factor) for b in bars]


def _past(seam: Roll | None, change: Roll) -> Roll | None:
    """*seam*, when the month it leads to never led: it leads to the one that *change* rolled into before."""
    if seam is None:
        return None
    return replace(seam, after=change.after, gap=seam.gap + change.gap, ratio=seam.ratio * change.ratio)


Fetch = Callable[..., Bars]


def build(
    contracts: Sequence[Contract], length: Any, start: datetime, end: datetime, adjust: Adjust, fetch: Fetch
) -> Continuous:
    """The continuous history of *contracts* (oldest first) from *start* to *end*.

    Args:
        fetch: `HistoryApi.bars`.
    """
    lead = start - timedelta(days=10)  # so that the roll just before the start is seen
    links = chain(contracts, lambda contract: fetch(contract, "1d", start=lead, end=end))
    parts: list[tuple[Bars, Roll | None]] = []
    begin = start
    for contract, change in links:
        until = end if change is None else min(end, change.at)
        if until > begin:
            parts.append((fetch(contract, length, start=begin, end=until), change if until < end else None))
            begin = until
        elif parts and change is not None:
            parts[-1] = parts[-1][0], _past(parts[-1][1], change)
    bars, rolls = stitch(parts, adjust)
    last = parts[-1][0] if parts else Bars()
    made = Continuous(bars, contract_id=last.contract_id, unit=last.unit, number=last.number, start=start, end=end)
    used = {bars.contract_id for bars, _ in parts}
    made.rolls, made.adjust = Rows(rolls, of=Roll), adjust
    made.contracts = Rows([contract for contract in contracts if contract.id in used], of=Contract)
    return made
