"""CIRC-001: a part of the gateway that fails is left alone for a while, then tried with one call.

::

                    TRIP                       PROBE
        CLOSED ───────────────▶ OPEN ─────────────────────▶ HALF_OPEN
          ▲                      ▲ ▲                          │ │ │
          │                      │ └─────── FAILURE ──────────┘ │ │
          │                      └───────── ABANDON ────────────┘ │
          └───────────────────────────────── SUCCESS ─────────────┘

Trips on so many failures in a row, or on a share of failures among enough calls. A failure is a reply of 408 or 5xx,
a lost reply or a connection that did not come about; every other answer is neutral, and so is a call that was
refused here or interrupted. Successes cost no lock.
"""

import enum
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import BreakerConfig, Part
from topstep_sync.errors import CircuitOpen

P = ParamSpec("P")
R = TypeVar("R")

# Successes remembered for the share. The gateway allows 250 calls in 30 s, so this many are never within one window.
MEMORY: Final = 1024

# Seconds after which a probe without an outcome counts as lost; longer than any call may take (total_timeout: 90).
LOST: Final = 120.0

# Each opening is lengthened by up to this share, so that many clients do not probe together.
JITTER: Final = 0.1


class State(enum.Enum):
    CLOSED = "closed"  # calls pass; failures are counted
    OPEN = "open"  # calls are refused until the opening is over
    HALF_OPEN = "half_open"  # one probe is in flight; other calls are refused


class Event(enum.Enum):
    TRIP = "trip"  # too many failures
    PROBE = "probe"  # the opening is over and somebody calls
    SUCCESS = "success"  # the probe was answered
    FAILURE = "failure"  # the probe failed
    ABANDON = "abandon"  # the probe was interrupted and proves nothing
    RESET = "reset"  # somebody asked for a fresh start


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.CLOSED, Event.TRIP): State.OPEN,
    (State.OPEN, Event.PROBE): State.HALF_OPEN,
    (State.HALF_OPEN, Event.SUCCESS): State.CLOSED,
    (State.HALF_OPEN, Event.FAILURE): State.OPEN,
    (State.HALF_OPEN, Event.ABANDON): State.OPEN,
    (State.CLOSED, Event.RESET): State.CLOSED,
    (State.OPEN, Event.RESET): State.CLOSED,
    (State.HALF_OPEN, Event.RESET): State.CLOSED,
}


