"""The same trading day on the simulator's exchange and on the reference gateway's, written independently."""

import random
from itertools import zip_longest
from typing import Any

import aspnetcore
import pytest
import requests

from topstep_sync.simulator.settings import AccountSpec
from topstep_sync.testing import Gateway

pytestmark = [pytest.mark.interop, aspnetcore.needed]

MNQ, TICK, ACCOUNT = "CON.F.US.MNQ.Z26", 0.25, 536
LIVE = (1, 6, 8)
STEPS = 120


NAMES = (
    "id", "status", "type", "side", "size", "fillVolume", "filledPrice", "limitPrice", "stopPrice", "customTag",
)  # fmt: skip


class Side:
    """One of the two exchanges."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        login = {"userName": "trader", "apiKey": "key-123"}
        self.session.headers["Authorization"] = f"Bearer {self.call('Auth/loginKey', **login)['token']}"

    def call(self, operation: str, **body: Any) -> Any:
        return self.session.post(f"{self.url}/api/{operation}", json=body, timeout=30).json()

    def price(self, price: float) -> None:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Orders, positions and trades, as far as both know them."""
        since = "2020-01-01T00:00:00Z"
        orders = self.call("Order/search", accountId=ACCOUNT, startTimestamp=since)["orders"]
        positions = self.call("Position/searchOpen", accountId=ACCOUNT)["positions"]
        trades = self.call("Trade/search", accountId=ACCOUNT, startTimestamp=since)["trades"]
        return {
            "orders": [tuple(order[name] for name in NAMES) for order in orders],
            "positions": [(p["type"], p["size"], round(p["averagePrice"], 6)) for p in positions],
            "trades": [(t["orderId"], t["price"], t["side"], t["size"]) for t in trades],
            "profits": [t["profitAndLoss"] for t in trades],
        }


class Ours(Side):
    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.url)
        self.gateway = gateway

    def price(self, price: float) -> None:
        self.gateway.set_price(MNQ, price)


class Theirs(Side):
    def price(self, price: float) -> None:
        where = {"contractId": MNQ, "price": str(price)}
        self.session.post(f"{self.url}/control/market", params=where, timeout=30).raise_for_status()


def legs(rng: random.Random, side: int) -> dict[str, Any]:
    """Brackets with the right signs, or none."""
    sign, chosen = (1 if side == 0 else -1), {}
    if rng.random() < 0.6:
        chosen["stopLossBracket"] = {"ticks": -sign * rng.randint(4, 30), "type": rng.choice([4, 5])}
    if rng.random() < 0.6:
        chosen["takeProfitBracket"] = {"ticks": sign * rng.randint(4, 30), "type": 1}
    return chosen


def intents(rng: random.Random, price: float, orders: list[tuple[Any, ...]], number: int) -> tuple[str, dict[str, Any]]:
    """What the trader does next."""
    side, level = rng.randint(0, 1), price + rng.randint(-20, 20) * TICK
    place = {
        "accountId": ACCOUNT,
        "contractId": MNQ,
        "side": side,
        "size": rng.randint(1, 4),
        "customTag": f"t{number}",
    }
    live = [order for order in orders if order[1] in LIVE]
    kind = rng.choice(["market", "limit", "stop", "trail", "limit", "stop", "cancel", "modify", "close", "part"])
    if kind == "market":
        return "Order/place", {**place, "type": 2, **legs(rng, side)}
    if kind == "limit":
        return "Order/place", {**place, "type": 1, "limitPrice": level, **legs(rng, side)}
    if kind == "stop":
        return "Order/place", {**place, "type": 4, "stopPrice": level, **legs(rng, side)}
    if kind == "trail":
        return "Order/place", {**place, "type": 5, "trailPrice": level}
    if kind == "close" or not live:
        return "Position/closeContract", {"accountId": ACCOUNT, "contractId": MNQ}
    if kind == "part":
        return "Position/partialCloseContract", {"accountId": ACCOUNT, "contractId": MNQ, "size": rng.randint(1, 3)}
    chosen = rng.choice(live)
    if kind == "cancel":
        return "Order/cancel", {"accountId": ACCOUNT, "orderId": chosen[0]}
    name = {1: "limitPrice", 4: "stopPrice"}.get(chosen[2])
    changes = {name: level} if name and chosen[1] == 1 else {}
    return "Order/modify", {"accountId": ACCOUNT, "orderId": chosen[0], **changes}


def same(ours: Any, theirs: Any) -> bool:
    """Equal; a profit to the cent, because an average over several fills has endless digits there."""
    return ours == theirs or (isinstance(ours, float) and ours == pytest.approx(theirs, abs=0.011))


@pytest.mark.parametrize("seed", [1, 3])
def test_a_day_of_trading_ends_alike(seed: int) -> None:
    """Orders of four types, brackets, changes, cancels and closes give the same orders, fills and profits.

    The market moves tick by tick. Over a gap the two differ: a resting limit gets its own price here and the market's
    there.
    """
    rng, price = random.Random(seed), 21000.0
    accounts = (AccountSpec(ACCOUNT, "PRAC-V2-536", 150_000.0, auto_oco=True),)
    settings: dict[str, Any] = {"market_rate": 0, "limiter": "none", "first_order_id": 9056, "accounts": accounts}
    with Gateway(**settings) as gateway, aspnetcore.reference(limiter="none") as ready:
        sides = [Ours(gateway), Theirs(ready["url"])]
        for side in sides:
            side.price(price)
        for number in range(STEPS):
            orders = sides[0].state()["orders"]
            operation, body = intents(rng, price, orders, number)
            answers = [side.call(operation, **body) for side in sides]
            assert answers[0] == answers[1], (number, operation, body)
            for _ in range(rng.randint(0, 8)):
                price += rng.choice([-TICK, TICK])
                for side in sides:
                    side.price(price)
            mine, other = (side.state() for side in sides)
            for name, rows in mine.items():
                differ = [pair for pair in zip_longest(rows, other[name]) if not same(*pair)]
                assert not differ, (number, operation, body, name, differ)
        filled = [order for order in mine["orders"] if order[1] == 2]
        for side in sides:
            side.session.close()
    assert len(filled) > 20
