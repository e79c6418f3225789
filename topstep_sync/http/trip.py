"""One call on its way through the adapter, and the permits it travels with."""

from collections.abc import Mapping
from typing import Any, Protocol

import requests

from topstep_sync.clock import Deadline
from topstep_sync.http import classify
from topstep_sync.http.circuit_breaker import CircuitBreaker, Phase
from topstep_sync.http.prepare import Prepared, path_of
from topstep_sync.http.routes import Priority, Safety, route
from topstep_sync.models import Token


class Permit(Protocol):
    """What a limiter hands out. One of these is called; what is called after it changes nothing."""

    def done(self) -> None: ...
    def refund(self) -> None: ...
    def gave_up(self) -> None: ...
    def throttled(self, retry_after: float | None) -> None: ...


class Limiter(Protocol):
    """Who says when a call may go out."""

    def acquire(
        self, endpoint: str, *, priority: Priority | None = None, deadline: Deadline | float | None = None
    ) -> Permit: ...


def answered(
    status: int, headers: Mapping[str, str], epoch: float, breaker: CircuitBreaker, phase: Phase, permit: Permit
) -> None:
    """Breaker and permit have heard of a reply: 429 is the limiter's matter, 408 and 5xx are the breaker's.

    Args:
        epoch: now, in seconds since 1970; a Retry-After may be a date.
    """
    if status == 429:
        permit.throttled(classify.retry_after(headers, epoch))
    else:
        permit.done()
    if 200 <= status < 300:
        breaker.success(phase)
    elif status == 408 or status >= 500:
        breaker.failure(phase, f"HTTP {status}")
    else:
        breaker.neutral(phase)


class Trip:
    """One call on its way: what was asked, and what has happened so far."""

    __slots__ = (
        "bearer", "count", "deadline", "must_try", "own", "path", "permit", "phase", "priority", "replayed", "request",
        "route", "wire_time",
    )  # fmt: skip

    def __init__(self, request: requests.PreparedRequest, base: str, deadline: Deadline) -> None:
        self.request = request
        self.deadline = deadline
        if isinstance(request, Prepared):
            self.path, self.route = request.path, request.route
            self.priority = self.route.priority if request.priority is None else request.priority
            self.must_try = self.route.must_try or request.must_try
        else:
            self.path = path_of(request.url or "", base)
            self.route = route(self.path)
            self.priority, self.must_try = self.route.priority, self.route.must_try
        self.count = 0
        self.phase: Phase | None = None  # of this attempt, as is the permit
        self.permit: Permit | None = None
        self.own = False  # whether the bearer is ours to stamp
        self.bearer: Token | None = None
        self.replayed = False
        self.wire_time = 0.0

    @property
    def may_probe(self) -> bool:
        """Whether an open breaker may be tried with this call."""
        return self.route.safety in (Safety.READ, Safety.AUTH)

    def rewound(self) -> bool:
        """Whether the body can be sent once more; it is at its start then."""
        body: Any = self.request.body
        if body is None or isinstance(body, (bytes, str)):
            return True
        position = self.request._body_position  # type: ignore[attr-defined]
        if not isinstance(position, int) or not hasattr(body, "seek"):
            return False
        try:
            body.seek(position)
        except OSError:
            return False
        return True
