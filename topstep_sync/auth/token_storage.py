"""SEC-002: a token that outlives its process, sealed; and that never makes anything worse.

What cannot be read is kept aside, warned of once and treated as absent: the next login puts a good one in its place.
"""

import contextlib
import hashlib
import logging
import math
import os
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

import platformdirs

from topstep_sync.auth.passphrase import find_key
from topstep_sync.auth.redis_storage import RedisShelf
from topstep_sync.auth.token_cipher import Stored, TokenCipher, Unreadable
from topstep_sync.auth.token_lock import FileShelf
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Signal, Waitable
from topstep_sync.config import BASE_URL, Config
from topstep_sync.errors import ConfigError
from topstep_sync.models import Token
from topstep_sync.redact import Secret

log = logging.getLogger("topstep_sync.auth")

PATIENCE: Final = 10.0  # seconds that a store or a removal waits for another process before it goes on without lease


class Shelf(Protocol):
    """Where sealed tokens lie."""

    def ahead(self) -> float: ...
    def read(self) -> bytes | None: ...
    def write(self, blob: bytes, generation: int, life: float) -> bool: ...
    def remove(self) -> None: ...
    def set_aside(self, blob: bytes) -> str | None: ...
    def lease(self, timeout: float, cancelled: Waitable) -> contextlib.AbstractContextManager[bool]: ...


