"""Where the secret comes from that locks a token file."""

import base64
import sys
from typing import Any

import pytest

from topstep_sync.auth.passphrase import SERVICE, find_key
from topstep_sync.auth.token_cipher import Kdf
from topstep_sync.errors import MissingExtra

keyring = pytest.importorskip("keyring")


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    """The OS keyring, for the time of a test."""
    ring = Ring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: ring)
    monkeypatch.setattr(keyring, "get_password", ring.get_password)
    monkeypatch.setattr(keyring, "set_password", ring.set_password)
    return ring


def test_the_order(ring: Ring) -> None:
    """Argument, variable, keyring, API key, nothing."""
    environ = {"TOPSTEP_TOKEN_PASSPHRASE": "from the environment"}
    origins = [
        find_key("argument", "key", "joe", environ=environ),
        find_key(None, "key", "joe", environ=environ),
        find_key(None, "key", "joe", environ={}),
        find_key(None, "key", "joe", environ={}, keyring=False),
        find_key(None, None, "joe", environ={}, keyring=False),
    ]
    assert [
        (b"argument", Kdf.PBKDF2, "passphrase"),
        (b"from the environment", Kdf.PBKDF2, "passphrase"),
        (base64.b64decode(ring.entries[SERVICE, "joe"]), Kdf.HKDF, "keyring"),
        (b"key", Kdf.PBKDF2, "API key"),
        None,
    ] == [source and (source.secret, source.kdf, source.origin) for source in origins]


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is read where nothing else is given."""
    monkeypatch.setenv("TOPSTEP_TOKEN_PASSPHRASE", "shh")
    found = find_key(None, None, "joe", keyring=False)
    assert found is not None
    assert b"shh" == found.secret


def test_the_key_in_the_keyring_is_made_once(ring: Ring) -> None:
    """32 random bytes, the same at the next start, others for another account."""
    first, again, other = (find_key(None, None, name) for name in ("joe", "joe", "ann"))
    assert None not in (first, again, other)
    assert (32, first.secret) == (len(first.secret), again.secret)
    assert first.secret != other.secret


def test_a_keyring_that_is_none_is_passed_over(ring: Ring) -> None:
    """Plain files and the stand-in for "nothing there" have a priority below 1; they are not used."""
    ring.__class__ = type("Weak", (Ring,), {"priority": 0.5})
    found = find_key(None, "key", "joe")
    assert found is not None
    assert ("API key", {}) == (found.origin, ring.entries)


@pytest.mark.parametrize("entry", ["not base64!", base64.b64encode(b"short").decode()])
def test_an_entry_that_is_not_ours_is_passed_over(entry: str, ring: Ring) -> None:
    """Somebody else's entry under our name is neither used nor overwritten."""
    ring.entries[SERVICE, "joe"] = entry
    assert find_key(None, None, "joe") is None
    assert entry == ring.entries[SERVICE, "joe"]


def test_a_locked_keyring_is_passed_over(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends raise what they like."""

    def fail(*_: Any) -> None:
        raise RuntimeError("D-Bus went away")

    monkeypatch.setattr(keyring, "get_password", fail)
    assert find_key(None, None, "joe", keyring=True) is None


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed over, unless it was asked for; then the message says what to install."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert find_key(None, None, "joe", environ={}) is None
    with pytest.raises(MissingExtra, match=r"topstep-sync\[keyring\]"):
        find_key(None, None, "joe", environ={}, keyring=True)


@pytest.mark.parametrize("which", ["passphrase", "api key"])
def test_a_secret_that_is_not_utf8(which: str) -> None:
    """A variable with odd bytes locks the file with these bytes; no error that would show it is raised."""
    secrets = ("hunter\udcff", None) if which == "passphrase" else (None, "hunter\udcff")
    found = find_key(*secrets, "joe", keyring=False, environ={})
    assert found is not None
    assert b"hunter\xff" == found.secret


def test_no_secret_shows(ring: Ring) -> None:
    """The repr names the source and nothing else."""
    assert "KeySource(passphrase)" == repr(find_key("hunter2-hunter2", None, "joe"))
