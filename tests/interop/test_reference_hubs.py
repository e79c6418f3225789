"""The hubs of the simulator and of the reference gateway, side by side: what one says, the other says.

Differences, each on purpose:

* Only WebSockets are offered by `/negotiate`; the framework offers server-sent events and long polling besides.
* A ping frame above 125 bytes is closed with 1002; the framework resets the connection without a word.
* After a broken frame the simulator ends TCP by FIN; the framework resets it when bytes are left unread.
* Cancelling a stream is read and has nothing to cancel: streams of the echo hub are sent whole, at once.
* Timeouts are looked at 20 times an interval; Kestrel looks once a second, so its figures are up to a second longer.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import aspnetcore
import pytest
import requests

from tests.hub_dialogues import DIALOGUES, GOLDEN, Dialogue, hold
from tests.hub_wire import Refused, Wire, opened
from topstep_sync.testing import Gateway

pytestmark = [pytest.mark.interop, aspnetcore.needed]

CLOSED = "Connection closed with an error."
EXPECTED = json.loads(GOLDEN.read_text())


class Side(NamedTuple):
    """One of the two gateways."""

    url: str
    token: str

    def post(self, path: str, body: Any = None) -> Any:
        answer = requests.post(f"{self.url}/control{path}", json=body, timeout=20)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None


def login(url: str, user_name: str, api_key: str) -> Side:
    answer = requests.post(f"{url}/api/Auth/loginKey", json={"userName": user_name, "apiKey": api_key}, timeout=20)
    return Side(url, answer.json()["token"])


@pytest.fixture(scope="module")
def sides() -> Iterator[dict[str, Side]]:
    with (
        aspnetcore.reference(keepAlive=1, clientTimeout=2, handshakeTimeout=1) as ready,
        Gateway(keep_alive=1.0, client_timeout=2.0, handshake_timeout=1.0, market_rate=0.0) as gateway,
    ):
        yield {
            "reference": login(ready["url"], ready["user_name"], ready["api_key"]),
            "simulator": login(gateway.url, gateway.user_name, gateway.api_key),
        }


@pytest.fixture(params=["reference", "simulator"])
def side(sides: dict[str, Side], request: pytest.FixtureRequest) -> Side:
    return sides[request.param]


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.key)
def test_reference_still_says_what_is_golden(sides: dict[str, Side], dialogue: Dialogue) -> None:
    """The golden answers, which the simulator is held to, are the framework's."""
    expected, heard = EXPECTED[dialogue.key], hold(*sides["reference"], dialogue)
    if expected["end"] == "1002" and heard["end"] in ("rst", "broken"):
        return  # the framework's reset overtook its close frame
    assert expected == heard


################################################ time ################################################


def stamps(wire: Wire, seconds: float) -> tuple[list[tuple[float, Any]], str]:
    """Every record with its time since now, for that long, and how it stood then."""
    start, found = time.monotonic(), []
    wire.sock.settimeout(0.5)
    while time.monotonic() - start < seconds:
        try:
            found.append((time.monotonic() - start, wire.record()))
        except TimeoutError:
            continue
        except Exception as end:
            return found, str(end)
    return found, "open"


def test_pings_keep_their_interval_and_a_client_that_never_pings_stays(side: Side) -> None:
    """A ping each second, and no client timeout before the client's first ping."""
    with opened(f"{side.url}/hubs/user", side.token) as wire:
        found, end = stamps(wire, 4.5)
    assert "open" == end
    assert all(record == {"type": 6} for _, record in found)
    assert 2 <= len(found) <= 4


def test_client_timeout_is_armed_by_the_first_ping(side: Side) -> None:
    """A client that pings once and falls silent is closed, with leave to reconnect."""
    with opened(f"{side.url}/hubs/user", side.token) as wire:
        wire.send({"type": 6})
        found, end = stamps(wire, 6)
    assert "close 1000" == end
    at, last = found[-1]
    assert {"type": 7, "error": CLOSED, "allowReconnect": True} == last
    assert 0.9 <= at <= 4.5  # the framework looks at a coarse clock once a second


def test_calls_put_the_client_timeout_off(side: Side) -> None:
    """Any record of the client counts as a sign of life."""
    with opened(f"{side.url}/hubs/user", side.token) as wire:
        wire.send({"type": 6})
        for _ in range(6):
            time.sleep(0.6)
            assert None is wire.result("SubscribeAccounts")["result"]


def test_records_of_unknown_type_do_not_put_it_off(side: Side) -> None:
    """After a record of unknown type nothing counts as a sign of life."""
    with opened(f"{side.url}/hubs/user", side.token) as wire:
        wire.send({"type": 6})
        wire.send({"type": 99})
        for _ in range(3):
            time.sleep(0.5)
            wire.send({"type": 6})
        found, end = stamps(wire, 4)
    assert ("close 1000", True) == (end, found[-1][1]["allowReconnect"])


def test_handshake_timeout(side: Side) -> None:
    """A client without a handshake is told that it was canceled."""
    with Wire(f"{side.url}/hubs/user", side.token) as wire:
        wire.send('{"protocol"')
        records, end = wire.until_end()
    assert ([{"error": "Handshake was canceled."}], 1000) == (records, end.code)


############################################### control ###############################################


