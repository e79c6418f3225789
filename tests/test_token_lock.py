"""The lease on a token file between threads and processes."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from topstep_sync.auth.token_lock import FileShelf
from topstep_sync.clock import SYSTEM_CLOCK, ManualClock

HOLDER = """
import sys, threading
from pathlib import Path
from topstep_sync.auth.token_lock import FileShelf
from topstep_sync.clock import SYSTEM_CLOCK
with FileShelf(Path(sys.argv[1]), SYSTEM_CLOCK).lease(10.0, threading.Event()) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "joe.token"


def holder(path: Path) -> "subprocess.Popen[str]":
    """Another process, which has the lease until its input ends or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert "True\n" == process.stdout.readline()
    return process


def free(path: Path, timeout: float = 0.0) -> bool:
    with FileShelf(path, SYSTEM_CLOCK).lease(timeout, threading.Event()) as alone:
        return alone


def test_another_process_has_it(path: Path) -> None:
    """Not to be had while it has it, and at once when it ends, whether by itself or killed."""
    for end in ("input", "kill"):
        with holder(path) as process:
            assert not free(path)
            assert not free(path, 0.12)
            process.kill() if end == "kill" else process.communicate()
        assert free(path)


def test_a_waiter_gets_it_when_it_is_free(path: Path) -> None:
    """Within a poll or two of the moment."""
    with holder(path) as process:
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(free(path, 10.0)))
        thread.start()
        process.communicate()
        thread.join(10)
    assert [True] == found


def test_a_cancelled_waiter_gives_up(path: Path) -> None:
    """Closing the session ends the wait of its refresh, long before the timeout."""
    clock = ManualClock()
    shelf, cancelled = FileShelf(path, clock), threading.Event()
    found: list[bool] = []

    def wait() -> None:
        with shelf.lease(60.0, cancelled) as alone:
            found.append(alone)

    with holder(path) as process:
        thread = threading.Thread(target=wait)
        thread.start()
        clock.wait_for_sleepers(1)
        cancelled.set()
        thread.join(10)
        process.communicate()
    assert [False] == found


def test_it_may_be_taken_again_by_its_holder(path: Path) -> None:
    """A save inside a lease does not wait for itself; the lease ends with the outermost."""
    shelf = FileShelf(path, SYSTEM_CLOCK)
    with shelf.lease(0.0, threading.Event()) as outer:
        with shelf.lease(0.0, threading.Event()) as inner:
            assert (True, True) == (outer, inner)
        assert not free(path)
    assert free(path)


def test_an_exception_inside_ends_it(path: Path) -> None:
    """A refresh that fails leaves the lease to the next."""
    with pytest.raises(ValueError, match="odd"), FileShelf(path, SYSTEM_CLOCK).lease(0.0, threading.Event()):
        raise ValueError("odd")
    assert free(path)


def test_a_folder_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No lease, a warning, no crash."""
    (tmp_path / "file").write_bytes(b"")
    assert not free(tmp_path / "file" / "joe.token")
    assert "cannot be locked" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_in_place_of_the_lock(path: Path, tmp_path: Path) -> None:
    """A planted link is not followed: its target is neither made nor emptied."""
    victim = tmp_path / "victim"
    path.parent.mkdir()
    Path(f"{path}.lock").symlink_to(victim)
    assert not free(path)
    assert not victim.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_take_the_lease_along(path: Path) -> None:
    """The child of a process that has the lease neither has it nor ends it."""
    shelf = FileShelf(path, SYSTEM_CLOCK)
    with shelf.lease(0.0, threading.Event()):
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            code = 1
            try:
                with shelf.lease(0.0, threading.Event()) as alone:
                    code = 2 if alone else 0
            finally:
                os._exit(code)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert not free(path)
    assert free(path)


def test_a_lock_of_another_process_is_not_used(path: Path) -> None:
    """As in a forked child: the inherited lock is left alone, and another one made."""
    shelf = FileShelf(path, SYSTEM_CLOCK)
    inherited = shelf._lock
    shelf._process = -1
    with shelf.lease(0.0, threading.Event()) as alone:
        assert alone
        assert not inherited.is_locked


def test_what_is_set_aside_is_what_was_read(path: Path) -> None:
    """Not while somebody else has the lease, and not if the file changed since."""
    shelf = FileShelf(path, SYSTEM_CLOCK)
    assert shelf.write(b"garbage", 1, 60.0)
    assert shelf.set_aside(b"something else") is None
    assert f"{path}.unreadable" == shelf.set_aside(b"garbage")
    assert shelf.read() is None
