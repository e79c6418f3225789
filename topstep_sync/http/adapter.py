"""The way of a request: permit, token, one attempt, and what follows from its outcome, again and again until done.

::

    one Deadline for everything below
    loop: breaker → limiter → breaker, if that took long → token → transport, body included → classify
          → breaker, permit and token hear the outcome → again, or give up with an error that says what happened
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
import requests

from topstep_sync import errors
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline, Signal, Waitable
from topstep_sync.config import Config
from topstep_sync.http import classify, forks
from topstep_sync.http.bearer import Signer, Tokens
from topstep_sync.http.circuit_breaker import Change, CircuitBreaker, State
from topstep_sync.http.prepare import Reply
from topstep_sync.http.retry import ErrorHandler
from topstep_sync.http.routes import Circuit, Safety
from topstep_sync.http.telemetry import AttemptEnded, RetryScheduled, Telemetry
from topstep_sync.http.transport import Transport
from topstep_sync.http.trip import Limiter, Trip, answered

log = logging.getLogger("topstep_sync.http")

LONG_WAIT: Final = 0.25
"""Seconds of waiting for a permit after which the breaker is asked again."""

MIN_SKEW: Final = 2.0
"""Seconds; the Date header has whole ones, and the reply was under way for a while."""

# A refused call says so in a few bytes; a larger reply is bars, and no refusal.
SMALL: Final = 4096


class ResilientAdapter(Transport):
    """The transport of one gateway, with everything that keeps a call safe around it. Thread-safe.

    Args:
        config: base URL, timeouts, and the settings of retries and breakers.
        tokens: where bearers come from.
        limiter: who says when a call may go out.
        can_login: whether there are credentials, for the message when there is no token.
        clock: where it gets its time from.
        closed: set when the session closes; ends every wait.
    """

    def __init__(
        self,
        config: Config,
        *,
        tokens: Tokens,
        limiter: Limiter,
        can_login: Callable[[], bool] = lambda: True,
        clock: Clock = SYSTEM_CLOCK,
        closed: Waitable | None = None,
    ) -> None:
        super().__init__(config.http, clock)
        self._config = config
        self._limiter = limiter
        self._signer = Signer(tokens, can_login)
        self._clock = clock
        self._closed = closed or Signal()
        self.handler = ErrorHandler(config.retry, clock=clock)
        self.breakers = {c: CircuitBreaker(c.value, config.breaker, clock=clock) for c in Circuit}
        self.telemetry = Telemetry()
        for breaker in self.breakers.values():
            breaker.listen(_log_change)
            breaker.listen(self.telemetry.tell)
        forks.remember(self)
        self._dated: tuple[str | None, float] = (None, 0.0)  # the last Date header, and when it came
        self.rejections = 0
        """Replies of HTTP 200 that said `success: false`."""

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """The gateway's last answer, whatever its status.

        Raises:
            RequestError: there is no answer: refused here, never sent, or lost; `fate` says which.
        """
        deadline = getattr(request, "deadline", None) or Deadline(self._config.http.total_timeout, self._clock)
        trip = Trip(request, self._config.base_url, deadline)
        trip.own = self._signer.is_ours(trip.path, request.headers)
        tls = {"verify": verify, "cert": cert, "proxies": proxies}
        self.handler.budget.called()
        while True:
            trip.count += 1
            try:
                response = self._attempt(trip, stream, timeout, tls)
            except errors.RequestError as error:
                self._recover(trip, error)
                continue
            if not self._again(trip, response):
                if isinstance(response, Reply):
                    response.attempts, response.wire_time = trip.count, trip.wire_time
                return response

    def forked(self) -> None:
        super().forked()
        self.handler.forked()
        for breaker in self.breakers.values():
            breaker.forked()

    def skew(self) -> float:
        """Seconds the gateway's clock is ahead of ours, by the last reply; 0.0 when no more than can be measured."""
        date, received = self._dated
        server = classify.http_date(date)
        ahead = 0.0 if server is None else server + 0.5 - received  # the header drops the fraction of the second
        return ahead if abs(ahead) > MIN_SKEW else 0.0

    ############################################### one attempt ###############################################

    def _attempt(self, trip: Trip, stream: bool, timeout: Any, tls: dict[str, Any]) -> requests.Response:
        """A reply; breaker and permit have heard of whatever happened."""
        breaker = self.breakers[trip.route.circuit]
        trip.phase = trip.permit = begun = None
        try:
            self._admit(trip, breaker)
            self._sign(trip)
            limits = self.limits(timeout, trip.deadline)
            begun = self._clock.monotonic()
            response = self.fetch(trip.request, stream, limits, trip.deadline, **tls)
            trip.wire_time = self._clock.monotonic() - begun
            self._answered(response, breaker, trip)
        except BaseException as error:
            known = self._lost(trip, breaker, error, fetched=begun is not None)
            if self.telemetry.listeners and begun is not None:
                self._report(trip, begun, None, known)
            if known is error:
                raise
            raise known from error
        if self.telemetry.listeners:
            self._report(trip, begun, response.status_code, None)
        return response

    def _report(self, trip: Trip, begun: float, status: int | None, error: BaseException | None) -> None:
        seconds = self._clock.monotonic() - begun if status is None else trip.wire_time
        request = trip.request
        known = error if isinstance(error, errors.TopstepError) else None
        started = self._clock.epoch() - (self._clock.monotonic() - begun)
        self.telemetry.tell(
            AttemptEnded(
                request.method or "", request.url or "", trip.path, trip.count, started, seconds, status, known
            )
        )

    def _admit(self, trip: Trip, breaker: CircuitBreaker) -> None:
        """Breaker and limiter let the call pass; in this order, so that a refused call costs no permit."""
        if self._closed.is_set():
            raise errors.SessionClosed("the session is closed; make a new one")
        trip.phase = breaker.before_call(may_probe=trip.may_probe, must_try=trip.must_try)
        begun = self._clock.monotonic()
        trip.permit = self._limiter.acquire(trip.path, priority=trip.priority, deadline=trip.deadline)
        if self._clock.monotonic() - begun >= LONG_WAIT:
            breaker.abandon(trip.phase)
            trip.phase = breaker.before_call(may_probe=trip.may_probe, must_try=trip.must_try)

    def _sign(self, trip: Trip) -> None:
        """After the wait for a permit, so that the token is as young as can be."""
        if not trip.own:
            return
        if trip.replayed and trip.bearer is not None:
            self._signer.stamp(trip.request.headers, trip.bearer)
        else:
            trip.bearer = self._signer.sign(trip.request.headers, trip.deadline)

    def _lost(self, trip: Trip, breaker: CircuitBreaker, error: BaseException, *, fetched: bool) -> BaseException:
        """What to raise for an attempt that ended without a reply; breaker and permit have heard of it."""
        known = classify.from_exception(error, trip.path, sent=self.sent) if fetched else None
        if trip.permit is not None:
            if fetched and not isinstance(known, errors.ConnectFailed):
                trip.permit.gave_up()
            else:
                trip.permit.refund()
        if trip.phase is not None:
            if known is None or self._closed.is_set():
                breaker.abandon(trip.phase)
            else:
                breaker.failure(trip.phase, str(known))
        return error if known is None else known

    def _answered(self, response: requests.Response, breaker: CircuitBreaker, trip: Trip) -> None:
        assert trip.phase is not None
        assert trip.permit is not None
        status, now = response.status_code, self._clock.epoch()
        answered(status, response.headers, now, breaker, trip.phase, trip.permit)
        if 200 <= status < 300:
            self._dated = (getattr(response.raw, "headers", {}).get("Date"), now)

    ########################################### between two attempts ###########################################

    def _recover(self, trip: Trip, error: errors.RequestError) -> None:
        """Return when it is time for another attempt after one without a reply; raise *error* when there is none."""
        error.attempts = trip.count - isinstance(error, errors.NotSent)
        error.endpoint = trip.path
        error.request = trip.request
        if isinstance(error, errors.NotSent):
            raise error
        delay = self.handler.handle_error(error, trip.path, trip.count)
        if delay is None or self._closed.is_set() or not trip.deadline.allows(delay) or not trip.rewound():
            raise error
        self._wait(trip, delay)

    def _again(self, trip: Trip, response: requests.Response) -> bool:
        """Whether there is to be another attempt after a reply; it is time for it then."""
        error = self._judge(trip, response)
        if error is None:
            return False
        error.attempts, error.response, error.request = trip.count, response, trip.request
        if response.status_code == 401:
            self.handler.handle_error(error, trip.path, self.handler.config.max_attempts)
            return self._replay(trip, response)
        delay = self.handler.handle_error(error, trip.path, trip.count)
        if 300 <= response.status_code < 400:
            raise error
        if delay is None or not trip.deadline.allows(delay) or not trip.rewound():
            return False
        response.close()
        self._wait(trip, delay)
        return True

    def _judge(self, trip: Trip, response: requests.Response) -> errors.APIError | None:
        """None for a success; also for a refusal in the envelope, which is the caller's to read."""
        whole = response._content_consumed  # type: ignore[attr-defined]
        if not 200 <= response.status_code < 300:
            body = response.content if whole else None
            return self.handler.classify_error(response.status_code, body, endpoint=trip.path, headers=response.headers)
        decoder = getattr(trip.request, "decoder", None)
        if decoder is not None and isinstance(response, Reply):
            try:
                response.decoded = decoder.decode(response.content)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as trouble:
                return classify.bad_reply(trip.path, str(trouble))
        if whole:
            if trip.route.safety is Safety.AUTH:
                self._signer.learn(trip.path, trip.request.body, response.content)
            if len(response.content) < SMALL:
                self.rejections += b'"success":false' in response.content
        self.handler.succeeded()
        return None

    def _replay(self, trip: Trip, response: requests.Response) -> bool:
        """Whether the call goes out once more with a newer token; a 401 says that nothing was done."""
        if trip.bearer is None:
            if trip.route.safety is not Safety.AUTH:
                log.warning("! %s: 401 for a token that did not come through this session", trip.path)
            return False
        if trip.replayed or not trip.rewound():
            return False
        newer = self._signer.renewed(trip.bearer, trip.path, trip.deadline)
        if isinstance(newer, errors.TopstepError):
            if getattr(trip.request, "decoder", None) is not None:
                raise newer
            return False
        trip.bearer, trip.replayed = newer, True
        response.close()
        return True

    def _wait(self, trip: Trip, delay: float) -> None:
        if self.telemetry.listeners:
            self.telemetry.tell(RetryScheduled(trip.path, trip.count, delay))
        log.info("~ %s: attempt %d failed, the next is in %.2f s", trip.path, trip.count, delay)
        if delay > 0 and self._clock.wait(self._closed, delay):
            raise errors.SessionClosed("the session was closed meanwhile", endpoint=trip.path)


def _log_change(change: Change) -> None:
    level = logging.WARNING if change.after is State.OPEN else logging.INFO
    why = f" ({change.error})" if change.error and change.after is State.OPEN else ""
    log.log(level, "= breaker %s is %s%s", change.name, change.after.value, why)
