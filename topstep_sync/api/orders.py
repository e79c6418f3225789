"""`session.orders`: one intent, at most one order."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, Unpack, overload

from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync.api import tags, ticket
from topstep_sync.api.arguments import account_number, instant
from topstep_sync.api.contracts import ContractsApi
from topstep_sync.api.intent import OPEN, State
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import Intent, Ledger, Sought
from topstep_sync.api.lookup import SEARCH, SEARCH_OPEN, Lookup
from topstep_sync.api.placing import Placer
from topstep_sync.api.results import PlacedOrder
from topstep_sync.api.seam import Call, Deaf, Listen, present
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import OrderConfig
from topstep_sync.errors import InvalidRequest, OrderStateUnknown, TopstepError
from topstep_sync.messages import ByAccount, OrdersReply, PlaceOrder, SearchOrders
from topstep_sync.models import Account, Contract, Order, OrderSide
from topstep_sync.tables import Rows

DAY: Final = 86400.0


class OrdersApi:
    """Orders of the user's accounts. Thread-safe.

    Args:
        accounts: every account of the user; asked only when a tag is verified that nothing is known about.
        last_price: contract id → the latest price of the market.
        listen: hears the user hub while an order is placed or waited for.
        skew: seconds the gateway's clock is ahead of ours.
        closed: set when the session closes.
    """

    def __init__(
        self,
        call: Call,
        contracts: ContractsApi,
        *,
        config: OrderConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
        accounts: Callable[[], Iterable[Account]] = tuple,
        last_price: Callable[[Contract], float | None] = lambda _: None,
        listen: Listen | None = None,
        skew: Callable[[], float] = float,
        closed: threading.Event | None = None,
    ) -> None:
        self._call = call
        self._contracts = contracts
        self._config = config or OrderConfig()
        self._clock = clock
        self._accounts = accounts
        self._last_price = last_price
        self._ledger = Ledger()
        self._lookup = Lookup(call, self._config, skew)
        self._journal = None if self._config.journal_path is None else Journal(self._config.journal_path)
        self._placer = Placer(
            call,
            self._lookup,
            self._ledger,
            self._config,
            clock=clock,
            listen=listen or Deaf(),
            closed=closed or threading.Event(),
            journal=self._journal,
        )

    def search(self, account_id: int | Account, start: Any, end: Any = None) -> Rows[Order]:
        """The account's orders from *start* to *end* (default: now), ended ones too, oldest first."""
        request = SearchOrders(
            account_id=account_number(account_id),
            start_timestamp=instant(start, "start"),
            end_timestamp=UNSET if end is None else instant(end, "end"),
        )
        found = present(self._call(SEARCH, request, OrdersReply).orders, SEARCH, "orders")
        return Rows(sorted(found, key=lambda order: (order.creation_timestamp, order.id)))

    def search_open(self, account_id: int | Account) -> Rows[Order]:
        """The account's open orders; without bracket legs that wait for their entry, which `query` shows."""
        reply = self._call(SEARCH_OPEN, ByAccount(account_id=account_number(account_id)), OrdersReply)
        return Rows(present(reply.orders, SEARCH_OPEN, "orders"))

    @overload
    def place(
        self,
        account_id: int | Account,
        contract_id: str | Contract,
        *,
        side: OrderSide | str,
        size: int,
        label: str | None = None,
        custom_tag: str | None = None,
        resend: bool | Callable[[], bool] = False,
        timeout: float | None = None,
        dry_run: Literal[False] = False,
        **terms: Unpack[ticket.Terms],
    ) -> PlacedOrder: ...
    @overload
    def place(
        self,
        account_id: int | Account,
        contract_id: str | Contract,
        *,
        side: OrderSide | str,
        size: int,
        label: str | None = None,
        custom_tag: str | None = None,
        resend: bool | Callable[[], bool] = False,
        timeout: float | None = None,
        dry_run: Literal[True],
        **terms: Unpack[ticket.Terms],
    ) -> PlaceOrder: ...
    def place(
        self,
        account_id: int | Account,
        contract_id: str | Contract,
        *,
        side: OrderSide | str,
        size: int,
        label: str | None = None,
        custom_tag: str | None = None,
        resend: bool | Callable[[], bool] = False,
        timeout: float | None = None,
        dry_run: bool = False,
        **terms: Unpack[ticket.Terms],
    ) -> PlacedOrder | PlaceOrder:
        """The gateway has the order, exactly once; when the reply is lost, it was looked up by its tag.

        Args:
            side: ``buy`` or ``sell``.
            size: contracts.
            label: prefix of the minted tag, such as a strategy's name; letters, digits, `_ . -`.
            custom_tag: a tag of your own instead. Unique in the account for ever; rejected orders use it up, too.
            resend: whether an order that was looked for in vain may be sent once more, with the same tag; or a
                function that is asked then whether it is still wanted.
            timeout: seconds for one attempt; the look-up comes on top.
            dry_run: send nothing, and return what would be sent.
            terms: type, prices and brackets; see `ticket.Terms`. Without a type, the prices say it.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            NotSent: refused here, or never sent; the same tag may be sent again.
            OrderRejected: the gateway refused it.
            OrderStateUnknown: it may exist; `verify` its tag before placing another.
        """
        wish = ticket.Wish(account_id=account_id, contract_id=contract_id, side=side, size=size, **terms)
        request = self._ready(wish, label, custom_tag)
        if dry_run:
            return request
        assert isinstance(request.custom_tag, str)
        entry = Intent(request, request.custom_tag, self._clock.epoch(), minted=custom_tag is None)
        wanted = resend if callable(resend) else (lambda: True) if resend else None
        return self._placer.place(entry, wanted, timeout)

    def buy(self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Any) -> PlacedOrder:
        """`place` with ``side="buy"``; at the market unless a price is given."""
        placed: PlacedOrder = self.place(account_id, contract_id, side="buy", size=size, **rest)
        return placed

    def sell(self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Any) -> PlacedOrder:
        """`place` with ``side="sell"``; at the market unless a price is given."""
        placed: PlacedOrder = self.place(account_id, contract_id, side="sell", size=size, **rest)
        return placed

    def verify(
        self, custom_tag: str, *, account_id: int | Account | None = None, since: Any = None, wait: bool = True
    ) -> Order | None:
        """The order that carries *custom_tag*, in any status, or `None`: there is no such order.

        Args:
            account_id: where to look; not needed for tags of this process, else every account is asked.
            since: aware datetime before which it cannot have been placed; default: what is known of the tag, and a
                day for one that says nothing.
            wait: keep looking for as long as the order might still appear, at most 16 s after it was sent.

        Raises:
            OrderStateUnknown: the look-ups failed, so nothing is known.
        """
        entry = self._ledger.find(tags.checked(custom_tag))
        if entry is not None and (entry.state in OPEN or entry.state is State.ABSENT) and entry.flight is None:
            return self._placer.settle(entry, wait=wait)
        failed: OrderStateUnknown | None = None
        for sought in self._sought(custom_tag, entry, account_id, since):
            order, error = self._placer.seek(sought, wait=wait)
            if order is not None:
                return order
            if error is not None:
                failed = self._placer.unknown(sought, error)
        if failed is not None:
            raise failed
        return None

    def _sought(self, tag: str, entry: Intent | None, account_id: int | Account | None, since: Any) -> list[Sought]:
        if entry is not None:
            return [entry.sought]
        begun = instant(since, "since").timestamp() if since is not None else tags.minted_at(tag)
        begun = self._clock.epoch() - DAY if begun is None else begun
        if account_id is not None:
            return [Sought(account_number(account_id), tag, begun)]
        try:
            return [Sought(account.id, tag, begun) for account in self._accounts()]
        except TopstepError as error:
            raise self._placer.unknown(Sought(0, tag, begun), error) from error

    def _ready(self, wish: ticket.Wish, label: str | None, custom_tag: str | None) -> PlaceOrder:
        """The request with its tag, checked against its contract where prices are involved."""
        if label is not None and custom_tag is not None:
            raise InvalidRequest("give a label (and the tag is minted) or a custom_tag, not both")
        tag = tags.mint(label, self._clock.epoch()) if custom_tag is None else tags.checked(custom_tag)
        ticket.check(wish)
        contract = last = None
        if wish.needs_contract:
            given = wish.contract_id
            contract = given if isinstance(given, Contract) else self._contracts.get(given)
        if contract is not None and wish.needs_last:
            last = self._last_price(contract)
        return replace(ticket.write(wish, contract, last), custom_tag=tag)
