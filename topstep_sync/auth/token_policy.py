"""When a token is used, when it is refreshed, and who has to wait: the decisions, without a clock, a lock or a thread.

Two windows before expiry. In the *advisory* one a refresh runs in the background while everybody keeps using the
token. In the *mandatory* one, or once a 401 has proved the token dead, there is nothing to use and callers wait.
`REFRESHING` and `ERROR` say how the refresh is going; a token that is still valid is served in both.

A token runs out when the wall clock *or* the monotonic one says so: the first keeps counting while a laptop sleeps,
the second while somebody sets the wall clock back. A forward jump costs one refresh too many, never a dead token.
"""

import copy
import enum
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import msgspec

from topstep_sync.clock import FOREVER
from topstep_sync.config import TokenConfig
from topstep_sync.errors import TransientError
from topstep_sync.models import Token

JITTER: Final = 0.05  # share of the advisory window over which processes spread (azure-core: 0-60 s per token)

# Tokens refused in a row before refreshes are spaced. GUESS; a gateway that conflicts would settle it.
DEATHS: Final = 3

MIN_PAUSE: Final = 1.0  # seconds; halving what is left would never end

# Seconds after which a refresh counts as lost. GUESS: well above a lease of 60 s, a validate and a login that use up
# their timeouts, and a slow name server; what hangs for longer (a keyring that asks, a log that blocks) never ends.
LOST: Final = 300.0


USED_UP: Final = "the login brought a token that has expired already; check this machine's clock"


class TokenState(enum.Enum):
    """How the token is doing. A token that is still valid is served in `REFRESHING` and `ERROR` as well."""

    INITIAL = "initial"  # no token yet, or logged out
    VALID = "valid"  # the token is good, nothing is under way
    REFRESHING = "refreshing"  # a refresh is under way; the old token is served as long as it is valid
    ERROR = "error"  # the last refresh failed; the old token is served as long as it is valid
    EXPIRED = "expired"  # the token ran out, or a 401 proved it dead


class TokenEvent(enum.Enum):
    """What happens to the token."""

    START = "start"  # a refresh begins
    OBTAINED = "obtained"  # it brought a token, or confirmed the old one
    FAILED = "failed"  # it did not
    EXPIRE = "expire"  # the token ran out, or a 401 proved it dead
    ADOPT = "adopt"  # a token came from outside
    FORGET = "forget"  # logged out


_S, _E = TokenState, TokenEvent

TRANSITIONS: Final = {  # a pair that is missing is a bug here, not a no-op
    (_S.INITIAL, _E.START): _S.REFRESHING,
    (_S.INITIAL, _E.ADOPT): _S.VALID,
    (_S.INITIAL, _E.FORGET): _S.INITIAL,
    (_S.VALID, _E.START): _S.REFRESHING,
    (_S.VALID, _E.EXPIRE): _S.EXPIRED,
    (_S.VALID, _E.ADOPT): _S.VALID,
    (_S.VALID, _E.FORGET): _S.INITIAL,
    (_S.REFRESHING, _E.OBTAINED): _S.VALID,
    (_S.REFRESHING, _E.FAILED): _S.ERROR,
    (_S.REFRESHING, _E.ADOPT): _S.VALID,
    (_S.REFRESHING, _E.FORGET): _S.INITIAL,
    (_S.ERROR, _E.START): _S.REFRESHING,
    (_S.ERROR, _E.EXPIRE): _S.EXPIRED,
    (_S.ERROR, _E.ADOPT): _S.VALID,
    (_S.ERROR, _E.FORGET): _S.INITIAL,
    (_S.EXPIRED, _E.START): _S.REFRESHING,
    (_S.EXPIRED, _E.ADOPT): _S.VALID,
    (_S.EXPIRED, _E.FORGET): _S.INITIAL,
}


def step(state: TokenState, event: TokenEvent) -> TokenState:
    """The state after *event*.

    Raises:
        KeyError: this cannot happen in *state*.
    """
    return TRANSITIONS[state, event]


