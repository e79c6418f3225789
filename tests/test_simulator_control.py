"""The control API, spoken to as a client in another language would."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.hub_wire import opened
from topstep_sync.simulator.control import match, routes
from topstep_sync.simulator.control_routes import ROUTES
from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"


class Remote:
    """What a client sees of one gateway: addresses, nothing else."""

    def __init__(self, gateway: Any) -> None:
        self.url = gateway.url
        reply = self.api("Auth/loginKey", {"userName": gateway.user_name, "apiKey": gateway.api_key})
        self.token = reply["token"]

    def api(self, path: str, body: Any) -> Any:
        headers = {"Authorization": f"Bearer {getattr(self, 'token', '')}"}
        return requests.post(f"{self.url}/api/{path}", json=body, headers=headers, timeout=10).json()

    def raw(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.url}/control{path}", timeout=10, **options)

    def get(self, path: str) -> Any:
        answer = self.raw("GET", path)
        assert 200 == answer.status_code, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.raw("POST", path, json=body)
        assert answer.status_code in (200, 204), answer.text
        return answer.json() if answer.content else None

    def buy(self, **more: Any) -> Any:
        order = {"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
        return self.api("Order/place", {**order, **more})


@pytest.fixture
def remote(gateway: Any) -> Remote:
    return Remote(gateway)


def test_requests_are_told_with_their_bodies(remote: Remote) -> None:
    """Every arrival is on record, with class, token and status, and can be asked for by class."""
    remote.buy(size=2)
    rows = remote.get("/requests?kind=general")["requests"]
    assert ["/api/Auth/loginKey", "/api/Order/place"] == [row["path"] for row in rows]
    assert ("1", 200, "general") == (rows[1]["token"], rows[1]["status"], rows[1]["kind"])
    assert '"size": 2' in rows[1]["body"]
    assert [] == remote.get("/requests?kind=history")["requests"]


def test_worst_counts_as_the_handle_does(remote: Remote, gateway: Any) -> None:
    """The worst window is the same over HTTP and in Python."""
    for _ in range(5):
        remote.api("Account/search", {"onlyActiveAccounts": True})
    told = remote.get("/worst?kind=general&window=60")
    assert gateway.worst_window("general", 60) == told["worst"] == told["worst_accepted"] == 5
    assert (6, 0) == (told["arrivals"], told["refused"])


def test_price_fills_orders(remote: Remote) -> None:
    """A price set over HTTP fills what it reaches."""
    remote.post(f"/market?contractId={MNQ}&price=21000")
    order = remote.buy(type=1, limitPrice=20990.0)["orderId"]
    remote.post(f"/market?contractId={MNQ}&price=20990")
    state = remote.get("/state")
    assert [(order, 2)] == [(row["id"], row["status"]) for row in state["orders"]]
    assert [(MNQ, 20990.0)] == [(row["contractId"], row["last"]) for row in state["market"]]
    assert [1] == [row["size"] for row in state["positions"]]


def test_fill_and_account_switches(remote: Remote) -> None:
    """An order can be filled by hand, and an account be forbidden to trade."""
    remote.post(f"/market?contractId={MNQ}&price=21000")
    order = remote.buy(type=1, limitPrice=20000.0, size=3)["orderId"]
    remote.post(f"/orders/{order}/fill?size=2&price=20500")
    assert 2 == remote.get("/state")["orders"][0]["fillVolume"]
    remote.post("/accounts/536", {"canTrade": False})
    assert not remote.buy()["success"]


def test_faults_come_and_go(remote: Remote) -> None:
    """A fault set over HTTP strikes, is listed with its number, and can be taken back."""
    fault = remote.post("/faults", {"path": "/Order/place", "kind": "status", "status": 502, "times": None})
    order = requests.post(
        f"{remote.url}/api/Order/place", json={}, headers={"Authorization": f"Bearer {remote.token}"}, timeout=10
    )
    assert 502 == order.status_code
    assert [(fault["number"], 1)] == [(rule["number"], rule["struck"]) for rule in remote.get("/faults")]
    other = remote.post("/faults", {"operation": "*", "kind": "reset", "retryAfter": "3"})
    assert 204 == remote.raw("DELETE", f"/faults?number={fault['number']}").status_code
    assert [other["number"]] == [rule["number"] for rule in remote.get("/faults")]
    assert 204 == remote.raw("DELETE", "/faults").status_code
    assert [] == remote.get("/faults")


@pytest.mark.parametrize(("kind", "meant"), [("status", "refuse"), ("reset", "refuse-reset"), ("close", "close")])
def test_faults_of_hubs_take_the_reference_gateways_words(remote: Remote, kind: str, meant: str) -> None:
    """A status or a reset for a hub's path is a refused upgrade."""
    assert meant == remote.post("/faults", {"path": "/hubs/user", "kind": kind})["kind"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"operation": "x", "kind": "nope"}, "no fault of kind 'nope'"),
        ({"operation": "x", "kind": "lose", "colour": 1}, "no 'colour'"),
        ({"kind": "lose"}, "operation"),
        ({"operation": "x", "kind": "lose", "times": "many"}, "times"),
        ([], "object"),
        ({"operation": "x", "kind": "lose", "probability": 2}, "probability"),
    ],
)
def test_bad_fault_is_400_with_words(remote: Remote, body: Any, words: str) -> None:
    """A fault that makes no sense is refused, and nothing is in force."""
    answer = remote.raw("POST", "/faults", json=body)
    assert 400 == answer.status_code
    assert words in answer.json()["error"]
    assert [] == remote.get("/faults")


