"""The life of a hub connection: its states, and when and whether to connect again (CONN-001, CONN-003).

::

    DISCONNECTED ── connect ──▶ CONNECTING ── established ──▶ CONNECTED
         ▲                          │ lost                  lost │ ▲ established
         │                          └────────▶ RECONNECTING ◀────┘ │
     disconnect (from any state)                  │ lost ↺ └───────┘
                                                  └─ gave up ─▶ FAILED ── connect ─▶ CONNECTING

Sources: the official TypeScript and .NET clients; field reports of 2026-07 (17 closes with an error in two days).
"""

import enum
from typing import Final

from topstep_sync.config import StreamConfig


class State(enum.StrEnum):
    DISCONNECTED = "disconnected"  # nobody wants a connection
    CONNECTING = "connecting"  # the first attempt is under way
    CONNECTED = "connected"  # open, and every subscription is answered
    RECONNECTING = "reconnecting"  # lost, or not there yet; attempts follow a schedule
    FAILED = "failed"  # gave up; only `connect` starts again


class Event(enum.Enum):
    CONNECT = "connect"
    ESTABLISHED = "established"
    LOST = "lost"
    GAVE_UP = "gave up"
    DISCONNECT = "disconnect"


TRANSITIONS: Final = {
    (State.DISCONNECTED, Event.CONNECT): State.CONNECTING,
    (State.FAILED, Event.CONNECT): State.CONNECTING,
    (State.CONNECTING, Event.ESTABLISHED): State.CONNECTED,
    (State.CONNECTING, Event.LOST): State.RECONNECTING,
    (State.CONNECTED, Event.LOST): State.RECONNECTING,
    (State.RECONNECTING, Event.ESTABLISHED): State.CONNECTED,
    (State.RECONNECTING, Event.LOST): State.RECONNECTING,
    (State.CONNECTING, Event.GAVE_UP): State.FAILED,
    (State.CONNECTED, Event.GAVE_UP): State.FAILED,
    (State.RECONNECTING, Event.GAVE_UP): State.FAILED,
    (State.DISCONNECTED, Event.DISCONNECT): State.DISCONNECTED,
    (State.CONNECTING, Event.DISCONNECT): State.DISCONNECTED,
    (State.CONNECTED, Event.DISCONNECT): State.DISCONNECTED,
    (State.RECONNECTING, Event.DISCONNECT): State.DISCONNECTED,
    (State.FAILED, Event.DISCONNECT): State.DISCONNECTED,
}


def step(state: State, event: Event) -> State:
    """The state after *event*.

    Raises:
        ValueError: the pair makes no sense, which is a bug of the caller.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a connection that is {state} cannot see {event.value!r}") from None


class Ending(enum.Enum):
    """How an attempt or a connection ended, which decides what follows."""

    LOST = "lost"  # no connection, a broken one, or a Close that allows reconnecting
    KICKED = "kicked"  # a Close that does not
    CONFLICT = "conflict"  # GatewayLogout came first: another program may be using the login
    HOPELESS = "hopeless"  # the handshake or the token was refused; another attempt would end the same


LOGOUT_COUNTS: Final = (
    60.0  # GUESS: seconds; field reports have the close follow at once. Later ends have other causes.
)


def after_logout(ending: Ending, age: float) -> Ending:
    """What *ending* means when the gateway said GatewayLogout *age* seconds before."""
    return Ending.CONFLICT if age <= LOGOUT_COUNTS and ending is not Ending.HOPELESS else ending


# A second program that does the same as we do would be thrown out by each of our returns.
_CONFLICT_STEP: Final = 2  # GUESS: from 10 s on; field reports tell of programs that fought with 0 s
_KICKED_STEP: Final = 1
_JITTER: Final = 0.2  # of the delay, either way


class Schedule:
    """When to connect again. Belongs to one thread; takes the time and returns a delay."""

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self._up_at: float | None = None
        self._kicks = 0
        self._conflicts = 0
        self.attempts = 0
        """Attempts in a row that did not lead to a stable connection."""

    def up(self, now: float) -> None:
        """A connection stands since *now*. The schedule starts over only once it has stood for a ping interval."""
        self._up_at = now

    def after(self, ending: Ending, now: float, chance: float) -> float | None:
        """Seconds until the next attempt; `None` to give up. *chance* is a random number from 0 to 1."""
        self._settle(now)
        if ending is Ending.HOPELESS:
            return None
        least = 0
        # The row is of nothing else: a hub that throws us out does it each time, whatever comes between is the weather.
        self._kicks = self._kicks + 1 if ending is Ending.KICKED else 0
        if ending is Ending.KICKED:
            if self._config.reconnect_on_close == "server" or self._kicks >= self._config.close_limit:
                return None
            least = _KICKED_STEP
        elif ending is Ending.CONFLICT:
            least = _CONFLICT_STEP + self._conflicts
            self._conflicts += 1
        if self._config.max_attempts is not None and self.attempts >= self._config.max_attempts:
            return None
        delays = self._config.backoff_seconds
        delay = delays[min(max(self.attempts, least), len(delays) - 1)]
        self.attempts += 1
        return delay * (1 - _JITTER + 2 * _JITTER * chance)

    def _settle(self, now: float) -> None:
        if self._up_at is not None and now - self._up_at >= self._config.ping_interval:
            self.attempts = self._kicks = 0
            if now - self._up_at >= self._config.stale_seconds:
                self._conflicts = 0
        self._up_at = None
