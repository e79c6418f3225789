"""What happens to calls, told to whoever listens: attempts, retries, changes of a breaker. Nothing, when nobody does.

Listeners run on the thread of the call, after its connection is back in the pool; what they raise is logged and goes
no further. They also hear what the stream tells about itself (the `StreamEvent` classes), on a thread of its own.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from topstep_sync.errors import TopstepError
from topstep_sync.events import StreamEvent
from topstep_sync.http.circuit_breaker import Change

log = logging.getLogger("topstep_sync.http")


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """A request was answered, or was not."""

    method: str
    url: str
    endpoint: str
    """The gateway's path; one of some twenty, so it may name a span or a series."""
    attempt: int
    """From 1."""
    started: float
    """Seconds since 1970."""
    seconds: float
    """On the wire: from sending to the end of the reply, without waits for permits and tokens."""
    status: int | None
    """The HTTP status; None without an answer."""
    error: TopstepError | None
    """Why there was no answer."""


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """Another attempt will be made."""

    endpoint: str
    attempt: int
    """The one that failed, from 1."""
    delay: float
    """Seconds until the next one."""


Happening: TypeAlias = AttemptEnded | RetryScheduled | Change | StreamEvent
Listener: TypeAlias = Callable[[Happening], None]


class Telemetry:
    """The listeners of one session. Thread-safe."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()  # replaced, never changed; empty costs one look

    def listen(self, listener: Listener) -> Callable[[], None]:
        """*listener* hears everything from now on; the function returned ends that."""
        self.listeners = (*self.listeners, listener)

        def end() -> None:
            self.listeners = tuple(one for one in self.listeners if one is not listener)

        return end

    def listener(self) -> Listener | None:
        """Who is to be told; None when nobody listens."""
        return self.tell if self.listeners else None

    def tell(self, happening: Happening) -> None:
        """Every listener has heard of it."""
        for listener in self.listeners:
            try:
                listener(happening)
            except Exception:
                log.exception("! a listener failed at %s", type(happening).__name__)
