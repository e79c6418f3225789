"""The one place that knows everybody: a `requests.Session` for the gateway, with the typed rooms beside it."""

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from topstep_sync import errors
from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import Config
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.bearer import MISSING
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.typed import TypedSession

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
    from topstep_sync.models import Account

log = logging.getLogger("topstep_sync.session")


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
        self._closed = threading.Event()
        self._service = GatewayAuth(self.config, clock=clock)
        self.tokens: Final = TokenManager(self.config, self._service, clock=clock)
        self._limiter: Final = RateLimiter(self.config, clock=clock)
        adapter = ResilientAdapter(
            self.config,
            tokens=self.tokens,
            limiter=self._limiter,
            can_login=lambda: self._service.can_login,
            clock=clock,
            closed=self._closed,
        )
        self._lock = threading.Lock()  # guards the making of what is made on first use
        self._settle_at(self.config, adapter, clock)

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
        return self._rooms.accounts

    @property
    def contracts(self) -> "ContractsApi":
        """What can be traded."""
        return self._rooms.contracts

    @property
    def history(self) -> "HistoryApi":
        """Bars."""
        return self._rooms.history

    @property
    def orders(self) -> "OrdersApi":
        """Orders: place, change, cancel, look up."""
        return self._rooms.orders

    @property
    def positions(self) -> "PositionsApi":
        """Open positions, and closing them."""
        return self._rooms.positions

    @property
    def trades(self) -> "TradesApi":
        """Fills."""
        return self._rooms.trades

    @property
    def status(self) -> "StatusApi":
        """Whether the gateway answers."""
        return self._rooms.status

    def flatten(self, account_id: "int | Account", *, timeout: float = 30.0) -> "Report":
        """The account has no working order and no position; see `Rooms.flatten`. The report is false if it has.

        Args:
            timeout: seconds after which it gives up and reports.
        """
        return self._rooms.flatten(account_id, timeout=timeout)

    @property
    def _rooms(self) -> "Rooms":
        found: Rooms | None = self.__dict__.get("_made_rooms")
        return self._furnish() if found is None else found

    def _furnish(self) -> "Rooms":
        # Imported here: a script that only posts pays nothing for the rooms.
        from topstep_sync.api.rooms import Rooms

        with self._lock:
            if "_made_rooms" not in self.__dict__:
                self.__dict__["_made_rooms"] = Rooms(
                    self.call,
                    get=self.get_text,
                    config=self.config,
                    clock=self._clock,
                    skew=self._adapter.skew,
                    closed=self._closed,
                )
            rooms: Rooms = self.__dict__["_made_rooms"]
        return rooms

    ################################################### the end ###################################################

    def close(self) -> None:
        """Every wait of this session has ended, and its threads and connections are gone. May be called twice."""
        self._closed.set()
        self.tokens.close()
        self._limiter.close()
        super().close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Session holds a token and open connections and is not pickled; make one in each process")

    def __repr__(self) -> str:
        user = f"{self.config.user_name!r}, " if self.config.user_name else ""
        return f"Session({user}base_url={self.config.base_url!r})"
