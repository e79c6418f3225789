"""The wire of the four auth calls, byte for byte, and what each answer means."""

import json
from collections.abc import Iterator

import pytest
import responses

from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.errors import AuthenticationError
from topstep_sync.models import Token
from topstep_sync.redact import Secret

BASE = "https://api.topstepx.com"
TOKEN = Token(Secret("eyJold.token.value-1234"), 3, 1.0, 2.0)


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as wire:
        yield wire


@pytest.fixture
def auth() -> GatewayAuth:
    return GatewayAuth(Config(user_name="joe", api_key=Secret("key-of-joe-0000")), clock=ManualClock())


def test_login(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """The documented request, and its token for 24 hours from now."""
    wire.post(f"{BASE}/api/Auth/loginKey", json={"token": "abc", "success": True, "errorCode": 0, "errorMessage": None})
    token = auth.login()
    call = wire.calls[0].request
    assert {"userName": "joe", "apiKey": "key-of-joe-0000"} == json.loads(call.body)
    assert ("application/json", None) == (call.headers["Content-Type"], call.headers.get("Authorization"))
    assert ("abc", 86400.0) == (token.value, token.expires_at - token.issued_at)


def test_validate(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """The bearer, an empty object, and the new token."""
    wire.post(f"{BASE}/api/Auth/validate", json={"newToken": "new", "success": True, "errorCode": 0})
    token = auth.validate(TOKEN)
    call = wire.calls[0].request
    assert (f"Bearer {TOKEN.value}", b"{}") == (call.headers["Authorization"], call.body)
    assert token is not None
    assert "new" == token.value


def test_refused_login(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """HTTP 200 with code 3 is a definite refusal that says what to check."""
    wire.post(f"{BASE}/api/Auth/loginKey", json={"token": None, "success": False, "errorCode": 3})
    with pytest.raises(AuthenticationError, match="TOPSTEP_USERNAME"):
        auth.login()
