"""Tokens and keys show up nowhere: not in a crash report, a repr, a log, a pickle or a file."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import responses
from token_fakes import locals_of

from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_storage import TokenStorage
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.errors import AuthUnavailable, MissingExtra, TopstepError
from topstep_sync.models import Token
from topstep_sync.redact import Secret, SecretBytes

KEY = "key-of-joe-0000-abcdef"
VALUE = "eyJnew1.token2.value-5678"
PASSPHRASE = "correct horse battery staple"
SECRETS = (KEY, VALUE, PASSPHRASE)
LOGIN = "https://api.topstepx.com/api/Auth/loginKey"
VALIDATE = "https://api.topstepx.com/api/Auth/validate"


@pytest.fixture
def auth() -> GatewayAuth:
    return GatewayAuth(Config(user_name="joe", api_key=Secret(KEY)), clock=ManualClock())


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def none_of_them_in(text: str) -> None:
    found = [secret for secret in SECRETS if secret in text or secret[:-4] in text]
    assert [] == found


@pytest.mark.parametrize(
    "reply",
    [
        {"json": {"success": False, "errorCode": 3, "token": VALUE}},
        {"json": {"success": False, "errorCode": 8, "token": VALUE}},
        {"json": {"success": True, "errorCode": 0, "token": f"{VALUE} {VALUE}"}},
        {"json": {"success": True, "token": VALUE}},
        {"body": f'{{"token": "{VALUE}'.encode()},
        {"status": 500, "body": body(token=VALUE)},
        {"status": 400, "body": body(errors={"apiKey": [KEY]})},
        {"body": ConnectionError(f"Bearer {VALUE} lost")},
    ],
)
def test_a_login_that_fails(reply: dict[str, Any], auth: GatewayAuth, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the gateway echoes back, the error, its frames and the log hold neither key nor token."""
    caplog.set_level(logging.DEBUG)
    with responses.RequestsMock() as wire:
        wire.post(LOGIN, **reply)
        manager = TokenManager(None, auth, clock=ManualClock())
        with pytest.raises((TopstepError, ConnectionError)) as direct:
            auth.login()
        with pytest.raises(TopstepError) as through:
            manager.token(deadline=1.0)
    if isinstance(direct.value, TopstepError):
        none_of_them_in(locals_of(direct.value, __file__, responses.__file__))
    none_of_them_in(locals_of(through.value, __file__))
    none_of_them_in(caplog.text)


def test_a_validation_that_fails(auth: GatewayAuth) -> None:
    """The bearer is in no frame of the error."""
    token = Token(Secret(VALUE), 1, 0, 0)
    with responses.RequestsMock() as wire:
        wire.post(VALIDATE, status=503)
        with pytest.raises(TopstepError) as caught:
            auth.validate(token)
    shown = locals_of(caught.value, __file__)
    assert "GatewayAuth" in shown
    none_of_them_in(shown)


def test_a_storage_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the passphrase nor the token is in a frame of the error."""
    store = TokenStorage(tmp_path / "joe.token", passphrase=PASSPHRASE, api_key=KEY, user_name="joe", keyring=False)

    def fail(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space") as caught:
        store.store_token(VALUE, 2e9)
    shown = locals_of(caught.value, __file__)
    assert "TokenStorage" in shown
    none_of_them_in(shown)


def test_a_storage_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments are in no frame of the error either."""
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(MissingExtra) as caught:
        TokenStorage("redis://127.0.0.1/0", passphrase=PASSPHRASE, api_key=KEY, keyring=False)
    shown = locals_of(caught.value, __file__)
    assert "find_key" in shown or "TokenStorage" in shown
    none_of_them_in(shown)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Secret(VALUE),
        lambda: SecretBytes(VALUE.encode()),
        lambda: Token(Secret(VALUE), 1, 0, 0),
        lambda: GatewayAuth(Config(user_name="joe", api_key=Secret(KEY))),
        lambda: Config(user_name="joe", api_key=Secret(KEY)),
    ],
)
def test_nothing_with_a_secret_is_pickled(make: Callable[[], Any]) -> None:
    """A pickle is a file somewhere; what holds a secret refuses."""
    with pytest.raises(TypeError):
        pickle.dumps(make())


def test_an_error_travels_without_secrets(auth: GatewayAuth) -> None:
    """An error of a refresh can be sent to another process, and takes nothing along."""
    with responses.RequestsMock() as wire:
        wire.post(LOGIN, status=503, body=body(token=VALUE))
        with pytest.raises(AuthUnavailable) as caught:
            TokenManager(None, auth, clock=ManualClock()).token(deadline=1.0)
    dumped = pickle.dumps(caught.value)
    assert isinstance(pickle.loads(dumped), AuthUnavailable)
    none_of_them_in(dumped.decode("latin-1"))


def test_reprs(auth: GatewayAuth, tmp_path: Path) -> None:
    """Of everything that has a secret inside."""
    store = TokenStorage(tmp_path / "joe.token", passphrase=PASSPHRASE, api_key=KEY, user_name="joe", keyring=False)
    token = Token(Secret(VALUE), 1, 0, 0)
    manager = TokenManager(None, auth)
    manager.adopt(VALUE)
    for thing in (auth, store, token, manager, manager._policy, manager._held, manager.stats(), Config(api_key=KEY)):
        none_of_them_in(repr(thing) + str(thing) + repr(getattr(thing, "__dict__", "")))
