"""The one place that knows everybody: a `requests.Session` for the gateway, with the typed rooms beside it."""

import contextlib
import functools
import logging
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import requests

from topstep_sync import errors
from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.transport import PlainPost
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Signal
from topstep_sync.config import Config
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.bearer import MISSING
from topstep_sync.http.guarded import GuardedPost
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.routes import Circuit, Priority
from topstep_sync.http.shared_budget import open_budget
from topstep_sync.http.telemetry import Listener
from topstep_sync.http.typed import TypedSession
from topstep_sync.http.warmth import Warmth

if TYPE_CHECKING:
    from topstep_sync.api.accounts import AccountsApi
    from topstep_sync.api.contracts import ContractsApi
    from topstep_sync.api.history import HistoryApi
    from topstep_sync.api.orders import OrdersApi
    from topstep_sync.api.positions import PositionsApi
    from topstep_sync.api.results import Report
    from topstep_sync.api.rooms import Rooms
    from topstep_sync.api.status import StatusApi
    from topstep_sync.api.trades import TradesApi
    from topstep_sync.auth.token_storage import TokenStorage
    from topstep_sync.doctor import Diagnosis
    from topstep_sync.health import SessionHealth
    from topstep_sync.http.budgets import Budgets
    from topstep_sync.models import Account
    from topstep_sync.realtime.queue import EventQueue
    from topstep_sync.realtime.state import TradingState
    from topstep_sync.realtime.stream import Stream

log = logging.getLogger("topstep_sync.session")

PING: Final = "/api/Status/ping"


