"""Arguments of the typed calls, checked before anything is sent. Every refusal says what was expected."""

import enum
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from topstep_sync.errors import InvalidRequest
from topstep_sync.models import Account, BarUnit, Contract, OrderSide, OrderType

E = TypeVar("E", bound=enum.IntEnum)

SIDES: Final[Mapping[str, OrderSide]] = {
    "buy": OrderSide.BUY, "bid": OrderSide.BUY, "sell": OrderSide.SELL, "ask": OrderSide.SELL,
}  # fmt: skip
TYPES: Final[Mapping[str, OrderType]] = {kind.name.lower(): kind for kind in OrderType if kind is not OrderType.UNKNOWN}
UNITS: Final[Mapping[str, BarUnit]] = {
    "t": BarUnit.TICK, "s": BarUnit.SECOND, "m": BarUnit.MINUTE, "min": BarUnit.MINUTE, "h": BarUnit.HOUR,
    "d": BarUnit.DAY, "w": BarUnit.WEEK, "mo": BarUnit.MONTH,
}  # fmt: skip

_SPAN: Final = re.compile(r"(\d{1,6})\s*(mo|min|t|s|m|h|d|w)")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def account_number(value: "int | Account") -> int:
    """The number of an account given as itself or as its record."""
    if type(value) is int and value > 0:
        return value
    number = value.id if isinstance(value, Account) else value
    try:
        return whole(number, "account_id")
    except InvalidRequest:
        wanted = "an Account of session.accounts.search(), or its id"
        raise InvalidRequest(f"account_id is {number!r}; expected {wanted}") from None


def order_key(account_id: Any, order_id: Any) -> tuple[int, int]:
    """Account and id of an order, given as two numbers or as one record that knows both."""
    if order_id is None and not isinstance(account_id, int):
        record = account_id
        account_id, order_id = getattr(record, "account_id", None), getattr(record, "id", None)
        if account_id is None or order_id is None:
            raise InvalidRequest(f"{record!r} is no order; expected one, or an account_id and an order_id")
    return account_number(account_id), whole(getattr(order_id, "id", order_id), "order_id")


def contract_name(value: "str | Contract") -> str:
    """The id of a contract given as itself or as its record."""
    name = value.id if isinstance(value, Contract) else value
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest(f"contract_id is {name!r}; expected an id such as 'CON.F.US.MNQ.Z26', or a Contract")
    return name


def whole(value: Any, name: str, *, least: int = 1) -> int:
    """*value* as an int, if it is a whole number of at least *least*."""
    if type(value) is int and value >= least:
        return value
    if not isinstance(value, bool):
        try:
            number = int(value) if not isinstance(value, str) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is not None and number == value and number >= least:
            return number
    raise InvalidRequest(f"{name} is {value!r}; expected a whole number of {least} or more")


def number(value: Any, name: str) -> float:
    """*value* as a finite float. Negative is allowed: oil once settled below zero."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        result = float(value)
        if math.isfinite(result):
            return result
    elif hasattr(value, "dtype") and getattr(value, "shape", None) == ():  # a scalar of numpy or pandas
        return number(value.item(), name)
    raise InvalidRequest(f"{name} is {value!r}; expected a finite number")


def choice(value: Any, words: Mapping[str, E], name: str) -> E:
    """The enum member that *value* names: itself, its number, or its word in any case."""
    if isinstance(value, str):
        if value in words:
            return words[value]
        found = words.get(value.strip().lower().replace("-", "_").replace(" ", "_"))
        if found is not None:
            return found
    elif isinstance(value, int) and not isinstance(value, bool):
        for member in words.values():
            if member == value:
                return member
    raise InvalidRequest(f"{name} is {value!r}; expected one of {', '.join(sorted(words))}")


def several(value: Any) -> list[Any]:
    """*value* as a list, though it may be a single one."""
    return [value] if isinstance(value, (str, int)) else list(value)


def type_of(value: Any) -> OrderType:
    return choice(value, TYPES, "type")


def instant(value: Any, name: str) -> datetime:
    """*value* as an aware datetime in UTC.

    Taken are aware datetimes, ISO 8601 texts with an offset, and whole days (`date`, or ``2026-11-01``), which begin
    at 00:00 UTC. A time of day without a zone is refused, because every guess about it is wrong for somebody.
    """
    if isinstance(value, str):
        value = _read(value.strip(), name)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidRequest(f"{name} has no time zone ({value}); expected an aware datetime, e.g. in UTC")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise InvalidRequest(f"{name} is {value!r}; expected an aware datetime, or ISO 8601 text with an offset")


def _read(value: str, name: str) -> datetime | date:
    try:
        return date.fromisoformat(value) if _DAY.fullmatch(value) else datetime.fromisoformat(value)
    except ValueError:
        raise InvalidRequest(f"{name} is {value!r}; expected ISO 8601, e.g. 2026-11-01T14:30:00Z") from None


def span(value: Any) -> tuple[BarUnit, int]:
    """Unit and number of a bar length such as ``1m``, ``5m``, ``1h``, ``1d``, ``1w``, ``1mo``, ``30s``."""
    if isinstance(value, tuple) and len(value) == 2:
        return choice(value[0], {u.name.lower(): u for u in UNITS.values()}, "unit"), whole(value[1], "unit_number")
    found = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or int(found[1]) == 0:
        raise InvalidRequest(f"the bar length is {value!r}; expected a number and one of t s m h d w mo, such as '5m'")
    return UNITS[found[2]], int(found[1])


def window(start: Any, end: Any, now: float) -> tuple[datetime, datetime]:
    """Both ends of a window; no *end* means *now* (seconds since 1970)."""
    first = instant(start, "start")
    last = datetime.fromtimestamp(now, UTC) if end is None else instant(end, "end")
    if first >= last:
        raise InvalidRequest(f"start ({first.isoformat()}) is not before end ({last.isoformat()})")
    return first, last
