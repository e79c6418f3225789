"""The socket: uvicorn's HTTP protocol on the simulator's own loop, one port for REST and hubs."""

import asyncio
import email.utils
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from topstep_sync.simulator.asgi import TRANSPORT, Application
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

KEEP_ALIVE: Final = 130  # seconds; Kestrel's default
_BACKLOG: Final = 2048
_STOP_TIMEOUT: Final = 1.0  # seconds that calls in flight have to end


class Connection(HttpToolsProtocol):
    """An HTTP connection whose transport the application can reach, so that faults can cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does it only for sockets made with an explicit protocol number, which `create_server` leaves out:
        # without it head and body of a reply are 40 ms apart.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP is answered as Kestrel does it, and the connection ends."""
        log.warning("! not HTTP from %s: %s", self.client, msg)
        head = [b"HTTP/1.1 400 Bad Request", b"content-length: 0", b"connection: close"]
        head += [name + b": " + value for name, value in self.server_state.default_headers]
        self.transport.write(b"\r\n".join([*head, b"", b""]))
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[TRANSPORT] = self.transport  # type: ignore[typeddict-unknown-key]


class Server:
    """Serves one world on one socket. Loop thread only.

    uvicorn's own `Server` polls for its end ten times a second and owns the signals; a gateway inside a test must
    start and stop in a millisecond, so only uvicorn's protocols are used.

    Args:
        ws: makes the protocol that takes over on an upgrade; called as uvicorn calls its WebSocket classes.
    """

    def __init__(
        self, world: World, application: Application, ws: Callable[..., asyncio.Protocol] | None = None
    ) -> None:
        self._world = world
        self._config = uvicorn.Config(
            application,
            http=Connection,
            ws=ws or "none",  # type: ignore[arg-type]  # a callable does as well as a class
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._config.load()
        self._state = ServerState()
        self._app_state: dict[str, Any] = {"world": world}
        self._server: asyncio.Server | None = None
        self._clock: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket) -> None:
        """Connections to *sock* are served."""
        loop = asyncio.get_running_loop()
        self._tick(loop)
        self._server = await loop.create_server(self._connect, sock=sock, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Nothing listens any more, and every connection has ended."""
        if self._clock:
            self._clock.cancel()
        if self._server:
            self._server.close()
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.05)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
        await asyncio.sleep(0)

    def _connect(self) -> asyncio.Protocol:
        return Connection(self._config, self._state, self._app_state)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """The Date header is right, to the second; it is the simulation's date."""
        date = email.utils.formatdate(self._world.clock.epoch(), usegmt=True).encode()
        self._state.default_headers = [(b"date", date), (b"server", b"Kestrel")]
        self._clock = loop.call_later(1.0, self._tick, loop)
