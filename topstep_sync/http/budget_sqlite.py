"""The budget shared by the processes of one machine, in a SQLite file. Only hashes and numbers are in it.

Instants are those of the machine's monotonic clock, which all its processes share; a restart of the machine shows as
stamps from the future, and these count from now.

Nothing waits for the disk: what a crash of the machine may take (the calls of the last minute) is worth nothing after
it, and a file that it damaged is told from a sound one. What a crash of a process leaves is whole in any case.
"""

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import filelock

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.http.shared_window import load
from topstep_sync.http.sharing import PATIENCE, Answer, Ask, BudgetBusy, BudgetLost, Rules

LOG: Final = logging.getLogger("topstep_sync.http")

PAUSE: Final = 0.001
"""Seconds, on average, until a file that another process uses is tried again; its transaction takes a third of that."""

LONGEST_PAUSE: Final = 0.008

BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

TAKEN: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
"""Somebody else is at the file. The finer codes (that another recovers it, say) have one of these in the low byte."""

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS budget (key TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID"
_READ: Final = "SELECT state FROM budget WHERE key = ?"
_WRITE: Final = "INSERT INTO budget VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state"

T = TypeVar("T")


class SQLiteBudget:
    """Windows in the file at *path*, under *key*. Thread-safe: the threads of a process take turns at one connection.

    So only processes compete for the file. SQLite's own way to wait for it sleeps ever longer, up to 0.1 s, while
    others come and go: among many it starves some. Here everybody asks again after a millisecond or a few.
    A file that is damaged is moved aside, which is logged once, and a new one begun.
    """

    kind = "sqlite"

    def __init__(self, path: str | Path, key: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = Path(path)
        self._key = key
        self._clock = clock
        # Guards the connection, and nothing of the limiter's: it is held for one transaction or one attempt, never
        # while waiting for another process, and only by threads that hold no other lock.
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened_as = -1
        """The inode of the file that the connection is to."""
        self._graveyard: list[sqlite3.Connection] = []

    def exchange(self, rules: Rules, ask: Ask, patience: float = PATIENCE) -> Answer:
        def work(connection: sqlite3.Connection) -> Answer:
            name, now = f"{self._key}:{rules.name}", self._clock.monotonic()
            row = connection.execute(_READ, (name,)).fetchone()
            window = load(rules, row[0] if row else None, now)
            window.bury(now, [holder for holder in window.holders() if _dead(holder)])
            answer = window.exchange(now, ask)
            connection.execute(_WRITE, (name, window.dump()))
            return answer

        with _translated():
            return self._mended(work, patience)

    def forget(self, rules: Rules) -> None:
        name = f"{self._key}:{rules.name}"
        with _translated():
            self._mended(lambda connection: connection.execute("DELETE FROM budget WHERE key = ?", (name,)), PATIENCE)

    def _mended(self, work: Callable[[sqlite3.Connection], T], patience: float) -> T:
        """What *work* returns; a damaged file is replaced before it is tried a second time."""
        try:
            return self._patiently(lambda: self._transact(work), patience)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in BROKEN:
                raise
        self._set_aside()
        return self._patiently(lambda: self._transact(work), patience)

    def _patiently(self, attempt: Callable[[], T], patience: float) -> T:
        """What *attempt* returns, as soon as no other process is at the file.

        The wait is a real one even where the budget counts by a test's clock: it is for the machine.
        """
        end, pause = SYSTEM_CLOCK.monotonic() + patience, PAUSE
        while True:
            try:
                with self._turn:
                    return attempt()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in TAKEN:
                    raise
                if SYSTEM_CLOCK.monotonic() >= end:
                    raise BudgetBusy(f"SQLite: {error} by other processes for {patience:.1f} s") from error
            SYSTEM_CLOCK.sleep(pause * (0.5 + SYSTEM_CLOCK.random()))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work* returns; what it changed is kept. Whatever goes wrong, nothing is changed and nothing open."""
        connection = self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            if not _taken(error):
                self._close()  # and so is rolled back
            raise
        return result

    def _open(self) -> sqlite3.Connection:
        """A connection to the file that is at the path now: somebody may have moved another one there."""
        assert self._turn.locked()
        connection = self._connection
        if connection is not None:
            if self._opened_as == self._inode() and not connection.in_transaction:
                return connection
            self._close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch()
        inode = self._inode()
        connection = sqlite3.connect(self.path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        # Where it was replaced since the first look, nobody knows which of the two is open: the next turn looks again.
        self._connection, self._opened_as = connection, inode
        return connection

    def _inode(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError:
            return -1

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _set_aside(self) -> None:
        """The damaged file is out of the way, unless another process has seen to that already."""
        self.close()
        with filelock.FileLock(f"{self.path}.lock", timeout=PATIENCE):
            if self._patiently(self._sound, PATIENCE):
                return
            aside = f"{self.path}.damaged-{self._clock.epoch():.0f}"
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        LOG.warning("! the shared rate budget was damaged; it is kept as %s, and a new one begun", aside)

    def _sound(self) -> bool:
        """Whether the file that is at the path now can be read to its end."""
        try:
            return bool(self._open().execute("PRAGMA quick_check").fetchone()[0] == "ok")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in BROKEN:
                raise
            return False
        finally:
            self._close()

    def forked(self) -> None:
        """The parent's connection is kept, unused: closing it here would drop the parent's file locks."""
        if self._connection is not None:
            self._graveyard.append(self._connection)
        self._connection = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """No file is open; a later exchange opens it again."""
        with self._turn:
            self._close()


def _taken(error: BaseException) -> bool:
    """Whether *error* says that another process is at the file."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in TAKEN


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