@pytest.mark.parametrize(
    "path",
    [
        "/market?contractId=x&price=1",
        f"/market?contractId={MNQ}&price=0.3",
        f"/market?contractId={MNQ}&price=nan",
        f"/market?contractId={MNQ}",
        "/clock/advance?seconds=-1",
        "/clock/speed?speed=fast",
        "/hubs/nope/drop?how=fin",
        "/hubs/user/drop?how=nope",
        "/accounts/1",
        "/orders/1/fill?size=1&price=1",
        "/hubs/user/blast",
        "/hubs/user/blast?count=1&burst=1000000000",
        "/hubs/user/blast?count=1&size=0",
        "/clock/advance?seconds=1e18",
        "/clock/speed?speed=1e300",
        "/tokens/lifetime?seconds=1e300",
        "/market/rate?eventsPerSecond=-1",
        f"/market?contractId={MNQ}&price=1e300",
        "/hubs/replay?path=/nowhere/at/all",
    ],
)
def test_bad_parameters_are_400_with_words(remote: Remote, path: str) -> None:
    """A parameter that is missing, makes no sense, or would keep the gateway busy for ever is refused with words."""
    answer = remote.raw("POST", path, json={})
    assert 400 == answer.status_code
    assert answer.json()["error"]


@pytest.mark.parametrize("body", [{"colour": 1}, {"canTrade": 1}, {"balance": "much"}, {"balance": True}, []])
def test_bad_account_change_is_400(remote: Remote, body: Any) -> None:
    """A switch an account does not have, or of another type, is refused."""
    answer = remote.raw("POST", "/accounts/536", json=body)
    assert 400 == answer.status_code, answer.text


def test_tokens_are_revoked_and_shortened(remote: Remote) -> None:
    """One token, or all, can be revoked; new ones can be given another life."""
    remote.post("/tokens/lifetime?seconds=5")
    remote.post("/tokens/revoke?id=1")
    headers = {"Authorization": f"Bearer {remote.token}"}
    assert 401 == requests.post(f"{remote.url}/api/Auth/validate", headers=headers, timeout=10).status_code
    assert {"issued": 1, "lifetime": 5.0} == remote.get("/state")["tokens"]
    remote.post("/tokens/revoke")


def test_hubs_are_told_dropped_and_spoken_through(remote: Remote) -> None:
    """Connections are listed, events and raw bytes sent through them, and they can be dropped."""
    with opened(f"{remote.url}/hubs/user", remote.token) as wire:
        wire.result("SubscribeOrders", 536)
        told = remote.get("/hubs")
        assert (1, ["orders:536"], ["SubscribeOrders"]) == (
            told["opened"],
            told["open"][0]["topics"],
            told["open"][0]["invocations"],
        )
        assert {"sent": 1} == remote.post("/hubs/user/send/GatewayLogout", [])
        assert {"type": 1, "target": "GatewayLogout", "arguments": []} == wire.record()
        assert {"sent": 1} == remote.raw("POST", "/hubs/all/raw", data=b'{"type":99}\x1e').json()
        assert {"type": 99} == wire.record()
        assert {"dropped": 1} == remote.post("/hubs/user/drop?how=error-reconnect")
        assert wire.record()["allowReconnect"]
    assert ["open", "invoke"] == [row["kind"] for row in remote.get("/hubs/history")][:2]


def test_blast_over_http(remote: Remote) -> None:
    """Quotes are sent in numbers, and how many is told."""
    with opened(f"{remote.url}/hubs/market", remote.token) as wire:
        assert 50 == remote.post("/hubs/market/blast?count=50&burst=10")["sent"]
        assert 0 == wire.record()["arguments"][1]["volume"]


def test_fail_connects(remote: Remote) -> None:
    """The next connections are closed right after their handshake, as many as told."""
    remote.post("/hubs/fail-connects?count=1")
    with opened(f"{remote.url}/hubs/user", remote.token) as wire:
        assert wire.record()["error"].endswith("refused on connect")
    with opened(f"{remote.url}/hubs/user", remote.token) as wire:
        assert None is wire.result("SubscribeAccounts")["result"]


@pytest.mark.gateway(speed=0)
def test_clock_is_advanced_and_sped_up(remote: Remote) -> None:
    """Simulation time can be moved and given a speed."""
    before = remote.get("/state")["seconds"]
    remote.post("/clock/advance?seconds=3600")
    assert before + 3600 == remote.get("/state")["seconds"]
    remote.post("/clock/speed?speed=100")
    assert 100 == remote.get("/state")["speed"]


