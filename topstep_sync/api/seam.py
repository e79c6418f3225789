"""What the rooms of the typed API need from the rest of the library, as protocols."""

import logging
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final, Protocol, TypeVar

from msgspec import UNSET

from topstep_sync.clock import SLICE, Clock, Deadline, Waitable
from topstep_sync.errors import BadReply, TopstepError
from topstep_sync.events import Event
from topstep_sync.http.routes import Priority
from topstep_sync.messages import Reply
from topstep_sync.models import Record

R = TypeVar("R", bound=Reply)
T = TypeVar("T")

VERIFY_TIMEOUT: Final = (
    5.0  # GUESS: seconds for one look-up; the next one follows soon, so a slow one is not waited for
)
LEAST_TIMEOUT: Final = 0.25  # GUESS: seconds that a call needs where the gateway answers; one with less is made in vain


log = logging.getLogger("topstep_sync.orders")


class Call(Protocol):
    """One gateway call: the reply of a success, or an error of the library with its `fate`. `Session.call` is one."""

    def __call__(
        self,
        path: str,
        request: Record | None,
        reply: type[R],
        *,
        priority: Priority | None = None,
        must_try: bool = False,
        timeout: float | None = None,
    ) -> R: ...


class Source(Protocol):
    """Where events come from; `EventQueue` is one. `get` raises `queue.Empty` when none came in time."""

    def get(self, timeout: float | None = None) -> Event: ...


class Listen(Protocol):
    """Hears the user hub of one account while the context is open; gives `None` where no stream is open."""

    def __call__(self, account_id: int) -> "AbstractContextManager[Source | None]": ...


class Deaf:
    """The `Listen` of a session without a stream."""

    def __call__(self, account_id: int) -> "Deaf":
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@contextmanager
def heard(listen: Listen, account_id: int) -> Iterator[Source | None]:
    """What *listen* gives; `None` where it cannot: a stream that failed or was closed must not end a look-up."""
    with ExitStack() as stack:
        source: Source | None = None
        try:
            source = stack.enter_context(listen(account_id))
        except TopstepError as error:
            log.info("~ not listening: %s", error)
        yield source


class Ears:
    """Waits for one event of the user hub, or just waits where there is no stream. For one thread.

    Args:
        closed: set when the session closes; no wait outlasts it.
    """

    def __init__(self, source: Source | None, clock: Clock, closed: Waitable) -> None:
        self._source = source
        self._clock = clock
        self.closed = closed

    @property
    def listening(self) -> bool:
        """Whether there is a stream that would tell."""
        return self._source is not None

    def hear(self, delay: float, wanted: Callable[[Event], T | None]) -> T | None:
        """What *wanted* makes of the first event it wants within *delay* seconds; `None` if there was none."""
        end = self._clock.monotonic() + delay
        while not self.closed.is_set():
            left = max(0.0, end - self._clock.monotonic())
            if self._source is None:
                self._clock.wait(self.closed, left)
                return None
            event = self._next(self._source, left)
            found = None if event is None else wanted(event)
            if found is not None or (left <= 0 and event is None):
                return found
        return None

    def _next(self, source: Source, left: float) -> Event | None:
        """The next event; waits in slices, so that `closed` is seen."""
        try:
            return source.get(timeout=min(left, SLICE))
        except queue.Empty:
            return None
        except TopstepError as error:  # the stream is gone: what is left is waiting
            log.info("~ no longer listening: %s", error)
            self._source = None
            return None


def patience(deadline: Deadline | None, share: float = 1.0) -> float:
    """Seconds for one urgent call, so that what follows it still has time before *deadline*."""
    left = VERIFY_TIMEOUT if deadline is None else deadline.remaining() * share
    return min(VERIFY_TIMEOUT, max(LEAST_TIMEOUT, left))


def present(value: Any, path: str, name: str) -> Any:
    """*value*, unless the gateway left it out: a missing collection is not an empty one.

    Raises:
        BadReply: it is missing or null in a reply that says success.
    """
    if value is UNSET or value is None:
        raise BadReply(f"{path}: the reply says success but has no {name}", endpoint=path, status_code=200)
    return value
