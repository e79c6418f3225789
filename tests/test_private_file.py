"""A small private file: its permissions, its owner, and its content through every crash."""

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from topstep_sync.auth import private_file
from topstep_sync.auth.private_file import UnsafeFile
from topstep_sync.clock import ManualClock

CLOCK = ManualClock(auto=True)
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


def write(path: Path, content: bytes) -> None:
    private_file.write(path, content, CLOCK)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.token"


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_old_or_new(path: Path) -> None:
    """Nothing, then the first content, then the second, then nothing."""
    assert private_file.read(path) is None
    for content in (b"one", b"two", b"\0" * 1000):
        write(path, content)
        assert content == private_file.read(path)
    private_file.remove(path)
    private_file.remove(path)
    assert private_file.read(path) is None


@posix
def test_permissions_under_any_umask(path: Path, umask: int) -> None:
    """The file is 0600 whatever the umask adds or takes; a folder made for it is nobody else's."""
    if umask == 0o777 and os.geteuid() != 0:
        pytest.skip("nobody can enter a folder made under this umask")
    write(path, b"x")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0 == stat.S_IMODE(path.parent.stat().st_mode) & 0o077
    assert ["file.token"] == names(path.parent)


@posix
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o777, 0o604, 0o640])
def test_loose_permissions_are_tightened(mode: int, path: Path) -> None:
    """On reading and on writing."""
    write(path, b"x")
    path.chmod(mode)
    assert b"x" == private_file.read(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    write(path, b"y")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("target", ["there", "not there"])
def test_links_are_refused(target: str, path: Path, tmp_path: Path) -> None:
    """Neither read nor replaced, and what they point to is left alone."""
    path.parent.mkdir()
    victim = tmp_path / "victim"
    if target == "there":
        victim.write_bytes(b"precious")
    path.symlink_to(victim)
    with pytest.raises(UnsafeFile, match="symbolic link"):
        private_file.read(path)
    with pytest.raises(UnsafeFile, match="no regular file"):
        write(path, b"x")
    assert (True, target == "there") == (path.is_symlink(), victim.exists())


@posix
def test_what_is_no_file_is_refused(path: Path) -> None:
    """A pipe does not hang the reader, and neither it nor a folder nor a socket is taken for a file."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        for make in (os.mkfifo, os.mkdir, lambda name: listener.bind(str(name))):
            make(path)
            with pytest.raises((UnsafeFile, OSError)):
                private_file.read(path)
            with pytest.raises(UnsafeFile):
                write(path, b"x")
            path.rmdir() if path.is_dir() else path.unlink()


@posix
def test_somebody_elses_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file can change it at will, so it is not ours to trust."""
    write(path, b"x")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(UnsafeFile, match="belongs to user"):
        private_file.read(path)
    with pytest.raises(UnsafeFile, match="belongs to user"):
        write(path, b"y")


def test_a_huge_file_is_refused(path: Path) -> None:
    """It is not read to its end."""
    path.parent.mkdir()
    path.write_bytes(b"x" * (private_file.MAX_BYTES + 1))
    with pytest.raises(UnsafeFile, match="larger than"):
        private_file.read(path)


def test_other_errors_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk says is not dressed up."""

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "the disk is on fire")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="on fire"):
        private_file.read(path)


@pytest.mark.parametrize("name", ["fsync", "fdopen", "fchmod"])
def test_a_failed_write_leaves_the_old_content(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say: the old content stays, and nothing lies around."""
    write(path, b"old")

    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        if name == "fchmod":
            patch.setattr(stat, "S_IMODE", lambda mode: 0)
        with pytest.raises(OSError, match="no space"):
            write(path, b"new")
    assert (b"old", ["file.token"]) == (private_file.read(path), names(path.parent))


@pytest.mark.parametrize("refusals", [1, private_file.ATTEMPTS - 1, private_file.ATTEMPTS])
def test_a_reader_in_the_way(refusals: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to replace a file that is open: a few more attempts, then the error."""
    left = refusals
    replace = Path.replace

    def busy(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError("in use")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    if refusals < private_file.ATTEMPTS:
        write(path, b"x")
        assert b"x" == private_file.read(path)
    else:
        with pytest.raises(PermissionError):
            write(path, b"x")
        assert [] == names(path.parent)


def test_leftovers_are_swept(path: Path) -> None:
    """What a crash left is removed; other files are not."""
    write(path, b"x")
    for name in (".file.token.0123.tmp", ".file.token.4567.tmp", ".other.token.1.tmp", "file.token.lock"):
        (path.parent / name).write_bytes(b"left")
    (path.parent / ".file.token.dir.tmp").mkdir()
    private_file.sweep(path)
    expected = {".other.token.1.tmp", "file.token", "file.token.lock", ".file.token.dir.tmp"}
    assert expected == set(names(path.parent))


def test_set_aside(path: Path) -> None:
    """It is kept under another name, in place of what was kept before."""
    for content in (b"bad", b"worse"):
        write(path, content)
        aside = private_file.set_aside(path)
        assert (content, False) == (aside.read_bytes(), path.exists())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("first", [True, False])
def test_killed_between_any_two_steps(first: bool, path: Path) -> None:
    """SIGKILL before each line of a write in turn: the old content or the new, never anything between."""
    new = b"new content" * 20
    for point in range(1, 1000):
        path.unlink(missing_ok=True)
        if not first:
            write(path, b"old content")
        killed = _killed_at(point, lambda: write(path, new))
        found = private_file.read(path)
        assert found in ((None if first else b"old content"), new), point
        if not killed:
            break
    assert (False, new) == (killed, found)
    assert point > 20
    private_file.sweep(path)
    assert ["file.token"] == names(path.parent)


def _killed_at(point: int, action: Callable[[], None]) -> bool:
    """Whether a child that runs *action* was killed before the *point*-th line of `private_file`."""
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        left = point

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename != private_file.__file__:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)
            return trace

        try:
            sys.settrace(trace)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -9), code
    return code == -9


WRITER = """
import sys
from pathlib import Path
from topstep_sync.auth import private_file
from topstep_sync.clock import SYSTEM_CLOCK
private_file.write(Path(sys.argv[1]), b"new content" * 20, SYSTEM_CLOCK)
"""

# What a write asks of the system that can change a thing; each must be survived.
SYSCALLS = ("openat", "write", "fsync", "rename", "fchmod", "mkdir")


def _strace_works() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-o", os.devnull, "true"], check=False).returncode == 0


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not _strace_works(), reason="needs strace, and the right to trace")
def test_killed_at_each_system_call(path: Path, tmp_path: Path) -> None:
    """SIGKILL by the kernel at each system call of a real write that names the file or follows one that does."""
    write(path, b"old content")
    log = tmp_path / "strace.log"
    command = [sys.executable, "-c", WRITER, str(path)]
    subprocess.run(["strace", "-qq", "-o", str(log), *command], check=True)
    calls = [line.partition("(")[0] for line in log.read_text().splitlines()]
    begin = next(i for i, line in enumerate(log.read_text().splitlines()) if str(path) in line and "execve" not in line)
    found = set()
    for index in range(begin, len(calls)):
        name = calls[index]
        if name not in SYSCALLS:
            continue
        path.unlink()
        write(path, b"old content")
        when = calls[: index + 1].count(name)
        inject = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={when}"]
        subprocess.run(["strace", "-qq", "-o", os.devnull, *inject, *command], check=False)
        content = private_file.read(path)
        assert content in (b"old content", b"new content" * 20), (name, when)
        found.add(content)
    assert 2 == len(found)  # some were killed before the rename, and some after it