def test_market_gets_a_rate(remote: Remote) -> None:
    """A watched market moves once it has a rate."""
    with opened(f"{remote.url}/hubs/market", remote.token) as wire:
        wire.result("SubscribeContractTrades", MNQ)
        remote.post("/market/rate?eventsPerSecond=200")
        assert "GatewayTrade" == wire.record()["target"]


def test_reset_leaves_tokens_and_connections(remote: Remote) -> None:
    """Reset takes orders, evidence and faults back to the start, and nothing else."""
    with opened(f"{remote.url}/hubs/user", remote.token) as wire:
        first = remote.buy()["orderId"]
        remote.post("/faults", {"operation": "*", "kind": "lose", "skip": 100})
        remote.post("/reset")
        state = remote.get("/state")
        assert ([], [], [], []) == (state["orders"], state["positions"], state["faults"], state["trades"])
        assert 150_000.0 == state["accounts"][0]["balance"]
        assert first < remote.buy()["orderId"]
        assert None is wire.result("SubscribeAccounts")["result"]


def test_settings_do_not_tell_the_key(remote: Remote) -> None:
    """Switches are listed, the key is not."""
    told = remote.get("/settings")
    assert "trader" == told["user_name"]
    assert "key-123" not in str(told)


def test_kinds_are_listed(remote: Remote) -> None:
    """Every fault and drop is listed with its explanation."""
    assert {"rest", "hub", "stream", "drops", "operations", "contracts"} == set(remote.get("/kinds"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/reset", 405),
        ("POST", "/state", 405),
        ("GET", "", 404),
        ("POST", "/hubs//drop", 404),
    ],
)
def test_unknown_routes_say_what_there_is(remote: Remote, method: str, path: str, status: int) -> None:
    """A wrong path or method is answered with the routes there are."""
    answer = remote.raw(method, path)
    assert (status, routes()) == (answer.status_code, answer.json()["routes"])


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": ""}])
def test_pages_of_other_sites_are_refused(remote: Remote, headers: dict[str, str]) -> None:
    """A page of another site in the user's browser cannot steer the gateway."""
    assert 403 == remote.raw("POST", "/tokens/revoke", headers=headers).status_code
    assert 200 == requests.get(f"{remote.url}/control/state", headers={"Origin": remote.url}, timeout=10).status_code


def test_every_route_can_be_reached() -> None:
    """No route is hidden behind another."""
    for method, pattern in ROUTES:
        path = pattern.replace("{hub}", "user").replace("{target}", "X").replace("{id}", "1")
        assert method in {found for found, _, _ in match(path)}


def test_the_snapshot_tells_no_bodies(remote: Remote, gateway: Any) -> None:
    """What the status page gets holds no request bodies, and so no keys."""
    assert gateway.api_key not in str(remote.get("/state"))
    assert gateway.api_key in str(remote.get("/requests"))


def test_a_body_beyond_all_measure_is_413(remote: Remote) -> None:
    """A body above the gateway's limit is not collected."""
    assert 413 == remote.raw("POST", "/hubs/all/raw", data=b"x" * 31_000_000).status_code


FREE = [
    (method, path) for method, path in ROUTES if path not in ("/clock/advance", "/hubs/{hub}/blast", "/clock/speed")
]
words = (
    st.text(max_size=6) | st.integers().map(str) | st.floats().map(str) | st.sampled_from([MNQ, "user", "all", "fin"])
)

bodies = st.recursive(words, lambda inner: st.lists(inner) | st.dictionaries(words, inner))
PARAMETERS = ["kind", "window", "price", "contractId", "size", "count", "how", "path", "number", "id"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Any]:
    with Gateway(market_rate=0.0) as gateway:
        yield Remote(gateway)


@given(
    route=st.sampled_from(FREE),
    named=st.dictionaries(st.sampled_from(PARAMETERS), words),
    parts=st.tuples(words, words),
    body=st.binary(max_size=40) | bodies.map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
def test_anything_said_to_it_is_answered(shared: Remote, route: Any, named: Any, parts: Any, body: bytes) -> None:
    """Whatever is asked, the answer is a success or a refusal with words, never a breakdown."""
    method, path = route
    for name, value in zip(("{hub}", "{id}", "{target}"), (*parts, parts[0]), strict=True):
        path = path.replace(name, quote(value, safe="") or "x")
    named = {"seconds": "0.01", **named}
    answer = shared.raw(method, path, params=named, data=body)
    assert answer.status_code in (200, 204, 400, 404, 405), answer.text
    assert answer.ok or answer.json()["error"] is not None


def test_json_without_end_is_refused(remote: Remote) -> None:
    """A body nested beyond all measure is refused like any other nonsense."""
    assert 400 == remote.raw("POST", "/hubs/all/send/X", data=b"[" * 100_000).status_code