class Phase:
    """One stay in a state. A call keeps the phase it began in; an outcome of another phase is ignored."""

    __slots__ = ("closed", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.closed = state is State.CLOSED

    def __repr__(self) -> str:
        return f"Phase({self.state.name})"


# The phase of a call that passes whatever the state: it is never the current one, so its outcome changes nothing.
BYPASS: Final = Phase(State.CLOSED)


class Change(NamedTuple):
    """What listeners are told: a breaker changed its state."""

    name: str
    before: State
    after: State
    error: str | None
    """What tripped it."""
    retry_after: float
    """Seconds until the next probe; 0.0 when not open."""


class CircuitBreaker:
    """Guards one part of the gateway.

    ``before_call`` returns a phase, or raises; exactly one of ``success``, ``failure``, ``neutral`` and ``abandon``
    is then called with it. ``call(function)`` does both. Thread-safe; no lock is held during the call.

    Args:
        name: what it guards, for messages and stats.
        config: a `BreakerConfig`, a mapping of its fields, a whole `Config`, or None.
        clock: where it gets its time from.
    """

    def __init__(
        self, name: str, config: "Mapping[str, Any] | Part | None" = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.name = name
        self.config = BreakerConfig.of(config)
        self._clock = clock
        self._now = clock.monotonic
        self._listeners: list[Callable[[Change], None]] = []
        self._lock = threading.Lock()  # guards everything below but the two that successes touch
        self._phase = Phase(State.CLOSED)  # published by one assignment, so it is read without the lock
        self._row = 0  # failures in a row; a success sets it to zero without the lock, a race costs one count
        self._successes: deque[float] = deque(maxlen=MEMORY)  # appended to without the lock, which is atomic
        self._failures: deque[float] = deque(maxlen=MEMORY)
        self._openings = 0  # in a row, for the growing length
        self._reopens = 0.0  # when the current opening is over
        self._lost_at = 0.0  # when the current probe counts as lost
        self._error: str | None = None
        self._counts = dict.fromkeys(("trips", "probes", "refused", "bypassed", "failures", "stale"), 0)

    @property
    def state(self) -> State:
        """The state right now; an opening that is over still shows as OPEN until somebody calls."""
        return self._phase.state

    def before_call(self, *, may_probe: bool = True, must_try: bool = False) -> Phase:
        """The call may go out; the phase returned goes with its outcome.

        Args:
            may_probe: whether this call may be the probe. Calls that only read should; one that changes something
                may not until the opening has been over for as long as a first opening, so that reads go first.
            must_try: pass whatever the state; for calls that reduce risk.

        Raises:
            CircuitOpen: with `retry_after` and `last_error`.
        """
        phase = self._phase
        if phase.closed:
            return phase
        if must_try:
            self._count("bypassed")
            return BYPASS
        return self._probe_or_refuse(may_probe)

    def success(self, phase: Phase) -> None:
        """The gateway did what was asked."""
        if phase is self._phase:
            if phase.closed:
                self._row = 0
                self._successes.append(self._now())
            else:
                self._settle(phase, Event.SUCCESS)

    def neutral(self, phase: Phase) -> None:
        """The gateway answered with something that is no fault of its own; enough for a probe, nothing otherwise."""
        if phase.state is State.HALF_OPEN:
            self._settle(phase, Event.SUCCESS)

    def abandon(self, phase: Phase) -> None:
        """The call was given up before it had an outcome; the next caller may probe."""
        if phase.state is State.HALF_OPEN and phase is self._phase:
            self._settle(phase, Event.ABANDON)

    def failure(self, phase: Phase, error: str | None = None) -> None:
        """The gateway failed, or could not be reached."""
        if phase.state is State.HALF_OPEN:
            self._settle(phase, Event.FAILURE, error)
            return
        with self._lock:
            if phase is not self._phase:
                self._counts["stale"] += phase is not BYPASS
                return
            self._row += 1
            self._counts["failures"] += 1
            self._failures.append(self._now())
            self._error = error
            change = self._step(Event.TRIP) if self._tripped() else None
        self._tell(change)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What *function* returns; an `Exception` from it counts as a failure, an interruption as nothing."""
        phase = self._phase
        if not phase.closed:
            phase = self.before_call()
        try:
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self.failure(phase, repr(error))
                raise
            self.success(phase)
        except BaseException:
            self.abandon(phase)  # whatever was to be said of it, and was not, as that was interrupted
            raise
        return result

    def reset(self) -> None:
        """Closed, with nothing remembered."""
        with self._lock:
            change = self._step(Event.RESET)
        self._tell(change)

    def forked(self) -> None:
        """In a child process: the lock is free."""
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[Change], None]) -> None:
        """*listener* is called with every `Change`, on the thread whose call caused it."""
        self._listeners.append(listener)

    def get_stats(self) -> dict[str, Any]:
        """State, counts, failures in a row, the last error, and seconds until the next probe."""
        with self._lock:
            left = max(0.0, self._reopens - self._now()) if self._phase.state is State.OPEN else 0.0
            facts = {"row": self._row, "retry_after": left, "last_error": self._error}
            return {"state": self._phase.state.value, **self._counts, **facts}

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r}, {self.state.value})"

    ############################################ behind the lock ############################################

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _probe_or_refuse(self, may_probe: bool) -> Phase:
        mine = Phase(State.HALF_OPEN)
        try:
            with self._lock:
                if self._phase.state is State.CLOSED:
                    return self._phase
                lost = self._give_up_lost_probe()
                wait = self._reopens - self._now()
                due = wait <= 0 if may_probe else wait <= -self.config.open_min
                change = self._step(Event.PROBE, mine) if due and self._phase.state is State.OPEN else None
                self._counts["refused"] += change is None
                error = self._error
            self._tell(lost)
            if change is None:
                raise self._refusal(wait, error)
            self._tell(change)
        except BaseException:
            self.abandon(mine)  # an interruption, or a listener's error: nobody would say how the probe went
            raise
        return mine

    def _give_up_lost_probe(self) -> Change | None:
        assert self._lock.locked()
        if self._phase.state is State.HALF_OPEN and self._now() >= self._lost_at:
            return self._step(Event.ABANDON)
        return None

    def _refusal(self, wait: float, error: str | None) -> CircuitOpen:
        wait = max(0.0, wait)
        text = f"the gateway's {self.name} calls failed too often just now; the next try is in {wait:.1f} s"
        return CircuitOpen(f"{text} (last error: {error})" if error else text, retry_after=wait, last_error=error)

    def _settle(self, phase: Phase, event: Event, error: str | None = None) -> None:
        with self._lock:
            if phase is not self._phase:
                self._counts["stale"] += 1
                return
            self._error = error or self._error
            change = self._step(event)
        self._tell(change)

    def _tripped(self) -> bool:
        assert self._lock.locked()
        config = self.config
        if self._row >= config.consecutive_failures:
            return True
        start = self._now() - config.window
        failed = sum(at > start for at in tuple(self._failures))
        calls = failed + sum(at > start for at in tuple(self._successes))
        return calls >= config.min_calls and failed >= config.failure_share * calls

    def _step(self, event: Event, phase: Phase | None = None) -> Change:
        """The one place that changes the state, and at once: a Ctrl-C comes before or after. *phase* is the new one."""
        assert self._lock.locked()
        before = self._phase.state
        after = TRANSITIONS[before, event]
        if after is State.OPEN:
            self._open(event)
        elif after is State.CLOSED:
            self._row = self._openings = 0
            self._successes.clear()
            self._failures.clear()
        self._counts["trips"] += event is Event.TRIP
        self._counts["probes"] += event is Event.PROBE
        now = self._now()
        self._lost_at = now + LOST
        wait = max(0.0, self._reopens - now) if after is State.OPEN else 0.0
        change = Change(self.name, before, after, self._error, wait)
        self._phase = phase or Phase(after)
        return change

    def _open(self, event: Event) -> None:
        assert self._lock.locked()
        now = self._now()
        if event is Event.ABANDON:
            self._reopens = now
            return
        length = min(self.config.open_max, self.config.open_min * 2.0 ** min(self._openings, 16))
        self._openings += 1
        self._reopens = now + length * (1.0 + JITTER * self._clock.random())

    def _tell(self, change: Change | None) -> None:
        """Outside the lock: listeners may do as they like."""
        if change is not None:
            for listener in tuple(self._listeners):
                listener(change)
