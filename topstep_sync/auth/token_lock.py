"""Where the sealed token lies between processes of one machine, and the lease that lets one of them refresh."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from topstep_sync.auth import private_file
from topstep_sync.clock import Clock, Deadline, Signal, Waitable

log = logging.getLogger("topstep_sync.auth")

POLL: Final = 0.05  # seconds between looks at a lock that somebody else holds


class FileShelf:
    """One file, and a lock file beside it that is never deleted: two inodes would be two locks.

    The operating system drops the lock of a process that dies, so a crash leaves nothing to clear up.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._lock = self._new_lock()
        self._process = os.getpid()
        self._inherited: list[FileLock] = []

    def ahead(self) -> float:
        """Stored times are on this machine's clock."""
        return 0.0

    def read(self) -> bytes | None:
        return private_file.read(self.path)

    def write(self, blob: bytes, generation: int, life: float) -> bool:
        private_file.write(self.path, blob, self._clock)
        return True

    def remove(self) -> None:
        private_file.remove(self.path)

    def set_aside(self, blob: bytes) -> str | None:
        """Where *blob* lies now, if it was still what the file held."""
        with self.lease(1.0, Signal()) as alone:
            if not alone or private_file.read(self.path) != blob:
                return None
            return str(private_file.set_aside(self.path))

    @contextlib.contextmanager
    def lease(self, timeout: float, cancelled: Waitable) -> Iterator[bool]:
        """Whether this thread alone may refresh; False after *timeout* seconds, or when *cancelled* was set."""
        alone = self._acquire(Deadline(timeout, self._clock), cancelled)
        try:
            if alone:
                private_file.sweep(self.path)
            yield alone
        finally:
            if alone:
                self._lock.release()

    def _acquire(self, deadline: Deadline, cancelled: Waitable) -> bool:
        try:
            private_file.make_folder(self.path.parent)
            while not self._try():
                if deadline.expired or self._clock.wait(cancelled, deadline.bound(POLL)):
                    return False
        except OSError as error:
            log.warning("! %s cannot be locked: %s", self.path, error)
            return False
        return True

    def _new_lock(self) -> FileLock:
        # One object for all threads; it counts per thread, so that moving a file aside within a lease does not wait.
        return FileLock(f"{self.path}.lock", mode=0o600, thread_local=True)

    def _try(self) -> bool:
        if self._process != os.getpid():
            # A fork shares the parent's lock: using it fails, and freeing it might end the parent's lease.
            self._inherited.append(self._lock)
            self._lock, self._process = self._new_lock(), os.getpid()
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def __repr__(self) -> str:
        return f"FileShelf({str(self.path)!r})"
