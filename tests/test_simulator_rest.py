"""The simulator's REST side over real sockets, as any client sees it."""

import asyncio
import datetime as dt
import email.utils
import json
import logging
import socket
import threading
import time

import pytest
import requests
from simulator_world import Desk

from topstep_sync.simulator.operations import OPERATIONS, PING
from topstep_sync.simulator.rest import Rest
from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"
SEARCH = "Account/search"
OPEN = "Order/searchOpen"


class Caller:
    """A bare client: logs in once, posts JSON."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.session = requests.Session()
        self.token = ""
        self.login()

    def login(self) -> None:
        reply = self.post("Auth/loginKey", userName=self.gateway.user_name, apiKey=self.gateway.api_key).json()
        self.token = reply["token"]
        self.session.headers["Authorization"] = f"Bearer {self.token}"

    def post(self, operation: str, /, **body: object) -> requests.Response:
        return self.session.post(f"{self.gateway.url}/api/{operation}", json=body, timeout=10)

    def search(self) -> requests.Response:
        return self.post(OPEN, accountId=536)

    def place(self, **fields: object) -> requests.Response:
        defaults = {"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1}
        return self.post("Order/place", **{**defaults, **fields})


@pytest.fixture
def caller(gateway: Gateway):
    """A client that is logged in."""
    made = Caller(gateway)
    yield made
    made.session.close()


def test_an_order_is_placed_filled_and_seen_everywhere(gateway: Gateway, caller: Caller) -> None:
    """A market order leaves an order, a position and an opening half-turn behind."""
    gateway.set_price(MNQ, 21000.0)
    placed = caller.place(size=2).json()
    assert placed["success"]
    orders = caller.post("Order/search", accountId=536, startTimestamp="2020-01-01T00:00:00Z").json()["orders"]
    assert [(placed["orderId"], 2, 21000.0)] == [(o["id"], o["status"], o["filledPrice"]) for o in orders]
    positions = caller.post("Position/searchOpen", accountId=536).json()["positions"]
    assert [(1, 2, 21000.0)] == [(p["type"], p["size"], p["averagePrice"]) for p in positions]
    trades = caller.post("Trade/search", accountId=536, startTimestamp="2020-01-01T00:00:00Z").json()["trades"]
    assert [None] == [t["profitAndLoss"] for t in trades]


def test_there_are_21_operations() -> None:
    """Twenty POSTs and a ping."""
    assert 21 == len(OPERATIONS) + len([PING])


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({}, [3, 2, 1, 0]), ({"sortDirection": 0}, [0, 1, 2, 3]), ({"sortDirection": 1, "sortBy": 1}, [3, 2, 1, 0]),
        ({"sortBy": 1, "sortDirection": 0}, [0, 1, 2, 3]), ({"pageSize": 2}, [3, 2]),
        ({"pageSize": 2, "pageOffset": 1}, [2, 1]),
        ({"pageSize": 2, "pageOffset": 3}, [0]), ({"pageOffset": 9}, []), ({"pageOffset": -3}, [3, 2, 1, 0]),
    ],
)  # fmt: skip
def test_queries_are_paged_and_sorted(caller: Caller, request_fields: dict[str, int], expected: list[int]) -> None:
    """Newest first unless told otherwise; the offset counts rows; the count is that of all pages."""
    ids = [caller.place(type=1, limitPrice=1000.0 + n).json()["orderId"] for n in range(4)]
    reply = caller.post("Order/v2/query", filter={"accountId": 536}, includeTotalCount=True, **request_fields).json()
    assert ([ids[n] for n in expected], 4) == ([o["id"] for o in reply["orders"]], reply["totalCount"])


def test_queries_filter(gateway: Gateway, caller: Caller) -> None:
    """By status (also Suspended, which nothing else shows), contract and time of creation."""
    legs = {"stopLossBracket": {"ticks": -40, "type": 4}, "takeProfitBracket": {"ticks": 40, "type": 1}}
    caller.place(accountId=704, type=1, limitPrice=1000.0, **legs)

    def found(**wanted: object) -> int:
        return len(caller.post("Order/v2/query", filter={"accountId": 704, **wanted}).json()["orders"])

    now = dt.datetime.now(dt.UTC)
    later = (now + dt.timedelta(hours=1)).isoformat()
    assert [3, 1, 2, 3, 0] == [
        found(),
        found(statuses=[1]),
        found(statuses=[8]),
        found(statuses=[1, 8]),
        found(statuses=[2]),
    ]
    assert [3, 0, 0, 3] == [
        found(contractId=MNQ), found(contractId="x"), found(createdAfter=later), found(createdBefore=later),
    ]  # fmt: skip
    assert 1 == len(caller.post(OPEN, accountId=704).json()["orders"])
    gateway.advance(0)


def test_times_bound_searches(gateway: Gateway, caller: Caller) -> None:
    """Orders and trades are found by the time of their creation, both ends included."""
    caller.place()
    created = gateway.executed_orders[0].creation_timestamp
    inside = {"startTimestamp": created.isoformat(), "endTimestamp": created.isoformat()}
    before = {"startTimestamp": "2020-01-01T00:00:00Z", "endTimestamp": (created - dt.timedelta(seconds=1)).isoformat()}
    assert [1, 0] == [len(caller.post("Order/search", accountId=536, **w).json()["orders"]) for w in (inside, before)]
    assert 1 == len(caller.post("Trade/search", accountId=536).json()["trades"])


@pytest.mark.gateway(general_limit=3, history_limit=1)
def test_the_limit_is_counted_on_arrival_and_by_class(caller: Caller) -> None:
    """Above the limit comes 429 with an empty body and Retry-After; other classes and ping go on."""
    assert [200, 200, 200] == [caller.search().status_code for _ in range(3)]
    refused = caller.search()
    assert (429, b"") == (refused.status_code, refused.content)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert 400 == caller.post("History/retrieveBars").status_code
    assert 429 == caller.post("History/retrieveBars").status_code
    assert "pong" == caller.session.get(f"{caller.gateway.url}/api/Status/ping", timeout=10).text
    as_json = {"Accept": "application/json"}
    assert "pong" == caller.session.get(f"{caller.gateway.url}/api/Status/ping", timeout=10, headers=as_json).json()


@pytest.mark.gateway(general_limit=1, speed=0.0)
def test_the_window_passes(gateway: Gateway, caller: Caller) -> None:
    """After the window of simulation time calls are taken again, and the log knows the worst window."""
    assert [200, 429] == [caller.search().status_code for _ in range(2)]
    gateway.advance(60.0)
    assert 200 == caller.search().status_code
    assert (2, 1, 3) == (
        gateway.worst_window("general"),
        gateway.worst_window("general", refused=False),
        gateway.worst_window("general", 120.0),
    )


@pytest.mark.parametrize(("form", "expected"), [("none", None), ("seconds", "60"), ("date", "date")])
def test_retry_after_has_three_forms(form: str, expected: str | None) -> None:
    """Seconds, a date, or nothing."""
    with Gateway(general_limit=0, retry_after=form, speed=0.0, start=1_795_500_000.0) as gateway:
        reply = requests.post(f"{gateway.url}/api/{SEARCH}", json={}, timeout=10)
    found = reply.headers.get("Retry-After")
    assert 429 == reply.status_code
    if expected == "date":
        assert found is not None
        assert 1_795_500_061 == email.utils.parsedate_to_datetime(found).timestamp()
    else:
        assert expected == found


@pytest.mark.gateway(speed=0.0, expired_validate="401")
def test_an_expired_token_is_401(gateway: Gateway, caller: Caller) -> None:
    """After 24 hours every call with the token is refused, with the reason in its challenge."""
    gateway.advance(86400.0)
    for reply in (caller.search(), caller.post("Auth/validate")):
        assert (401, b"") == (reply.status_code, reply.content)
        assert "The token expired at '" in reply.headers["WWW-Authenticate"]


@pytest.mark.gateway(speed=0.0, expired_validate="code")
def test_validate_may_answer_with_a_code(gateway: Gateway, caller: Caller) -> None:
    """The other reading: 200 with ExpiredToken, or InvalidSession for a revoked one."""
    gateway.revoke_tokens()
    assert 1 == caller.post("Auth/validate").json()["errorCode"]
    gateway.advance(86400.0)
    assert 3 == caller.post("Auth/validate").json()["errorCode"]
    caller.session.headers["Authorization"] = "Bearer x"
    assert 401 == caller.post("Auth/validate").status_code


@pytest.mark.parametrize(
    ("switches", "old", "new"),
    [({}, 200, 200), ({"replaced": "revoke"}, 401, 200), ({"validate": "null"}, 200, None)],
)
def test_validate_has_three_readings(switches: dict[str, str], old: int, new: int | None) -> None:
    """A new token with the old one kept or revoked, or null."""
    with Gateway(market_rate=0, **switches) as gateway:
        caller = Caller(gateway)
        token = caller.post("Auth/validate").json()["newToken"]
        assert old == caller.search().status_code
        caller.session.headers["Authorization"] = f"Bearer {token}"
        assert new == (caller.search().status_code if token else None)
        caller.session.close()


def test_logout_ends_this_token_only(caller: Caller) -> None:
    """A token that logged out is refused, another of the same user is not."""
    first = caller.token
    caller.login()
    assert caller.post("Auth/logout").json()["success"]
    assert 401 == caller.search().status_code
    caller.session.headers["Authorization"] = f"Bearer {first}"
    assert 200 == caller.search().status_code


def test_the_log_tells_what_arrived_and_what_was_decided(gateway: Gateway, caller: Caller) -> None:
    """Path, class, connection, token generation, body, status, code and order of every call, oldest first."""
    placed = caller.place(size=0).json()
    login, place = gateway.requests
    assert ("/api/Auth/loginKey", "general", None, 200, 0) == (
        login.path, login.window, login.token, login.status, login.code,
    )  # fmt: skip
    assert ("1", 2, placed["orderId"], 0) == (place.token, place.code, place.order_id, place.json()["size"])
    assert place.port == login.port > 0
    assert login.at < place.at <= (place.done or 0.0)


def test_executed_orders_are_those_accepted(gateway: Gateway, caller: Caller) -> None:
    """Refused orders and legs of brackets are not among them, cancelled ones are."""
    caller.place(size=0)
    legs = {"stopLossBracket": {"ticks": -40, "type": 4}}
    kept = caller.place(accountId=704, type=1, limitPrice=1000.0, **legs).json()["orderId"]
    caller.post("Order/cancel", accountId=704, orderId=kept)
    assert [kept] == [order.id for order in gateway.executed_orders]


NOW = {"startTimestamp": "2020-01-01T00:00:00Z"}
BARS = {
    "contractId": MNQ, "live": False, "startTime": "2026-11-20T00:00:00Z", "endTime": "2026-11-21T00:00:00Z", "unit": 2,
    "unitNumber": 1, "limit": 5, "includePartialBar": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "body", "code", "payload"),
    [
        ("Auth/loginKey", {"userName": "trader", "apiKey": "wrong"}, 3, "token"),
        ("Auth/loginApp", dict.fromkeys(["userName", "password", "deviceId", "appId", "verifyKey"], "x"), 4, "token"),
        ("Contract/searchById", {"contractId": "x"}, 1, "contract"),
        ("History/retrieveBars", {**BARS, "contractId": "x"}, 1, "bars"),
        ("History/retrieveBars", {**BARS, "live": True}, 1, "bars"),
        ("History/retrieveBars", {**BARS, "unit": 7}, 2, "bars"),
        ("History/retrieveBars", {**BARS, "unit": 0}, 2, "bars"),
        ("History/retrieveBars", {**BARS, "unitNumber": 0}, 3, "bars"),
        ("History/retrieveBars", {**BARS, "limit": 20_001}, 4, "bars"),
        ("History/retrieveBars", {**BARS, "limit": 0}, 4, "bars"),
        ("Order/search", {"accountId": 1, **NOW}, 1, "orders"),
        ("Order/searchOpen", {"accountId": 1}, 1, "orders"),
        ("Order/searchById", {"accountId": 536, "orderId": 1}, 1, "order"),
        ("Order/v2/query", {"filter": {"accountId": 1}}, 1, "orders"),
        ("Order/place", {"accountId": 1, "contractId": MNQ, "type": 2, "side": 0, "size": 1}, 1, "orderId"),
        ("Order/cancel", {"accountId": 536, "orderId": 1}, 2, None),
        ("Order/modify", {"accountId": 536, "orderId": 1}, 2, None),
        ("Position/searchOpen", {"accountId": 1}, 1, "positions"),
        ("Position/closeContract", {"accountId": 536, "contractId": MNQ}, 2, None),
        ("Position/partialCloseContract", {"accountId": 536, "contractId": MNQ, "size": 1}, 2, None),
        ("Trade/search", {"accountId": 1, **NOW}, 1, "trades"),
    ],
)  # fmt: skip
def test_business_failures_are_200_with_a_code(
    caller: Caller, operation: str, body: dict[str, object], code: int, payload: str | None
) -> None:
    """HTTP 200, `success` false, the endpoint's code, its payload null."""
    reply = caller.post(operation, **body)
    found = reply.json()
    assert (200, False, code, None) == (
        reply.status_code, found["success"], found["errorCode"], found["errorMessage"],
    )  # fmt: skip
    assert payload is None or found[payload] is None


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/api/Account/search", 405, "POST"), ("POST", "/api/Status/ping", 405, "GET"),
        ("POST", "/api/Nope", 404, None), ("POST", "/api/account/SEARCH/", 415, None),
    ],
)  # fmt: skip
def test_paths_and_methods(caller: Caller, method: str, path: str, status: int, allow: str | None) -> None:
    """Paths match in any case and with a slash at the end; a wrong method is told the right one."""
    reply = caller.session.request(method, caller.gateway.url + path, timeout=10)
    assert (status, allow) == (reply.status_code, reply.headers.get("Allow"))


