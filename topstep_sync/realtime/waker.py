"""A thread that waits on a socket, and how other threads wake it."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from topstep_sync.clock import SLICE, Clock

Result = TypeVar("Result")


class Interrupted(Exception):
    """The wait was called off by `Waker.stop()`."""


class Waker:
    """Lets other threads wake the one thread that waits on a socket.

    `wake` and `stop` may be called from any thread; the rest belongs to the owner.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._watched: tuple[socket.socket | None, int] = (None, 0)
        self._signalled = False
        self.stopped = False

    def wake(self) -> None:
        """The owner's current or next `wait` returns at once."""
        if self._signalled:
            return
        self._signalled = True
        # It fails when full, so there is something to read already; or when closed, so nobody waits.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def stop(self) -> None:
        """The owner's current wait, and every later one, raises `Interrupted`."""
        self.stopped = True
        self.wake()

    def wait(self, sock: socket.socket | None, timeout: float, *, write: bool = False) -> bool:
        """Whether *sock* became ready within *timeout* seconds; False also when somebody called `wake`.

        Raises:
            Interrupted: `stop` was called.
        """
        if self.stopped:
            raise Interrupted
        watched = (sock, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        if watched != self._watched:
            self._watch(watched)
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, min(timeout, SLICE)))]
        if self._reader in ready:
            self._clear()
        if self.stopped:
            raise Interrupted
        return sock in ready

    def _watch(self, watched: tuple[socket.socket | None, int]) -> None:
        """Wait for this socket from here on; a change costs system calls, so it stays until there is another."""
        before, self._watched = self._watched[0], watched
        if before is not None:
            self._selector.unregister(before)
        sock, mask = watched
        if sock is not None:
            self._selector.register(sock, mask)

    def wait_for(self, sock: socket.socket, at: float, *, write: bool = False) -> None:
        """*sock* is ready.

        Raises:
            TimeoutError: it was not by *at*, an instant of the monotonic clock.
            Interrupted: `stop` was called.
        """
        while not self.wait(sock, at - self._clock.monotonic(), write=write):
            if self._clock.monotonic() >= at:
                raise TimeoutError("no progress in time")

    def _clear(self) -> None:
        """Whatever `wake` announced so far counts as seen; look for it after this call, not before."""
        # In this order: a byte that is eaten while the flag is down would leave the flag up with nothing to read, and
        # every later `wake` would count on a byte that is not there.
        with contextlib.suppress(OSError):
            self._reader.recv(4096)
        self._signalled = False

    def sleep(self, until: float) -> None:
        """The monotonic clock shows *until*; raises `Interrupted` when `stop` comes first."""
        while (left := until - self._clock.monotonic()) > 0:
            self.wait(None, left)
        if self.stopped:
            raise Interrupted

    def errand(self, work: Callable[[], Result], at: float, what: str) -> Result:
        """What *work* returns or raises; it runs on a thread of its own, because it cannot be called off.

        Raises:
            TimeoutError: it was not done by *at*.
            Interrupted: `stop` was called. The thread is left behind to end by itself.
        """
        outcome: list[tuple[bool, Any]] = []

        def run() -> None:
            try:
                outcome.append((True, work()))
            except BaseException as error:  # handed to the owner, whatever it is
                outcome.append((False, error))
            self.wake()

        threading.Thread(target=run, name=f"topstep-{what}", daemon=True).start()
        while not outcome:
            left = at - self._clock.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} took too long")
            self.wait(None, left)
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        self._selector.close()
        self._reader.close()
        self._writer.close()
