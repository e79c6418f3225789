"""The same requests, good and bad, to the simulator and to a gateway on the real ASP.NET Core: they agree."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import aspnetcore
import pytest
import requests

from topstep_sync.simulator.settings import AccountSpec
from topstep_sync.testing import Gateway

pytestmark = [pytest.mark.interop, aspnetcore.needed]

MNQ, MES, OLD = "CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26", "CON.F.US.ENQ.U26"
START = "2020-01-01T00:00:00Z"
PRICES = {MNQ: 21000.0, MES: 6000.0, "CON.F.US.JY6.Z26": 0.0067}

# Fields that the simulator sends beyond the reference; both were seen in the field (swagger of 2026-09 has them).
EXTRA = {"commissions", "contractDisplayName"}

# Requests that the two answer differently, and why the simulator keeps its own answer.
DIFFERENCES = {
    "live bars": "the reference ignores `live`; clients of July 2026 saw ContractNotFound",
    "no start": "required by the documentation's prose, optional in the swagger, which the simulator follows",
    "bracket without type": "a C# record's constructor arguments are optional to .NET; the contract has both",
    "utf-16": "the reference fails with 500 on a charset that the bytes do not have; the simulator reads UTF-8",
    "all contracts": "the simulator lists 51 products, the reference 7; their records have the same shape",
}
# Not compared at all: the texts of System.Text.Json's parser (only the paths they stand under), trace ids (random),
# the scale of decimals (21020.00 and 21020.0 are one number), and digits of a second (7 there, up to 6 here, as seen).


class Case(NamedTuple):
    """One request. `body` is sent as it stands."""

    label: str
    path: str
    body: bytes | None = None
    method: str = "POST"
    content_type: str | None = "application/json"
    bearer: str | None = "valid"
    headers: tuple[tuple[str, str], ...] = ()


def call(path: str, label: str = "", /, **fields: Any) -> Case:
    return Case(label or path, f"/api/{path}", json.dumps(fields).encode())


def raw(path: str, body: bytes | str, **options: Any) -> Case:
    data = body.encode() if isinstance(body, str) else body
    return Case(f"{path} {data[:60]!r}", f"/api/{path}", data, **options)


def order(**fields: Any) -> Case:
    return call("Order/place", **{"accountId": 536, "contractId": MNQ, "type": 2, "side": 0, "size": 1, **fields})


SEARCH = "Account/search"
GOOD = '{"onlyActiveAccounts":true}'

BODIES = [
    "{}", "null", "", "[]", '"x"', "5", "true", "\x00", " ", "{",
    '{"onlyActiveAccounts":1}', '{"onlyActiveAccounts":"true"}',
    '{"onlyActiveAccounts":null}', '{"onlyActiveAccounts":tru}', '{"a":x}', '{"a":1,"onlyActiveAccounts":-}',
    '{"onlyActiveAccounts" true}', '{"onlyActiveAccounts":\xff}', '[true',
    '{"onlyActiveAccounts":{}}', '{"onlyActiveAccounts":[true]}', '{"ONLYACTIVEACCOUNTS":true}',
    '{"onlyActiveAccounts":true', '{"onlyActiveAccounts":true,}', '{"onlyActiveAccounts":true}x',
    "{'onlyActiveAccounts':true}",
    '{"a":1,"onlyActiveAccounts":false}', '{"onlyActiveAccounts":true,"onlyActiveAccounts":3}',
    f" {GOOD} ", f"\n{GOOD}\n",
    '{"onlyActiveAccounts":false,"onlyActiveAccounts":true}', '{"onlyActiveAccounts":true,"x":{"y":[1,{"z":null}]}}',
]  # fmt: skip

INTEGERS = [
    "1.0",
    "1e2",
    "3000000000",
    '"536"',
    "null",
    "true",
    "-1",
    "[]",
    "99999999999999999999",
    "536.5",
    "-0",
    "01",
]

TIMES = [
    "2026-01-01", "2026-01-01T00:00", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "x", "", "2026-13-01T00:00:00Z",
    "2026-01-01T00:00:00.123456789Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00+0100", "2026-01-01t00:00:00z",
    "2026-02-29T00:00:00Z", "2026-01-01T00:00:00-05:00", "20260101", "2026-01-01T00:00:60Z", "0001-01-01T00:00:00Z",
]  # fmt: skip

BINDING = [
    *[raw(SEARCH, body) for body in BODIES],
    *[raw("Order/searchOpen", f'{{"accountId":{value}}}') for value in INTEGERS],
    *[call("Order/search", f"start {t!r}", accountId=536, startTimestamp=t) for t in TIMES],
    call("Order/search", "end", accountId=536, startTimestamp=START, endTimestamp="2021-01-01T00:00:00Z"),
    call("Order/search", "null end", accountId=536, startTimestamp=START, endTimestamp=None),
    call("Order/search", "number for a time", accountId=536, startTimestamp=5),
    raw("Order/place", "{}"),
    raw("Order/place", '{"accountId":536}'),
    order(contractId=None),
    order(contractId=5),
    order(contractId="x", limitPrice=1e30),
    order(contractId="x", limitPrice="1"),
    order(contractId="x", limitPrice=True),
    call(
        "Order/place",
        "bracket without type",
        accountId=536,
        contractId="x",
        type=2,
        side=0,
        size=1,
        stopLossBracket={"ticks": 1},
    ),
    order(contractId="x", stopLossBracket={"ticks": "1"}),
    order(contractId="x", stopLossBracket=[]),
    order(contractId="x", stopLossBracket=None, takeProfitBracket=None, customTag=None, limitPrice=None),
    order(contractId="x", customTag=7),
    order(type="market"),
    order(size=2**31),
    raw("Order/v2/query", '{"filter":{},"pageSize":0}'),
    raw("Order/v2/query", '{"filter":null}'),
    raw("Order/v2/query", '{"pageSize":1}'),
    call("Order/v2/query", "page size 0", filter={"accountId": 536}, pageSize=0),
    call("Order/v2/query", "page size 1001", filter={"accountId": 536}, pageSize=1001),
    call("Order/v2/query", "text status", filter={"accountId": 536, "statuses": ["1"]}),
    call("Order/v2/query", "null statuses", filter={"accountId": 536, "statuses": None}),
    call("Order/v2/query", "account 1", filter={"accountId": 1}),
    call("Trade/search", "no start", accountId=536),
    call("Trade/search", "account 1", accountId=1, startTimestamp=START),
]

ENVELOPE = [
    Case("utf-16", f"/api/{SEARCH}", GOOD.encode(), content_type="application/json; charset=utf-16"),
    *[raw(SEARCH, GOOD, content_type=kind) for kind in (
        None, "text/plain", "text/json", "application/x+json", "application/json; charset=utf-8", "garbage",
        "text/html", "application/octet-stream", "application/JSON", "application/x-www-form-urlencoded",
    )],
    raw(SEARCH, "", content_type=None),
    *[raw(SEARCH, GOOD, bearer=bearer) for bearer in (
        None, "Bearer x", "Basic x", "Bearer ", "Bearer", "bearer {token}", "{token}", "Bearer {token}x",
        "Bearer {tampered}", "Bearer a.b.c", "Bearer {token} {token}",
    )],
    raw("Nope/x", "{}"), raw("Nope", "{}", bearer=None), Case("root path", "/nope", b"{}"), raw("", "{}"),
    raw("Order/place/", "{}"), raw("order/PLACE", "{}"), raw("Account/search/x", "{}"),
    *[Case(f"{method} {SEARCH}", f"/api/{SEARCH}", None, method, None)
      for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH")],
    *[Case(f"{method} ping", "/api/Status/ping", None, method, None) for method in ("GET", "POST", "DELETE")],
    Case("ping as json", "/api/Status/ping", None, "GET", None, None, (("Accept", "application/json"),)),
    Case("ping as text", "/api/Status/ping", None, "GET", None, None, (("Accept", "text/plain"),)),
    Case("ping in capitals", "/API/STATUS/PING", None, "GET", None, None),
    raw(SEARCH, "{}", bearer=None), raw(SEARCH, "{}", bearer=None, content_type="text/plain"),
]  # fmt: skip

AUTH = [
    raw("Auth/loginKey", "{}", bearer=None),
    raw("Auth/loginKey", "", bearer=None),
    raw("Auth/loginKey", '{"userName":null,"apiKey":"x"}', bearer=None),
    raw("Auth/loginKey", '{"userName":"trader"}', bearer=None),
    raw("Auth/loginKey", '{"userName":"trader","apiKey":5}', bearer=None),
    raw("Auth/loginKey", '{"userName":"trader","apiKey":"wrong"}', bearer=None),
    raw("Auth/loginKey", '{"userName":"TRADER","apiKey":"key-123"}', bearer=None),
    raw("Auth/loginKey", '{"userName":"trader","apiKey":"KEY-123"}', bearer=None),
    raw("Auth/loginKey", '{"userName":"trader","apiKey":"key-123"}', bearer="Bearer x"),
    raw("Auth/loginApp", '{"userName":"a","password":"b","deviceId":"c","appId":"d","verifyKey":"e"}', bearer=None),
    raw("Auth/loginApp", "{}", bearer=None),
    raw("Auth/validate", "", content_type=None), raw("Auth/validate", "{}"), raw("Auth/validate", "garbage"),
    raw("Auth/validate", "garbage", content_type="text/plain"), raw("Auth/validate", "{}", bearer=None),
    raw("Auth/validate", "{}", bearer="Bearer x"), raw("Auth/logout", "{}", bearer=None),
]  # fmt: skip

MARKET = [
    call(SEARCH, onlyActiveAccounts=False),
    call("Contract/searchById", contractId=MNQ),
    call("Contract/searchById", "expired", contractId=OLD),
    call("Contract/searchById", "unknown", contractId="CON.F.US.NOPE.Z26"),
    call("Contract/searchById", "empty", contractId=""),
    call("Contract/search", "live", searchText="NQ", live=True),
    call("Contract/search", "by id", searchText=MNQ, live=False),
    call("Contract/search", "nothing", searchText="no such thing", live=False),
    call("Contract/search", "no live", searchText="NQ"),
    call("Contract/available", live=True),
    call("Contract/available", "all contracts", live=False),
    call("History/retrieveBars", "live bars", contractId=MNQ, live=True, startTime=START,
         endTime="2026-11-03T00:00:00Z", unit=2, unitNumber=1, limit=5, includePartialBar=False),
    call("Contract/available", "no live"),
    *[call("History/retrieveBars", f"bars {change}", **{
        "contractId": MNQ, "live": False, "startTime": "2026-11-02T00:00:00Z", "endTime": "2026-11-03T00:00:00Z",
        "unit": 2, "unitNumber": 1, "limit": 5, "includePartialBar": False, **change,
    }) for change in (
        {}, {"unit": 1}, {"unit": 3}, {"unit": 4}, {"unit": 0}, {"unit": 7}, {"unit": 99}, {"unitNumber": 0},
        {"unitNumber": -1}, {"unitNumber": 5}, {"limit": 0}, {"limit": 20001}, {"limit": 20000}, {"limit": 1},
        {"contractId": "x"}, {"contractId": None}, {"includePartialBar": None}, {"endTime": "2026-11-01T00:00:00Z"},
        {"startTime": "2026-11-02T23:57:30Z", "includePartialBar": True, "limit": 10},
        {"startTime": "2026-11-02T23:57:30Z", "endTime": "2026-11-02T23:59:30Z",
         "includePartialBar": True, "limit": 10},
        {"startTime": "2026-11-02T23:57:30Z", "endTime": "2026-11-02T23:59:30Z", "limit": 10},
        {"unit": 4, "unitNumber": 1, "startTime": "2026-10-02T00:00:00Z"}, {"limit": 1.5}, {"unit": "2"},
    )],
]  # fmt: skip


def bracketed(side: int, stop: dict[str, int] | None, target: dict[str, int] | None) -> Case:
    return order(
        side=side, stopLossBracket=stop, takeProfitBracket=target, type=1, limitPrice=20000 if side == 0 else 22000
    )


ORDERS = [
    order(accountId=1), order(accountId=999), order(contractId="x"), order(contractId=OLD),
    *[order(type=kind) for kind in (0, 1, 3, 4, 5, 8, -1)], order(side=2), order(side=-1),
    *[order(size=size) for size in (0, -1, 1_000_001)],
    order(type=1, limitPrice=20000.1), order(type=4, stopPrice=20000.1), order(type=5, trailPrice=20000.1),
    order(type=5, trailPrice=20000), order(type=5, trailPrice=20749.75),
    order(type=1, limitPrice=20000, customTag="once"), order(type=1, limitPrice=20000, customTag="once"),
    order(type=0, customTag="burnt"), order(type=1, limitPrice=20000, customTag="burnt"),
    order(type=1, limitPrice=20000, customTag=""), order(type=1, limitPrice=20000, customTag=""),
    bracketed(0, {"ticks": 40, "type": 4}, None), bracketed(0, {"ticks": -3, "type": 4}, None),
    bracketed(0, {"ticks": -40, "type": 1}, None), bracketed(0, {"ticks": -40, "type": 2}, None),
    bracketed(0, None, {"ticks": -40, "type": 1}), bracketed(0, None, {"ticks": 40, "type": 4}),
    bracketed(1, {"ticks": -40, "type": 4}, None), bracketed(1, None, {"ticks": 40, "type": 1}),
    bracketed(0, {"ticks": 0, "type": 4}, None), bracketed(0, None, {"ticks": 0, "type": 1}),
    bracketed(0, {"ticks": -40, "type": 4}, {"ticks": 80, "type": 1}),
    bracketed(1, {"ticks": 40, "type": 5}, {"ticks": -80, "type": 1}),
    order(contractId="CON.F.US.JY6.Z26", type=1, limitPrice=0.0066995),
    order(contractId="CON.F.US.JY6.Z26", type=1, limitPrice=0.00669951),
    order(side=1, size=3, customTag="short"), order(side=0, size=1), order(side=0, size=5), order(side=1, size=1),
    call("Position/searchOpen", accountId=536), call("Position/searchOpen", "account 1", accountId=1),
    call("Position/closeContract", "account 1", accountId=1, contractId=MNQ),
    call("Position/closeContract", "unknown", accountId=536, contractId="x"),
    call("Position/closeContract", "flat", accountId=536, contractId=MES),
    *[call("Position/partialCloseContract", f"size {n}", accountId=536, contractId=MNQ, size=n) for n in (0, -1, 99)],
    call("Position/partialCloseContract", accountId=536, contractId=MNQ, size=1),
    call("Position/partialCloseContract", "flat", accountId=536, contractId=MES, size=1),
    call("Position/closeContract", accountId=536, contractId=MNQ),
    call("Position/searchOpen", "after closing", accountId=536),
    call("Trade/search", accountId=536, startTimestamp=START),
    call("Order/search", accountId=536, startTimestamp=START), call("Order/searchOpen", accountId=536),
    call("Order/search", "account 1", accountId=1, startTimestamp=START),
    call("Order/searchById", accountId=536, orderId=1),
    call("Order/searchById", "account 1", accountId=1, orderId=9056),
    call("Order/cancel", accountId=1, orderId=9056), call("Order/cancel", "unknown", accountId=536, orderId=1),
    call("Order/cancel", "rejected", accountId=536, orderId=9056),
    call("Order/modify", accountId=1, orderId=9056), call("Order/modify", "unknown", accountId=536, orderId=1),
    call("Order/modify", "rejected", accountId=536, orderId=9056, size=2),
]  # fmt: skip


class Side:
    """One of the two gateways, with a token of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        reply = self.post("Auth/loginKey", userName="trader", apiKey="key-123")
        self.token = reply["token"]
        self.session.headers["Authorization"] = f"Bearer {self.token}"

    def post(self, operation: str, **fields: Any) -> Any:
        return self.session.post(f"{self.url}/api/{operation}", json=fields, timeout=30).json()

    def send(self, case: Case) -> requests.Response:
        headers = dict(case.headers)
        if case.content_type:
            headers["Content-Type"] = case.content_type
        if case.bearer is not None:
            tampered = self.token[:-3] + ("abc" if self.token[-3:] != "abc" else "xyz")
            bearer = "Bearer {token}" if case.bearer == "valid" else case.bearer
            headers["Authorization"] = bearer.format(token=self.token, tampered=tampered)
        request = requests.Request(case.method, self.url + case.path, data=case.body, headers=headers).prepare()
        return self.session.send(request, timeout=30)


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Side, Side]]:
    """Simulator and reference, in the same state."""
    accounts = (
        AccountSpec(536, "PRAC-V2-536", 150_000.0, auto_oco=True),
        AccountSpec(704, "50KTC-V2-704", 50_000.0, auto_oco=True),
        AccountSpec(999, "50KTC-V2-999", 48_000.0, can_trade=False),
    )
    settings: dict[str, Any] = {"market_rate": 0, "limiter": "none", "first_order_id": 9056, "accounts": accounts}
    with Gateway(**settings) as gateway, aspnetcore.reference(limiter="none") as ready:
        for contract, price in PRICES.items():
            gateway.set_price(contract, price)
        ours, theirs = Side(gateway.url), Side(ready["url"])
        yield ours, theirs
        ours.session.close()
        theirs.session.close()


