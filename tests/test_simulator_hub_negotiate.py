"""`/negotiate`, and what plain HTTP gets on a hub's path. Expected answers: ASP.NET Core 10.0.12."""

from typing import Any

import pytest
import requests

from tests.hub_wire import Refused, Wire, opened


@pytest.fixture
def token(gateway: Any) -> str:
    return str(gateway.run(lambda world: world.tokens.issue()))


def ask(gateway: Any, method: str, path: str, token: str | None) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.request(method, f"{gateway.url}{path}", headers=headers, timeout=10)


def test_negotiated_connection_opens_once(gateway: Any, token: str) -> None:
    """The token of a negotiation opens one connection; again it is 409."""
    found = ask(gateway, "POST", "/hubs/user/negotiate?negotiateVersion=1", token).json()
    assert [{"transport": "WebSockets", "transferFormats": ["Text"]}] == found["availableTransports"]
    address = f"{gateway.user_hub_url}?id={found['connectionToken']}"
    opened(address, token).close()
    with pytest.raises(Refused) as refused:
        Wire(address, token)
    assert 409 == refused.value.status


def test_version_0_connects_by_its_id(gateway: Any, token: str) -> None:
    """The old negotiation has no connection token; the id opens the connection."""
    found = ask(gateway, "POST", "/hubs/user/negotiate", token).json()
    assert 0 == found["negotiateVersion"]
    assert "connectionToken" not in found
    opened(f"{gateway.user_hub_url}?id={found['connectionId']}", token).close()


def test_token_in_the_query_negotiates(gateway: Any, token: str) -> None:
    """The token may be in the query here, too."""
    assert 200 == ask(gateway, "POST", f"/hubs/user/negotiate?access_token={token}", None).status_code


def test_unknown_id_is_404(gateway: Any, token: str) -> None:
    """An id that was never negotiated opens nothing."""
    with pytest.raises(Refused) as refused:
        Wire(f"{gateway.user_hub_url}?id=abc", token)
    assert 404 == refused.value.status


def test_old_negotiations_are_forgotten(gateway: Any, token: str) -> None:
    """So many negotiations are remembered, and no more."""
    gateway.hubs._run(lambda hubs: [hubs.admission.negotiate(f"n{i}") for i in range(10_001)])
    opened(f"{gateway.user_hub_url}?id=n10000", token).close()
    with pytest.raises(Refused):
        Wire(f"{gateway.user_hub_url}?id=n0", token)


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("x", "The client requested a non-integer protocol version."),
        ("-1", "The client requested version '-1', but the server does not support this version."),
    ],
)
def test_bad_version_is_an_error(gateway: Any, token: str, version: str, error: str) -> None:
    """A version that makes no sense is answered 200, with an error."""
    answer = ask(gateway, "POST", f"/hubs/user/negotiate?negotiateVersion={version}", token)
    assert (200, {"error": error}) == (answer.status_code, answer.json())


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/hubs/user", 400, "Connection ID required"),
        ("DELETE", "/hubs/user", 400, "Connection ID required"),
        ("POST", "/hubs/user?id=abc", 404, "No Connection with that ID"),
        ("PUT", "/hubs/user", 405, ""),
        ("GET", "/hubs/user/negotiate", 405, ""),
        ("GET", "/hubs/nope", 404, ""),
        ("GET", "/hubs/user/nope", 404, ""),
    ],
)
def test_plain_http(gateway: Any, token: str, method: str, path: str, status: int, text: str) -> None:
    """What does not become a WebSocket is told why."""
    answer = ask(gateway, method, path, token)
    assert (status, text) == (answer.status_code, answer.text)


@pytest.mark.parametrize(("method", "path"), [("POST", "/hubs/user/negotiate"), ("GET", "/hubs/market")])
def test_no_token_is_401(gateway: Any, method: str, path: str) -> None:
    """Plain HTTP needs a token as the upgrade does."""
    answer = ask(gateway, method, path, None)
    assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])


def test_echo_hub_needs_no_token(gateway: Any) -> None:
    """The echo hub negotiates with anybody."""
    assert 200 == ask(gateway, "POST", "/hubs/echo/negotiate", None).status_code
