"""A lock for methods that a signal's handler may call in the middle of one another.

A handler runs in the main thread, between any two steps of whatever that is doing, and may close or read what it finds.
A plain lock that this thread holds already would then never come free.
"""

from _thread import RLock


class OwnLock(RLock):  # type: ignore[misc]  # final for typeshed, not for Python
    """Its holder may take it again, and can ask whether it is the holder: then a step may be half done."""

    __slots__ = ()

    mine = RLock._is_owned  # type: ignore[attr-defined]  # what `threading.Condition` asks, too; written in C
