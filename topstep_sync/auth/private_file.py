"""A small file that is only its owner's, and that is old or new but never half written, whenever the power goes."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from topstep_sync.clock import Clock
from topstep_sync.errors import ConfigError

MAX_BYTES: Final = 64 * 1024
ATTEMPTS: Final = 5  # Windows refuses to replace a file that somebody reads just now
PAUSE: Final = 0.05  # seconds between them

# Flags that a system lacks are 0. O_NONBLOCK: opening a pipe somebody planted must not hang.
_SAFE: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFE
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE


class UnsafeFile(ConfigError):
    """The path leads to something that is not a private file of this user."""


def read(path: Path) -> bytes | None:
    """The content of *path*; `None` when there is no such file. Loose permissions are tightened.

    Raises:
        UnsafeFile: it is a link, a device or somebody else's, or too large.
    """
    try:
        descriptor = os.open(path, _READ)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise UnsafeFile(f"{path} is a symbolic link; expected a file of this user") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor))
        _tighten(descriptor)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnsafeFile(f"{path} is larger than {MAX_BYTES} bytes; it is no token file")
    return content


def write(path: Path, content: bytes, clock: Clock) -> None:
    """*path* holds *content*, durably; a crash at any moment leaves the old content or the new.

    Raises:
        UnsafeFile: what is there is a link, a device or somebody else's.
        OSError: the disk, or the permissions of the folder.
    """
    with contextlib.suppress(FileNotFoundError):
        _check(path, path.lstat())
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, _CREATE, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            _tighten(descriptor)  # an odd umask may have taken from the 0600 as well
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        _replace(temporary, path, clock)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """There is no *path*."""
    with contextlib.suppress(NotADirectoryError):
        path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def set_aside(path: Path) -> Path:
    """What was at *path* is at the path returned, in place of what was set aside before."""
    aside = path.with_name(f"{path.name}.unreadable")
    path.replace(aside)
    return aside


def sweep(path: Path) -> None:
    """What crashed writes of *path* left behind is gone. Only for who holds the lease: a live write has one too."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def make_folder(folder: Path) -> None:
    """*folder* exists; if it did not, only its owner can enter it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFile(f"{path} is no regular file; expected a file of this user")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise UnsafeFile(f"{path} belongs to user {found.st_uid}; expected a file of user {os.geteuid()}")


def _tighten(descriptor: int) -> None:
    if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
        os.fchmod(descriptor, 0o600)


def _replace(source: Path, target: Path, clock: Clock) -> None:
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(PermissionError):
            source.replace(target)
            return
        clock.sleep(PAUSE)
    source.replace(target)


def _sync_folder(folder: Path) -> None:
    """The folder's entries are on the disk, where the system can be asked for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
