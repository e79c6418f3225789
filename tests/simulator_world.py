"""A simulated world without a socket, in stepped time, and short ways to act in it."""

import datetime as dt
from typing import Any

from topstep_sync.messages import Bracket, ModifyOrder, PlaceOrder
from topstep_sync.models import OrderSide, OrderType
from topstep_sync.simulator.book import SimOrder
from topstep_sync.simulator.bus import Publication
from topstep_sync.simulator.rules import Refusal
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.world import World

MNQ = "CON.F.US.MNQ.Z26"
START = dt.datetime(2026, 11, 24, 15, 0, tzinfo=dt.UTC).timestamp()
"""A Tuesday, 09:00 in Chicago."""

BUY, SELL = OrderSide.BUY, OrderSide.SELL


class Desk:
    """A world at `START` with MNQ at 21 000, and everything it published."""

    def __init__(self, price: float = 21000.0, **settings: Any) -> None:
        self.world = World(Settings.of(**{"speed": 0.0, "start": START, "market_rate": 0.0, **settings}))
        self.exchange = self.world.exchange
        self.published: list[Publication] = []
        self.world.bus.subscribe(self.published.append)
        self.move(price)

    def move(self, price: float) -> None:
        self.world.markets.set_price(MNQ, price)

    def ask(self, **fields: Any) -> tuple[int | None, Refusal | None]:
        """Order/place, a market buy of one contract in account 704 unless told otherwise."""
        defaults: dict[str, Any] = {
            "account_id": 704, "contract_id": MNQ, "type": OrderType.MARKET, "side": BUY, "size": 1,
        }  # fmt: skip
        return self.exchange.place(PlaceOrder(**{**defaults, **fields}))

    def place(self, **fields: Any) -> SimOrder:
        """The same, accepted."""
        order_id, refusal = self.ask(**fields)
        assert refusal is None, refusal
        assert order_id is not None
        return self.exchange.orders[order_id]

    def limit(self, price: float, **fields: Any) -> SimOrder:
        return self.place(type=OrderType.LIMIT, limit_price=price, **fields)

    def stop(self, price: float, **fields: Any) -> SimOrder:
        return self.place(type=OrderType.STOP, stop_price=price, **fields)

    def modify(self, order: SimOrder, **changes: Any) -> Refusal:
        return self.exchange.modify(ModifyOrder(account_id=order.account_id, order_id=order.id, **changes))

    def held(self, account_id: int = 704) -> int:
        return self.exchange.ledger.held(account_id, MNQ)

    def events(self, target: str) -> list[dict[str, Any]]:
        """The records published under *target*, oldest first."""
        return [p.arguments[0]["data"] for p in self.published if p.target == target]


def stop_loss(ticks: int, kind: OrderType = OrderType.STOP) -> Bracket:
    return Bracket(ticks=ticks, type=kind)


def take_profit(ticks: int) -> Bracket:
    return Bracket(ticks=ticks, type=OrderType.LIMIT)
