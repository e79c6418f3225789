"""Ends replies that come too slowly: a socket's own timeout starts anew with every byte, so a drip never ends by it.

A call enters the watch, hands over its connection when it has one, and takes it back before anybody else may get it.
When its deadline passes first, the connection is shut down under it, which wakes whoever reads from it.
"""

import logging
import socket
import threading
from typing import Any, Final

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock, Signal

log = logging.getLogger("topstep_sync.http")

NAME: Final = "topstep-watch"

LOOK: Final = 0.25
"""Seconds between two looks of the thread; so it is gone soon after the last call."""


class Watched:
    """One reply that somebody waits for."""

    __slots__ = ("at", "connection", "cut", "over")

    def __init__(self, at: float) -> None:
        self.at = at
        self.connection: Any = None
        self.cut = False
        """Whether it was ended by the watch."""
        self.over = False
        """Whether nobody waits any more; said by one assignment, as a Ctrl-C may prevent what is to follow."""


class Watch:
    """The replies that are waited for, and a thread that looks at the clock while there are any. Thread-safe.

    The thread is a daemon: it must not keep a program alive that is done. It ends when it looks and nobody waits, and
    at `close`. It is not told when a call is done: waking it would cost every call a switch of threads.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards connections being cut or taken back, and the thread's coming and going
        self._current: dict[Watched, None] = {}  # written without the lock: adding and removing a key is atomic
        self._planned = FOREVER  # when the thread looks next; infinity: there is none, or it is about to look
        self._wake = Signal()
        self._thread: threading.Thread | None = None
        self.closed = False
        """Whether `close` was called."""

    def enter(self, at: float) -> Watched:
        """A reply is waited for until *at*, in seconds of the monotonic clock."""
        watched = Watched(at)
        self._current[watched] = None
        # In this order, and the thread in the opposite one: either it sees the new entry, or we see its infinity.
        if at < self._planned:
            self._plan(at)
        return watched

    def leave(self, watched: Watched) -> None:
        """The reply is here, or will never be."""
        if watched.connection is not None:
            self.take_back(watched)
        self._current.pop(watched, None)

    def take_back(self, watched: Watched) -> None:
        """The connection is not cut from now on: it goes to somebody else."""
        with self._lock:
            watched.connection = None

    def close(self) -> None:
        """All that is waited for has been cut, and the thread ends."""
        with self._lock:
            self.closed = True
        for watched in list(self._current):
            self._cut(watched)
        self._wake.set()

    def _plan(self, at: float) -> None:
        with self._lock:
            if self.closed:
                return
            if self._thread is None or not self._thread.is_alive():  # or its start was interrupted
                self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
                self._thread.start()
                self._planned = at  # afterwards: with nobody to look, the next call must try again
            elif at < self._planned:
                self._planned = at
                self._wake.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._planned = FOREVER
                self._wake.clear()
                earliest = min((watched.at for watched in self._waiting()), default=FOREVER)
                if self.closed or earliest == FOREVER:
                    self._thread = None
                    return
                self._planned = min(earliest, self._clock.monotonic() + LOOK)
            self._clock.wait(self._wake, min(LOOK, earliest - self._clock.monotonic()))
            now = self._clock.monotonic()
            for watched in [w for w in self._waiting() if w.at <= now]:
                self._current.pop(watched, None)
                self._cut(watched)

    def _waiting(self) -> list[Watched]:
        """The replies that are waited for; what was not taken out is, now."""
        for watched in [w for w in list(self._current) if w.over]:
            self._current.pop(watched, None)
        return list(self._current)

    def _cut(self, watched: Watched) -> None:
        with self._lock:
            watched.cut = True
            sock = getattr(watched.connection, "sock", None)
            if isinstance(sock, socket.socket):
                try:
                    # Not SSLSocket's own, which would take its state away under the reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError as error:
                    log.debug("! a connection to be cut was gone: %s", error)
