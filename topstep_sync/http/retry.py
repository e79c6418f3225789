"""ERR-001: what may be sent again, when, and how often. The one place in the library that repeats a call.

A call that only reads may be repeated after any transient failure. A call that changes something is repeated only
when it provably never left this process. An order is never repeated here at all: whoever places it looks it up first.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from topstep_sync import errors
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import Part, RetryConfig
from topstep_sync.errors import Category, Fate
from topstep_sync.http import classify
from topstep_sync.http.routes import Safety, route

WINDOW: Final = 60.0
"""Seconds over which the retry budget looks."""
LAST_ERRORS: Final = 20
"""Errors kept for `get_stats`."""


class RetryBudget:
    """Retries as a share of recent calls, so that an outage cannot double the traffic. Thread-safe."""

    def __init__(self, config: "Mapping[str, Any] | Part | None" = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._config = RetryConfig.of(config)
        self._now = clock.monotonic
        self._lock = threading.Lock()  # guards _retries; _calls is appended to without it, which is atomic
        self._calls: deque[float] = deque(maxlen=4096)
        self._retries: deque[float] = deque()

    def called(self) -> None:
        """One more call was begun."""
        self._calls.append(self._now())

    def forked(self) -> None:
        """In a child process: the lock is free."""
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether a retry is affordable now; it is spent when True."""
        start = self._now() - WINDOW
        with self._lock:
            while self._retries and self._retries[0] <= start:
                self._retries.popleft()
            calls = sum(at > start for at in self._calls.copy())
            if len(self._retries) >= max(self._config.budget_min, self._config.budget_share * calls):
                return False
            self._retries.append(self._now())
            return True


class ErrorHandler:
    """Says what an error is, whether to try again, and how long to wait; remembers what happened. Thread-safe.

    Args:
        config: a `RetryConfig`, a mapping of its fields, a whole `Config`, or None.
    """

    def __init__(self, config: "Mapping[str, Any] | Part | None" = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.config = RetryConfig.of(config)
        self.budget = RetryBudget(self.config, clock=clock)
        self._clock = clock
        self._lock = threading.Lock()  # guards what get_stats reads, but for the count of successes
        self._by_category: Counter[str] = Counter()
        self._by_endpoint: Counter[str] = Counter()
        self._counts = dict.fromkeys(("errors", "retries", "budget_refused"), 0)
        self._successes = 0  # without the lock: a lost count hurts nobody, and every call passes here
        self._last: deque[dict[str, Any]] = deque(maxlen=LAST_ERRORS)

    def classify_error(
        self,
        status_code: int,
        error_body: Any = None,
        *,
        endpoint: str = "",
        headers: Mapping[str, Any] | None = None,
    ) -> errors.APIError:
        """The error for a reply: its class, `category`, `retryable` and `fate` say everything.

        Args:
            status_code: the HTTP status; 200 stands for an envelope with `success: false`.
            error_body: bytes, text or decoded JSON; anything at all.
            endpoint: the path; without one the call counts as one that changes something.
            headers: of the reply, for Retry-After.
        """
        wait = classify.retry_after(headers, self._clock.epoch())
        return classify.from_status(status_code, error_body, endpoint=endpoint, retry_after=wait)

    def classify_exception(self, error: BaseException, endpoint: str = "") -> errors.RequestError | None:
        """The error for an exception of requests, urllib3 or the socket; None for one of another kind."""
        return classify.from_exception(error, endpoint)

    def should_retry(self, error: BaseException, attempt: int) -> bool:
        """Whether attempt number *attempt* (from 1), which ended in *error*, may be followed by another one.

        An error that names no endpoint says nothing of what the call does; only its `retryable` counts then.
        """
        if not isinstance(error, errors.RequestError) or attempt >= self.config.max_attempts:
            return False
        safety = Safety.READ if error.endpoint is None else route(error.endpoint).safety
        if safety is Safety.READ:
            return error.retryable
        # 429 and the like are refusals, but a change is resent only when it cannot have reached anybody.
        return safety is not Safety.ORDER and error.retryable and isinstance(error, errors.ConnectFailed)

    def get_retry_delay(self, attempt: int, error: BaseException | None = None) -> float:
        """Seconds to wait after attempt number *attempt* (from 1): full jitter, doubled each time, capped.

        At least the server's Retry-After, where it sent one. A connection that ended without a reply was most likely
        closed while idle, so its first repetition goes at once.
        """
        floor = getattr(error, "retry_after", None) or 0.0
        if attempt == 1 and isinstance(error, errors.ReplyLost) and not isinstance(error, errors.ReplyTimedOut):
            return float(floor)
        throttled = getattr(error, "category", None) is Category.RATE_LIMIT
        base = self.config.throttle_delay if throttled else self.config.base_delay
        delay = min(self.config.max_delay, base * 2.0 ** min(attempt - 1, 30))
        return max(float(floor), delay * self._clock.random())

    def handle_error(self, error: BaseException, endpoint: str, attempt: int) -> float | None:
        """The error is counted; the delay before the next attempt in seconds, or None to give up.

        The deadline is the caller's business: a delay beyond it means giving up, too.
        """
        self._note(error, endpoint, attempt)
        if not self.should_retry(error, attempt):
            return None
        if not self.budget.take():
            with self._lock:
                self._counts["budget_refused"] += 1
            return None
        with self._lock:
            self._counts["retries"] += 1
        return self.get_retry_delay(attempt, error)

    def succeeded(self) -> None:
        """A call ended well."""
        self._successes += 1

    def forked(self) -> None:
        """In a child process: the locks are free."""
        self._lock = threading.Lock()
        self.budget.forked()

    def get_stats(self) -> dict[str, Any]:
        """Counts of errors by category and endpoint, of retries and successes, and the last errors, oldest first."""
        with self._lock:
            return {
                **self._counts,
                "successes": self._successes,
                "by_category": dict(self._by_category),
                "by_endpoint": dict(self._by_endpoint),
                "last_errors": list(self._last),
            }

    def _note(self, error: BaseException, endpoint: str, attempt: int) -> None:
        category = str(getattr(error, "category", Category.CLIENT))
        fate = getattr(error, "fate", Fate.UNKNOWN)
        entry = {
            "at": self._clock.epoch(),
            "endpoint": endpoint,
            "error": type(error).__name__,
            "category": category,
            "fate": fate.value,
            "attempt": attempt,
            "message": str(error),
        }
        with self._lock:
            self._counts["errors"] += 1
            self._by_category[category] += 1
            self._by_endpoint[endpoint] += 1
            self._last.append(entry)
