"""The budget shared by the processes of one machine, in a SQLite file. Only hashes and numbers are in it.

Instants are those of the machine's monotonic clock, which all its processes share; a restart of the machine shows as
stamps from the future, and these count from now.
"""

import contextlib
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import filelock

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.http.sharing import Answer, Ask, BudgetLost, Rules, load

LOG: Final = logging.getLogger("topstep_sync.http")

PATIENCE: Final = 5.0
"""Seconds to wait for other processes' transactions; one takes a fraction of a millisecond."""

BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS budget (key TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID"
_READ: Final = "SELECT state FROM budget WHERE key = ?"
_WRITE: Final = "INSERT INTO budget VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state"


class SQLiteBudget:
    """Windows in the file at *path*, under *key*. Thread-safe: each exchange has a connection to itself.

    A file that is damaged is moved aside, which is logged once, and a new one begun.
    """

    kind = "sqlite"

    def __init__(self, path: str | Path, key: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = Path(path)
        self._key = key
        self._clock = clock
        self._idle: deque[tuple[sqlite3.Connection, int]] = deque()
        self._graveyard: list[Any] = []

    def exchange(self, rules: Rules, ask: Ask) -> Answer:
        with _translated():
            try:
                return self._exchange(rules, ask)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in BROKEN:
                    raise
            self._set_aside()
            return self._exchange(rules, ask)

    def _exchange(self, rules: Rules, ask: Ask) -> Answer:
        name = f"{self._key}:{rules.name}"
        with self._transaction() as connection:
            now = self._clock.monotonic()
            row = connection.execute(_READ, (name,)).fetchone()
            window = load(rules, row[0] if row else None, now)
            window.bury(now, [holder for holder in window.holders() if _dead(holder)])
            answer = window.exchange(now, ask)
            connection.execute(_WRITE, (name, window.dump()))
        return answer

    def forget(self, rules: Rules) -> None:
        with _translated(), self._transaction() as connection:
            connection.execute("DELETE FROM budget WHERE key = ?", (f"{self._key}:{rules.name}",))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept when the block succeeds; it goes back to the idle ones, or is closed."""
        connection, inode = self._take()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            connection.close()  # and so is rolled back
            raise
        self._idle.append((connection, inode))

    def _take(self) -> tuple[sqlite3.Connection, int]:
        """A connection to the file that is at the path now: somebody may have moved another one there."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was quicker
                connection, inode = self._idle.popleft()
                if inode == self._inode():
                    return connection, inode
                connection.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection, self._inode()

    def _inode(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError:
            return -1

    def _set_aside(self) -> None:
        """The damaged file is out of the way, unless another process has seen to that already."""
        self.close()
        with filelock.FileLock(f"{self.path}.lock", timeout=PATIENCE):
            if self._sound():
                return
            aside = f"{self.path}.damaged-{self._clock.epoch():.0f}"
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        LOG.warning("! the shared rate budget was damaged; it is kept as %s, and a new one begun", aside)

    def _sound(self) -> bool:
        """Whether the file that is at the path now can be read to its end."""
        try:
            connection, _ = self._take()
            with contextlib.closing(connection):
                return bool(connection.execute("PRAGMA quick_check").fetchone()[0] == "ok")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in BROKEN:
                raise
            return False

    def forked(self) -> None:
        """The parent's connections are kept, unused: closing them here would drop the parent's file locks."""
        self._graveyard.append(self._idle)
        self._idle = deque()

    def close(self) -> None:
        """No file is open; a later exchange opens it again."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[0].close()


def _dead(holder: str) -> bool:
    """Whether the process of *holder* is gone for certain."""
    if os.name != "posix":  # elsewhere signal 0 is no question: on Windows it is Ctrl-C
        return False
    try:
        os.kill(int(holder.partition("-")[0]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What SQLite and the file system raise is `BudgetLost`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise BudgetLost(f"SQLite: {error}") from error
