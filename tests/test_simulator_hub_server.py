"""The hubs of a running gateway, over real sockets, with a client that hides nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.hub_wire import Ended, Refused, Wire, opened, wait_until
from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"
CLOSED = "Connection closed with an error."


class Desk:
    """A gateway with a token for it."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.token = self.login()

    def login(self) -> str:
        credentials = {"userName": self.gateway.user_name, "apiKey": self.gateway.api_key}
        return str(self.post("Auth/loginKey", credentials, token=None)["token"])

    def post(self, path: str, body: Any, token: str | None = "") -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        return requests.post(f"{self.gateway.url}/api/{path}", json=body, headers=headers, timeout=10).json()

    def market(self, **options: Any) -> Wire:
        return opened(self.gateway.market_hub_url, self.token, **options)

    def user(self, **options: Any) -> Wire:
        return opened(self.gateway.user_hub_url, self.token, **options)

    def echo(self) -> Wire:
        return opened(f"{self.gateway.url}/hubs/echo")

    def buy(self, **more: Any) -> Any:
        order = {"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
        return self.post("Order/place", {**order, **more})


@pytest.fixture
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    mark = request.node.get_closest_marker("gateway")
    with Gateway(**{"market_rate": 0.0, **(mark.kwargs if mark else {})}) as gateway:
        yield Desk(gateway)


################################################ connections ################################################


@pytest.mark.parametrize("by", ["query", "header"])
def test_token_is_taken_from_query_and_header(desk: Desk, by: str) -> None:
    """A token opens a hub wherever the client puts it."""
    with opened(desk.gateway.user_hub_url, desk.token, by=by):
        assert [("user", "1")] == [(link.hub, link.token) for link in desk.gateway.hubs.connections]


def test_query_wins_over_header(desk: Desk) -> None:
    """With two tokens the query's counts, as in the framework."""
    with opened(desk.gateway.user_hub_url, desk.token, extra="Authorization: Bearer nonsense\r\n"):
        assert 1 == len(desk.gateway.hubs.connections)


@pytest.mark.parametrize(
    ("token", "challenge"), [(None, "Bearer"), ("", "Bearer"), ("nonsense", 'Bearer error="invalid_token"')]
)
def test_bad_token_is_401_with_challenge(desk: Desk, token: str | None, challenge: str) -> None:
    """An upgrade without a good token is answered 401, empty, with ASP.NET Core's challenge."""
    with pytest.raises(Refused) as refused:
        Wire(desk.gateway.user_hub_url, token)
    assert (401, challenge, b"") == (
        refused.value.status,
        refused.value.headers["www-authenticate"],
        refused.value.body,
    )


def test_revoked_token_opens_no_hub_but_leaves_open_ones(desk: Desk) -> None:
    """Revoking refuses new connections; those that stand are not touched."""
    with desk.user() as wire:
        desk.gateway.revoke_tokens()
        with pytest.raises(Refused):
            Wire(desk.gateway.market_hub_url, desk.token)
        assert {"type": 3, "invocationId": "1", "result": None} == wire.result("SubscribeAccounts")


@pytest.mark.parametrize("path", ["/hubs/nope", "/hubs", "/api/Order/place", "/"])
def test_upgrade_of_another_path_is_404(desk: Desk, path: str) -> None:
    """Only the hubs become WebSockets."""
    with pytest.raises(Refused) as refused:
        Wire(f"{desk.gateway.url}{path}", desk.token)
    assert 404 == refused.value.status


def test_hub_path_matches_in_any_case(desk: Desk) -> None:
    """Paths match in any case, with or without a slash at the end."""
    with opened(f"{desk.gateway.url}/HUBS/User/", desk.token):
        assert ["user"] == [link.hub for link in desk.gateway.hubs.connections]


################################################ market ################################################


def test_first_quote_is_full_then_sparse(desk: Desk) -> None:
    """A subscriber gets the whole quote before its completion, then only what changed."""
    desk.gateway.set_price(MNQ, 21000.0)
    with desk.market() as wire:
        wire.invoke("SubscribeContractQuotes", MNQ)
        first, done = wire.record(), wire.record()
        desk.gateway.set_price(MNQ, 21000.0)
        second = wire.record()
    assert ("GatewayQuote", MNQ, 21000.0) == (
        first["target"],
        first["arguments"][0],
        first["arguments"][1]["lastPrice"],
    )
    assert {"type": 3, "invocationId": "1", "result": None} == done
    assert "lastPrice" not in second["arguments"][1]
    assert 20999.75 == second["arguments"][1]["bestBid"]


def test_unsubscribed_topics_are_silent(desk: Desk) -> None:
    """After Unsubscribe nothing of that topic comes; other topics go on."""
    with desk.market() as wire:
        for topic in ("Quotes", "Trades"):
            wire.result(f"SubscribeContract{topic}", MNQ)
        wire.result("UnsubscribeContractQuotes", MNQ)
        desk.gateway.set_price(MNQ, 21000.0)
        assert "GatewayTrade" == wire.record()["target"]
        assert wire.quiet(0.05)


def test_subscriptions_are_per_connection(desk: Desk) -> None:
    """What one connection subscribed to does not reach another of the same token."""
    with desk.market() as one, desk.market() as other:
        one.result("SubscribeContractTrades", MNQ)
        desk.gateway.set_price(MNQ, 21000.0)
        assert "GatewayTrade" == one.record()["target"]
        assert other.quiet(0.05)


################################################ user ################################################


def test_user_events_of_an_order(desk: Desk) -> None:
    """A market order shows as pending, filled, a trade and a position, wrapped, without nulls."""
    with desk.user() as wire:
        for method in ("SubscribeOrders", "SubscribePositions", "SubscribeTrades"):
            wire.result(method, 536)
        order_id = desk.buy()["orderId"]
        records = [wire.record() for _ in range(4)]
    orders = [r["arguments"][0]["data"] for r in records if r["target"] == "GatewayUserOrder"]
    assert [(order_id, 6), (order_id, 2)] == [(order["id"], order["status"]) for order in orders]
    assert all(None not in order.values() for order in orders)
    assert {"GatewayUserOrder", "GatewayUserTrade", "GatewayUserPosition"} == {r["target"] for r in records}


def test_another_accounts_events_stay_away(desk: Desk) -> None:
    """A subscription to one account brings nothing of another."""
    with desk.user() as wire:
        wire.result("SubscribeOrders", 704)
        desk.buy()
        assert wire.quiet(0.05)


################################################ drops ################################################


@pytest.mark.parametrize(
    ("how", "close", "end"),
    [
        ("abort", [{"type": 7}], "close"),
        ("shutdown", [{"type": 7, "allowReconnect": True}], "close"),
        ("close", [{"type": 7, "error": CLOSED}], "close"),
        ("close-reconnect", [{"type": 7, "error": CLOSED, "allowReconnect": True}], "close"),
        ("fin", [], "fin"),
        ("rst", [], "rst"),
    ],
)
def test_drop(desk: Desk, how: str, close: list[Any], end: str) -> None:
    """Each way to drop a connection looks to the client as documented."""
    with desk.user() as wire:
        assert 1 == desk.gateway.drop_hubs("user", how)
        records, ended = wire.until_end()
    assert (close, end) == (records, ended.how)
    if end == "close":
        assert 1000 == ended.code
    wait_until(lambda: not desk.gateway.hubs.connections)


def test_silence_leaves_tcp_open(desk: Desk) -> None:
    """A silenced connection neither answers nor ends."""
    with desk.user() as wire:
        desk.gateway.drop_hubs("user", "silence")
        wire.invoke("SubscribeAccounts")
        assert wire.quiet(0.1)


def test_drop_of_one_hub_leaves_the_other(desk: Desk) -> None:
    """`drop_hubs("market")` does not touch the user hub."""
    with desk.user() as user, desk.market() as market:
        assert 1 == desk.gateway.drop_hubs("market", "fin")
        with pytest.raises(Ended):
            market.record()
        assert None is user.result("SubscribeAccounts")["result"]


@pytest.mark.parametrize(("hub", "how"), [("nope", "fin"), ("user", "nope")])
def test_drop_refuses_unknown_words(desk: Desk, hub: str, how: str) -> None:
    """A misspelt hub or way is an error, not a drop that never happens."""
    with pytest.raises(ValueError, match="nope"):
        desk.gateway.drop_hubs(hub, how)
