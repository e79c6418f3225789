"""How far a position could go if everything that may still fill did so, on one side. Pure."""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from topstep_sync.models import Order, OrderSide, OrderStatus, Position, PositionType, given


class Pending(NamedTuple):
    """What may still be added to a position."""

    change: int
    """Contracts, negative for a sell."""
    group: Hashable
    """Of those with the same group only one fills."""


def signed(side: OrderSide, size: int) -> int:
    return size if side is OrderSide.BUY else -size


def net_size(positions: Iterable[Position], contract_id: str) -> int:
    """Contracts held, negative when short."""
    held = (p for p in positions if p.contract_id == contract_id)
    return sum(-abs(p.size) if p.type is PositionType.SHORT else p.size for p in held)


def pending(orders: Sequence[Order]) -> list[Pending]:
    """What working orders may still add.

    The legs of one entry, and two orders that the gateway has linked, are one group: when one fills, the gateway
    cancels the other. A leg that waits for an entry which itself still works only takes back what that one adds.
    """
    working = {order.id for order in orders}
    roots: dict[int, int] = {}
    for order in orders:
        if isinstance(order.linked_order_id, int):
            roots[order.id] = roots[order.linked_order_id] = min(order.id, order.linked_order_id)
    found = []
    for order in orders:
        if order.status is OrderStatus.SUSPENDED and order.parent_order_id in working:
            continue
        parent = given(order.parent_order_id)
        group = ("entry", order.parent_order_id) if parent else ("order", roots.get(order.id, order.id))
        found.append(Pending(signed(order.side, order.size - int(order.fill_volume or 0)), group))
    return found


def worst(net: int, items: Iterable[Pending], side: OrderSide) -> int:
    """Where the position ends when of *items* all that are on *side* fill, and none of the other side."""
    sign = signed(side, 1)
    most: dict[Hashable, int] = {}
    for item in items:
        most[item.group] = max(most.get(item.group, 0), item.change * sign)
    return net + sign * sum(most.values())
