"""SEC-001: a token that is always there. Readers take no lock, one thread refreshes, and nobody waits without need.

What callers may rely on:

* While a token is valid, `token()` returns it at once, whatever the refresh is doing.
* Without one, at most `max_queue_depth` callers wait, each to its own deadline; every outcome of the refresh wakes all.
* A refresh runs on a thread of its own, so a Ctrl-C or a deadline of one caller takes nothing from the others.
* The thread starts when somebody asks and ends with the refresh: nothing to restart after a suspend or a fork.
* A Ctrl-C may come between any two steps, and another one right after it. So nothing here depends on being cleaned up:
  a decision is taken on a copy and published at once, and whoever goes away leaves a mark that the next caller sees.
"""

import copy
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from topstep_sync.auth.forks import survive
from topstep_sync.auth.jwt import new_token, plausible
from topstep_sync.auth.refresh import Refresher, TokenStore
from topstep_sync.auth.service import AuthService, as_service
from topstep_sync.auth.token_policy import NOTHING, Flight, Held, Instant, TokenPolicy, TokenState, Verdict
from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock, Deadline, Signal
from topstep_sync.config import Config, TokenConfig
from topstep_sync.errors import (
    AuthQueueFull,
    AuthUnavailable,
    PermanentError,
    SessionClosed,
    TopstepError,
    TransientError,
)
from topstep_sync.models import Token
from topstep_sync.redact import Secret, redact

__all__ = ["AuthService", "TokenManager", "TokenState", "TokenStore"]

log = logging.getLogger("topstep_sync.auth")

T = TypeVar("T")

RECHECK: Final = 1.0  # seconds; a Ctrl-C of whoever was to wake the others must not leave them waiting for long


