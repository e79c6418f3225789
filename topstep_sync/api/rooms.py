"""The typed API in one piece: the seven rooms, each with what it needs of the others."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from topstep_sync.api.accounts import AccountsApi
from topstep_sync.api.arguments import account_number
from topstep_sync.api.contracts import ContractsApi
from topstep_sync.api.guard import Guard
from topstep_sync.api.history import HistoryApi
from topstep_sync.api.orders import OrdersApi
from topstep_sync.api.positions import PositionsApi
from topstep_sync.api.results import Report
from topstep_sync.api.seam import Call, Listen
from topstep_sync.api.status import StatusApi
from topstep_sync.api.trades import TradesApi
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Waitable
from topstep_sync.config import Config
from topstep_sync.models import Account, Order
from topstep_sync.tables import Rows


class Rooms:
    """What `Session` hangs up as `accounts contracts history orders positions trades status`.

    Args:
        call: `Session.call`.
        get: the text of a GET of a path, for the ping.
        listen: account id → a context in which its user hub is heard (`seam.Listen`); `None`: no stream, ever.
        skew: seconds the gateway's clock is ahead of ours.
        closed: set when the session closes; ends every wait.
    """

    def __init__(
        self,
        call: Call,
        *,
        get: Callable[[str], str],
        config: Config | None = None,
        clock: Clock = SYSTEM_CLOCK,
        listen: Listen | None = None,
        skew: Callable[[], float] = float,
        closed: Waitable | None = None,
    ) -> None:
        settings = config or Config()
        self.accounts: Final = AccountsApi(call)
        self.contracts: Final = ContractsApi(call, clock=clock)
        self.history: Final = HistoryApi(call, self.contracts, clock=clock, rate=settings.rate)
        self.positions: Final = PositionsApi(call, config=settings.orders, clock=clock, closed=closed)
        self.trades: Final = TradesApi(call)
        self.status: Final = StatusApi(get, clock=clock)
        self.orders: Final = OrdersApi(
            call,
            self.contracts,
            self.positions,
            config=settings.orders,
            clock=clock,
            accounts=lambda: self.accounts.search(only_active=False),
            last_price=self.history.last_price,
            guard=self._guard(settings, clock, skew),
            listen=listen,
            skew=skew,
            closed=closed,
            longest_call=settings.http.total_timeout,
        )
        self.positions.sweep = self.orders.sweeper.cancel_all

    def _guard(self, settings: Config, clock: Clock, skew: Callable[[], float]) -> Guard:
        def recent(account_id: int, since: float) -> Rows[Order]:
            start = since + skew() - settings.orders.search_margin
            return self.orders.search(account_id, datetime.fromtimestamp(start, UTC))

        return Guard(
            settings.guard,
            clock=clock,
            positions=self.positions.urgent,
            working=lambda account_id, contract_id: self.orders.working(account_id, contract_id),
            trades=self.trades.search,
            recent=recent,
        )

    def flatten(self, account_id: int | Account, *, timeout: float = 30.0) -> Report:
        """The account has no working order and no position: all orders cancelled, all positions closed at the market.

        The kill switch. It passes an open breaker, uses the permits that the rate limiter keeps back, goes on with what
        works where something does not, and reads the end back from the gateway. The report is false, and says what is
        left and why, if the account is not known to be flat.

        Args:
            timeout: seconds after which it gives up and reports.
        """
        return self.orders.sweeper.flatten(account_number(account_id), timeout)
