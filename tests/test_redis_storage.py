"""The token between machines: the same seal, the same fence, and a lease that outlives nobody for long."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis_server import needs_redis, running
from token_fakes import DAY, HOUR, FakeService, land, together

from topstep_sync.auth import redis_storage, token_storage
from topstep_sync.auth.redis_storage import RedisShelf
from topstep_sync.auth.token_cipher import Kdf, KeySource
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_storage import TokenStorage
from topstep_sync.clock import SYSTEM_CLOCK, ManualClock
from topstep_sync.errors import MissingExtra
from topstep_sync.models import Token
from topstep_sync.redact import Secret, SecretBytes

PASSWORD = "hunter2-hunter2"
VALUE = "eyJtoken.of.joe-1234"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys cost nothing here."""

    def find(passphrase: str, *_: Any, **__: Any) -> KeySource:
        return KeySource(SecretBytes(passphrase.encode()), Kdf.HKDF, "test")

    monkeypatch.setattr(token_storage, "find_key", find)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("redis"), PASSWORD) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """An empty Redis."""
    redis.Redis.from_url(server).flushall()
    return server


def storage(url: str, clock: Any = SYSTEM_CLOCK, **changes: Any) -> TokenStorage:
    return TokenStorage(url, **{"passphrase": "shh", "user_name": "joe", "clock": clock, **changes})


def token(generation: int = 1, value: str = VALUE, life: float = DAY) -> Token:
    now = SYSTEM_CLOCK.epoch()
    return Token(Secret(value), generation, now, now + life)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"topstep-sync\[redis\]"):
        storage("redis://127.0.0.1:1/0")


def test_a_redis_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """No lease and no stored token, but every token all the same."""
    clock = ManualClock()
    service = FakeService(clock)
    manager = TokenManager(None, service, clock=clock, storage=storage("redis://127.0.0.1:1/0", clock))
    assert "login-1-0-secret" == manager.get_token()
    assert "cannot be read" in caplog.text
    with storage("redis://127.0.0.1:1/0").lease(0.0) as alone:
        assert not alone
    assert "Redis gives no lease" in caplog.text


class TestWithServer:
    """Against a real server."""

    pytestmark = needs_redis

    def test_store_load_clear(self, url: str) -> None:
        """What one machine stored another loads; the times agree to a moment, whatever the clocks say."""
        one, other = storage(url), storage(url, ManualClock(epoch=1_000_000.0))
        assert one.load_token() is None
        one.store_token(VALUE, SYSTEM_CLOCK.epoch() + 3600)
        loaded = other.load()
        assert loaded is not None
        assert (VALUE, 1) == (loaded.value, loaded.generation)
        assert 1_003_600.0 == pytest.approx(loaded.expires_at, abs=1.0)
        assert other.is_valid()
        other.clear_token()
        assert one.load_token() is None

    def test_redis_sees_no_secret(self, url: str) -> None:
        """Sealed bytes and a number; and the key goes away by itself some time after the token."""
        storage(url).save(token(7))
        client = redis.Redis.from_url(url)
        (key,) = client.keys("*")
        content = client.hgetall(key)
        assert {b"generation", b"sealed"} == set(content)
        assert b"7" == content[b"generation"]
        assert not any(secret in content[b"sealed"] for secret in (VALUE.encode(), b"joe", b"shh"))
        assert DAY < client.ttl(key) <= 2 * DAY + 1

    def test_no_secret_shows(self, url: str) -> None:
        """The address with its password is in no repr."""
        one = storage(url)
        assert PASSWORD not in repr(one) + repr(vars(one)) + repr(vars(one._shelf))

    def test_the_fence(self, url: str) -> None:
        """An old answer does not overwrite a newer token, also without a lease and with both racing."""
        one = storage(url)
        assert one.save(token(5))
        assert not one.save(token(4))
        shelf = RedisShelf(url, "race", SYSTEM_CLOCK)
        order = iter(range(1, 33))
        together(32, lambda: [shelf.write(b"%d" % n, n, 60.0) for n in [next(order)]])
        assert b"32" == shelf.read()

    @pytest.mark.parametrize("blob", [b"", b"garbage", b"x" * 200])
    def test_what_cannot_be_read_is_set_aside(self, blob: bytes, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Absent, kept under another key, warned of once."""
        one = storage(url)
        one.save(token())
        client = redis.Redis.from_url(url)
        (key,) = client.keys("*")
        client.hset(key, "sealed", blob)
        assert (None, None) == (one.load(), one.load())
        assert (1, 1) == (len(caplog.records), client.exists(key + b":unreadable"))
        assert one._shelf is not None
        assert one._shelf.set_aside(b"not what is there") is None

    def test_the_lease(self, url: str) -> None:
        """32 threads: never two at a time."""
        inside: list[int] = []
        most: list[int] = []

        def work() -> bool:
            with storage(url).lease(60.0) as alone:
                inside.append(1)
                most.append(len(inside))
                inside.pop()
            return alone

        assert ([True] * 32, 1) == (together(32, work), max(most))

    def test_a_lease_that_cannot_be_had(self, url: str) -> None:
        """False after the timeout, and at once when cancelled."""
        with storage(url).lease(0.0) as alone:
            assert alone
            cancelled = threading.Event()
            cancelled.set()
            for timeout, event in ((0.0, None), (60.0, cancelled)):
                with storage(url).lease(timeout, event) as second:
                    assert not second

    def test_a_dead_holder_is_outlived(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine that died with the lease blocks the others until it runs out; its late end ends nobody's."""
        monkeypatch.setattr(redis_storage, "LEASE_MS", 100)
        dead = storage(url).lease(0.0)
        assert dead.__enter__()
        begun = time.monotonic()
        with storage(url).lease(10.0) as alone:
            assert alone
            monkeypatch.setattr(redis_storage, "LEASE_MS", 60_000)
            assert time.monotonic() - begun < 5
        with storage(url).lease(10.0):
            dead.__exit__(None, None, None)
            with storage(url).lease(0.0) as second:
                assert not second

    def test_machines_share_one_login(self, url: str) -> None:
        """8 managers, cold, at once: one login; a day later one refresh; all with the same token."""
        clock = ManualClock(epoch=SYSTEM_CLOCK.epoch())
        service = FakeService(clock)
        managers = [TokenManager(None, service, clock=clock, storage=storage(url)) for _ in range(8)]
        waiting = iter(managers)
        found = together(8, lambda: next(waiting).token())
        assert ({VALUES[0]}, 1) == ({one.value for one in found}, service.logins)
        clock.advance(DAY - HOUR)
        for manager in managers:
            manager.token()
            land()
        assert {(2, VALUES[1])} == {(one.token().generation, one.token().value) for one in managers}
        assert (1, 1) == (service.logins, service.validations)

    def test_redis_goes_away_in_the_middle(self, tmp_path: Path) -> None:
        """It dies between the lease and its end: the token is there all the same."""
        clock = ManualClock()
        service = FakeService(clock)
        with running(tmp_path) as url:
            one = storage(url, clock)
            client = redis.Redis.from_url(url)
            service.on_login = lambda: client.shutdown(nosave=True)
            manager = TokenManager(None, service, clock=clock, storage=one)
            assert "login-1-0-secret" == manager.get_token()


VALUES = ("login-1-0-secret", "rotated-1-1-secret")
