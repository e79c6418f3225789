"""The handle by which tests and programs steer a running gateway's hubs, from any thread."""

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from topstep_sync.simulator.hub_replay import play
from topstep_sync.simulator.hub_server import ALL, HubEvent, Hubs
from topstep_sync.simulator.recording import Recorder, read

PATIENCE: Final = 30.0  # seconds that the simulation's thread may need beyond what was asked


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

    def __init__(
        self,
        run: Callable[[Callable[[Hubs], Any]], Any],
        wait: Callable[[Callable[[Hubs], Coroutine[Any, Any, Any]], float], Any],
    ) -> None:
        self._run = run
        self._wait = wait

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

    def ask(self, hub: str, target: str, *arguments: Any, timeout: float = 5.0) -> list[dict[str, Any]]:
        """What every connection of *hub* answered to that call: `{"result": …}` or `{"error": …}`, oldest first."""
        return self._wait(lambda hubs: hubs.ask(hub, target, list(arguments), timeout), timeout + PATIENCE)  # type: ignore[no-any-return]

    def blast(self, hub: str, count: int, *, patience: float = 300.0, **options: Any) -> dict[str, Any]:
        """*count* numbered quotes have gone to every connection of *hub*: how many connections, quotes, seconds.

        Args:
            patience: seconds after which it is given up.
            options: `burst` (records a message), `size` (bytes a record), `rate` (records a second), `contract_id`.
        """
        return self._wait(lambda hubs: hubs.blast(hub, count, **options), patience)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def record(self, path: str | Path) -> Iterator[Recorder]:
        """Within the block every event of the exchange and of moving markets goes into a recording at *path*."""
        with Recorder(path) as recorder:
            self._run(lambda hubs: setattr(hubs, "recorder", recorder))
            try:
                yield recorder
            finally:
                self._run(lambda hubs: setattr(hubs, "recorder", None))

    def replay(self, path: str | Path, speed: float = 1.0, *, patience: float = 3600.0) -> int:
        """The recording at *path* has been played to subscribers, byte for byte; how many records that were.

        Args:
            speed: how many times as fast as recorded; 0: as fast as the connections take it.
            patience: seconds after which it is given up.
        """
        return self._wait(lambda hubs: play(hubs, read(path), speed), patience)  # type: ignore[no-any-return]


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
