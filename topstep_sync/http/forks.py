"""What a forked child must not share with its parent: connections, on which two would read each other's replies, locks
that a thread which does not exist any more may hold, and the belief that threads run."""

import os
import weakref
from typing import Final, Protocol


class Forked(Protocol):
    """Something that must start anew in a child."""

    def forked(self) -> None: ...


_KNOWN: Final["weakref.WeakSet[Forked]"] = weakref.WeakSet()


def remember(thing: Forked) -> None:
    """*thing* is told when this process is a forked child."""
    _KNOWN.add(thing)


def _tell() -> None:
    for thing in list(_KNOWN):
        thing.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_tell)
