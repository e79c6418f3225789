"""Runs the user's callbacks on a thread of their own, so that a slow or failing one never disturbs the connection."""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock, Signal

_log = logging.getLogger("topstep_sync.realtime")


RETRY: Final = 1.0  # seconds until another thread is tried for, where none could be had


class Dispatcher:
    """A queue of callbacks and one daemon thread that runs them in order.

    The thread starts with the first callback, and ends once `close` was called and nothing is left. What comes
    afterwards runs, too, on a thread that ends with it. There may be two for a moment; but only one has the turn.
    """

    def __init__(self, name: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._name = name
        self._clock = clock
        self._lock = threading.RLock()  # guards which thread is the one
        self._turn = threading.Lock()  # held by the thread that runs callbacks
        self._work: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._wanted = Signal()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """*callback* will run after everything put before; quick, from any thread."""
        self._work.append((callback, arguments))
        self._wanted.set()
        if self._thread is None:
            self._start()

    def due(self, now: float) -> float:
        """Callbacks that wait because there was no thread to be had are tried again; when to look for that."""
        if self._work and self._thread is None:
            self._start()
        return FOREVER if self._thread is not None or not self._work else now + RETRY

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            if self._become(thread):
                thread.start()
        except BaseException as error:
            with self._lock:
                if self._thread is thread:
                    self._thread = None
            if not isinstance(error, RuntimeError):
                raise
            _log.error("! no thread for callbacks, which wait: %s", error)

    def _become(self, thread: threading.Thread) -> bool:
        """Whether *thread* is the one from here on; not where there is one."""
        with self._lock:
            if self._thread is not None:
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        with self._turn:
            while self._work or not (self._closed and self._leave()):
                if not self._closed:
                    self._clock.wait(self._wanted, FOREVER)
                self._wanted.clear()
                while self._work:
                    self._call(*self._work.popleft())

    def _call(self, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            callback(*arguments)
        except BaseException:  # SystemExit, too: it would end this thread, and nothing else
            _log.exception("! a callback failed; the stream goes on")

    def _leave(self) -> bool:
        """Whether this thread may end: nothing is left, or another one sees to it."""
        self._thread = None  # first: who comes from here on starts another, and who came before is seen
        return not (self._work and self._become(threading.current_thread()))

    def open(self) -> None:
        """The thread stays for what comes, though it was told to end."""
        self._closed = False

    def close(self, timeout: float = 0.5) -> None:
        """What was put before has run, unless it takes longer than *timeout* seconds; the thread ends."""
        thread, self._closed = self._thread, True
        self._wanted.set()
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # it is the caller's own, or about to start
                thread.join(timeout)

    def forked(self) -> None:
        """In a child process: the thread is not here, and what waited for it is the parent's."""
        self._lock, self._turn = threading.RLock(), threading.Lock()
        self._wanted, self._thread = Signal(), None
        self._work.clear()

    @property
    def backlog(self) -> int:
        """How many callbacks wait."""
        return len(self._work)