@pytest.mark.parametrize(
    ("how", "close"),
    [
        ("abort", {"type": 7}),
        ("shutdown", {"type": 7, "allowReconnect": True}),
        ("error", {"type": 7, "error": CLOSED}),
        ("error-reconnect", {"type": 7, "error": CLOSED, "allowReconnect": True}),
        ("fin", None),
        ("rst", None),
    ],
)
def test_drops(side: Side, how: str, close: Any) -> None:
    """Each drop looks the same, Close record and end."""
    with opened(f"{side.url}/hubs/echo") as wire:
        side.post(f"/hubs/echo/drop?how={how}")
        records, end = wire.until_end()
    assert [close] * (close is not None) == [record for record in records if record != {"type": 6}]
    expected = how if close is None else "close" if not how.startswith("error") else end.how
    assert expected == end.how


def test_failed_connect(side: Side) -> None:
    """An OnConnectedAsync that throws accepts the handshake, then closes with its words."""
    side.post("/hubs/fail-connects?count=1")
    with Wire(f"{side.url}/hubs/user", side.token) as wire:
        assert {} == wire.handshake()
        records, end = wire.until_end()
    assert [{"type": 7, "error": f"{CLOSED} HubException: refused on connect"}] == records
    assert "close" == end.how


@pytest.mark.parametrize("answer", [{"result": 42}, {"error": "no"}])
def test_asking_the_client(side: Side, answer: Any) -> None:
    """A call that wants an answer gets it, result or error."""
    said: list[Any] = []
    with opened(f"{side.url}/hubs/echo") as wire:
        asking = threading.Thread(target=lambda: said.append(side.post("/hubs/echo/ask/AskMe?seconds=5", [1, "x"])))
        asking.start()
        call = wire.record_of(1)
        wire.send({"type": 3, "invocationId": call["invocationId"], **answer})
        asking.join(20)
    assert ("AskMe", [1, "x"]) == (call["target"], call["arguments"])
    assert [[answer]] == said


def test_asking_a_client_that_stays_silent(side: Side) -> None:
    """A client that does not answer is given up after so many seconds."""
    with opened(f"{side.url}/hubs/echo"):
        assert [{"error": "Invocation canceled by the server."}] == side.post("/hubs/echo/ask/AskMe?seconds=0.3", [1])


def test_send_and_raw(side: Side) -> None:
    """Events and raw text reach whoever is connected, as they are."""
    with opened(f"{side.url}/hubs/user", side.token) as wire:
        side.post("/hubs/user/send/GatewayLogout", [])
        assert {"type": 1, "target": "GatewayLogout", "arguments": []} == wire.record_of(1)
        requests.post(f"{side.url}/control/hubs/user/raw", data=b'{"type":42}\x1e{"type":43}\x1e', timeout=20)
        assert [42, 43] == [wire.record_of(42)["type"], wire.record_of(43)["type"]]


############################################## plain HTTP ##############################################


HTTP = [
    ("GET", "/hubs/user", False),
    ("POST", "/hubs/user/negotiate", False),
    ("GET", "/hubs/user", True),
    ("POST", "/hubs/user?id=abc", True),
    ("DELETE", "/hubs/user", True),
    ("PUT", "/hubs/user", True),
    ("GET", "/hubs/user/negotiate", True),
    ("GET", "/hubs/nope", True),
    ("POST", "/hubs/user/negotiate?negotiateVersion=x", True),
    ("POST", "/hubs/user/negotiate?negotiateVersion=-1", True),
]


@pytest.mark.parametrize(("method", "path", "bearer"), HTTP)
def test_plain_http(sides: dict[str, Side], method: str, path: str, bearer: bool) -> None:
    """Status, challenge, type and body of what does not become a WebSocket agree."""
    seen = []
    for side in sides.values():
        headers = {"Authorization": f"Bearer {side.token}"} if bearer else {}
        answer = requests.request(method, side.url + path, headers=headers, timeout=20)
        named = [answer.headers.get(name) for name in ("www-authenticate", "content-type")]
        seen.append((answer.status_code, named, answer.text))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("version", [0, 1])
def test_negotiation_has_the_same_fields(sides: dict[str, Side], version: int) -> None:
    """Both negotiate the same fields, and open the connection they named once."""
    fields = []
    for side in sides.values():
        headers = {"Authorization": f"Bearer {side.token}"}
        path = f"{side.url}/hubs/user/negotiate?negotiateVersion={version}"
        found = requests.post(path, headers=headers, timeout=20).json()
        fields.append([*found])
        name = found.get("connectionToken", found["connectionId"])
        with opened(f"{side.url}/hubs/user?id={name}", side.token):
            with pytest.raises(Refused) as refused:
                Wire(f"{side.url}/hubs/user?id={name}", side.token)
            assert 409 == refused.value.status
    assert fields[0] == fields[1]


@pytest.mark.parametrize("token", [None, "", "nonsense"])
def test_refused_upgrades_agree(sides: dict[str, Side], token: str | None) -> None:
    """A bad token gets the same status and challenge at the upgrade."""
    seen = []
    for side in sides.values():
        with pytest.raises(Refused) as refused:
            Wire(f"{side.url}/hubs/user", token)
        seen.append((refused.value.status, refused.value.headers["www-authenticate"], refused.value.body))
    assert seen[0] == seen[1]
