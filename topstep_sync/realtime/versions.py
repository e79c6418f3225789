"""What tells records of the user hub apart: what each is about, which version is the later one, which say the same."""

from typing import Any, Final

from topstep_sync.events import AccountEvent, PositionEvent, TradeEvent
from topstep_sync.models import Order, OrderStatus, given

_SAME_INSTANT: Final = 0.002  # seconds; the hub sends 7 digits, REST 6, and either may round
_SAME_PRICE: Final = 1e-9
_ENDS: Final = (OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.EXPIRED, OrderStatus.REJECTED)

Key = tuple[Any, ...]


def account_of(event: Any) -> int | None:
    """The account a user event is about."""
    if isinstance(event, AccountEvent):
        return event.data.id
    data = getattr(event, "data", None)
    return getattr(data, "account_id", None)


def key_of(event: Any) -> Key:
    """What tells whether two events are about the same thing."""
    if isinstance(event, PositionEvent):
        return (PositionEvent, event.data.account_id, event.data.contract_id)
    if isinstance(event, TradeEvent):
        return (TradeEvent, event.data.id, event.data.voided)
    return (type(event), event.data.id)


def is_newer(order: Order, known: Order) -> bool:
    """Whether *order*, told after *known*, is a later version of it; False for the same one.

    Where nothing else tells the order in which they came does: a connection tells in order, and so do two snapshots.
    """
    lead = lead_of(order, known)
    return lead > 0 or (lead == 0 and not same(order, known))


def lead_of(order: Order, known: Order) -> float:
    """Above 0 when *order* is a later version of *known*, below when it is an earlier one, 0 where nothing tells."""
    # The hub leaves out what is null, the time of the update included; its creation is no stand-in for that.
    if dated(order.update_timestamp) and dated(known.update_timestamp):
        ahead = changed_at(order) - changed_at(known)
        if abs(ahead) > _SAME_INSTANT:
            return ahead
    # An end is an end, and fills stay. All else goes both ways: a cancellation that is pending may be refused.
    ended, before = order.status in _ENDS, known.status in _ENDS
    if ended != before:
        return ended - before
    filled, filled_before = (o.fill_volume if given(o.fill_volume) else 0 for o in (order, known))
    return filled - filled_before  # type: ignore[operator]


def same(one: Any, other: Any) -> bool:
    """Whether two records say the same, in all that both tell and times aside.

    The hub leaves out what is null, and REST may know fields the hub does not; neither is a difference.
    """
    for name in one.__struct_fields__:
        if name.endswith("_timestamp") or name == "contract_display_name":
            continue
        left, right = getattr(one, name), getattr(other, name)
        if not given(left) or not given(right) or left == right:
            continue
        if not (isinstance(left, float) and isinstance(right, float) and abs(left - right) < _SAME_PRICE):
            return False
    return True


def changed_at(order: Order) -> float:
    """When the order last changed, in seconds since 1970."""
    updated = order.update_timestamp
    return (updated if dated(updated) else order.creation_timestamp).timestamp()  # type: ignore[union-attr]


def dated(moment: Any) -> bool:
    """Whether the gateway said when: year 1 is a .NET `DateTime` that nobody has set."""
    return given(moment) and moment.year > 1