class Session(TypedSession):
    """A `requests.Session` for the gateway. Thread-safe in what it adds: one session may serve every thread.

    Args:
        user_name: platform login (not the e-mail address).
        api_key: key from TopstepX, Settings, API.
        config: a `Config` or a mapping; None: what the ``TOPSTEP_*`` variables describe.
        base_url: another gateway, such as a simulator.
        clock: where it gets its time from.

    A call without a timeout has the configured ones (connect 5 s, read 20 s); ``timeout=None`` means these, too.
    Whatever the timeouts, a call as a whole ends within `HttpConfig.total_timeout`.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """

    def __init__(
        self,
        user_name: str | None = None,
        api_key: str | None = None,
        *,
        config: Config | Mapping[str, Any] | None = None,
        base_url: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        given_here = {"user_name": user_name, "api_key": api_key, "base_url": base_url}
        changes = {name: value for name, value in given_here.items() if value is not None}
        found = Config.from_env() if config is None else Config.of(config)
        self.config: Final = found.replace(**changes) if changes else found
        self._closed = Signal()
        self._closing: int | None = None  # the thread that is at it
        self._service = GatewayAuth(self.config, post=lambda *call: self._auth_post(*call), clock=clock)
        self.tokens: Final = TokenManager(self.config, self._service, clock=clock, storage=self._storage())
        self._limiter: Final = RateLimiter(self.config, clock=clock, budget=open_budget(self.config, clock=clock))
        adapter = ResilientAdapter(
            self.config,
            tokens=self.tokens,
            limiter=self._limiter,
            can_login=lambda: self._service.can_login,
            clock=clock,
            closed=self._closed,
        )
        plain = PlainPost(self.config, clock, self._settings)
        self._auth_post = GuardedPost(plain, self._limiter, adapter.breakers[Circuit.AUTH], clock)
        self._keep_warm = False  # whether it was asked for
        self._lock = threading.Lock()  # guards the making of what is made on first use
        self._furnished: Rooms | None = None
        self._stream: Stream | None = None
        self._settle_at(self.config, adapter, clock)
        self._warmth = Warmth(self._ping, self.config.http.max_idle / 4, clock)
        self._queues: list[EventQueue] = []  # open ones, and some that were closed since

    def _storage(self) -> "TokenStorage | None":
        if self.config.token.memory_only:
            return None
        from topstep_sync.auth.token_storage import storage_for  # cryptography is loaded only where it is used

        return storage_for(self.config)

    @classmethod
    def from_env(cls, **changes: Any) -> Self:
        """A session as the ``TOPSTEP_*`` variables describe it; *changes* are fields of `Config` and win over them.

        Raises:
            MissingCredentials: there is no user name or no API key.
            ConfigError: a variable names no setting, or its value does not fit.
        """
        clock = changes.pop("clock", SYSTEM_CLOCK)
        session = cls(config=Config.from_env(**changes), clock=clock)
        if not session._service.can_login:
            session.close()
            raise errors.MissingCredentials(MISSING)
        return session

    ################################################ the typed rooms ################################################

    @property
    def accounts(self) -> "AccountsApi":
        """Trading accounts."""
        return (self._furnished or self._furnish()).accounts

    @property
    def contracts(self) -> "ContractsApi":
        """What can be traded."""
        return (self._furnished or self._furnish()).contracts

    @property
    def history(self) -> "HistoryApi":
        """Bars."""
        return (self._furnished or self._furnish()).history

    @property
    def orders(self) -> "OrdersApi":
        """Orders: place, change, cancel, look up."""
        return (self._furnished or self._furnish()).orders

    @property
    def positions(self) -> "PositionsApi":
        """Open positions, and closing them."""
        return (self._furnished or self._furnish()).positions

    @property
    def trades(self) -> "TradesApi":
        """Fills."""
        return (self._furnished or self._furnish()).trades

    @property
    def status(self) -> "StatusApi":
        """Whether the gateway answers."""
        return (self._furnished or self._furnish()).status

    def flatten(self, account_id: "int | Account", *, timeout: float = 30.0) -> "Report":
        """The account has no working order and no position; see `Rooms.flatten`. The report is false if it has.

        Args:
            timeout: seconds after which it gives up and reports.
        """
        return (self._furnished or self._furnish()).flatten(account_id, timeout=timeout)

    def _furnish(self) -> "Rooms":
        with self._lock:
            if self._furnished is None:
                self._furnished = self._make_rooms(self.call)
            return self._furnished

    def _make_rooms(self, call: Callable[..., Any]) -> "Rooms":
        # Imported here: a script that only posts pays nothing for the rooms.
        from topstep_sync.api.rooms import Rooms

        return Rooms(
            call,
            get=self.get_text,
            config=self.config,
            clock=self._clock,
            listen=self._listen,
            skew=self._adapter.skew,
            closed=self._closed,
        )

    ################################################# the stream #################################################

    def subscribe(
        self,
        *,
        accounts: Iterable[int] = (),
        quotes: Iterable[str] = (),
        trades: Iterable[str] = (),
        depth: Iterable[str] = (),
        **options: Any,
    ) -> "EventQueue":
        """A queue that gets the events asked for, from now on, until it is closed; see `realtime.stream.Stream`.

        Several may be open at once, one per strategy; they share the two hub connections. While one is open, REST
        connections are kept warm, too.

        Raises:
            InvalidRequest: nothing was asked for, or not as ids.
            StreamError: the hubs did not agree in time. Nothing is subscribed.
            SessionClosed: the session is closed, perhaps meanwhile.
        """
        stream = self._streaming()
        if self._closed.is_set():  # in time for a stream that `close` has not seen
            stream.close()
        queue = stream.subscribe(accounts=accounts, quotes=quotes, trades=trades, depth=depth, **options)
        try:
            self._queues = [*(known for known in self._queues if not known.closed), queue]
            self._warmth.start()
        except BaseException:
            queue.close()
            raise
        return queue

    @property
    def state(self) -> "TradingState":
        """Accounts, working orders and positions of every subscribed account, as last known; costs nothing to read."""
        return self._streaming().state

    def _streaming(self) -> "Stream":
        return self._stream or self._open_stream()

    def _open_stream(self) -> "Stream":
        from topstep_sync import snapshots
        from topstep_sync.realtime.stream import Stream

        with self._lock:
            if self._stream is None:
                self._stream = Stream(
                    self.config,
                    self.tokens,
                    snapshot=functools.partial(snapshots.fetch, self._make_rooms(self._urgent_call)),
                    clock=self._clock,
                    tls=self.tls_context(),
                    skew=self._adapter.skew,
                    listener=self._adapter.telemetry.listener,
                )
            return self._stream

    def _urgent_call(self, *arguments: Any, **options: Any) -> Any:
        """`call` before all others: until the snapshot is here, nobody knows what the account holds."""
        return self.call(*arguments, **{**options, "priority": Priority.URGENT})

    def tls_context(self) -> ssl.SSLContext | None:
        """How the hubs are verified: as `verify` and `cert` say; `None`: against the system's authorities.

        Raises:
            ConfigError: `verify` is off: a hub's address carries the token, so it is never sent to just anybody.
        """
        settings = self._settings()
        verify, cert = settings["verify"], settings["cert"]
        if verify is False:
            raise errors.ConfigError(
                "verify=False is for REST calls only; name the hub's CA instead: session.verify = 'ca.pem'"
            )
        if verify is True and cert is None:
            return None
        from topstep_sync.realtime.opening import trusting_context

        return trusting_context(None if verify is True else str(verify), cert)

    def _listen(self, account_id: int) -> AbstractContextManager[Any]:
        """The user hub of *account_id*, where some queue hears it already; nothing is connected for this."""
        if account_id not in {account.id for account in self._heard()}:
            return contextlib.nullcontext()
        return self._streaming().subscribe(accounts=[account_id], wait=0.0)

    def _heard(self) -> "Iterable[Account]":
        return self.state.accounts.values() if self._stream is not None else ()

    ################################################ how it is doing ################################################

    def keep_warm(self, on: bool = True) -> None:
        """Idle connections are kept open by a free ping, so that an order after a quiet hour pays no handshake.

        On by itself while an event queue is open.
        """
        self._keep_warm = on
        if on:
            self._warmth.start()
        elif not self._open_queues():
            self._warmth.stop()

    def _open_queues(self) -> "list[EventQueue]":
        self._queues = [queue for queue in self._queues if not queue.closed]
        return self._queues

    def _ping(self) -> None:
        if self._closed.is_set() or not (self._keep_warm or self._open_queues()):
            self._warmth.stop()
            return
        request = self.prepare_request(requests.Request("GET", PING))
        self._adapter.warm(request, **self._settings())

    def budget(self) -> "Budgets":
        """How much of the gateway's rate limits is used; shows itself in a shell and in a notebook."""
        return self._limiter.budget()

    def skew(self) -> float:
        """Seconds the gateway's clock is ahead of this machine's, by its last reply; 0.0 when it cannot be told."""
        return self._adapter.skew()

    def health(self) -> "SessionHealth":
        """How stream, token, breakers and budget do, from what is known here; no request is made."""
        from topstep_sync.health import SessionHealth

        return SessionHealth(
            stream=None if self._stream is None else self._stream.health(),
            token=self.tokens.get_state(),
            circuits={name.value: breaker.state for name, breaker in self._adapter.breakers.items()},
            budget_trouble=str(self._limiter.health()["why"]),
        )

    def doctor(self) -> "Diagnosis":
        """Settings, route, REST, clock, login and both hubs were looked at; what is wrong comes with what to do.

        Takes a few calls and two short hub connections; places no order.
        """
        from topstep_sync.doctor import examine

        return examine(self, self._clock)

    def stats(self) -> dict[str, Any]:
        """What happened so far: errors and retries, breakers, permits, token. Plain values, for logs and dashboards."""
        adapter = self._adapter
        return {
            "calls": {**adapter.handler.get_stats(), "refused_in_envelope": adapter.rejections},
            "breakers": {breaker.name: breaker.get_stats() for breaker in adapter.breakers.values()},
            "limits": self._limiter.get_stats(),
            "token": self.tokens.stats(),
        }

    def listen(self, listener: Listener) -> Callable[[], None]:
        """*listener* hears of every attempt, retry, change of a breaker, and of what the stream tells about itself.

        The function returned ends that. It runs on the thread of the call, or on one of the stream's own; what it
        raises is logged and goes no further.
        """
        return self._adapter.telemetry.listen(listener)

    def instrument(self, *, tracer_provider: Any = None, meter_provider: Any = None) -> Callable[[], None]:
        """Every attempt is a span and a duration of OpenTelemetry, every gap of the stream a span, states are counted.

        The function returned ends that.

        Raises:
            MissingExtra: the extra ``otel`` is not installed.
        """
        from topstep_sync.http.otel import OpenTelemetry

        return self.listen(OpenTelemetry(tracer_provider, meter_provider))

    ################################################### the end ###################################################

    def close(self) -> None:
        """Every wait of this session has ended, and its threads and connections are gone. May be called twice.

        By a signal's handler, too; one that comes in the middle of this leaves it to this.
        """
        self._closed.set()
        if self._closing == threading.get_ident():
            return
        self._closing = threading.get_ident()
        try:
            self._warmth.stop()
            if self._stream is not None:
                self._stream.close()
            self.tokens.close()
            self._limiter.close()
            super().close()
        finally:
            self._closing = None

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Session holds a token and open connections and is not pickled; make one in each process")

    def __repr__(self) -> str:
        user = f"{self.config.user_name!r}, " if self.config.user_name else ""
        return f"Session({user}base_url={self.config.base_url!r})"
