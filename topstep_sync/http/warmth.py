"""Connections that stay open: an order after a quiet hour pays one round trip, not three.

Idle pooled connections carry the gateway's free ping before the server would close them, which also spares orders
the connection that is being closed just as they use it, and whose fate nobody could tell.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from topstep_sync.clock import SYSTEM_CLOCK, Clock, Signal
from topstep_sync.http import forks

log = logging.getLogger("topstep_sync.http")

NAME: Final = "topstep-warmth"


class Warmth:
    """Calls *ping* regularly, on a daemon thread of its own, while it is wanted. Thread-safe.

    Args:
        ping: keeps the connections open; what it raises is logged.
        every: seconds between two calls.
    """

    def __init__(self, ping: Callable[[], object], every: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._ping = ping
        self._every = every
        self._clock = clock
        forks.remember(self)
        self._lock = threading.RLock()  # guards the two below; a signal's handler may stop it in the middle of a start
        self._stop: Signal | None = None
        self._thread: threading.Thread | None = None

    @property
    def on(self) -> bool:
        """Whether connections are being kept open."""
        return self._stop is not None

    def start(self) -> None:
        """The first ping is on its way; nothing when it is on already."""
        with self._lock:
            if self._stop is None or self._thread is None or not self._thread.is_alive():  # its start was interrupted
                self._stop = stop = Signal()
                self._thread = threading.Thread(target=self._run, args=(stop,), name=NAME, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """No ping begins from now on."""
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def forked(self) -> None:
        """In a child process: off, as its thread is not there."""
        self._lock = threading.RLock()
        self._stop = self._thread = None

    def _run(self, stop: Signal) -> None:
        while self._stop is stop and not stop.is_set():
            try:
                self._ping()
            except Exception as error:
                log.info("! no connection could be kept open: %s", error)
            self._clock.wait(stop, self._every)
