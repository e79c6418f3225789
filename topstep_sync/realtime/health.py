"""How well a hub connection does (CONN-002), and what to do about a feed that has gone silent.

Healthy is a connection that is up and whose data flow. What is about the *link* is noticed elsewhere within 30 s; here
it is about *data*: subscribed, the market open, and nothing for 120 s. A silent feed is probed by subscribing anew, a
cheap question to which a live feed answers with data; only when that brings nothing is the connection replaced, and
each time in vain doubles the wait before the next, so that a market that is rightly quiet causes no loop.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from topstep_sync.config import StreamConfig
from topstep_sync.realtime.hours import opened_at
from topstep_sync.realtime.lifecycle import State
from topstep_sync.tables import table

MANY_RECONNECTS: Final = 6  # an hour; field reports of 2026-07 count 17 in two days on a bad one
LAG_DEGRADED: Final = 5.0  # GUESS: seconds a consumer may be behind
LAG_UNHEALTHY: Final = 60.0
ECHO: Final = 2.0  # seconds after a probe in which data is its answer, not a feed that flows
LONGEST: Final = 1800.0  # seconds between two replacements of the connection of a silent feed


class Status(enum.StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def severity(self) -> int:
        return list(Status).index(self)


class Action(enum.Enum):
    NONE = "none"
    PROBE = "probe"  # subscribe anew to what is silent
    REPLACE = "replace"  # end the connection, and so begin another


@dataclass(frozen=True, kw_only=True)
class HubHealth:
    """One hub, at one time. Durations are seconds."""

    hub: str
    status: Status = Status.HEALTHY
    reasons: tuple[str, ...] = ()
    """Why it is not healthy, worst first."""
    state: State = State.DISCONNECTED
    reason: str | None = None
    """Why it is in that state."""
    since_inbound: float | None = None
    """Since the last byte; `None` while there is no connection."""
    round_trip: float | None = None
    """Of the last answered ping or call."""
    since_data: Mapping[str, float] = field(default_factory=dict)
    """Subscription → since its last event, or since it stands; on the user hub account → since its last event, or since
    it was asked for."""
    stale: tuple[str, ...] = ()
    """Subscriptions without data for too long, though the market is open."""
    reconnects: int = 0
    """In the last hour."""
    faults: int = 0
    """Breaches of the protocol since the start."""
    malformed: int = 0
    """Records dropped since the start, because they were not what the contract says."""
    queue_depth: int = 0
    """Events that wait in the fullest queue."""
    lag: float = 0.0
    """Of the slowest consumer."""
    trouble: str | None = None
    """Why reconciliation does not succeed."""

    def facts(self) -> dict[str, str]:
        """What there is to say, in words and with units, by name."""
        data = "; ".join(f"{name}: {age:.1f} s ago" for name, age in self.since_data.items())
        return {
            "status": self.status.value,
            "why": "; ".join(self.reasons),
            "connection": f"{self.state}{f': {self.reason}' if self.reason else ''}",
            "last byte": "" if self.since_inbound is None else f"{self.since_inbound:.1f} s ago",
            "round trip": "" if self.round_trip is None else f"{self.round_trip * 1000:.1f} ms",
            "last data": data,
            "reconnects in an hour": str(self.reconnects),
            "faults, malformed": f"{self.faults}, {self.malformed}",
            "queue": f"{self.queue_depth} events, {self.lag:.1f} s behind",
        }

    def _repr_html_(self) -> str:
        return table(("", f"{self.hub} hub"), self.facts().items())


@dataclass(frozen=True, kw_only=True)
class Health:
    """The whole stream, at one time; as good as its worse hub."""

    user: HubHealth
    market: HubHealth

    @property
    def status(self) -> Status:
        return max(self.user.status, self.market.status, key=lambda status: status.severity)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not healthy, hub by hub."""
        return tuple(f"{hub.hub}: {reason}" for hub in (self.user, self.market) for reason in hub.reasons)

    def _repr_html_(self) -> str:
        user, market = self.user.facts(), self.market.facts()
        rows = ((name, value, market[name]) for name, value in user.items())
        return table(("", "user hub", "market hub"), rows, f"the stream is {self.status}")

    def __bool__(self) -> bool:
        return self.status is Status.HEALTHY


def judge(hub: HubHealth, wanted: bool, config: StreamConfig) -> HubHealth:
    """*hub* with its status and the reasons for it; *wanted* is whether anybody subscribed to anything."""
    found = [*_link(hub, wanted, config), *_data(hub, config)]
    found.sort(key=lambda pair: -pair[0].severity)
    status = found[0][0] if found else Status.HEALTHY
    return HubHealth(**{**vars(hub), "status": status, "reasons": tuple(reason for _, reason in found)})


