"""Objects with a lock that go on working in a forked child.

A fork copies the memory as one thread sees it: a lock that another thread held stays locked for ever, and the threads
are gone. So every registered object is between two decisions while the process forks, and is told in the child.
"""

import os
import threading
import weakref
from typing import Final, Protocol

PATIENCE: Final = 1.0  # seconds for a lock; only a thread that died with it could keep it for so long


class Forkable(Protocol):
    @property
    def lock(self) -> threading.Lock: ...
    def forked(self) -> None:
        """This process is the child: no other thread exists, and the lock may never be released."""
        ...


_OBJECTS: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_held: list[threading.Lock] = []


def survive(thing: Forkable) -> None:
    """*thing* works in the children that this process may fork, for as long as anybody uses it."""
    _OBJECTS.add(thing)


def _before() -> None:
    _held[:] = [thing.lock for thing in list(_OBJECTS) if thing.lock.acquire(timeout=PATIENCE)]


def _in_parent() -> None:
    for lock in _held:
        lock.release()
    _held.clear()


def _in_child() -> None:
    _held.clear()
    for thing in list(_OBJECTS):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
