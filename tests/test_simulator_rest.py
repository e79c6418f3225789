"""The simulator over real sockets, as any client sees it."""

import requests

from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"


class Caller:
    """A bare client: logs in once, posts JSON."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.session = requests.Session()
        reply = self.post("Auth/loginKey", userName=gateway.user_name, apiKey=gateway.api_key).json()
        self.session.headers["Authorization"] = f"Bearer {reply['token']}"

    def post(self, operation: str, **body: object) -> requests.Response:
        return self.session.post(f"{self.gateway.url}/api/{operation}", json=body, timeout=10)


def test_an_order_is_placed_filled_and_seen_everywhere(gateway: Gateway) -> None:
    """A market order leaves an order, a position and an opening half-turn behind."""
    caller = Caller(gateway)
    gateway.set_price(MNQ, 21000.0)
    placed = caller.post("Order/place", accountId=536, contractId=MNQ, type=2, side=0, size=2).json()
    assert placed["success"]
    orders = caller.post("Order/search", accountId=536, startTimestamp="2020-01-01T00:00:00Z").json()["orders"]
    assert [(placed["orderId"], 2, 21000.0)] == [(o["id"], o["status"], o["filledPrice"]) for o in orders]
    positions = caller.post("Position/searchOpen", accountId=536).json()["positions"]
    assert [(p["type"], p["size"], p["averagePrice"]) for p in positions] == [(1, 2, 21000.0)]
    trades = caller.post("Trade/search", accountId=536, startTimestamp="2020-01-01T00:00:00Z").json()["trades"]
    assert [t["profitAndLoss"] for t in trades] == [None]
    caller.session.close()


def test_a_lost_reply_leaves_the_order(gateway: Gateway) -> None:
    """After the fault `lose` the client knows nothing and the order stands."""
    caller = Caller(gateway)
    gateway.faults.lose("Order/place")
    try:
        caller.post("Order/place", accountId=536, contractId=MNQ, type=1, side=0, size=1, limitPrice=1.0)
    except requests.ConnectionError:
        pass
    else:
        raise AssertionError("the reply came")
    assert len(gateway.executed_orders) == 1
    caller.session.close()
