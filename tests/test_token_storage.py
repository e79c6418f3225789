"""A token that outlives its process, and never makes anything worse."""

import copy
import json
import logging
import os
import pickle
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from token_fakes import DAY, HOUR, FakeService, land, together

from topstep_sync.auth import token_cipher, token_storage
from topstep_sync.auth.token_cipher import HEADER, Kdf, KeySource
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_policy import TokenState
from topstep_sync.auth.token_storage import TokenStorage, storage_for
from topstep_sync.clock import ManualClock
from topstep_sync.config import Config
from topstep_sync.errors import ConfigError, SessionClosed
from topstep_sync.models import Token
from topstep_sync.redact import Secret, SecretBytes
from topstep_sync.session import Session

NOW = 1_790_000_000.0
VALUE = "eyJtoken.of.joe-1234"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Keys cost nothing, except where the derivation itself is the matter; nor is the machine's own keyring asked."""
    if "derivation" in request.node.name:
        monkeypatch.setattr(token_storage, "find_key", lambda *a, **k: KeySource(SecretBytes(b"k"), Kdf.PBKDF2, "test"))
        return

    def find(passphrase: str | None, api_key: str | None, account: str, **_: Any) -> KeySource | None:
        secret = passphrase or os.environ.get("TOPSTEP_TOKEN_PASSPHRASE") or api_key
        return KeySource(SecretBytes(secret.encode()), Kdf.HKDF, "test") if secret else None

    monkeypatch.setattr(token_storage, "find_key", find)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(epoch=NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "joe.token"


def storage(path: Path | None, clock: ManualClock, **changes: Any) -> TokenStorage:
    options = {"passphrase": "shh", "user_name": "joe", "clock": clock, **changes}
    return TokenStorage(path, **options)


@pytest.fixture
def store(path: Path, clock: ManualClock) -> TokenStorage:
    return storage(path, clock)


def token(generation: int = 1, value: str = VALUE) -> Token:
    return Token(Secret(value), generation, NOW, NOW + DAY)


######################################## as the specification has it ########################################


@pytest.mark.parametrize(
    "expires_at",
    [
        NOW + 60,
        NOW + 0.1234567,
        datetime(2026, 11, 24, 12, 0, 0, 123456, UTC),
        datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone(timedelta(hours=-6))),
        datetime(2026, 11, 24, 12),
    ],
)
@pytest.mark.parametrize("memory_only", [True, False])
def test_what_is_stored_is_loaded(expires_at: Any, memory_only: bool, path: Path, clock: ManualClock) -> None:
    """Token and expiry come back as they were given, number or date."""
    one = storage(path, clock, memory_only=memory_only)
    one.store_token(VALUE, expires_at)
    assert (VALUE, expires_at) == one.load_token()
    if not memory_only:
        assert (VALUE, expires_at) == storage(path, clock).load_token()
    assert memory_only is not path.exists()


def test_validity(store: TokenStorage, clock: ManualClock) -> None:
    """Nothing, valid, expired, cleared."""
    assert (False, None) == (store.is_valid(), store.load_token())
    store.store_token(VALUE, NOW + 60)
    assert store.is_valid()
    clock.advance(60)
    assert (False, (VALUE, NOW + 60)) == (store.is_valid(), store.load_token())
    store.clear_token()
    store.clear_token()
    assert (False, None) == (store.is_valid(), store.load_token())


