"""The handle by which tests and programs steer a running gateway's hubs, from any thread."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from topstep_sync.simulator.hub_server import ALL, HubEvent, Hubs

T = TypeVar("T")


class HubConnection(msgspec.Struct, frozen=True):
    """One open hub connection, as it was when asked."""

    id: str
    hub: str
    token: str | None
    """Generation of the token it came with."""
    port: int
    """The client's."""
    seconds: float
    """Real seconds since the upgrade."""
    topics: tuple[str, ...]
    """What it is subscribed to (`orders:536`, `quotes:CON.F.US.MNQ.Z26`), sorted."""
    invocations: tuple[str, ...]
    """Methods it called, in order."""
    sent: int
    """Records it was sent."""


class HubDesk:
    """What may be done to the hubs. Thread-safe. *hub* is `user`, `market`, `echo` or `all`."""

    def __init__(self, run: Callable[[Callable[[Hubs], Any]], Any]) -> None:
        self._run = run

    @property
    def connections(self) -> list[HubConnection]:
        """Every open connection whose handshake is done, oldest first."""
        return self._run(open_connections)  # type: ignore[no-any-return]

    @property
    def history(self) -> list[HubEvent]:
        """Everything that happened on the hubs, oldest first."""
        return self._run(lambda hubs: list(hubs.history))  # type: ignore[no-any-return]

    def drop(self, hub: str = ALL, how: str = "abort") -> int:
        """Every connection of *hub* has been dropped (`hub_server.DROPS` names the ways); how many that were."""
        return self._run(lambda hubs: hubs.drop(hub, how))  # type: ignore[no-any-return]

    def send(self, hub: str, target: str, *arguments: Any) -> int:
        """Every connection of *hub* is sent that event, subscribed or not; how many that are."""
        return self._run(lambda hubs: hubs.send(hub, target, list(arguments)))  # type: ignore[no-any-return]

    def send_raw(self, hub: str, data: bytes) -> int:
        """Every connection of *hub* is sent *data* as one message, whatever it is. Records end in U+001E."""
        return self._run(lambda hubs: hubs.send_raw(hub, data))  # type: ignore[no-any-return]


def open_connections(hubs: Hubs) -> list[HubConnection]:
    """What is open now, oldest first. Loop thread only."""
    now = hubs.now()
    return [
        HubConnection(
            id=link.id,
            hub=link.hub,
            token=link.token,
            port=link.port,
            seconds=now - link.since,
            topics=tuple(sorted(link.topics)),
            invocations=tuple(link.invocations),
            sent=link.sent,
        )
        for link in hubs.of(ALL)
    ]
