"""Locks that other threads hold while the process forks."""

import os
import signal
import threading

import pytest

from topstep_sync.auth import forks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Thing:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told = 0

    def forked(self) -> None:
        self.lock = threading.Lock()
        self.told += 1


def child_says(check: object) -> int:
    """The exit code of a forked child: 0 when *check*, called there, is true."""
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which pytest must not see the end of
        code = 1
        signal.alarm(20)
        try:
            code = 0 if callable(check) and check() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_child_is_told_and_the_parent_is_not() -> None:
    """In the child the lock is free and the object told; in the parent nothing happened, and the lock is free too."""
    thing = Thing()
    forks.survive(thing)
    assert 0 == child_says(lambda: thing.told == 1 and thing.lock.acquire(timeout=1))
    assert (0, True) == (thing.told, thing.lock.acquire(timeout=1))


def test_a_lock_that_is_never_released_does_not_stop_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork waits a bounded time, the child gets a new lock, and the parent's stays with its owner."""
    monkeypatch.setattr(forks, "PATIENCE", 0.01)
    thing = Thing()
    forks.survive(thing)
    thing.lock.acquire()
    assert 0 == child_says(lambda: thing.lock.acquire(timeout=1))
    assert thing.lock.locked()
    thing.lock.release()


def test_the_hooks_by_hand() -> None:
    """Before: held; in the parent: released; in the child: told."""
    thing = Thing()
    forks.survive(thing)
    forks._before()
    assert thing.lock.locked()
    forks._in_parent()
    assert not thing.lock.locked()
    forks._before()
    forks._in_child()
    assert (1, False) == (thing.told, thing.lock.locked())