def test_no_secret_means_memory_only(path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Without anything to lock the file with there is no file, and the log says so."""
    one = storage(path, clock, passphrase=None)
    one.store_token(VALUE, NOW + 60)
    assert (True, True, False) == (one.memory_only, one.is_valid(), path.parent.exists())
    assert "stays in memory" in caplog.text
    assert "TokenStorage(memory only)" == repr(one)


def test_the_api_key_locks_the_file_if_nothing_better_does(path: Path, clock: ManualClock) -> None:
    """And another API key does not open it."""
    storage(path, clock, passphrase=None, api_key="key-1").store_token(VALUE, NOW + 60)
    assert storage(path, clock, passphrase=None, api_key="key-1").is_valid()
    assert not storage(path, clock, passphrase=None, api_key="key-2").is_valid()


############################################## where it lies ##############################################


def test_the_default_place(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's state folder; a file per user and gateway, which does not name them."""
    monkeypatch.setattr(token_storage.platformdirs, "user_state_path", lambda *a, **k: tmp_path / "topstep_sync")
    for user, url in (("joe", "https://a.example"), ("ann", "https://a.example"), ("joe", "https://b.example")):
        storage(None, clock, user_name=user, base_url=url).store_token(VALUE, NOW + 60)
    storage(None, clock, user_name="JOE", base_url="https://a.example").store_token(VALUE, NOW + 60)
    files = sorted((tmp_path / "topstep_sync" / "tokens").glob("*.token"))
    assert 3 == len(files)
    assert not any("joe" in file.name for file in files)


def test_a_folder_as_path(tmp_path: Path, clock: ManualClock) -> None:
    """An existing folder gets a file per user."""
    for user in ("joe", "ann"):
        storage(tmp_path, clock, user_name=user).store_token(VALUE, NOW + 60)
    assert 2 == len(list(tmp_path.glob("*.token")))


def test_permissions(store: TokenStorage, path: Path) -> None:
    """The token and its lock are nobody else's."""
    store.save(token())
    for entry in (path, path.with_name("joe.token.lock")):
        assert 0 == stat.S_IMODE(entry.stat().st_mode) & 0o077


def test_the_file_holds_no_secret(store: TokenStorage, path: Path) -> None:
    """Neither the token nor the user's name, in no spelling."""
    store.save(token())
    content = path.read_bytes()
    assert not any(secret in content for secret in (VALUE.encode(), b"joe", b"shh", b"eyJ"))


def test_the_configuration(tmp_path: Path) -> None:
    """`storage_for` makes what the settings ask for: nothing by default, a file when asked."""
    assert storage_for(Config(user_name="joe", api_key=Secret("key"))) is None
    found = storage_for(
        Config(
            user_name="joe",
            api_key=Secret("key"),
            token={"memory_only": False, "storage_path": str(tmp_path / "t.token")},
        )
    )
    assert found is not None
    assert found.save(token())
    assert (tmp_path / "t.token").exists()


def test_a_password_in_an_address_does_not_show() -> None:
    """A Redis address may carry one, so it is a secret in the settings."""
    config = Config(token={"storage_path": "redis://user:hunter2-hunter2@127.0.0.1/0"})
    assert "hunter2" not in repr(config)
    assert "redis://user:hunter2-hunter2@127.0.0.1/0" == config.token.storage_path


########################################## what cannot be read ##########################################


def test_every_tampered_byte_is_absence(path: Path, clock: ManualClock) -> None:
    """Each byte of the file in turn: no token, no crash, the next login's token takes its place."""
    storage(path, clock).save(token())
    good = path.read_bytes()
    for position in range(len(good)):
        torn = bytearray(good)
        torn[position] ^= 0x55
        path.write_bytes(torn)
        one = storage(path, clock)
        assert (None, False, None) == (one.load(), one.is_valid(), one.load_token()), position
    assert bytes(torn) == path.with_name("joe.token.unreadable").read_bytes()
    assert storage(path, clock).save(token(value="next"))
    assert ("next", NOW + DAY) == storage(path, clock).load_token()


@pytest.mark.parametrize("length", [0, 1, HEADER.size - 1, HEADER.size, HEADER.size + 1, -1])
def test_a_truncated_file_is_absence(length: int, path: Path, clock: ManualClock) -> None:
    """A disk that lost the end of the file."""
    storage(path, clock).save(token())
    path.write_bytes(path.read_bytes()[:length])
    assert storage(path, clock).load() is None


@pytest.mark.parametrize("changes", [{"passphrase": "other"}, {"user_name": "ann"}, {"base_url": "https://b.example"}])
def test_what_belongs_to_another_is_absence(
    changes: dict[str, str], store: TokenStorage, path: Path, clock: ManualClock
) -> None:
    """Another passphrase, user or gateway at the same path: not read, kept aside."""
    store.save(token())
    assert storage(path, clock, **changes).load() is None
    assert path.with_name("joe.token.unreadable").exists()


def test_another_version_is_absence(store: TokenStorage, path: Path, clock: ManualClock) -> None:
    """A file of a later version is kept aside, not misread."""
    store.save(token())
    content = bytearray(path.read_bytes())
    content[8] = 2
    path.write_bytes(content)
    assert storage(path, clock).load() is None
    assert bytes(content) == path.with_name("joe.token.unreadable").read_bytes()


def test_one_warning(store: TokenStorage, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is tried, the log says it once, with the place it is kept at."""
    for _ in range(5):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"garbage")
        assert store.load() is None
    assert 1 == len(caplog.records)
    assert "joe.token.unreadable" in caplog.text


def test_a_good_file_is_not_set_aside_in_place_of_a_bad_one(
    store: TokenStorage, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading garbage and moving it away, another process stored a good token: that one stays."""
    store.save(token())
    good = path.read_bytes()
    path.write_bytes(b"garbage")
    other = storage(path, clock)
    warn = other._shelf.set_aside  # type: ignore[union-attr]

    def late(blob: bytes) -> str | None:
        path.write_bytes(good)
        return warn(blob)

    monkeypatch.setattr(other._shelf, "set_aside", late)
    assert other.load() is None
    assert (good, False) == (path.read_bytes(), path.with_name("joe.token.unreadable").exists())


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_is_neither_read_nor_replaced(path: Path, clock: ManualClock, tmp_path: Path, caplog: Any) -> None:
    """A planted link: absent for reading, an error for writing, and its target untouched."""
    victim = tmp_path / "victim"
    storage(victim, clock).save(token())
    content = victim.read_bytes()
    path.parent.mkdir()
    path.symlink_to(victim)
    one = storage(path, clock)
    assert one.load() is None
    assert "symbolic link" in caplog.text
    with pytest.raises(ConfigError):
        one.save(token(2))
    assert content == victim.read_bytes()


def test_leftovers_of_a_crash_are_removed(store: TokenStorage, path: Path) -> None:
    """The next write sweeps them up."""
    path.parent.mkdir()
    path.with_name(".joe.token.0123456789abcdef.tmp").write_bytes(b"half")
    store.save(token())
    assert {"joe.token", "joe.token.lock"} == {entry.name for entry in path.parent.iterdir()}


########################################## generations and leases ##########################################


def test_an_old_answer_does_not_overwrite_a_newer_token(store: TokenStorage) -> None:
    """The fence: a lower generation is turned away, the same or a higher one is not."""
    assert store.save(token(5))
    assert not store.save(token(4, "old"))
    assert store.save(token(5, "same"))
    assert store.save(token(6, "new"))
    assert token(6, "new") == store.load()


def test_only_one_thread_has_the_lease(store: TokenStorage) -> None:
    """16 threads, one file: never two at a time."""
    inside: list[int] = []
    most: list[int] = []

    def work() -> bool:
        with store.lease(60.0) as alone:
            inside.append(1)
            most.append(len(inside))
            store.save(token())  # taken again by the one who has it
            inside.pop()
        return alone

    clock = store._clock
    store._shelf._clock = token_storage.SYSTEM_CLOCK  # type: ignore[union-attr]
    assert [True] * 16 == together(16, work)
    assert 1 == max(most)
    store._shelf._clock = clock  # type: ignore[union-attr]


def test_memory_has_no_lease_to_wait_for(clock: ManualClock) -> None:
    """One process, one memory."""
    one = TokenStorage(memory_only=True, clock=clock)
    with one.lease(0.0) as alone:
        assert alone
        one.save(token())
    one.clear()
    assert one.load() is None


############################################ with a token manager ############################################


@pytest.fixture
def service(clock: ManualClock) -> Iterator[FakeService]:
    service = FakeService(clock)
    yield service
    service.gate.set()


def test_a_warm_start_needs_no_login(path: Path, clock: ManualClock, service: FakeService) -> None:
    """A second process finds the first one's token, with its generation and expiry."""
    first = TokenManager(None, service, clock=clock, storage=storage(path, clock)).token()
    clock.advance(HOUR)
    second = TokenManager(None, service, clock=clock, storage=storage(path, clock)).token()
    assert (first, 1) == (second, service.logins)


def test_a_warm_start_costs_one_derivation(
    path: Path, clock: ManualClock, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, refresh, write, by one process: 600 000 rounds once, and none for the second storage in it."""
    derived: list[int] = []
    derive = token_cipher.TokenCipher._derive
    monkeypatch.setattr(
        token_cipher.TokenCipher, "_derive", lambda self, salt, n: derived.append(n) or derive(self, salt, n)
    )
    for _ in range(2):
        manager = TokenManager(None, service, clock=clock, storage=storage(path, clock))
        old = manager.token()
        manager.rejected(old)
    assert ([600_000], 3) == (derived, service.logins)


def test_a_stored_token_that_has_run_out_is_not_used(path: Path, clock: ManualClock, service: FakeService) -> None:
    """Expired, or about to: a login, and its generation follows the stored one."""
    TokenManager(None, service, clock=clock, storage=storage(path, clock)).token()
    clock.advance(DAY - 30)
    late = TokenManager(None, service, clock=clock, storage=storage(path, clock)).token()
    assert (2, 2) == (late.generation, service.logins)


def test_another_processs_refresh_is_taken(path: Path, clock: ManualClock, service: FakeService) -> None:
    """Two processes with one token, both due: one validates, the other reads what it got."""
    managers = [TokenManager(None, service, clock=clock, storage=storage(path, clock)) for _ in range(2)]
    for manager in managers:
        manager.token()
    clock.advance(DAY - HOUR)
    for manager in managers:
        manager.token()
        land()
    assert managers[0].token() == managers[1].token()
    assert (2, 1, 1) == (managers[0].token().generation, service.logins, service.validations)


def test_a_401_finds_another_processs_token_first(path: Path, clock: ManualClock, service: FakeService) -> None:
    """The token died for all; the first to notice logs in, the second reads."""
    managers = [TokenManager(None, service, clock=clock, storage=storage(path, clock)) for _ in range(2)]
    old = [manager.token() for manager in managers]
    new = [manager.rejected(token) for manager, token in zip(managers, old, strict=True)]
    assert (new[0], 2) == (new[1], service.logins)


def test_logout_removes_the_stored_token(path: Path, clock: ManualClock, service: FakeService) -> None:
    """A later process logs in anew."""
    manager = TokenManager(None, service, clock=clock, storage=storage(path, clock))
    manager.token()
    manager.logout()
    assert not path.exists()
    assert 2 == manager.token().generation


def test_a_logout_during_a_refresh_leaves_nothing_stored(path: Path, clock: ManualClock, service: FakeService) -> None:
    """The login under way ends after the logout: its token is neither used nor left in the file."""
    manager = TokenManager(None, service, clock=clock, storage=storage(path, clock))
    service.gate.clear()
    waiting = threading.Thread(target=lambda: together(1, lambda: manager.token(deadline=5.0)))
    waiting.start()
    assert service.entered.wait(10)
    leaving = threading.Thread(target=manager.logout, daemon=True)
    leaving.start()
    clock.wait_for_sleepers(2)  # the caller for its token, the logout for the lease
    clock.advance(5.0)
    waiting.join(10)
    service.gate.set()
    for _ in range(1000):  # it looks again every so often, and the lease is not free at once
        clock.advance(0.05)
        leaving.join(0.01)
        if not leaving.is_alive():
            break
    assert not leaving.is_alive()
    land()
    assert (False, TokenState.INITIAL) == (path.exists(), manager.get_state())


def test_an_adopted_users_token_is_not_stored_as_ours(path: Path, clock: ManualClock) -> None:
    """Somebody else logs in through the session: the file stays as it is."""

    class Remembering(FakeService):
        def remember(self, user_name: str, api_key: str) -> bool:
            return user_name != "joe"

    service = Remembering(clock)
    manager = TokenManager(None, service, clock=clock, storage=storage(path, clock))
    manager.token()
    before = path.read_bytes()
    manager.adopt("token-of-ann-1234", user_name="ann", api_key="k")
    manager.rejected(manager.token())
    assert before == path.read_bytes()


@pytest.mark.parametrize("broken", ["load", "save", "clear"])
def test_a_broken_store_stops_nobody(
    broken: str, path: Path, clock: ManualClock, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or a lost share: a warning, and every token all the same."""
    one = storage(path, clock)

    def fail(*_: Any) -> Any:
        raise OSError("the disk is full")

    setattr(one, broken, fail)
    manager = TokenManager(None, service, clock=clock, storage=one)
    assert "secret" in manager.get_token()
    manager.logout()
    assert "secret" in manager.get_token()
    assert "the disk is full" in caplog.text


def test_a_store_that_turns_the_token_away(
    path: Path, clock: ManualClock, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process stored a newer token meanwhile: ours is good too, and used."""
    caplog.set_level(logging.INFO)
    one = storage(path, clock)
    one.save = lambda token: False  # type: ignore[method-assign]
    assert "secret" in TokenManager(None, service, clock=clock, storage=one).get_token()
    assert "newer token" in caplog.text


def test_sessions_share_a_token(gateway: Any, path: Path) -> None:
    """Two programs one after the other, as users write them: one login, and the second's first call works."""
    config = gateway.config_with(token={"memory_only": False, "storage_path": str(path)})
    for _ in range(2):
        with Session(config=config) as session:
            assert session.accounts.search()
    assert 1 == sum(arrival.path.lower().endswith("loginkey") for arrival in gateway.requests)


def test_closing_ends_the_wait_for_the_lease(path: Path, clock: ManualClock, service: FakeService) -> None:
    """Another process refreshes for ever; closing the session does not wait for it, and nobody logs in afterwards."""
    manager = TokenManager(None, service, clock=clock, storage=storage(path, clock))
    with storage(path, clock).lease(0.0):
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(together(1, manager.token)))
        thread.start()
        clock.wait_for_sleepers(2)  # the caller, and the refresh that waits for the lease
        manager.close()
        thread.join(10)
        land()
    assert (SessionClosed, 0) == (type(found[0]), service.logins)


def test_a_lease_that_never_comes_is_done_without(
    path: Path, clock: ManualClock, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    """The other process hangs in its refresh: after a minute this one refreshes without the lease, and says so."""
    manager = TokenManager({"wait_seconds": 1000.0}, service, clock=clock, storage=storage(path, clock))
    with storage(path, clock).lease(0.0):
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(together(1, manager.token)))
        thread.start()
        while thread.is_alive():
            clock.advance(5.0)
            thread.join(0.01)
    assert ("login-1-0-secret", 1) == (found[0].value, service.logins)
    assert "no lease on the stored token" in caplog.text


@pytest.mark.parametrize("dump", [pickle.dumps, copy.deepcopy])
def test_a_storage_does_not_travel(dump: Any, store: TokenStorage) -> None:
    """Neither pickled nor copied."""
    with pytest.raises(TypeError, match="make one in each process"):
        dump(store)


def test_a_repr_without_secrets(store: TokenStorage, path: Path) -> None:
    """The path, and nothing else."""
    store.save(token())
    assert f"TokenStorage(FileShelf({str(path)!r}))" == repr(store)
    assert VALUE not in json.dumps(repr(vars(store)))


@pytest.mark.parametrize("until", [float("inf"), float("-inf"), float("nan")])
def test_no_instant_is_not_stored(until: float, store: TokenStorage) -> None:
    """JSON has no infinity, so what came back would count as damaged: it is refused before."""
    store.store_token(VALUE, NOW + DAY)
    with pytest.raises(ValueError, match="expires_at"):
        store.store_token("another", until)
    assert (VALUE, NOW + DAY) == store.load_token()


def test_a_file_that_cannot_be_read_is_no_crash(
    store: TokenStorage, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Permissions taken away: absent, and warned of once."""
    store.store_token(VALUE, NOW + DAY)

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert (None, None, False) == (store.load_token(), store.load(), store.is_valid())
    assert 1 == sum("Permission denied" in record.message for record in caplog.records)
    assert (VALUE, NOW + DAY) == store.load_token()


def test_a_path_through_a_file_holds_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """A folder of the path is a file: nothing is stored there, and nothing to remove."""
    (tmp_path / "file").write_text("")
    store = storage(tmp_path / "file" / "joe.token", clock)
    assert (None, False) == (store.load_token(), store.is_valid())
    store.clear_token()
    with pytest.raises(OSError, match="file"):
        store.store_token(VALUE, NOW + DAY)