def test_a_mounted_application_takes_its_paths() -> None:
    """What is mounted answers for its prefix in any case, and the log does not count it."""
    rest, said = Rest(Desk().world), []

    async def mounted(scope, receive, send) -> None:
        said.append(scope["path"])

    rest.mount("/Control/", mounted)
    for path in ("/control", "/CONTROL/x"):
        asyncio.run(rest({"path": path}, None, None))  # type: ignore[arg-type]
    assert ["/control", "/CONTROL/x"] == said


############################################### faults ###############################################


def test_a_lost_reply_leaves_the_order(gateway: Gateway, caller: Caller) -> None:
    """After the fault `lose` the client knows nothing and the order stands."""
    gateway.faults.lose("Order/place")
    with pytest.raises(requests.ConnectionError):
        caller.place()
    assert 1 == len(gateway.executed_orders)
    assert ("lose", 0) == (gateway.requests[-1].fault, gateway.requests[-1].status)


@pytest.mark.parametrize("kind", ["reset", "reset-read"])
def test_a_reset_does_no_work(gateway: Gateway, caller: Caller, kind: str) -> None:
    """The connection is reset before the work, whether the call was read or not."""
    gateway.faults.add("Order/place", kind)
    with pytest.raises(requests.ConnectionError):
        caller.place()
    assert [] == gateway.executed_orders
    assert (b"" == gateway.requests[-1].body) == (kind == "reset")


