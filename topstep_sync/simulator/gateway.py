"""A gateway on a thread of its own, and the handle by which tests and programs steer it."""

import asyncio
import concurrent.futures
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Self, TypeVar

import msgspec

from topstep_sync.models import Order, OrderStatus
from topstep_sync.simulator import steering
from topstep_sync.simulator.control import PREFIX, Control
from topstep_sync.simulator.evidence import Arrival
from topstep_sync.simulator.fault_desk import FaultDesk
from topstep_sync.simulator.hub_desk import HubDesk
from topstep_sync.simulator.hub_negotiate import Negotiation
from topstep_sync.simulator.hub_replay import play_on_demand
from topstep_sync.simulator.hub_server import Hubs
from topstep_sync.simulator.rest import Rest
from topstep_sync.simulator.server import Server
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.status_page import StatusPage
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

PATIENCE: Final = 30.0
"""Seconds that a question to the simulation's thread may take."""

T = TypeVar("T")


class GatewayClosed(RuntimeError):
    """The gateway is not running (any more)."""


class Simulator:
    """A running gateway. Every method is thread-safe and returns within `PATIENCE` seconds.

    Args:
        settings: switches of `Settings`, by name.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: Final = Settings.of(**settings)
        self.user_name: Final = self.settings.user_name
        self.api_key: Final = self.settings.api_key
        self.faults: Final = FaultDesk(self.run)
        self.hubs: Final = HubDesk(self._ask_hubs, self._await_hubs)
        self._hubs: Hubs | None = None
        self._world: World | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Server | None = None
        self._stop: asyncio.Event | None = None
        self._port = 0

    ############################################# life #############################################

    def start(self) -> Self:
        """The gateway answers on its port."""
        if self._thread is not None:
            raise GatewayClosed("a gateway runs once: make a new one")
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        sock = socket.create_server((self.settings.host, self.settings.port), family=family)
        self._port = sock.getsockname()[1]
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run_loop, args=(sock, ready), name="topstep-simulator", daemon=True
        )
        self._thread.start()
        ready.result(PATIENCE)
        return self

    def close(self) -> None:
        """Nothing listens any more and the thread has ended, within two seconds. Again: nothing happens."""
        loop, thread, stop = self._loop, self._thread, self._stop
        if loop is None or thread is None or stop is None or not thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # it ended in between
            loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})" if self._port else f"{type(self).__name__}(not started)"

    def _run_loop(self, sock: socket.socket, ready: "concurrent.futures.Future[None]") -> None:
        asyncio.run(self._main(sock, ready))

    async def _main(self, sock: socket.socket, ready: "concurrent.futures.Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            self._world = world = World(self.settings)
            world.clock.attach(self._loop)
            self._server = self._assemble(world)
            await self._server.start(sock)
        except BaseException as error:
            sock.close()
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stop.wait()
        world.clock.detach()
        self._running_hubs().detach()
        await self._server.stop()
        self._world = None

    def _assemble(self, world: World) -> Server:
        self._hubs = Hubs(world)
        self._hubs.attach(asyncio.get_running_loop())
        play_on_demand(self._hubs)
        rest = Rest(world)
        rest.mount("/hubs", Negotiation(self._hubs))
        rest.mount(PREFIX, Control(world, self._hubs))
        rest.mount("/", StatusPage())
        return Server(world, rest, self._hubs.protocol)

    def _running_hubs(self) -> Hubs:
        assert self._hubs is not None
        return self._hubs

    def _ask_hubs(self, question: Callable[[Hubs], T]) -> T:
        return self.run(lambda _: question(self._running_hubs()))

    def _await_hubs(self, question: Callable[[Hubs], Coroutine[Any, Any, T]], patience: float) -> T:
        loop = self._loop
        if loop is None or self._world is None:
            raise GatewayClosed("the gateway is not running: use it in a with block, or call start()")
        return asyncio.run_coroutine_threadsafe(question(self._running_hubs()), loop).result(patience)

    def run(self, question: Callable[[World], T]) -> T:
        """What *question* says of the world, asked on its own thread.

        Raises:
            GatewayClosed: it is not running.
        """
        if threading.current_thread() is self._thread and self._world is not None:
            return question(self._world)
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def ask() -> None:
            try:
                if self._world is None:
                    raise GatewayClosed("the gateway has been closed")
                answer.set_result(question(self._world))
            except BaseException as error:
                answer.set_exception(error)

        if self._loop is None or self._world is None:
            raise GatewayClosed("the gateway is not running: use it in a with block, or call start()")
        try:
            self._loop.call_soon_threadsafe(ask)
        except RuntimeError:  # the loop ended in between
            raise GatewayClosed("the gateway has been closed") from None
        return answer.result(PATIENCE)

    ############################################# addresses #############################################

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Base URL of the REST side."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._port}"

    @property
    def user_hub_url(self) -> str:
        return f"{self.url}/hubs/user"

    @property
    def market_hub_url(self) -> str:
        return f"{self.url}/hubs/market"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that make `Config.from_env` talk to this gateway."""
        return {
            "TOPSTEP_USERNAME": self.user_name,
            "TOPSTEP_API_KEY": self.api_key,
            "TOPSTEP_BASE_URL": self.url,
            "TOPSTEP_USER_HUB_URL": self.user_hub_url,
            "TOPSTEP_MARKET_HUB_URL": self.market_hub_url,
        }

    ############################################# evidence #############################################

    @property
    def requests(self) -> list[Arrival]:
        """Everything that arrived, oldest first, as copies."""
        return self.run(lambda world: [msgspec.structs.replace(a) for a in world.evidence.arrivals])

    @property
    def executed_orders(self) -> list[Order]:
        """Every order that was accepted (not refused), oldest first, brackets' legs not included."""
        return self.run(_executed)

    def worst_window(self, kind: str, window: float | None = None, *, refused: bool = True) -> int:
        """The most calls of a class (`general`, `history`) that came within any window, refused ones included or not.

        Args:
            window: length in seconds; None: the gateway's own.
        """

        def worst(world: World) -> int:
            length = world.limits.limit(kind)[1] if window is None else window
            return world.evidence.worst(kind, length, refused=refused)

        return self.run(worst)

    ############################################# steering #############################################

    def set_price(self, contract_id: str, price: float | None) -> None:
        """The market stands at *price*; what it reaches has been filled. None: it has no price yet."""
        self.run(lambda world: world.markets.set_price(contract_id, price))

    def last_price(self, contract_id: str) -> float:
        """Where the market stands."""

        def last(world: World) -> float:
            market = world.markets.get(contract_id)
            if market is None:
                raise ValueError(f"no active contract {contract_id!r}")
            return market.instrument.price(market.last)

        return self.run(last)

    def set_market_rate(self, rate: float) -> None:
        """Watched markets take *rate* steps per second; 0: they stand still."""
        self.run(lambda world: world.markets.set_rate(rate))

    def advance(self, seconds: float) -> None:
        """Simulation time is *seconds* later, and everything due by then has happened."""
        self.run(lambda world: world.clock.advance(seconds))

    def set_speed(self, speed: float) -> None:
        """Simulation time runs at *speed* seconds per real one from now on; 0: only `advance` moves it."""
        self.run(lambda world: world.clock.set_speed(speed))

    def drop_hubs(self, hub: str = "all", how: str = "abort") -> int:
        """Every connection of *hub* has been dropped; how many that were. The ways are in `hub_server.DROPS`."""
        return self.hubs.drop(hub, how)

    def revoke_tokens(self) -> None:
        """No token issued so far is taken any more."""
        self.run(lambda world: world.tokens.revoke())

    def fill(self, order_id: int, size: int, price: float) -> None:
        """*size* contracts of a working order are filled at *price*, whatever the market says."""
        self.run(lambda world: steering.fill(world, order_id, size, price))

    def set_account(self, account_id: int, **changes: Any) -> None:
        """The account's `balance`, `can_trade`, `auto_oco`, `follower` or `violation` are as given."""
        self.run(lambda world: steering.change_account(world, account_id, changes))


def _executed(world: World) -> list[Order]:
    orders: Iterator[Any] = (
        o for o in world.exchange.orders.values() if o.status is not OrderStatus.REJECTED and o.parent is None
    )
    return [msgspec.convert(o.wire(), Order) for o in orders]