class Plan(enum.Enum):
    """What a refresh asks for first."""

    VALIDATE = "validate"  # and a login, if the session turns out to be gone
    LOGIN = "login"


class Source(enum.Enum):
    """How a refresh came by its token."""

    NEW = "new"  # the gateway issued it
    KEPT = "kept"  # the gateway confirmed the old one, with its old expiry
    STORED = "stored"  # another process had refreshed already


class Instant(NamedTuple):
    """A moment on both clocks; it is there when either has reached it. Also one reading of the two."""

    monotonic: float
    epoch: float

    def reached(self, now: "Instant") -> bool:
        return now.monotonic >= self.monotonic or now.epoch >= self.epoch

    def after(self, seconds: float) -> "Instant":
        return Instant(self.monotonic + seconds, self.epoch + seconds)


NEVER: Final = Instant(FOREVER, FOREVER)
LONG_AGO: Final = Instant(-FOREVER, -FOREVER)


@dataclass(frozen=True, slots=True)
class Held:
    """What readers see without a lock: a token nobody needs to think about before either of the two instants."""

    token: Token | None
    value: str
    monotonic: float
    epoch: float


NOTHING: Final = Held(None, "", -FOREVER, -FOREVER)


class Flight:
    """One refresh, from the decision to its landing.

    Whoever drops it on the way says so by one assignment, which nothing can interrupt; the next caller sees it and
    begins anew. So there is nothing to clean up that a second Ctrl-C could prevent.
    """

    __slots__ = ("deserted", "due", "generation", "launched", "over", "plan", "tenure", "token")

    def __init__(self) -> None:
        self.plan = Plan.LOGIN
        self.token: Token | None = None
        """What it set out to replace; `None` when there is nothing worth validating."""
        self.generation = 0
        """The highest held when it set out."""
        self.tenure = 0
        self.due = NEVER
        """When it counts as lost, whatever became of it."""
        self.launched = False
        """Whether whoever flies it has begun."""
        self.deserted = False
        """Whether its starter went away before it knew that it had."""
        self.over = False
        """Whether whoever flew it has ended."""

    def lost(self, now: Instant) -> bool:
        """Whether it will never land."""
        return self.over or (self.deserted and not self.launched) or self.due.reached(now)


class Verdict(NamedTuple):
    """What a caller does now. Without a token it waits, at most `wait` seconds, and asks again."""

    token: Token | None = None
    start: bool = False
    """Begin a refresh first."""
    wait: float = FOREVER
    trouble: Exception | None = None
    """Why the last refresh failed; a `PermanentError` is to be raised rather than waited for."""


def windows(token: Token, config: TokenConfig, epoch: float, chance: float) -> tuple[float, float]:
    """Seconds from *epoch* until the advisory and until the mandatory window of *token*; negative once inside.

    Both shrink with the token's life, so that one of 30 s is not refreshed at every call.
    """
    life = max(0.0, min(token.expires_at - token.issued_at, config.lifetime_seconds))
    left = min(token.expires_at - epoch, config.lifetime_seconds)
    advisory = min(config.refresh_buffer_seconds, life / 2) * (1 - JITTER * chance)
    return left - advisory, left - min(config.mandatory_seconds, life / 10)


