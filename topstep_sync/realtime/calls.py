"""A call of the hub's methods on its way, and the tray in which other threads lay what the owner shall send."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from topstep_sync.clock import Signal
from topstep_sync.errors import StreamError

_log = logging.getLogger("topstep_sync.realtime")


class Call:
    """A call on its way; made by any thread, answered by the owner."""

    def __init__(
        self,
        target: str,
        arguments: tuple[Any, ...],
        at: float,
        *,
        on_item: Callable[[Any], None] | None = None,
        on_done: "Callable[[Call], None] | None" = None,
        key: str | None = None,
    ) -> None:
        self.target = target
        self.arguments = arguments
        self.at = at
        """By when it must be answered, on the monotonic clock."""
        self.on_item = on_item
        """Takes the items of a streaming call, on the owner's thread."""
        self.on_done = on_done
        """Called once with this call when it has ended, on the thread that ends it."""
        self.key = key
        """Its id on the wire, where the caller chooses it."""
        self.done = Signal()
        self.result: Any = None
        self.error: StreamError | None = None

    def take(self, item: Any) -> None:
        """*item* of a streaming call is with whoever wants it."""
        if self.on_item is not None:
            self._tell(self.on_item, item)

    def finish(self, result: Any = None, error: StreamError | None = None) -> None:
        """It has ended, and whoever waits for it knows."""
        self.result, self.error = result, error
        self.done.set()
        if self.on_done is not None:
            self._tell(self.on_done, self)

    def _tell(self, callback: Callable[[Any], None], argument: Any) -> None:
        """The user's code has run; whatever it raises is its own, and neither ends the connection nor keeps others."""
        try:
            callback(argument)
        except BaseException:  # SystemExit, too: it would end the owner's thread, and nothing else
            _log.exception("! a callback of the call of %s failed; the connection goes on", self.target)


class Post:
    """A record on its way, which the hub does not answer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.done = Signal()
        self.error: StreamError | None = None
        """Why it was not sent."""

    def finish(self, *, error: StreamError | None = None) -> None:
        """It was sent, or never is, and whoever waits for it knows."""
        self.error = error
        self.done.set()


class Outbox:
    """What other threads want of the owner, on one connection; appending is atomic."""

    def __init__(self) -> None:
        self.posts: deque[Post] = deque()
        self.calls: deque[Call] = deque()
        self.cancelled: deque[Call] = deque()
        self._failure: StreamError | None = None

    def put(self, asked: Call | Post) -> None:
        """*asked* is sent soon, or fails."""
        if isinstance(asked, Post):
            self.posts.append(asked)
        else:
            self.calls.append(asked)
        if self._failure is not None:
            self._empty(self._failure)

    def fail(self, error: StreamError) -> None:
        """Nothing in here is sent any more, nor what comes later; who waits is told *error*."""
        self._failure = error
        self._empty(error)

    def _empty(self, error: StreamError) -> None:
        with contextlib.suppress(IndexError):  # who asks and who owns may both be here, and one was quicker
            while self.posts:
                self.posts.popleft().finish(error=error)
        with contextlib.suppress(IndexError):
            while self.calls:
                self.calls.popleft().finish(error=error)