class TokenManager:
    """Hands out the current token, and keeps it current. Thread-safe.

    Args:
        config: a `TokenConfig`, a mapping of its fields, a whole `Config`, or `None` for the defaults.
        auth_service: an `AuthService`, or an object with ``authenticate() -> bool``, ``_token`` and ``_token_expiry``.
        clock: where the time comes from.
        storage: where processes leave their token for each other; `None`: in memory only.
    """

    def __init__(
        self,
        config: TokenConfig | Config | Mapping[str, Any] | None,
        auth_service: Any,
        *,
        clock: Clock = SYSTEM_CLOCK,
        storage: TokenStore | None = None,
    ) -> None:
        self._config = TokenConfig.of(config)
        self._clock = clock
        self._service = as_service(auth_service, clock, self._config.lifetime_seconds)
        self._policy = TokenPolicy(self._config)
        self._refresher = Refresher(self._service, storage, self._config, clock)
        self.lock = threading.Lock()  # guards the policy, the queue and the two references below
        self._held: Held = self._policy.held()
        self._changed = Signal()  # set, and replaced, whenever those who wait should look again
        self._queue: tuple[_Place, ...] = ()
        self._closed = False
        survive(self)

    def get_token(self, deadline: Deadline | float | None = None) -> str:
        """The current token's text (a `Secret`); see `token`."""
        held, clock = self._held, self._clock
        if clock.monotonic() < held.monotonic and clock.epoch() < held.epoch:
            return held.value
        return self._attend(deadline).value

    def token(self, deadline: Deadline | float | None = None) -> Token:
        """A token that was valid a moment ago; at once, and without a lock, while there is one.

        Args:
            deadline: how long to wait at most when there is none, in seconds or as a `Deadline`;
                `None`: `TokenConfig.wait_seconds`.

        Raises:
            AuthenticationError: the gateway refused the login; the message says what to do.
            AuthUnavailable: no token will come before the deadline; `retry_after` says when the next try is.
            AuthQueueFull: as many callers as allowed already wait.
            SessionClosed: `close` was called.
        """
        held, clock = self._held, self._clock
        if clock.monotonic() < held.monotonic and clock.epoch() < held.epoch and held.token is not None:
            return held.token
        return self._attend(deadline)

    def get_state(self) -> TokenState:
        """How the token is doing right now."""
        self._decide(lambda policy: policy.settle(self._now()))
        return self._policy.state

    def rejected(self, token: Token, deadline: Deadline | float | None = None) -> Token:
        """A token other than *token*, with which a call got a 401, for one replay.

        No refresh happens when a newer token is here already: the 401 was an old one.

        Raises:
            TopstepError: as `token` does.
        """
        self._decide(lambda policy: policy.reject(token.generation, self._now()))
        return self.token(deadline)

    def adopt(self, value: str, *, user_name: str | None = None, api_key: str | None = None) -> None:
        """*value*, which a login outside this manager returned, is the current token.

        With credentials, later logins use them; they stay in memory.
        """
        value = Secret(value)
        if not plausible(value):
            log.warning("! a login outside the token manager returned no usable token; it is not adopted")
            return
        remember = getattr(self._service, "remember", None)
        if user_name is not None and api_key is not None and callable(remember) and remember(user_name, api_key):
            self._refresher.detach()  # another user's token does not belong in this user's store
        token = new_token(value, self._clock.epoch(), None, self._config.lifetime_seconds)

        def change(policy: TokenPolicy) -> None:
            if policy.dead or policy.token is None or policy.token.value != value:
                policy.adopt(token, self._now(), self._clock.random())

        self._decide(change, wake=True)

    def logout(self) -> None:
        """There is no token, here, in the store or (best effort) at the gateway. The next caller logs in anew."""
        token = self._policy.token
        self._decide(TokenPolicy.forget, wake=True)
        self._refresher.forget()
        if token is not None:
            try:
                self._service.logout(token)
            except Exception as error:
                log.info("! the gateway was not told of the logout: %s", _clean(error))

    def close(self) -> None:
        """Whoever waits, or asks from now on, gets `SessionClosed`. Idempotent.

        A refresh under way is left to end by its own timeouts, and its answer is thrown away.
        """
        self._closed = True
        self._decide(lambda policy: None, wake=True)
        self._refresher.cancel()

    def stats(self) -> dict[str, Any]:
        """What an operator wants to know, without a secret."""
        state, now = self.get_state(), self._now()
        token = self._policy.token
        return {
            "state": state.value,
            "generation": self._policy.generation,
            "expires_in": None if token is None else token.expires_at - now.epoch,
            "failures": self._policy.failures,
            "waiting": sum(not place.left for place in self._queue),
        }

    def __repr__(self) -> str:
        facts = self.stats()
        left = facts["expires_in"]
        life = "" if left is None else f", expires in {left:.0f} s"
        return f"TokenManager({facts['state']}, generation {facts['generation']}{life})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token manager is not pickled; make one in each process, with the same storage")

    ################################################ waiting ################################################

    def _attend(self, limit: Deadline | float | None) -> Token:
        """A token, after as much waiting as it takes and *limit* allows."""
        deadline = self._deadline(limit)
        place = _Place()
        try:
            while True:
                verdict, changed = self._look(place)
                if verdict.token is not None:
                    return verdict.token
                self._wait(verdict, changed, deadline)
        finally:
            place.left = True

    def _look(self, place: "_Place") -> tuple[Verdict, Signal]:
        """What to do now, with the refresh begun if there is one to begin, and the event that says when to look again.

        A caller that gets no token has *place* in the queue from here on.
        """
        flight = Flight()

        def look(policy: TokenPolicy) -> tuple[Verdict, Signal]:
            if self._closed:
                raise SessionClosed("the session is closed; make a new one")
            now = self._now()
            verdict = policy.attend(now)
            if verdict.token is None:
                self._enqueue(place)
            if verdict.start:
                policy.begin(flight, now, can_login=getattr(self._service, "can_login", True))
            return verdict, self._changed

        try:
            verdict, changed = self._decide(look)
            if verdict.start:
                self._launch(flight, hurry=verdict.token is None)
        except BaseException:
            flight.deserted = True
            if self._policy.flight is flight:
                self._decide(lambda policy: policy.settle(self._now()), wake=True)
            raise
        return verdict, changed

    def _enqueue(self, place: "_Place") -> None:
        assert self.lock.locked()
        if place in self._queue:
            return
        waiting = [other for other in self._queue if not other.left]
        if len(waiting) >= self._config.max_queue_depth:
            raise AuthQueueFull(f"{len(waiting)} callers already wait for a token; try again in a moment")
        self._queue = (*waiting, place)

    def _wait(self, verdict: Verdict, changed: Signal, deadline: Deadline) -> None:
        """Return when it is worth looking again.

        Raises:
            AuthenticationError: or another `PermanentError`: the login was refused.
            AuthUnavailable: nothing can come before *deadline*.
        """
        pause = None if verdict.start or verdict.wait == FOREVER else verdict.wait
        if pause is not None and isinstance(verdict.trouble, PermanentError):
            raise _clean(verdict.trouble)
        if pause is not None and not deadline.allows(pause):
            raise _unavailable(pause, verdict.trouble)
        if deadline.expired:
            raise _unavailable(pause, verdict.trouble)
        self._clock.wait(changed, deadline.bound(min(pause or FOREVER, RECHECK)))

    def _deadline(self, limit: Deadline | float | None) -> Deadline:
        if isinstance(limit, Deadline):
            return limit
        return Deadline(self._config.wait_seconds if limit is None else limit, self._clock)

    def _decide(self, change: Callable[[TokenPolicy], T], *, wake: bool = False) -> T:
        """What *change* decided under the lock, and readers see it. A Ctrl-C in the middle of it leaves all as it was.

        With *wake*, whoever waits looks again.
        """
        with self.lock:
            policy = self._policy.twin()
            result = change(policy)
            held = policy.held()
            fresh = Signal() if wake else self._changed
            # No calls from here to the end of the block: signals are looked at in calls, so these happen together.
            self._policy, self._held = policy, NOTHING if self._closed else held
            changed, self._changed = self._changed, fresh
        if wake:
            changed.set()
        return result

    def _now(self) -> Instant:
        return Instant(self._clock.monotonic(), self._clock.epoch())

    ############################################### refreshing ###############################################

    def _launch(self, flight: Flight, *, hurry: bool) -> None:
        # Daemon: an answer nobody will read must not keep the interpreter from ending.
        thread = threading.Thread(target=self._fly, args=(flight,), name="topstep-token", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had, at interpreter exit for instance
            if hurry:
                self._fly(flight, inline=True)
            else:
                self._fail(flight, error)

    def _fly(self, flight: Flight, *, inline: bool = False) -> None:
        """*flight* has landed, whatever happened on the way; if not even that was possible, it counts as lost."""
        ours = False
        try:
            with self.lock:
                # Only the first: a start that failed, as it was interrupted, may have started the thread all the same.
                ours = self._policy.flight is flight and not flight.launched
                flight.launched = flight.launched or ours
            if ours:
                self._land(flight, inline)
        finally:
            flight.over = flight.over or ours

    def _land(self, flight: Flight, inline: bool) -> None:
        try:
            token, source = self._refresher.run(flight, self)
        except BaseException as error:
            self._fail(flight, error)
            if inline and not isinstance(error, Exception):
                raise  # a Ctrl-C of the caller; on the refresh thread there is nobody above to tell
            return
        self._decide(
            lambda policy: policy.obtained(flight, token, source, self._now(), self._clock.random()), wake=True
        )
        log.info("= token %s", source.value)

    def _fail(self, flight: Flight, error: BaseException) -> None:
        trouble = _clean(error)
        definite = isinstance(error, PermanentError)
        pause = self._config.login_cooldown_seconds if definite else getattr(error, "retry_after", None) or 0.0
        self._decide(lambda policy: policy.failed(flight, trouble, self._now(), pause, definite=definite), wake=True)
        log.log(logging.DEBUG if self._closed else logging.WARNING, "! token refresh failed: %s", trouble)

    def died(self, flight: Flight) -> bool:
        """For the refresh under way: whether the token it set out to confirm was proved dead meanwhile."""
        with self.lock:
            return self._policy.died(flight)

    def wanted(self, flight: Flight) -> bool:
        """For the refresh under way: whether what it brings will be used."""
        with self.lock:
            return self._policy.wanted(flight)

    def forked(self) -> None:
        """This process is a fork: the refresh thread and whoever held the lock stayed behind."""
        self.lock = threading.Lock()
        self._changed = Signal()
        self._queue = ()
        flight = self._policy.flight
        if flight is not None:
            self._decide(lambda policy: policy.lost(flight))


class _Place:
    """A place in the queue. Its caller leaves by one assignment, and the next one that queues takes it away."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


def _unavailable(wait: float | None, trouble: Exception | None) -> AuthUnavailable:
    when = "a refresh is under way" if wait is None else f"the next attempt is in {wait:.1f} s"
    why = "" if trouble is None else f"; the last one failed: {trouble}"
    error = AuthUnavailable(f"no valid token before the deadline: {when}{why}", retry_after=wait)
    error.__cause__ = None if trouble is None else _clean(trouble)
    return error


def _clean(error: BaseException) -> TopstepError:
    """*error* for keeping and for raising in many threads: no frames, no request, no traceback shared."""
    if isinstance(error, TopstepError):
        return copy.copy(error)
    return TransientError(f"{type(error).__name__}: {redact(str(error))}")