class TokenPolicy:
    """The token's life as decisions. Not thread-safe: the manager calls it under its lock.

    Every attribute holds a value that is replaced, never changed, so that a decision can be taken on a `twin`.
    """

    def __init__(self, config: TokenConfig) -> None:
        self.config = config
        self.state = TokenState.INITIAL
        self.token: Token | None = None
        self.flight: Flight | None = None
        self.failures = 0
        """Refreshes that failed since the last one that did not."""
        self.generation = 0
        """The highest ever held; survives a logout, so that an old 401 is never taken for a new one."""
        self._tenure = 0  # counts logouts and adoptions: a refresh begun before one of them lands on nothing
        self.dead = False
        """Whether a 401 proved `token` dead."""
        self._usable_until = LONG_AGO
        self._ends = LONG_AGO
        self._attempt_at = LONG_AGO
        self._not_before = -FOREVER  # monotonic; no hurry goes beyond it: a cooldown, or the gateway's Retry-After
        self._trouble: Exception | None = None
        self._last_call = False  # the gateway keeps the old token and time is short: log in rather than ask again
        self._deaths: tuple[float, ...] = ()

    def twin(self) -> Self:
        """The same, to decide on: it takes the place of this one when the decision is whole."""
        return copy.copy(self)

    def usable(self, now: Instant) -> bool:
        """Whether there is a token to use."""
        return self.token is not None and not self.dead and not self._usable_until.reached(now)

    def held(self) -> Held:
        """What readers may see until something changes."""
        if self.token is None or self.dead:
            return NOTHING
        until = self._usable_until
        due = self.flight.due if self.flight else self._attempt_at
        return Held(self.token, self.token.value, min(until.monotonic, due.monotonic), min(until.epoch, due.epoch))

    def settle(self, now: Instant) -> None:
        """The state says so when the token has run out by *now*, or the refresh under way was lost."""
        if self.flight is not None and self.flight.lost(now):
            self.lost(self.flight)
        if self.state in (TokenState.VALID, TokenState.ERROR) and self.token is not None and not self.usable(now):
            self._expire(now)

    def attend(self, now: Instant) -> Verdict:
        """What a caller does that wants a token."""
        self.settle(now)
        due = self.flight is None and self._attempt_at.reached(now)
        if self.usable(now):
            return Verdict(token=self.token, start=due)
        if self.flight is not None:
            return Verdict()
        if due:
            return Verdict(start=True)
        return Verdict(wait=self._attempt_at.monotonic - now.monotonic, trouble=self._trouble)

    def begin(self, flight: Flight, now: Instant, *, can_login: bool = True) -> None:
        """*flight* is the one refresh under way, and knows what to ask for."""
        assert self.flight is None, "one refresh at a time"
        alive = self.token is not None and not self.dead and not self._ends.reached(now)
        patient = self.usable(now) and self.failures < self.config.max_retries and not self._last_call
        flight.plan = Plan.VALIDATE if alive and (patient or not can_login) else Plan.LOGIN
        flight.token, flight.generation = self.token, self.generation
        flight.tenure, flight.due = self._tenure, Instant(now.monotonic + LOST, FOREVER)
        self._step(TokenEvent.START)
        self.flight = flight

    def wanted(self, flight: Flight) -> bool:
        """Whether an outcome of *flight* still counts: not after a logout, or once a token came from outside."""
        return flight.tenure == self._tenure

    def died(self, flight: Flight) -> bool:
        """Whether the token that *flight* set out to confirm was proved dead in the meantime."""
        return self.wanted(flight) and self.dead

    def obtained(self, flight: Flight, token: Token, source: Source, now: Instant, chance: float) -> None:
        """*flight* landed with *token*. One that cannot be used is a failure: else another is asked for at once."""
        if source is not Source.KEPT and windows(token, self.config, now.epoch, chance)[1] <= 0:
            self.failed(flight, TransientError(USED_UP), now, 0.0)
            return
        if not self._landed(flight):
            return
        self._step(TokenEvent.OBTAINED)
        self._recover()
        if source is Source.KEPT:
            self._keep(now)
            return
        # A stored token was numbered by whoever stored it, so that all processes count alike.
        floor = self.generation if source is Source.STORED else self.generation + 1
        generation = max(floor, token.generation)
        self._take(msgspec.structs.replace(token, generation=generation), now, chance)

    def failed(self, flight: Flight, error: Exception, now: Instant, pause: float, *, definite: bool = False) -> None:
        """*flight* landed without a token because of *error*; the next refresh is at least *pause* seconds away.

        A *definite* refusal spaces even the logins that somebody waits for.
        """
        if not self._landed(flight):
            return
        self._step(TokenEvent.FAILED)
        schedule = self.config.backoff_seconds
        delay = schedule[min(self.failures, len(schedule) - 1)]
        self.failures += 1
        self._trouble = error
        self._not_before = now.monotonic + pause
        self._pause(now, max(delay, pause))
        if self.usable(now):
            return
        if self.token is not None:
            self._step(TokenEvent.EXPIRE)
        if flight.plan is Plan.VALIDATE or definite:
            self._hurry(now)  # a login has not been tried yet, or the cooldown says when

    def lost(self, flight: Flight) -> None:
        """*flight* will never land, through nobody's fault: the next caller begins anew."""
        if self._landed(flight):
            self._step(TokenEvent.FAILED)

    def reject(self, generation: int, now: Instant) -> None:
        """A call with the token of *generation* got a 401: if that is the current one, it is dead."""
        if self.token is None or self.dead or generation < self.token.generation:
            return
        self.dead = True
        if len(self._deaths) == DEATHS:
            self._not_before = max(self._not_before, self._deaths[0] + self.config.login_cooldown_seconds)
        self._deaths = (*self._deaths, now.monotonic)[-DEATHS:]
        if self.state in (TokenState.VALID, TokenState.ERROR):
            self._expire(now)

    def adopt(self, token: Token, now: Instant, chance: float) -> None:
        """*token*, which came from outside, is the current one."""
        self._tenure += 1
        self._step(TokenEvent.ADOPT)
        self._recover()
        self._take(msgspec.structs.replace(token, generation=self.generation + 1), now, chance)

    def forget(self) -> None:
        """There is no token, and no memory of how the last one failed."""
        self._tenure += 1
        self._step(TokenEvent.FORGET)
        self._recover()
        self.token, self.dead = None, False
        self._usable_until = self._ends = self._attempt_at = LONG_AGO

    def _step(self, event: TokenEvent) -> None:
        self.state = step(self.state, event)

    def _landed(self, flight: Flight) -> bool:
        """Nothing is under way any more; whether the outcome of *flight* still counts."""
        if self.flight is not flight:
            return False
        self.flight = None
        return self.wanted(flight)

    def _take(self, token: Token, now: Instant, chance: float) -> None:
        advisory, mandatory = windows(token, self.config, now.epoch, chance)
        self.token, self.generation = token, token.generation
        self.dead = self._last_call = False
        self._attempt_at, self._usable_until = now.after(advisory), now.after(mandatory)
        self._ends = now.after(min(token.expires_at - now.epoch, self.config.lifetime_seconds))

    def _keep(self, now: Instant) -> None:
        """The old token stays, with its old expiry: ask again halfway, and log in before it runs out."""
        if self.dead or self._ends.reached(now):
            self._expire(now)
            return
        if self._usable_until.reached(now):
            self._usable_until = self._ends  # confirmed a moment ago, and there is nothing better
        left = min(self._usable_until.monotonic - now.monotonic, self._usable_until.epoch - now.epoch)
        self._last_call = left / 2 < self.config.backoff_seconds[0]
        self._pause(now, max(left / 2, MIN_PAUSE))

    def _recover(self) -> None:
        self.failures, self._trouble, self._not_before = 0, None, -FOREVER

    def _expire(self, now: Instant) -> None:
        """There is nothing to use any more; the failures so far were those of a refresh at leisure."""
        self._step(TokenEvent.EXPIRE)
        self.failures = 0
        self._hurry(now)

    def _hurry(self, now: Instant) -> None:
        """The schedule was for leisure; now somebody waits."""
        self._pause(now, max(0.0, self._not_before - now.monotonic))

    def _pause(self, now: Instant, seconds: float) -> None:
        # Pauses are monotonic alone: a jump of the wall clock must not lengthen them, nor cut them short.
        self._attempt_at = Instant(now.monotonic + seconds, FOREVER)
