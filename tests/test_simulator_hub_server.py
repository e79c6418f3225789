"""The hubs of a running gateway, over real sockets, with a client that hides nothing."""

import threading
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


############################################### asking ###############################################


def asked(desk: Desk, answer: Any, timeout: float = 5.0) -> Any:
    """What the gateway hears when it asks the one client, which does *answer* with the call."""
    heard: list[Any] = []
    with desk.echo() as wire:
        ask = lambda: heard.append(desk.gateway.hubs.ask("echo", "AskMe", 1, timeout=timeout))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        answer(wire, wire.record_of(1))
        thread.join(10)
    return heard


def test_the_client_answers(desk: Desk) -> None:
    """A call that wants an answer gets the client's result; an answer to nothing is passed over."""

    def answer(wire: Wire, call: Any) -> None:
        wire.send({"type": 3, "invocationId": "unknown", "result": 1})
        wire.send({"type": 3, "invocationId": call["invocationId"], "result": 42})

    assert [[{"result": 42}]] == asked(desk, answer)
    assert "answer" in [event.kind for event in desk.gateway.hubs.history]


def test_the_client_leaves_instead_of_answering(desk: Desk) -> None:
    """A client that is gone fails the call at once."""
    ((heard,),) = asked(desk, lambda wire, call: wire.reset(), timeout=20.0)
    assert heard["error"].endswith("disconnected.")


def test_the_client_stays_silent(desk: Desk) -> None:
    """A client that does not answer is given up, and its late answer is passed over."""
    ((heard,),) = asked(desk, lambda wire, call: None, timeout=0.05)
    assert {"error": "Invocation canceled by the server."} == heard


def test_asking_nobody(desk: Desk) -> None:
    """Without connections there are no answers."""
    assert [] == desk.gateway.hubs.ask("user", "AskMe", 1)


def test_raw_bytes_and_events_reach_everybody(desk: Desk) -> None:
    """Any bytes, and any event, can be sent through open connections."""
    with desk.user() as user, desk.market() as market:
        assert 2 == desk.gateway.hubs.send("all", "GatewayLogout")
        assert 1 == desk.gateway.hubs.send_raw("market", b"{]")
        assert "GatewayLogout" == user.record()["target"]
        assert b'{"type":1,"target":"GatewayLogout","arguments":[]}\x1e' == market.message()
        assert b"{]" == market.message()


################################################ frames ################################################


def test_websocket_ping_is_answered(desk: Desk) -> None:
    """A WebSocket ping comes back as a pong, and a pong is passed over."""
    with desk.user() as wire:
        wire.send_frame(b"hi", 10)
        wire.send_frame(b"ho", 9)
        frame = wire.frame()
    assert (10, b"ho") == (frame.opcode, frame.payload)


def test_text_must_be_utf_8(desk: Desk) -> None:
    """A text message that is not UTF-8 closes with 1007, even when the cut is between fragments."""
    with desk.user() as wire:
        wire.send_frame("é".encode()[:1], 1, fin=False)
        wire.send_frame(b"x", 0)
        assert 1007 == wire.until_end()[1].code


def test_large_records_come_in_fragments_with_an_empty_last_one(desk: Desk) -> None:
    """What is longer than the switch says is cut anywhere, and ends in an empty frame."""
    with desk.echo() as wire:
        wire.invoke("Big", 5000)
        frames = [wire.frame()]
        while not frames[-1].fin:
            frames.append(wire.frame())
    assert [4096, 4096, 1850, 0] == [len(frame.payload) for frame in frames]


def test_slow_method_of_a_client_that_left(desk: Desk) -> None:
    """An answer that is due after the client left is nobody's."""
    with desk.echo() as wire:
        wire.invoke("Slow", 30)
    wait_until(lambda: not desk.gateway.hubs.connections)
    with desk.echo() as other:
        assert "done" == other.result("Slow", 60)["result"]


@pytest.mark.gateway(keep_alive=0.1, client_timeout=0.2, handshake_timeout=0.1)
def test_timers_run(desk: Desk) -> None:
    """Pings, client timeout and handshake timeout happen by themselves."""
    with desk.user() as wire:
        assert {"type": 6} == wire.record()
        wire.send({"type": 6})
        records, end = wire.until_end()
        assert (True, 1000) == (records[-1]["allowReconnect"], end.code)
    with Wire(desk.gateway.user_hub_url, desk.token) as wire:
        assert [{"error": "Handshake was canceled."}] == wire.until_end()[0]


@pytest.mark.gateway(keep_alive=0.0, client_timeout=0.0, handshake_timeout=0.0)
def test_timers_may_be_off(desk: Desk) -> None:
    """With every time at 0 a connection is simply quiet."""
    with desk.user() as wire:
        wire.send({"type": 6})
        assert wire.quiet(0.1)


def test_silenced_client_that_leaves_is_noticed(desk: Desk) -> None:
    """A silenced connection is gone once its client closes it."""
    with desk.user() as wire:
        desk.gateway.drop_hubs("user", "silence")
        desk.gateway.hubs.send("user", "GatewayLogout")
        desk.gateway.hubs.drop("user", "abort")
        assert wire.quiet(0.05)
    wait_until(lambda: not desk.gateway.hubs._run(lambda hubs: hubs.links))


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
