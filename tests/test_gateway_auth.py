"""The wire of the four auth calls, byte for byte, and what each answer means."""

import contextlib
import email.utils
import json
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import responses
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.jwt import plausible
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.errors import (
    APIError,
    AuthenticationError,
    BadReply,
    Category,
    ConnectFailed,
    PermanentError,
    RateLimited,
    ReplyLost,
    ReplyTimedOut,
    TransientError,
)
from topstep_sync.http import classify
from topstep_sync.models import Token
from topstep_sync.redact import Secret

BASE = "https://api.topstepx.com"
LOGIN = f"{BASE}/api/Auth/loginKey"
VALIDATE = f"{BASE}/api/Auth/validate"
LOGOUT = f"{BASE}/api/Auth/logout"
DAY = 86_400.0
KEY = "key-of-joe-0000-abcdef"
OLD = Token(Secret("eyJold1.token2.value-1234"), 3, 1.0, 2.0)
NEW = "eyJnew1.token2.value-5678"


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as wire:
        yield wire


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def auth(clock: ManualClock) -> GatewayAuth:
    return GatewayAuth(Config(user_name="joe", api_key=Secret(KEY)), clock=clock)


def envelope(code: int = 0, **more: Any) -> dict[str, Any]:
    return {"success": code == 0, "errorCode": code, "errorMessage": None, **more}


def http_date(epoch: float) -> str:
    return email.utils.formatdate(epoch, usegmt=True)


################################################ what is sent ################################################


def test_login(wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock) -> None:
    """One POST with both names, no bearer; the token lives for 24 hours from the reply."""
    wire.post(LOGIN, json=envelope(token=NEW))
    token = auth.login()
    sent = wire.calls[0].request
    assert b'{"userName":"joe","apiKey":"key-of-joe-0000-abcdef"}' == sent.body
    assert ("application/json", None) == (sent.headers["Content-Type"], sent.headers.get("Authorization"))
    assert (NEW, clock.epoch(), clock.epoch() + DAY) == (token.value, token.issued_at, token.expires_at)


