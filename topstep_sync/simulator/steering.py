"""What both handles of a gateway, the one in Python and the one over HTTP, do to a world. Loop thread only."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from topstep_sync.models import OrderStatus
from topstep_sync.simulator.hub_server import Hubs
from topstep_sync.simulator.world import World

ACCOUNT_SWITCHES: Final = ("balance", "can_trade", "auto_oco", "follower", "violation")


def change_account(world: World, account_id: int, changes: Mapping[str, Any]) -> None:
    """The account is as *changes* say.

    Raises:
        ValueError: no such account, no such switch, or a value of another type.
    """
    account = world.exchange.accounts.get(account_id)
    if account is None:
        raise ValueError(f"no account {account_id}; there are {', '.join(map(str, world.exchange.accounts))}")
    for name, value in changes.items():
        if name not in ACCOUNT_SWITCHES:
            raise ValueError(f"an account has no {name!r} to set; it has {', '.join(ACCOUNT_SWITCHES)}")
        if isinstance(value, bool) is (name == "balance") or not isinstance(value, (int, float)):
            raise ValueError(
                f"{name} of an account is {value!r}; expected a {'number' if name == 'balance' else 'boolean'}"
            )
        setattr(account, name, value)


def fill(world: World, order_id: int, size: int, price: float) -> None:
    """*size* contracts of a working order are filled at *price*, whatever the market says.

    Raises:
        ValueError: the order has not so many contracts working.
    """
    order = world.exchange.orders.get(order_id)
    if order is None or order.status is not OrderStatus.OPEN or not 0 < size <= order.remaining:
        raise ValueError(f"order {order_id} has not {size} contracts working")
    world.exchange.fill(order, size, order.instrument.ticks(price))


def reset(world: World, hubs: Hubs) -> None:
    """Orders, books, evidence, windows and faults are as at the start; tokens and connections stay."""
    world.exchange.reset()
    world.evidence.arrivals.clear()
    world.limits.reset()
    world.faults.clear()
    hubs.history.clear()


def settings(world: World) -> dict[str, Any]:
    """Every switch and its value, but for the key."""
    values = dataclasses.asdict(world.settings)
    del values["api_key"]
    return values
