"""SEC-001: a token that is always there. Readers take no lock, one thread refreshes, and nobody waits without need.

What callers may rely on:

* While a token is valid, `token()` returns it at once, whatever the refresh is doing.
* Without one, at most `max_queue_depth` callers wait, each to its own deadline; every outcome of the refresh wakes all.
* A refresh runs on a thread of its own, so a Ctrl-C or a deadline of one caller takes nothing from the others.
* The thread starts when somebody asks and ends with the refresh: nothing to restart after a suspend or a fork.
"""

import copy
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, NoReturn

from topstep_sync.auth.jwt import new_token, plausible
from topstep_sync.auth.refresh import Refresher, TokenStore
from topstep_sync.auth.service import AuthService, as_service
from topstep_sync.auth.token_policy import NOTHING, Flight, Held, Instant, TokenPolicy, TokenState, Verdict
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline
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
        self._lock = threading.Lock()  # guards the policy, the queue's length and the two references below
        self._held: Held = self._policy.held()
        self._changed = threading.Event()  # set, and replaced, whenever those who wait should look again
        self._waiting = 0
        self._closed = False
        _MANAGERS.add(self)

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
        with self._lock:
            self._policy.settle(self._now())
            return self._policy.state

    def rejected(self, token: Token, deadline: Deadline | float | None = None) -> Token:
        """A token other than *token*, with which a call got a 401, for one replay.

        No refresh happens when a newer token is here already: the 401 was an old one.

        Raises:
            TopstepError: as `token` does.
        """
        with self._lock:
            self._policy.reject(token.generation, self._now())
            self._show()
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
        with self._lock:
            if self._policy.token is None or self._policy.token.value != value or self._policy.dead:
                self._policy.adopt(token, self._now(), self._clock.random())
            changed = self._publish()
        changed.set()

    def logout(self) -> None:
        """There is no token, here, in the store or (best effort) at the gateway. The next caller logs in anew."""
        with self._lock:
            token = self._policy.token
            self._policy.forget()
            changed = self._publish()
        changed.set()
        self._refresher.forget()
        if token is not None:
            try:
                self._service.logout(token)
            except Exception as error:
                log.info("! the gateway was not told of the logout: %s", error)

    def close(self) -> None:
        """Whoever waits, or asks from now on, gets `SessionClosed`. Idempotent.

        A refresh under way is left to end by its own timeouts, and its answer is thrown away.
        """
        with self._lock:
            self._closed = True
            changed = self._publish()
        self._refresher.cancel()
        changed.set()

    def stats(self) -> dict[str, Any]:
        """What an operator wants to know, without a secret."""
        with self._lock:
            now = self._now()
            self._policy.settle(now)
            token = self._policy.token
            return {
                "state": self._policy.state.value,
                "generation": self._policy.generation,
                "expires_in": None if token is None else token.expires_at - now.epoch,
                "failures": self._policy.failures,
                "waiting": self._waiting,
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
        queued = False
        try:
            while True:
                verdict, changed = self._look(queued)
                if verdict.token is not None:
                    return verdict.token
                queued = True
                self._wait(verdict, changed, deadline)
        finally:
            if queued:
                with self._lock:
                    self._waiting -= 1

    def _look(self, queued: bool) -> tuple[Verdict, threading.Event]:
        """What to do now, with the refresh begun if there is one to begin, and the event that says when to look again.

        A caller that gets no token is in the queue from here on.
        """
        flight = Flight()
        try:
            with self._lock:
                if self._closed:
                    raise SessionClosed("the session is closed; make a new one")
                now = self._now()
                verdict = self._policy.attend(now)
                if verdict.token is None and not queued:
                    self._enqueue()
                if verdict.start:
                    self._policy.begin(flight, now, can_login=getattr(self._service, "can_login", True))
                self._show()
                changed = self._changed
            if verdict.start:
                self._launch(flight, hurry=verdict.token is None)
        except BaseException:
            self._abandon(flight)
            raise
        return verdict, changed

    def _enqueue(self) -> None:
        assert self._lock.locked()
        if self._waiting >= self._config.max_queue_depth:
            raise AuthQueueFull(f"{self._waiting} callers already wait for a token; try again in a moment")
        self._waiting += 1

    def _wait(self, verdict: Verdict, changed: threading.Event, deadline: Deadline) -> None:
        """Return when it is worth looking again.

        Raises:
            AuthenticationError: or another `PermanentError`: the login was refused.
            AuthUnavailable: nothing can come before *deadline*.
        """
        pause = None if verdict.start or verdict.wait == float("inf") else verdict.wait
        if pause is not None and isinstance(verdict.trouble, PermanentError):
            raise _clean(verdict.trouble)
        if pause is not None and not deadline.allows(pause):
            raise _unavailable(pause, verdict.trouble)
        if not self._clock.wait(changed, deadline.bound(pause)) and deadline.expired:
            raise _unavailable(pause, verdict.trouble)

    def _deadline(self, limit: Deadline | float | None) -> Deadline:
        if isinstance(limit, Deadline):
            return limit
        return Deadline(self._config.wait_seconds if limit is None else limit, self._clock)

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
        """*flight* has landed, whatever happened on the way."""
        with self._lock:
            flight.launched = self._policy.flight is flight
        if not flight.launched:
            return
        try:
            outcome = self._refresher.run(flight.plan, flight.token, flight.generation, lambda: self._died(flight))
        except BaseException as error:
            self._fail(flight, error)
            if inline and not isinstance(error, Exception):
                raise  # a Ctrl-C of the caller; on the refresh thread there is nobody above to tell
            return
        with self._lock:
            self._policy.obtained(flight, outcome.token, outcome.source, self._now(), self._clock.random())
            changed = self._publish()
        changed.set()
        log.info("= token %s", outcome.source.value)

    def _fail(self, flight: Flight, error: BaseException) -> None:
        trouble = _clean(error)
        definite = isinstance(error, PermanentError)
        pause = self._config.login_cooldown_seconds if definite else getattr(error, "retry_after", None) or 0.0
        with self._lock:
            self._policy.failed(flight, trouble, self._now(), pause, definite=definite)
            changed = self._publish()
        changed.set()
        log.log(logging.DEBUG if self._closed else logging.WARNING, "! token refresh failed: %s", trouble)

    def _abandon(self, flight: Flight) -> None:
        """If *flight* never took off, the next caller begins another."""
        with self._lock:
            if self._policy.flight is not flight or flight.launched:
                return
            self._policy.lost(flight, self._now())
            changed = self._publish()
        changed.set()

    def _died(self, flight: Flight) -> bool:
        with self._lock:
            return self._policy.died(flight)

    def _publish(self) -> threading.Event:
        """What readers see is up to date; the event returned, to be set after unlocking, wakes those who wait."""
        self._show()
        changed, self._changed = self._changed, threading.Event()
        return changed

    def _show(self) -> None:
        """What readers see is up to date."""
        assert self._lock.locked()
        self._held = NOTHING if self._closed else self._policy.held()

    def _now(self) -> Instant:
        return Instant(self._clock.monotonic(), self._clock.epoch())

    def _forked(self) -> None:
        """This process is a fork: the refresh thread and whoever held the lock stayed behind."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._waiting = 0
        with self._lock:
            if self._policy.flight is not None:
                self._policy.lost(self._policy.flight, self._now())
            self._show()


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


_MANAGERS: "weakref.WeakSet[TokenManager]" = weakref.WeakSet()
_frozen: list[TokenManager] = []


def _before_fork() -> None:
    """No manager is in the middle of a decision, so that the child inherits whole ones."""
    _frozen[:] = [manager for manager in _MANAGERS if manager._lock.acquire(timeout=1.0)]


def _after_fork_in_parent() -> None:
    for manager in _frozen:
        manager._lock.release()
    _frozen.clear()


def _after_fork_in_child() -> None:
    _frozen.clear()
    for manager in list(_MANAGERS):
        manager._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
