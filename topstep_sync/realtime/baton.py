"""How the hub's thread wakes one consumer, and how that one wakes the next."""

import os
import select
import threading
from typing import Any, Final


class LockBaton:
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


class PipeBaton(LockBaton):
    """The same with a doorbell, for systems whose pipes can be polled.

    Who releases a lock holds Python's global lock, so the woken thread runs into that one, sleeps again, and is woken a
    second time. Who writes to a pipe has let go of it: from the hub to a consumer that waits, 66 µs instead of 94 (a
    bare client at 1 000 events a second, two cores). The lock stays the truth. A byte too many wakes somebody for
    nothing; so a byte may be read before the lock is taken, but never the other way round.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unread = False  # whether the byte of the last one woken is still there; the next `clear` reads it
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def __del__(self, close: Any = os.close) -> None:
        for name in ("_reader", "_writer"):
            if name in self.__dict__:  # else there was no descriptor to be had
                close(self.__dict__.pop(name))

    def set(self) -> None:
        unset = self._unset
        if unset.locked():
            try:
                unset.release()
            except RuntimeError:  # somebody else was first
                pass
            finally:  # a Ctrl-C comes after any call, and a lock that nobody is told of would be waited for in vain
                try:  # noqa: SIM105 - `suppress` is Python, in which that Ctrl-C could come
                    os.write(self._writer, b"\0")
                except BlockingIOError:  # it is full, and rings anyway
                    pass

    def clear(self) -> None:
        if self._unread or not self._unset.locked():
            self._take()

    def wait(self, timeout: float | None = None) -> bool:
        bell = select.poll()  # one for each waiter: two may not share it
        bell.register(self._reader, select.POLLIN)
        if not bell.poll(None if timeout is None else 1000 * timeout):
            return False
        if self._unset.acquire(blocking=False):
            self._unread = True  # whoever reads lets go of the interpreter, and he who rang the bell takes hold of it
            return True
        return self._take()

    def _take(self) -> bool:
        self._unread = False
        try:
            os.read(self._reader, 64)
        except BlockingIOError:  # another waiter was here; the lock tells which of us is woken
            pass
        finally:
            taken = self._unset.acquire(blocking=False)
        return taken


Baton: Final = PipeBaton if hasattr(select, "poll") else LockBaton
