"""The token manager's calls: through the same limiter and a breaker of their own, on a connection of their own."""

from collections.abc import Callable, Mapping
from typing import Final

from topstep_sync.clock import Clock, Deadline
from topstep_sync.errors import ConnectFailed, NotSent, RateLimitTimeout, RequestError
from topstep_sync.http.circuit_breaker import CircuitBreaker, Phase
from topstep_sync.http.routes import Priority
from topstep_sync.http.trip import Limiter, Permit, answered

Answer = tuple[int, Mapping[str, str], bytes]
Post = Callable[[str, bytes, str | None], Answer]

PATIENCE: Final = 2.0  # seconds for a permit; priority 0 has slots of its own, so this is for a frozen class only


class GuardedPost:
    """A `post` that is counted, goes first, and is not tried while logins keep failing. Thread-safe.

    Args:
        post: the way out.
        limiter: who counts it.
        breaker: the one of the class `auth`.
        clock: where the time comes from.
    """

    def __init__(self, post: Post, limiter: Limiter, breaker: CircuitBreaker, clock: Clock) -> None:
        self._post = post
        self._limiter = limiter
        self._breaker = breaker
        self._clock = clock

    def __call__(self, path: str, body: bytes, bearer: str | None) -> Answer:
        """What the gateway said.

        Raises:
            RequestError: an open breaker, or no reply.
        """
        phase = self._breaker.before_call(may_probe=True)
        permit: Permit = UNCOUNTED
        try:
            permit = self._permit(path)
            answer = self._post(path, body, bearer)
            status, headers, _ = answer
            answered(status, headers, self._clock.epoch(), self._breaker, phase, permit)
        except BaseException as error:
            self._lost(error, phase, permit)
            raise
        return answer

    def _permit(self, path: str) -> Permit:
        """A permit; one that is not counted where the class is frozen.

        Calls that hold permits wait for this one's token: were it to wait for theirs, nobody would ever go.
        """
        try:
            return self._limiter.acquire(path, priority=Priority.URGENT, deadline=Deadline(PATIENCE, self._clock))
        except RateLimitTimeout:
            return UNCOUNTED

    def _lost(self, error: BaseException, phase: Phase, permit: Permit) -> None:
        if isinstance(error, ConnectFailed):
            permit.refund()
        else:
            permit.gave_up()
        if isinstance(error, RequestError) and not isinstance(error, NotSent):
            self._breaker.failure(phase, type(error).__name__)
        else:
            self._breaker.abandon(phase)


class _Uncounted:
    """The permit of a call that goes whatever the limiter says."""

    def done(self) -> None: ...
    def refund(self) -> None: ...
    def gave_up(self) -> None: ...
    def throttled(self, retry_after: float | None) -> None: ...


UNCOUNTED: Final = _Uncounted()
