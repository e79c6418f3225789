"""Any bytes on the simulator's port end in a proper answer, never in a dead simulator."""

import asyncio
import json
import os
import random
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_world import MNQ, Desk

from topstep_sync.codes import CODES
from topstep_sync.simulator.operations import OPERATIONS, PING
from topstep_sync.simulator.rest import Rest
from topstep_sync.testing import Gateway

NIGHT = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


class Direct:
    """The REST application without a socket: one call, one answer."""

    def __init__(self, **switches: Any) -> None:
        self.desk = Desk(limiter="none", market_rate=5.0, **switches)
        self.rest = Rest(self.desk.world)
        self.token = self.desk.world.tokens.issue()

    def call(self, path: str, body: bytes, method: str = "POST", content_type: bytes = b"application/json"):
        """Status and body of the answer."""
        headers = [(b"authorization", b"Bearer " + self.token.encode()), (b"content-type", content_type)]
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        asyncio.run(self.rest(scope, receive, send))
        return said[0]["status"], said[1].get("body", b"")


PATHS = [*OPERATIONS, PING, "/api/nope", "/", "/api/order/place/", "//"]
LEAF = (
    st.sampled_from([536, 704, 999, 0, 1, 2, -1, 2**31, 2**63, 20000.25, 21000.0, 0.1, 1e300, True, None, "", "x", MNQ])
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "2026-11-24"])
)
FIELDS = [
    "accountId", "contractId", "type", "side", "size", "limitPrice", "stopPrice", "trailPrice", "customTag", "orderId",
    "stopLossBracket", "takeProfitBracket", "ticks", "filter", "statuses", "pageSize", "pageOffset", "sortBy",
    "sortDirection", "includeTotalCount", "startTimestamp", "endTimestamp", "startTime", "endTime", "unit",
    "unitNumber", "limit", "includePartialBar", "live", "searchText", "onlyActiveAccounts", "userName", "apiKey",
    "createdAfter",
]  # fmt: skip
NAMES = st.sampled_from(FIELDS)
TREE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=12), max_leaves=20
)
# Bodies that look right except for a field or two reach deeper than those that look wrong everywhere.
RIGHT: dict[str, dict[str, Any]] = {
    "/api/order/place": {"accountId": 704, "contractId": MNQ, "type": 2, "side": 0, "size": 1},
    "/api/order/modify": {"accountId": 704, "orderId": 2_200_009_056},
    "/api/order/cancel": {"accountId": 704, "orderId": 2_200_009_056},
    "/api/order/v2/query": {"filter": {"accountId": 704}},
    "/api/order/search": {"accountId": 704, "startTimestamp": "2020-01-01T00:00:00Z"},
    "/api/position/partialclosecontract": {"accountId": 704, "contractId": MNQ, "size": 1},
    "/api/history/retrievebars": {
        "contractId": MNQ, "live": False, "startTime": "2026-11-20T00:00:00Z", "endTime": "2026-11-21T00:00:00Z",
        "unit": 3, "unitNumber": 1, "limit": 5, "includePartialBar": True,
    },
}  # fmt: skip
NEARLY = st.sampled_from(list(RIGHT)).flatmap(
    lambda path: st.dictionaries(NAMES, TREE, max_size=3).map(
        lambda odd: (path, json.dumps({**RIGHT[path], **odd}).encode())
    )
)
ANY = st.tuples(st.sampled_from(PATHS), st.binary(max_size=300) | TREE.map(lambda tree: json.dumps(tree).encode()))
CALLS = st.lists(NEARLY | ANY, min_size=1, max_size=10)


def check(path: str, status: int, body: bytes) -> None:
    """The answer is one that the gateway gives."""
    assert status in (200, 400, 401, 404, 405, 415), (path, status, body)
    if status == 200 and path != PING:
        reply = json.loads(body)
        assert reply["success"] == (reply["errorCode"] == 0)
        assert reply["errorCode"] < len(CODES[path.rstrip("/")])
    if status == 400:
        assert {"type", "title", "status", "errors", "traceId"} == set(json.loads(body))


def run(calls: list[tuple[str, bytes]]) -> None:
    direct = Direct()
    for path, body in calls:
        check(path, *direct.call(path, body))
        direct.desk.world.clock.advance(0.5)


@pytest.mark.slow
@settings(max_examples=200)
@given(CALLS)
def test_no_sequence_of_bodies_breaks_the_gateway(calls: list[tuple[str, bytes]]) -> None:
    """A thousand odd bodies, one after another in a moving market, each get an answer of the contract."""
    run(calls)


def odd(rng: random.Random) -> Any:
    """Some JSON value, more or less odd."""
    values: list[Any] = [
        None, True, "", "x", MNQ, "2026-01-01T00:00:00Z", 0, 1, 2, -1, 2**31, 2**63, 536, 704, 21000.0, 0.1, 1e300, [],
        {}, [1, "2"],
        {"ticks": rng.randint(-50, 50), "type": rng.randint(0, 6)}, {"accountId": 704, "statuses": [1, 8]},
        rng.randint(-10, 10), rng.choice([20990.0, 20999.75, 21010.5]),
        "".join(map(chr, rng.choices(range(1, 300), k=5))),
    ]  # fmt: skip
    return rng.choice(values)


def mutated(rng: random.Random) -> tuple[str, bytes]:
    """A call that is right but for a field or two, or for a few bytes."""
    path = rng.choice(list(RIGHT))
    fields = {**RIGHT[path], **{rng.choice(FIELDS): odd(rng) for _ in range(rng.randint(0, 3))}}
    if rng.random() < 0.2:
        fields.pop(rng.choice(list(fields)))
    body = bytearray(json.dumps(fields).encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return path, bytes(body)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_bodies_break_nothing() -> None:
    """Moving markets and 100 000 bodies that are nearly right, 500 to a gateway."""
    rng, placed = random.Random(7), 0
    for _ in range(200):
        direct = Direct()
        for number in range(500):
            path, body = mutated(rng)
            check(path, *direct.call(path, body))
            if number % 50 == 0:
                direct.desk.world.clock.advance(0.5)
        placed += len(direct.desk.exchange.orders)
    assert placed > 1000


def hit(port: int, data: bytes) -> None:
    """*data* is sent to the port as it stands; whatever comes back is read to its end."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.settimeout(5)
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass


PIECES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([
        b"POST /api/Order/place HTTP/1.1\r\n", b"GET /api/Status/ping HTTP/1.1\r\n", b"Host: x\r\n",
        b"\r\n", b"\r\n\r\n",
        b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"Expect: 100-continue\r\n", b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n",
        b"HTTP/1.0\r\n",
        b"Authorization: Bearer \xff\r\n", b"GET /hubs/user?id=1 HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"Sec-WebSocket-Key: x\r\n", b"CONNECT x:1 HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n",
    ]),
    max_size=8,
).map(b"".join)  # fmt: skip


def test_no_bytes_kill_the_port() -> None:
    """Hundreds of broken conversations later the gateway answers the next client."""
    with Gateway(market_rate=0) as gateway:

        @settings(max_examples=20_000 if NIGHT else 300)
        @given(PIECES)
        def throw(data: bytes) -> None:
            hit(gateway.port, data)

        throw()
        hit(gateway.port, b"GET /api/Status/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert 200 == gateway.requests[-1].status
