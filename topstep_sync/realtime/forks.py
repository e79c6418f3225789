"""What a forked child does with the stream's objects.

The threads stay with the parent, and so do the connections; a lock that one of the threads held at that moment stays
locked for ever in the child's copy. So everything that has a lock is told, and starts anew.
"""

import os
import weakref
from typing import Final, Protocol

REASON: Final = "the process was forked, and connections stay with the parent: subscribe again in the child"


class Forkable(Protocol):
    def forked(self) -> None:
        """This process is the child, and this thread its only one."""
        ...


_objects: "weakref.WeakSet[Forkable]" = weakref.WeakSet()


def survive(thing: Forkable) -> None:
    """*thing* is told in the children that this process may fork, for as long as anybody uses it."""
    _objects.add(thing)


def _in_child() -> None:
    for thing in list(_objects):
        thing.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