def test_validate(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """The bearer, an empty object, and the new token."""
    wire.post(VALIDATE, json=envelope(newToken=NEW))
    token = auth.validate(OLD)
    sent = wire.calls[0].request
    assert (f"Bearer {OLD.value}", b"{}") == (sent.headers["Authorization"], sent.body)
    assert token is not None
    assert NEW == token.value


def test_logout(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """The bearer, and an empty object."""
    wire.post(LOGOUT, json=envelope())
    auth.logout(OLD)
    sent = wire.calls[0].request
    assert (f"Bearer {OLD.value}", b"{}") == (sent.headers["Authorization"], sent.body)


def test_netrc_does_not_replace_the_bearer(
    wire: responses.RequestsMock, auth: GatewayAuth, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """An entry for the host in ``.netrc`` would have requests send a password instead."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.topstepx.com login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    wire.post(VALIDATE, json=envelope())
    wire.post(LOGIN, json=envelope(token=NEW))
    auth.validate(OLD)
    auth.login()
    assert f"Bearer {OLD.value}" == wire.calls[0].request.headers["Authorization"]
    assert "Authorization" not in wire.calls[1].request.headers


def test_an_injected_transport(clock: ManualClock) -> None:
    """`post(path, body, bearer)` is all the way out there is."""
    calls: list[tuple[str, bytes, str | None]] = []

    def post(path: str, body: bytes, bearer: str | None) -> tuple[int, dict[str, str], bytes]:
        calls.append((path, bytes(body), bearer))
        return 200, {}, json.dumps(envelope(token=NEW, newToken=NEW)).encode()

    auth = GatewayAuth(Config(user_name="joe", api_key=Secret(KEY)), post=post, clock=clock)
    auth.login()
    auth.validate(OLD)
    assert [("/api/Auth/loginKey", None), ("/api/Auth/validate", OLD.value)] == [call[::2] for call in calls]


################################################ what comes back ################################################


@pytest.mark.parametrize("body", [envelope(newToken=None), envelope(), envelope(newToken="")])
def test_validate_without_a_new_token_keeps_the_old(
    body: dict[str, Any], wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """Null, absent or empty: the very same token, with its own expiry."""
    wire.post(VALIDATE, json=body)
    assert OLD is auth.validate(OLD)


@pytest.mark.parametrize(
    "reply", [{"status": 401}, {"status": 403}, *({"json": envelope(code, newToken=None)} for code in (1, 2, 3))]
)
def test_validate_says_the_session_is_gone(
    reply: dict[str, Any], wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """401 and the codes InvalidSession, SessionNotFound and ExpiredToken mean the same."""
    wire.post(VALIDATE, **reply)
    assert auth.validate(OLD) is None


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (1, "TOPSTEP_USERNAME"),
        (2, "PasswordVerificationFailed"),
        (3, "TOPSTEP_API_KEY"),
        (7, "complete the required agreements"),
        (9, "buy it"),
        (10, "disabled"),
    ],
)
def test_a_refused_login_says_what_to_do(
    code: int, advice: str, wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """Every code of a definite refusal becomes an error with its name and advice."""
    wire.post(LOGIN, json=envelope(code, token=None))
    with pytest.raises(AuthenticationError, match=advice) as caught:
        auth.login()
    assert (code, Category.AUTH, 200, False) == (
        caught.value.error_code,
        caught.value.category,
        caught.value.status_code,
        caught.value.retryable,
    )


@pytest.mark.parametrize("code", [8, 11, 99, -7])
def test_an_unknown_error_of_a_login_may_pass(code: int, wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """UnknownError and codes nobody documented are no verdict about the credentials."""
    wire.post(LOGIN, json=envelope(code, token=None, errorMessage="try later"))
    with pytest.raises(TransientError, match="try later"):
        auth.login()


def test_unknown_error_of_validate_may_pass(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """ValidateErrorCode 4 says nothing about the session."""
    wire.post(VALIDATE, json=envelope(4))
    with pytest.raises(TransientError):
        auth.validate(OLD)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>maintenance</html>", b"[]", b"null", b'{"success": true}', b'{"token": 1}', b"\xff\xfe", b'{"a":'],
)
def test_a_reply_that_is_no_envelope(body: bytes, wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """HTTP 200 with anything else, a proxy's page for instance, is a bad reply, and may pass."""
    wire.post(LOGIN, body=body)
    with pytest.raises(BadReply, match="base_url"):
        auth.login()


@pytest.mark.parametrize("token", [None, "", "a b", "a\r\nb", 7])
def test_success_without_a_usable_token(token: Any, wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """A login that succeeds without one is a bad reply, never a token."""
    wire.post(LOGIN, json=envelope(token=token))
    with pytest.raises(BadReply):
        auth.login()


def test_failure_with_the_code_of_success(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """`success: false` with code 0 is no success, and no verdict."""
    wire.post(LOGIN, json={"success": False, "errorCode": 0, "token": NEW})
    with pytest.raises(TransientError):
        auth.login()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, AuthenticationError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (302, PermanentError),
        (404, PermanentError),
        (405, PermanentError),
        (408, TransientError),
        (500, TransientError),
        (502, TransientError),
        (503, TransientError),
        (521, TransientError),
    ],
)
def test_other_statuses_of_a_login(
    status: int, kind: type[APIError], wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """4xx is for good, 408 and 5xx may pass; a redirect is not followed."""
    wire.post(LOGIN, status=status, body="x", headers={"Location": "https://elsewhere.example/"})
    with pytest.raises(kind, match=f"HTTP {status}") as caught:
        auth.login()
    assert (kind, status, 1) == (type(caught.value), caught.value.status_code, len(wire.calls))


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (" 7 ", 7.0), (None, None), ("soon", None), ("-1", None), ("1" * 400, None)]
)
def test_too_many_calls(
    header: str | None, seconds: float | None, wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """A 429 carries the Retry-After it can read."""
    wire.post(LOGIN, status=429, headers={} if header is None else {"Retry-After": header})
    with pytest.raises(RateLimited) as caught:
        auth.login()
    assert seconds == caught.value.retry_after


def test_retry_after_as_a_date(wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock) -> None:
    """The other form the standard allows; a date that has passed is no wait."""
    for ahead, seconds in ((90, 90.0), (-90, 0.0)):
        wire.post(LOGIN, status=503, headers={"Retry-After": http_date(clock.epoch() + ahead)})
        with pytest.raises(TransientError) as caught:
            auth.login()
        assert seconds == caught.value.retry_after


@pytest.mark.parametrize("reply", [{"status": 401}, {"json": envelope(1)}, {"json": envelope()}])
def test_logout_of_a_session_that_is_gone(
    reply: dict[str, Any], wire: responses.RequestsMock, auth: GatewayAuth
) -> None:
    """401 and InvalidSession are as good as success."""
    wire.post(LOGOUT, **reply)
    auth.logout(OLD)


def test_logout_that_fails(wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """UnknownError and a missing page are told."""
    for reply in ({"json": envelope(2)}, {"status": 500}):
        wire.post(LOGOUT, **reply)
        with pytest.raises(APIError):
            auth.logout(OLD)


################################################ clocks ################################################


def jwt(**said: float) -> str:
    import base64

    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, said)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


@pytest.mark.parametrize("skew", [-40_000, -3600, -10, 0, 10, 3600, 40_000])
def test_clock_skew(skew: float, wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock) -> None:
    """The gateway's clock is ahead or behind: a token of 12 hours ends in 12 hours on ours, to a second."""
    server = clock.epoch() + skew
    wire.post(LOGIN, json=envelope(token=jwt(iat=server, exp=server + DAY / 2)), headers={"Date": http_date(server)})
    token = auth.login()
    assert DAY / 2 == pytest.approx(token.expires_at - clock.epoch(), abs=1.0)


@pytest.mark.parametrize("skew", [-2.0, -1.0, 0.0, 1.0, 1.9])
def test_a_skew_too_small_to_measure_is_none(
    skew: float, wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock
) -> None:
    """The header has whole seconds, so two clocks that agree are not pushed apart by it."""
    server = clock.epoch() + skew
    wire.post(LOGIN, json=envelope(token=jwt(exp=clock.epoch() + 100)), headers={"Date": http_date(server)})
    assert clock.epoch() + 100 == auth.login().expires_at


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 2026 08:12:31 GMT", "Fri, 01 Jan 1970 00:00:00 GMT"])
def test_a_date_that_is_nonsense(
    date: str, wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock
) -> None:
    """What cannot be read, or cannot be, leaves a token of at most a day that is not expired."""
    wire.post(LOGIN, json=envelope(token=jwt(exp=clock.epoch() + 100)), headers={"Date": date})
    assert 0 < auth.login().expires_at - clock.epoch() <= DAY


def test_a_date_without_a_zone_is_not_local_time(
    wire: responses.RequestsMock, auth: GatewayAuth, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "-0000" says nothing of a zone; HTTP's dates are in UTC, wherever this machine stands."""
    date = http_date(clock.epoch()).replace("GMT", "-0000")
    wire.post(LOGIN, json=envelope(token=jwt(exp=clock.epoch() + 100)), headers={"Date": date})
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/Chicago")
        time.tzset()
        try:
            assert clock.epoch() + 100 == auth.login().expires_at
            assert clock.epoch() == pytest.approx(classify.http_date(date), abs=1.0)
        finally:
            patch.undo()
            time.tzset()


################################################ credentials ################################################


@pytest.mark.parametrize("config", [Config(), Config(user_name="joe"), Config(api_key=Secret(KEY))])
def test_without_credentials(config: Config) -> None:
    """Nothing is sent, and the message names both variables."""
    auth = GatewayAuth(config, post=None)
    assert not auth.can_login
    with pytest.raises(AuthenticationError, match="TOPSTEP_USERNAME and TOPSTEP_API_KEY"):
        auth.login()


def test_remembered_credentials_are_used(wire: responses.RequestsMock) -> None:
    """What a login outside used serves the next one here; a different user is told apart, in any case of letters."""
    auth = GatewayAuth(Config())
    assert auth.remember("joe", "k1")
    assert not auth.remember("JOE", "k2")
    assert auth.remember("ann", "k3")
    assert auth.can_login
    wire.post(LOGIN, json=envelope(token=NEW))
    auth.login()
    assert b'{"userName":"ann","apiKey":"k3"}' == wire.calls[0].request.body


################################################ no way out ################################################


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectionError("NewConnectionError: refused"), ConnectFailed),
        (requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] unknown issuer"), ConnectFailed),
        (requests.exceptions.SSLError("[SSL] bad record mac"), ReplyLost),
        (requests.exceptions.ProxyError("Tunnel connection failed: 407"), ConnectFailed),
        (requests.exceptions.ProxyError("Cannot connect to proxy: NewConnectionError: refused"), ConnectFailed),
        (requests.exceptions.ProxyError("Unable to connect to proxy: RemoteDisconnected"), ReplyLost),
        (requests.ReadTimeout("slow"), ReplyTimedOut),
    ],
)
def test_no_reply(error: Exception, kind: type[Exception], wire: responses.RequestsMock, auth: GatewayAuth) -> None:
    """A broken connection is one of this library's errors, without the frames that hold the key."""
    wire.post(LOGIN, body=error)
    with pytest.raises(kind) as caught:
        auth.login()
    assert (None, None) == (caught.value.__cause__, caught.value.__context__)
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not any("requests" in name or "urllib3" in name for name in files)


############################################## whatever comes back ##############################################

FIELDS = st.dictionaries(
    st.sampled_from(["success", "errorCode", "errorMessage", "token", "newToken", "more"]),
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.lists(st.none(), max_size=2),
)


@given(
    st.sampled_from([200, 200, 200, 204, 301, 400, 401, 404, 429, 500, 599]),
    st.binary(max_size=60)
    | st.just(b'{"more":' + b"[" * 9000)
    | FIELDS.map(lambda fields: json.dumps(fields).encode()),
    st.dictionaries(st.sampled_from(["Date", "Retry-After"]), st.text(max_size=40)),
)
def test_any_answer_is_a_token_or_an_error_of_ours(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever a gateway, or something in its place, answers: no other exception, and no token that cannot be sent."""
    auth = GatewayAuth(
        Config(user_name="joe", api_key=Secret(KEY)), post=lambda *_: (status, headers, body), clock=ManualClock()
    )
    for call in (auth.login, lambda: auth.validate(OLD), lambda: auth.logout(OLD)):
        token = None
        with contextlib.suppress(APIError):
            token = call()
        assert token is None or (plausible(token.value) and token.expires_at - token.issued_at <= DAY)
