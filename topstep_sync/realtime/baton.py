"""How the hub's thread wakes one consumer, and how that one wakes the next."""

import threading


class Baton:
    """Wakes one waiter, on one bare lock: a third of the cost of `threading.Event`, which is paid for every batch.

    Who is woken and leaves something for others sets it again.
    """

    def __init__(self) -> None:
        self._unset = threading.Lock()  # locked while it is not set
        self._unset.acquire()

    def is_set(self) -> bool:
        return not self._unset.locked()

    def set(self) -> None:
        if self._unset.locked():
            try:
                self._unset.release()
            except RuntimeError:  # somebody else was first
                return

    def clear(self) -> None:
        self._unset.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it was set within *timeout* seconds, and this waiter is the one that is woken by it."""
        return self._unset.acquire(timeout=-1 if timeout is None else timeout)