def test_a_status_instead_of_the_work(gateway: Gateway, caller: Caller) -> None:
    """The status comes with its body and Retry-After, and nothing was done."""
    gateway.faults.status("Order/place", 503, retry_after="7", body="busy")
    reply = caller.place()
    assert (503, "busy", "7") == (reply.status_code, reply.text, reply.headers["Retry-After"])
    assert [] == gateway.executed_orders
    assert 200 == caller.place().status_code


@pytest.mark.parametrize(("kind", "count"), [("after", 1), ("code", 0), ("code-after", 1), ("html", 0)])
def test_answers_that_lie(gateway: Gateway, caller: Caller, kind: str, count: int) -> None:
    """A status or code after the work, a code or page instead of it."""
    gateway.faults.add("Order/place", kind, status=500, error_code=6, message="pending")
    reply = caller.place()
    if kind == "after":
        assert 500 == reply.status_code
    elif kind == "html":
        assert (200, "text/html") == (reply.status_code, reply.headers["Content-Type"])
    else:
        assert {"success": False, "errorCode": 6, "errorMessage": "pending"} == reply.json()
    assert count == len(gateway.executed_orders)


def test_late_work_happens_without_the_client(gateway: Gateway, caller: Caller) -> None:
    """The client gives up, and the order comes all the same."""
    gateway.faults.late("Order/place", 0.3)
    with pytest.raises(requests.Timeout):
        caller.session.post(
            f"{gateway.url}/api/Order/place", timeout=0.05,
            json={"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1},
        )  # fmt: skip
    assert [] == gateway.executed_orders
    deadline = time.monotonic() + 10
    while not gateway.executed_orders and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert 1 == len(gateway.executed_orders)


def test_a_slow_answer_comes(gateway: Gateway, caller: Caller) -> None:
    """The work is done at once and the answer held back."""
    gateway.faults.slow("Order/place", 0.2)
    start = time.monotonic()
    assert caller.place().json()["success"]
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("kind", ["drip", "slow-headers"])
def test_bytes_that_come_one_by_one_still_make_an_answer(gateway: Gateway, caller: Caller, kind: str) -> None:
    """A patient client gets the whole reply."""
    gateway.faults.add(OPEN, kind, seconds=0.001 if kind == "drip" else 0.1)
    assert [] == caller.search().json()["orders"]
    assert 200 == caller.search().status_code


@pytest.mark.parametrize("kind", ["drip", "slow-headers"])
def test_a_client_that_leaves_ends_the_dripping(gateway: Gateway, caller: Caller, kind: str) -> None:
    """An impatient client leaves, and the gateway goes on."""
    gateway.faults.add(OPEN, kind, seconds=0.05 if kind == "drip" else 5.0)
    with pytest.raises((requests.Timeout, requests.ConnectionError)):
        caller.session.post(f"{gateway.url}/api/{OPEN}", json={"accountId": 536}, timeout=0.02)
    caller.session.close()
    assert 200 == caller.search().status_code


def test_a_truncated_body_is_noticed(gateway: Gateway, caller: Caller) -> None:
    """Half of the body and the end of the connection: clients see an incomplete read."""
    gateway.faults.add(OPEN, "truncate")
    with pytest.raises(requests.RequestException):
        caller.search()
    assert 200 == caller.search().status_code


def test_faults_are_switches(gateway: Gateway, caller: Caller) -> None:
    """A fault is in force within its block, can be looked at, removed and cleared."""
    with gateway.faults.status(OPEN, 500, times=None) as switch:
        assert 500 == caller.search().status_code
        assert 1 == switch.struck
        assert [OPEN] == [fault.operation for fault in gateway.faults.active()]
        assert "Fault(" in repr(switch)
    assert 200 == caller.search().status_code
    gateway.faults.reset("*", times=None)
    gateway.faults.clear()
    assert 200 == caller.search().status_code


############################################# bad input #############################################


def talk(gateway: Gateway, *pieces: bytes) -> bytes:
    """What the gateway says to raw bytes, until it ends the connection or says no more for a moment."""
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as sock:
        for piece in pieces:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(5)
        said = b""
        try:
            while data := sock.recv(65536):
                said += data
        except ConnectionError:
            pass
        return said


HEAD = b"POST /api/Account/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\x01\x02", b"GET\r\n\r\n", b"\r\n\r\nhello", b"POST / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
     HEAD + b"Content-Length: x\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
     b"\x16\x03\x01\x02\x00\x01"],
)  # fmt: skip
def test_what_is_not_http_is_told_so(gateway: Gateway, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage gets a 400 and a line in the log, and the next client is served."""
    with caplog.at_level(logging.WARNING, "topstep_sync.simulator"):
        assert talk(gateway, garbage).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert "not HTTP" in caplog.text
    assert 200 == requests.get(f"{gateway.url}/api/Status/ping", timeout=10).status_code


def test_a_client_that_leaves_within_its_body_does_no_harm(gateway: Gateway) -> None:
    """Half a body and the end: nothing is done, the gateway goes on."""
    caller = Caller(gateway)
    head = HEAD.replace(b"Account/search", b"Order/place") + f"Authorization: Bearer {caller.token}\r\n".encode()
    assert b"" == talk(gateway, head + b'Content-Length: 500\r\n\r\n{"accountId":')
    assert 200 == caller.search().status_code
    caller.session.close()


def test_a_body_above_kestrels_limit_is_413(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is refused and the connection closed."""
    monkeypatch.setattr("topstep_sync.simulator.asgi.MAX_BODY", 100_000)
    caller = Caller(gateway)
    reply = caller.session.post(
        f"{gateway.url}/api/{SEARCH}", data=iter([b"x" * 60_000] * 3), timeout=10,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert (413, "close") == (reply.status_code, reply.headers["Connection"])
    caller.session.close()


def test_a_bug_is_a_500_and_a_log_line(gateway: Gateway, caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """Should an operation fail, the client gets 500 and the gateway goes on."""
    gateway.run(lambda world: setattr(world.exchange, "open_orders", None))
    assert (500, b"") == (caller.search().status_code, caller.search().content)
    assert "failed" in caplog.text
    assert 200 == caller.post(SEARCH, onlyActiveAccounts=True).status_code


def test_text_that_is_no_unicode_is_refused(gateway: Gateway, caller: Caller) -> None:
    """A lone surrogate as a tag is no text: the gateway answers and lives."""
    body = json.dumps({"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1, "customTag": "\ud800"})
    headers = {"Content-Type": "application/json"}
    reply = caller.session.post(f"{gateway.url}/api/Order/place", data=body, headers=headers, timeout=10)
    assert 400 == reply.status_code
    assert 200 == caller.search().status_code


def test_32_clients_at_once(gateway: Gateway) -> None:
    """Thirty-two threads place an order each: 32 orders, 32 ids, no error."""
    ids: list[int] = []
    barrier = threading.Barrier(32)

    def trade() -> None:
        caller = Caller(gateway)
        barrier.wait(20)
        ids.append(caller.place().json()["orderId"])
        caller.session.close()

    threads = [threading.Thread(target=trade) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 32 == len(set(ids)) == len(gateway.executed_orders)
