"""Runs the user's callbacks on a thread of their own, so that a slow or failing one never disturbs the connection."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock

_log = logging.getLogger("topstep_sync.realtime")


class Dispatcher:
    """A queue of callbacks and one daemon thread that runs them in order.

    The thread starts with the first callback and ends with `close`.
    """

    def __init__(self, name: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()  # guards the thread's start and end
        self._work: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """*callback* will run after everything put before; quick, from any thread."""
        self._work.append((callback, arguments))
        self._wanted.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._closed = False
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._clock.wait(self._wanted, FOREVER)
            self._wanted.clear()
            while self._work:
                callback, arguments = self._work.popleft()
                try:
                    callback(*arguments)
                except Exception:
                    _log.exception("! a callback failed; the stream goes on")
            if self._closed:
                return

    def close(self, timeout: float = 0.5) -> None:
        """What was put before has run, unless it takes longer than *timeout* seconds; the thread ends."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed = True
        self._wanted.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def forked(self) -> None:
        """In a child process: the thread is not here, and what waited for it is the parent's."""
        self._lock, self._wanted, self._thread = threading.Lock(), threading.Event(), None
        self._work.clear()

    @property
    def backlog(self) -> int:
        """How many callbacks wait."""
        return len(self._work)
