"""A thread that waits on a socket, and how other threads wake it."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from topstep_sync.clock import SLICE, Clock

Result = TypeVar("Result")


class _Select:
    """What `select.poll` does, for systems that lack it."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, fd: Any, mask: int) -> None:
        self._masks[fd if isinstance(fd, int) else fd.fileno()] = mask

    def unregister(self, fd: int) -> None:
        del self._masks[fd]

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        reading = [fd for fd, mask in self._masks.items() if mask == _READ]
        writing = [fd for fd, mask in self._masks.items() if mask == _WRITE]
        # Windows tells of a connection that failed only in the third list.
        found = select.select(reading, writing, writing, milliseconds / 1000)
        return [(fd, self._masks[fd]) for fd in {*found[0], *found[1], *found[2]}]


_READ: Final = getattr(select, "POLLIN", 1)
_WRITE: Final = getattr(select, "POLLOUT", 4)
_Poll: Final[Any] = getattr(select, "poll", _Select)  # selectors' own would cost more than the system call


class Interrupted(Exception):
    """The wait was called off by `Waker.stop()`."""


class Waker:
    """Lets other threads wake the one thread that waits on a socket.

    `wake` and `stop` may be called from any thread; the rest belongs to the owner.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._poll = _Poll()
        self._poll.register(self._reader, _READ)
        self._fd, self._writing = -1, False  # what is waited for, besides a call
        self._signalled = False
        self.called = False
        """Whether `wake` was called; the owner takes it back before it looks for what it was called for."""
        self.stopped = False

    def wake(self) -> None:
        """The owner's current or next `wait` returns at once."""
        self.called = True
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
        fd = -1 if sock is None else sock.fileno()
        if fd != self._fd or write != self._writing:
            self._watch(fd, write)
        ready = False
        for which, _ in self._poll.poll(1000 * (SLICE if timeout > SLICE else max(0, timeout))):
            if which == fd:
                ready = True
            else:
                self._clear()
        if self.stopped:
            raise Interrupted
        return ready

    def alone(self, sock: socket.socket) -> tuple[Callable[[float], list[tuple[int, int]]], list[tuple[int, int]]]:
        """The bare wait for *sock*, which takes milliseconds, and what it returns when there is something to read, and
        nothing else. For whoever waits so often that the calls on the way count; anything else is for `wait`."""
        fd = sock.fileno()
        if fd != self._fd or self._writing:
            self._watch(fd, False)
        return self._poll.poll, [(fd, _READ)]

    def _watch(self, fd: int, write: bool) -> None:
        """Wait for this descriptor from here on."""
        before, self._fd, self._writing = self._fd, fd, write
        if before >= 0:
            self._poll.unregister(before)
        if fd >= 0:
            self._poll.register(fd, _WRITE if write else _READ)

    def wait_for(self, sock: socket.socket, at: float, *, write: bool = False) -> None:
        """*sock* is ready.

        Raises:
            TimeoutError: it was not by *at*, an instant of the monotonic clock.
            Interrupted: `stop` was called.
        """
        while not self.wait(sock, at - self.clock.monotonic(), write=write):
            if self.clock.monotonic() >= at:
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
        while (left := until - self.clock.monotonic()) > 0:
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
            left = at - self.clock.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} took too long")
            self.wait(None, left)
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
