"""Both hubs (and the echo hub): connections, subscriptions, events on their way to subscribers, evidence."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock
from topstep_sync.simulator import hub_dialect as dialect
from topstep_sync.simulator.bus import Publication
from topstep_sync.simulator.hub_admission import Admission, spoil
from topstep_sync.simulator.hub_blast import blast
from topstep_sync.simulator.hub_faults import EventFaults
from topstep_sync.simulator.hub_link import Link
from topstep_sync.simulator.hub_methods import HUBS, Call, invoke
from topstep_sync.simulator.hub_payloads import Shaper, topic_of
from topstep_sync.simulator.hub_socket import HubSocket, Refusal, Upgrade
from topstep_sync.simulator.recording import Recorder
from topstep_sync.simulator.tokens import Verdict
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

ALL: Final = "all"
DROPS: Final = {
    "abort": "Close without allowReconnect, as the hub's own abort",
    "shutdown": "Close with allowReconnect, as a server that stops",
    "close": "Close with an error, without allowReconnect",
    "close-reconnect": "Close with an error and allowReconnect",
    "fin": "the TCP connection ends, without a Close",
    "rst": "the TCP connection is reset",
    "silence": "nothing is read or sent any more, TCP stays open",
}
"""Way to drop a connection → what the client sees."""

_TICKS: Final = 20  # per shortest interval, so that timings are within 5 %


class HubEvent(msgspec.Struct, frozen=True):
    """What happened on a hub. Times are seconds of the simulation clock."""

    at: float
    hub: str
    connection: str
    kind: str
    """`refused`, `open`, `invoke`, `answer`, `closed`."""
    token: str | None = None
    """Generation of the token it came with."""
    target: str = ""
    arguments: tuple[Any, ...] = ()
    detail: str = ""


class Hubs:
    """All hub connections of one world. Loop thread only.

    Args:
        clock: of pings and timeouts, which are about the network and run in real time.
    """

    def __init__(self, world: World, clock: Clock = SYSTEM_CLOCK, history: int = 10_000) -> None:
        self.world = world
        self.history: deque[HubEvent] = deque(maxlen=history)
        self.links: dict[str, Link] = {}
        """Connections whose handshake is done, by id, oldest first."""
        self.recorder: Recorder | None = None
        """When set, gets every event of the exchange and the market, whether or not anybody listens."""
        self.on_first_subscription: Callable[[], None] | None = None
        """Called once, when a client subscribes to anything."""
        self._settings = world.settings
        self._clock = clock
        self._sockets: dict[str, HubSocket] = {}
        self._connecting: dict[str, Link] = {}
        self._topics: dict[str, int] = {}
        self._dirty: list[Link] = []
        self._shaper = Shaper(self._settings, world.markets.quote)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._asks = 0
        self._event_faults = EventFaults(world, self.later)
        self.admission = Admission(world)
        world.bus.subscribe(self.publish)

    ############################################### life ###############################################

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Timers run on *loop* from now on."""
        self._loop = loop
        self._schedule_tick()

    def detach(self) -> None:
        """No timer runs any more."""
        if self._ticker:
            self._ticker.cancel()
        self._loop = None

    def protocol(self, *, server_state: Any, **_: Any) -> HubSocket:
        """What uvicorn calls for a connection that becomes a WebSocket."""
        return HubSocket(self, server_state.connections)

    def _schedule_tick(self) -> None:
        s = self._settings
        shortest = min(filter(None, (s.keep_alive, s.client_timeout, s.handshake_timeout)), default=FOREVER)
        if self._loop is not None:
            self._ticker = self._loop.call_later(min(1.0, max(0.005, shortest / _TICKS)), self._tick)

    def _tick(self) -> None:
        self._schedule_tick()
        self.tick()

    def tick(self) -> None:
        """Everything that is due by the clock has happened."""
        now, epoch = self._clock.monotonic(), self.world.clock.epoch()
        for link in [*self._connecting.values(), *self.links.values()]:
            link.tick(now, epoch)

    def now(self) -> float:
        return self._clock.monotonic()

    ############################################# connections #############################################

    def admit(self, upgrade: Upgrade, socket: HubSocket) -> Link | Refusal:
        """The link of a new connection, or why it gets none: unknown hub, bad token, fault."""
        hub = upgrade.path.removeprefix("/hubs/")
        if hub not in HUBS or upgrade.path != f"/hubs/{hub}":
            return Refusal(404)
        verdict, fault, refusal = self.admission.decide(hub, upgrade)
        if refusal is not None:
            self._note(hub, "", "refused", _generation(verdict), detail=f"{refusal.status} {refusal.how}")
            return refusal
        socket.fragment = self._settings.fragment
        link = Link(
            hub,
            socket,
            self,
            self._settings,
            now=self.now(),
            token=_generation(verdict),
            expires=verdict.claims.exp if verdict.claims else None,
            port=upgrade.port,
        )
        self._sockets[link.id] = socket
        self._connecting[link.id] = link
        if fault is not None:
            spoil(link, socket, fault)
        return link

    def opened(self, link: Link) -> str | None:
        """The handshake of *link* is done; a text when it is to be closed at once."""
        self._connecting.pop(link.id, None)
        self.links[link.id] = link
        self._note(link.hub, link.id, "open", link.token)
        return link.refusal

    def left(self, link: Link) -> None:
        """The TCP connection of *link* has ended."""
        self._connecting.pop(link.id, None)
        self._sockets.pop(link.id, None)
        self._event_faults.forget(link)
        if self.links.pop(link.id, None) is not None:
            self._note(link.hub, link.id, "closed", link.token)
        for name in [name for name in self._asked if name.startswith(f"{link.id}/")]:
            future = self._asked.pop(name)
            if not future.done():
                future.set_result({"error": f"Connection '{link.id}' disconnected."})

    def of(self, hub: str) -> list[Link]:
        """The open connections of a hub, or of all of them, oldest first."""
        return [link for link in self.links.values() if hub in (ALL, link.hub) and link.live]

    def _note(self, hub: str, connection: str, kind: str, token: str | None, **more: Any) -> None:
        self.history.append(HubEvent(self.world.clock.monotonic(), hub, connection, kind, token, **more))

    ############################################## inbound ##############################################

    def call(self, link: Link, record: dict[str, Any]) -> None:
        target, arguments = record["target"], record["arguments"]
        link.invocations.append(target)
        self._note(link.hub, link.id, "invoke", link.token, target=target, arguments=tuple(arguments))
        # An empty id wants no answer either, as the framework reads it.
        invoke(Call(self, link, record.get("invocationId") or None, target), record)
        if link.topics and self.on_first_subscription:
            start, self.on_first_subscription = self.on_first_subscription, None
            start()

    def answered(self, link: Link, record: dict[str, Any]) -> None:
        self._note(link.hub, link.id, "answer", link.token, detail=record["invocationId"])
        future = self._asked.pop(f"{link.id}/{record['invocationId']}", None)
        if future is not None and not future.done():
            future.set_result({name: record[name] for name in ("result", "error") if name in record})

    def first(self, link: Link, target: str, *arguments: Any) -> None:
        for shaped in self._shaper.shape(target, arguments):
            link.put(dialect.invocation(target, shaped))

    def later(self, link: Link, seconds: float, action: Callable[[], None]) -> None:
        def run() -> None:
            if link.live:
                action()

        if self._loop:
            self._loop.call_later(max(0.0, seconds), run)

    ############################################## outbound ##############################################

    def publish(self, publication: Publication) -> None:
        """The event waits to go out to everybody who subscribed to its topic."""
        topic = topic_of(publication)
        listeners = [link for link in self.links.values() if topic in link.topics and link.hub == publication.hub]
        if topic and (listeners or self.recorder):
            records = [
                dialect.invocation(publication.target, shaped)
                for shaped in self._shaper.shape(publication.target, publication.arguments)
            ]
            self._record(publication.hub, records)
            self._put(listeners, publication.target, records)

    def _record(self, hub: str, records: list[bytes]) -> None:
        if self.recorder:
            for record in records:
                self.recorder.write(hub, record[: -len(dialect.RECORD_END)])

    def _put(self, links: Iterable[Link], target: str, records: list[bytes]) -> None:
        for link in links:
            for record in self._event_faults.pass_through(link, target, records):
                link.put(record)

    async def drain(self, hub: str) -> None:
        """Every connection of *hub* has room for more."""
        self.flush()
        for link in self.of(hub):
            await self._sockets[link.id].drain()
        await asyncio.sleep(0)

    def dirty(self, link: Link) -> None:
        if not self._dirty and self._loop:
            self._loop.call_soon(self.flush)
        self._dirty.append(link)

    def flush(self) -> None:
        """What waited has gone out."""
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            link.flush()

    ############################################## steering ##############################################

    def send(self, hub: str, target: str, arguments: list[Any]) -> int:
        """Every connection of *hub* is sent that event, subscribed or not; how many that are."""
        links = self.of(hub)
        self._put(links, target, [dialect.invocation(target, arguments)])
        return len(links)

    def send_raw(self, hub: str, data: bytes) -> int:
        """Every connection of *hub* is sent *data* as one message, whatever it is; how many that are."""
        links = self.of(hub)
        for link in links:
            link.flush()
            self._sockets[link.id].send(data)
        return len(links)

    async def ask(self, hub: str, target: str, arguments: list[Any], timeout: float) -> list[dict[str, Any]]:
        """What every connection of *hub* answers when its method *target* is called: result or error each."""
        waiting = {}
        for link in self.of(hub):
            self._asks += 1
            name = f"{link.id}/s{self._asks}"
            waiting[name] = self._asked[name] = asyncio.get_running_loop().create_future()
            link.put(dialect.invocation(target, arguments, f"s{self._asks}"))
        if waiting:
            await asyncio.wait(waiting.values(), timeout=timeout)
        for name in waiting:
            self._asked.pop(name, None)
        silent = {"error": "Invocation canceled by the server."}
        return [future.result() if future.done() else silent for future in waiting.values()]

    async def blast(self, hub: str, count: int, **options: Any) -> dict[str, Any]:
        """*count* quotes have gone to every connection of *hub*; see `hub_blast.blast` for the options."""
        sockets = [self._sockets[link.id] for link in self.of(hub)]
        sent, seconds = await blast(sockets, count, **options)
        return {"connections": len(sockets), "sent": sent, "seconds": seconds}

    def drop(self, hub: str, how: str) -> int:
        """Every connection of *hub* has been dropped that way (`DROPS`); how many that were.

        Raises:
            ValueError: an unknown hub or way.
        """
        if hub not in (*HUBS, ALL) or how not in DROPS:
            raise ValueError(f"drop({hub!r}, {how!r}): the hubs are {', '.join(HUBS)}, the ways {', '.join(DROPS)}")
        links = self.of(hub)
        for link in links:
            self._drop(link, how)
        return len(links)

    def _drop(self, link: Link, how: str) -> None:
        log.info("! hub %s: dropped by %s", link.id, how)
        link.flush()
        if how in ("fin", "rst"):
            self._sockets[link.id].cut(reset=how == "rst")
        elif how == "silence":
            self._sockets[link.id].silence()
        else:
            error = dialect.CLOSED_WITH_ERROR if how.startswith("close") else None
            link.close(error, allow_reconnect=how in ("shutdown", "close-reconnect"))


def _generation(verdict: Verdict) -> str | None:
    return verdict.claims.jti if verdict.claims else None