def headers_that_matter(reply: requests.Response) -> dict[str, str | None]:
    names = (
        "content-type",
        "allow",
        "www-authenticate",
        "transfer-encoding",
        "content-length",
        "server",
        "retry-after",
    )
    return {name: reply.headers.get(name) for name in names}


def shape(value: Any) -> Any:
    """The JSON types of *value*; a list counts as its first entry."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        stamp = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?\+00:00", value)
        return "instant" if stamp else "text"
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return {key: shape(entry) for key, entry in value.items() if key not in EXTRA}


def exact(body: Any) -> Any:
    """The parts of a body that must be the same to the letter."""
    if not isinstance(body, dict):
        return body
    if "traceId" in body:
        known = ("is required", "missing required properties", "must be between", "non-empty request body")
        errors = {
            path: [text if any(k in text for k in known) else "…" for text in texts]
            for path, texts in (body.get("errors") or {}).items()
        }
        return {"type": body["type"], "title": body["title"], "status": body["status"], "errors": errors}
    orders = [
        (o["id"], o["status"], o["fillVolume"], o["filledPrice"], o["customTag"]) for o in body.get("orders") or []
    ]
    trades = [(t["price"], t["profitAndLoss"], t["side"], t["size"], t["orderId"]) for t in body.get("trades") or []]
    held = [(p["type"], p["size"], p["averagePrice"]) for p in body.get("positions") or []]
    bars = [bar["t"] for bar in body.get("bars") or []]
    contracts = sorted(c["id"] for c in body.get("contracts") or [])
    facts = {name: body.get(name) for name in ("success", "errorCode", "errorMessage", "orderId", "totalCount")}
    return {**facts, "orders": orders, "trades": trades, "positions": held, "bars": bars, "contracts": contracts}


def compare(ours: requests.Response, theirs: requests.Response) -> list[str]:
    """What differs."""
    found = []
    if ours.status_code != theirs.status_code:
        found.append(f"status {ours.status_code}, not {theirs.status_code}")
    mine, other = headers_that_matter(ours), headers_that_matter(theirs)
    found += [f"{name}: {mine[name]!r}, not {other[name]!r}" for name in mine if mine[name] != other[name]]
    if (ours.headers.get("content-type") or "").find("json") < 0:
        return found + ([f"body {ours.text!r}, not {theirs.text!r}"] if ours.text != theirs.text else [])
    try:
        left, right = ours.json(), theirs.json()
    except ValueError:
        return [*found, f"body {ours.text[:200]!r}, not {theirs.text[:200]!r}"]
    if shape(left) != shape(right) and "errors" not in left:
        found.append(f"shape {shape(left)}, not {shape(right)}")
    if exact(left) != exact(right):
        found.append(f"{exact(left)}, not {exact(right)}")
    return found


CASES = [*BINDING, *ENVELOPE, *AUTH, *MARKET, *ORDERS]


def test_there_are_enough_requests() -> None:
    """The comparison is wide: at least 150 requests."""
    assert len(CASES) >= 150


def test_simulator_and_aspnetcore_agree(sides: tuple[Side, Side]) -> None:
    """Status, headers that matter, envelope, problem details and JSON types agree, request by request."""
    ours, theirs = sides
    differences, known = [], set()
    for case in CASES:
        found = compare(ours.send(case), theirs.send(case))
        if case.label in DIFFERENCES:
            known.update([case.label] if found else [])
            continue
        differences += [f"{case.method} {case.label} {(case.body or b'')[:150]!r}: {text}" for text in found]
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences)
    assert set(DIFFERENCES) == known, "the list of differences is no longer true"