class TokenStorage:
    """Keeps the token of one user at one gateway, in a sealed file, in Redis, or in memory. Thread-safe.

    Without any secret to seal with it keeps the token in memory, and says so in the log.

    Args:
        storage_path: a file, an existing folder, or a ``redis://`` address; `None`: the user's state folder.
        memory_only: write nothing anywhere.
        passphrase: locks the file; see `passphrase` for what else can.
        user_name: whose token it is; in the seal, and in the default file name.
        base_url: which gateway's.
        api_key: locks the file when there is nothing better.
        keyring: whether to ask the OS keyring for a key; `None`: if the extra is installed.
        clock: where the time comes from.
    """

    def __init__(
        self,
        storage_path: str | Path | None = None,
        memory_only: bool = False,
        *,
        passphrase: str | None = None,
        user_name: str | None = None,
        base_url: str = BASE_URL,
        api_key: str | None = None,
        keyring: bool | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # Rebound, so that not even these arguments show in a traceback's locals.
        passphrase, api_key = passphrase and Secret(passphrase), api_key and Secret(api_key)
        self._clock = clock
        self._memory: Stored | None = None
        self._warned = False
        self._mine = threading.local()  # whether this thread has the lease
        self._cipher: TokenCipher | None = None
        self._shelf: Shelf | None = None
        if memory_only:
            return
        name = hashlib.sha256(f"{(user_name or '').casefold()}\0{base_url}".encode()).hexdigest()[:32]
        source = find_key(passphrase, api_key, name, keyring=keyring)
        if source is None:
            log.warning("! nothing to lock a token file with, so the token stays in memory; set a passphrase")
            return
        self._cipher = TokenCipher(source, user_name or "", base_url)
        self._shelf = _shelf(storage_path, name, clock)

    @property
    def memory_only(self) -> bool:
        """Whether nothing outlives this process."""
        return self._shelf is None

    ########################################## as the specification has it ##########################################

    def store_token(self, token: str, expires_at: datetime | float) -> None:
        """*token* is stored, and valid until *expires_at*: a `datetime` (naive: local time) or seconds since 1970.

        Raises:
            ValueError: *expires_at* is no instant.
            OSError: it cannot be written.
        """
        token = Secret(token)
        given = expires_at.isoformat() if isinstance(expires_at, datetime) else None
        until = expires_at.timestamp() if isinstance(expires_at, datetime) else float(expires_at)
        if not math.isfinite(until):
            raise ValueError(f"expires_at is {until!r}; expected a date and time, or seconds since 1970")
        with self.lease(PATIENCE):
            held = self._read()
            generation = 1 if held is None else held.generation + 1
            self._write(Stored(token.reveal(), generation, self._clock.epoch(), until, given))

    def load_token(self) -> tuple[str, Any] | None:
        """The token and its expiry, as they were stored; `None` when there is none. It may have expired."""
        held = self._read()
        if held is None:
            return None
        until = held.expires_at if held.given is None else datetime.fromisoformat(held.given)
        return Secret(held.token), until

    def clear_token(self) -> None:
        """Nothing is stored."""
        self.clear()

    def is_valid(self) -> bool:
        """Whether a token is stored that has not expired."""
        held = self._read()
        return held is not None and held.expires_at > self._clock.epoch()

    ############################################ as the manager needs it ############################################

    def load(self) -> Token | None:
        """The stored token, whatever its age; `None` when there is none that can be read."""
        held = self._read()
        return None if held is None else held.alive()

    def save(self, token: Token) -> bool:
        """Whether *token* is stored: not when a newer generation already is."""
        with self.lease(PATIENCE):
            held = self._read()
            if held is not None and held.generation > token.generation:
                return False
            return self._write(Stored(token.value.reveal(), token.generation, token.issued_at, token.expires_at))

    def clear(self) -> None:
        """Nothing is stored."""
        self._memory = None
        if self._shelf is not None:
            with self.lease(PATIENCE):
                self._shelf.remove()

    @contextlib.contextmanager
    def lease(self, timeout: float, cancelled: Waitable | None = None) -> Iterator[bool]:
        """Whether this thread alone, of all processes, may refresh now.

        False after *timeout* seconds, or when *cancelled* was set. May be taken again by the thread that has it.
        """
        if self._shelf is None or getattr(self._mine, "process", None) == os.getpid():
            yield True
            return
        with self._shelf.lease(timeout, cancelled or Signal()) as alone:
            # By process as well: a fork copies what its thread had, but not the lease.
            self._mine.process = os.getpid() if alone else None
            try:
                yield alone
            finally:
                self._mine.process = None

    def _write(self, stored: Stored) -> bool:
        if self._shelf is None or self._cipher is None:
            self._memory = stored
            return True
        sealed = self._cipher.seal(_shifted(stored, self._shelf.ahead()))
        return self._shelf.write(sealed, stored.generation, stored.expires_at - self._clock.epoch())

    def _read(self) -> Stored | None:
        if self._shelf is None or self._cipher is None:
            return self._memory
        blob = self._read_shelf(self._shelf)
        if blob is None:
            return None
        try:
            stored = self._cipher.open(blob)
        except Unreadable as error:
            self._warn(f"the stored token is not used: {error}", self._shelf.set_aside(blob))
            return None
        return _shifted(stored, -self._shelf.ahead())

    def _read_shelf(self, shelf: Shelf) -> bytes | None:
        try:
            return shelf.read()
        except (ConfigError, OSError) as error:
            self._warn(str(error), None)
            return None

    def _warn(self, why: str, aside: str | None) -> None:
        if not self._warned:
            self._warned = True
            log.warning("! %s%s; logging in anew", why, f"; it is kept as {aside}" if aside else "")

    def __repr__(self) -> str:
        return f"TokenStorage({'memory only' if self._shelf is None else repr(self._shelf)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token storage is not pickled; make one in each process, with the same path")


def storage_for(config: Config) -> TokenStorage | None:
    """The storage that *config* asks for; `None` when it asks for memory only."""
    if config.token.memory_only:
        return None
    return TokenStorage(
        config.token.storage_path, user_name=config.user_name, base_url=config.base_url, api_key=config.api_key
    )


def _shelf(storage_path: str | Path | None, name: str, clock: Clock) -> Shelf:
    if isinstance(storage_path, str) and storage_path.startswith(("redis://", "rediss://")):
        return RedisShelf(storage_path, name, clock)
    if storage_path is None:
        path = platformdirs.user_state_path("topstep_sync", appauthor=False) / "tokens"
        return FileShelf(path / f"{name}.token", clock)
    path = Path(storage_path).expanduser()
    return FileShelf(path / f"{name}.token" if path.is_dir() else path, clock)


def _shifted(stored: Stored, seconds: float) -> Stored:
    """*stored* with its times on a clock that is *seconds* ahead."""
    return Stored(
        stored.token, stored.generation, stored.issued_at + seconds, stored.expires_at + seconds, stored.given
    )
