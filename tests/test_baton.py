"""How one consumer is woken: once for each time it is set, whoever else waits or sets, and whatever interrupts."""

import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from interruptions import interrupted_everywhere

from topstep_sync.realtime.baton import Baton, LockBaton, PipeBaton

KINDS = [LockBaton, PipeBaton] if hasattr(select, "poll") else [LockBaton]


def test_what_can_be_polled_is() -> None:
    """The quick kind is used wherever there is one; elsewhere the one that needs nothing."""
    assert Baton is KINDS[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_one_waiter_is_woken_who_may_pass_it_on(kind: type[LockBaton]) -> None:
    """Set any number of times at once, it wakes one; a row of 32 who each pass it on are all woken."""
    baton = kind()
    assert (False, False) == (baton.is_set(), baton.wait(0.01))
    passed: queue.Queue[bool] = queue.Queue()

    def wait_and_pass_on() -> None:
        passed.put(baton.wait(5))
        baton.set()

    waiters = [threading.Thread(target=wait_and_pass_on) for _ in range(32)]
    setters = [threading.Thread(target=baton.set) for _ in range(32)]
    for thread in waiters + setters:
        thread.start()
    assert [True] * 32 == [passed.get(timeout=5) for _ in range(32)]
    for thread in waiters + setters:
        thread.join(5)
    baton.set()
    assert (True, True, False) == (baton.is_set(), baton.wait(), baton.wait(0.0))
    baton.set()
    baton.clear()
    baton.clear()
    assert (False, False) == (baton.is_set(), baton.wait(0.0))


def attended(baton: LockBaton) -> None:
    assert baton.wait(5.0)


def passed(baton: LockBaton) -> None:
    baton.set()
    baton.clear()
    baton.set()


@pytest.mark.parametrize("action", [attended, passed])
@pytest.mark.parametrize("kind", KINDS)
def test_no_interruption_leaves_it_deaf(kind: type[LockBaton], action: Callable[[LockBaton], None]) -> None:
    """A Ctrl-C at any moment: who sets it after that, as the queue does, wakes whoever waits."""

    def prepare() -> LockBaton:
        made = kind()
        made.set()
        return made

    count = 0
    for baton, where in interrupted_everywhere(prepare, action, ("topstep_sync",)):
        count += 1
        baton.set()
        assert (True, where) == (baton.wait(0.0) or baton.wait(0.0), where)
    assert count >= 3


@pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no pipe in it")
def test_a_byte_too_many_wakes_nobody_for_long() -> None:
    """What two setters at once may leave in the pipe is read away; the lock says whether it is set."""
    baton = PipeBaton()
    os.write(baton._writer, b"\0\0")
    assert (False, False) == (baton.wait(5.0), baton.wait(0.0))
    baton.set()
    os.read(baton._reader, 64)
    assert (True, False) == (baton._take(), baton.is_set())


@pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no pipe in it")
@pytest.mark.parametrize("next_one", ["clears", "waits"])
def test_who_is_woken_leaves_the_byte_to_the_next(next_one: str) -> None:
    """It is read before the next wait, or by whoever is woken for nothing by it: once."""
    baton = PipeBaton()
    baton.set()
    assert baton.wait(5.0)
    if next_one == "clears":
        baton.clear()
    else:
        assert not baton.wait(5.0)
    assert not baton._unread  # or each wait would read once more
    assert ([], False) == (select.select([baton._reader], [], [], 0.0)[0], baton.is_set())
    baton.set()
    assert baton.wait(5.0)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_no_descriptor_is_left() -> None:
    """A thousand of them, one after the other, need two descriptors; one that got none leaves none."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(1000):
        PipeBaton()
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_without_a_descriptor_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files are told as such, and nothing is left half made."""

    def none_left() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        PipeBaton()


@pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no pipe in it")
def test_a_full_pipe_rings_too() -> None:
    """Whoever sets it never meets an error, however many bytes nobody read."""
    baton = PipeBaton()
    os.write(baton._writer, bytes(65536))
    baton.set()
    assert baton.wait(5.0)
