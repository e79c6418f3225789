"""How a session does: stream, token, breakers and budget in one answer, from what is known here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from topstep_sync.auth.token_manager import TokenState
from topstep_sync.http.circuit_breaker import State as Circuit
from topstep_sync.realtime.health import Health, HubHealth, Status
from topstep_sync.realtime.lifecycle import State
from topstep_sync.tables import table

TOKEN_TROUBLE = {TokenState.ERROR: Status.DEGRADED, TokenState.EXPIRED: Status.DEGRADED}


@dataclass(frozen=True, kw_only=True)
class SessionHealth:
    """A session, at one time; as good as its worst part. True when it is healthy."""

    stream: Health | None
    """Both hubs; `None` while nothing was ever subscribed."""
    token: TokenState
    circuits: Mapping[str, Circuit] = field(default_factory=dict)
    """Class of calls → state of its breaker."""
    budget_trouble: str = ""
    """Why the shared budget cannot be reached; empty when it can."""

    @property
    def status(self) -> Status:
        """The worst of all parts."""
        return max((status for status, _ in self._found()), key=lambda status: status.severity, default=Status.HEALTHY)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not healthy, worst first."""
        return tuple(reason for _, reason in sorted(self._found(), key=lambda found: -found[0].severity))

    def _found(self) -> list[tuple[Status, str]]:
        found = []
        if self.stream is not None:
            for hub in (self.stream.user, self.stream.market):
                found += [(hub.status, f"{hub.hub}: {reason}") for reason in hub.reasons]
        if self.token in TOKEN_TROUBLE:
            found.append((TOKEN_TROUBLE[self.token], f"token: {self.token.value}"))
        found += [
            (Status.UNHEALTHY, f"calls of class {name}: breaker {state.value}")
            for name, state in self.circuits.items()
            if state is not Circuit.CLOSED
        ]
        if self.budget_trouble:
            found.append((Status.DEGRADED, f"shared budget: {self.budget_trouble}"))
        return found

    def _repr_html_(self) -> str:
        rows = [
            ("status", self.status.value),
            ("why", "; ".join(self.reasons)),
            ("token", self.token.value),
            *((f"breaker of {name}", state.value) for name, state in self.circuits.items()),
        ]
        stream = "" if self.stream is None else self.stream._repr_html_()
        return table(("", "session"), rows) + stream

    def __bool__(self) -> bool:
        return self.status is Status.HEALTHY

    def __str__(self) -> str:
        hubs = [] if self.stream is None else [_hub(self.stream.user), _hub(self.stream.market)]
        parts = [str(self.status.value), *(hub for hub in hubs if hub), *self.reasons]
        return " · ".join(parts)


def _hub(hub: HubHealth) -> str:
    if hub.state is State.DISCONNECTED:
        return ""
    ping = "" if hub.round_trip is None else f" ({hub.round_trip * 1000:.1f} ms)"
    return f"{hub.hub} hub {hub.state}{ping}"