def _link(hub: HubHealth, wanted: bool, config: StreamConfig) -> list[tuple[Status, str]]:
    found = []
    because = f": {hub.reason}" if hub.reason else ""
    if hub.state is State.FAILED:
        found.append((Status.UNHEALTHY, f"gave up{because}"))
    elif wanted and hub.state is State.RECONNECTING:
        found.append((Status.UNHEALTHY, f"no connection{because}"))
    elif wanted and hub.state is not State.CONNECTED:
        found.append((Status.DEGRADED, f"{hub.state}{because}"))
    if hub.since_inbound is not None and hub.since_inbound > 2 * config.server_timeout / 3:
        found.append((Status.DEGRADED, f"not a byte for {hub.since_inbound:.0f} s"))
    if hub.reconnects >= MANY_RECONNECTS:
        found.append((Status.DEGRADED, f"{hub.reconnects} reconnects within an hour"))
    if hub.trouble:
        found.append((Status.DEGRADED, f"not reconciled: {hub.trouble}"))
    return found


def _data(hub: HubHealth, config: StreamConfig) -> list[tuple[Status, str]]:
    found = []
    if hub.stale:
        oldest = max(hub.since_data[name] for name in hub.stale)
        status = Status.UNHEALTHY if oldest > 2 * config.stale_seconds else Status.DEGRADED
        names = ", ".join(hub.stale[:3]) + (", …" if len(hub.stale) > 3 else "")
        found.append((status, f"no data for up to {oldest:.0f} s: {names}"))
    if hub.lag > LAG_DEGRADED:
        status = Status.UNHEALTHY if hub.lag > LAG_UNHEALTHY else Status.DEGRADED
        found.append((status, f"a consumer is {hub.lag:.0f} s behind, {hub.queue_depth} events wait"))
    return found


class StaleWatch:
    """Decides what to do about silent subscriptions of one hub. Belongs to the hub's thread, but for `ages`, `stale`.

    Times are monotonic seconds but for *epoch*, which only asks the calendar.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._stale_seconds = config.stale_seconds
        self._answer_seconds = config.heartbeat_seconds
        self._since: dict[Any, float] = {}  # subscription → when it was first seen to stand on this connection
        self._probed: dict[Any, float] = {}  # subscription → when
        self._replaced_at: float | None = None
        self._patience = 0.0  # seconds from one replacement to the next

    def fresh(self) -> None:
        """The connection is a new one."""
        self._since.clear()
        self._probed.clear()

    def ages(self, standing: set[Any], last_data: Mapping[Any, float], now: float) -> dict[Any, float]:
        """Subscription → seconds since its last event, or since it stands."""
        since = dict(self._since)
        return {key: now - max(last_data.get(key, 0.0), since.get(key, now)) for key in standing}

    def stale(self, ages: Mapping[Any, float], epoch: float) -> list[Any]:
        """Those without data for too long; none while the market is closed, or has opened only just now."""
        opened = opened_at(epoch)
        if opened is None or epoch - opened < self._stale_seconds:
            return []
        return [key for key, age in ages.items() if age > self._stale_seconds]

    def decide(
        self, standing: set[Any], last_data: Mapping[Any, float], now: float, epoch: float
    ) -> tuple[Action, list[Any]]:
        """What to do now, and for which subscriptions."""
        self._note(standing, now)
        silent = self.stale(self.ages(standing, last_data, now), epoch)
        if self._flows(standing, last_data, now):
            self._replaced_at, self._patience = None, 0.0
        elif self._probed and opened_at(epoch) is not None:
            return self._replace(now)
        probe = [key for key in silent if now - self._probed.get(key, -LONGEST) >= LONGEST]
        self._probed.update(dict.fromkeys(probe, now))
        return (Action.PROBE if probe else Action.NONE), probe

    def _note(self, standing: set[Any], now: float) -> None:
        for key in set(self._since) - standing:
            del self._since[key]
            self._probed.pop(key, None)
        for key in standing:
            self._since.setdefault(key, now)

    def _flows(self, standing: set[Any], last_data: Mapping[Any, float], now: float) -> bool:
        """Whether any subscription had data of late that was not just the answer to subscribing."""
        return any(
            last_data.get(key, 0.0) > max(self._since[key], self._probed.get(key, 0.0)) + ECHO
            and now - last_data[key] <= self._stale_seconds
            for key in standing
        )

    def _replace(self, now: float) -> tuple[Action, list[Any]]:
        """Replace the connection once the probes had time to be answered, and less and less often."""
        if now - max(self._probed.values()) < self._answer_seconds:
            return Action.NONE, []
        if self._replaced_at is not None and now - self._replaced_at < self._patience:
            return Action.NONE, []
        self._replaced_at = now
        self._patience = min(max(2 * self._patience, 2 * self._stale_seconds), LONGEST)
        return Action.REPLACE, list(self._probed)
