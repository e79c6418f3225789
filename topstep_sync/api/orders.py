"""`session.orders`: one intent, at most one order."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, Unpack, overload

from msgspec import UNSET

from topstep_sync.api import tags, ticket
from topstep_sync.api.arguments import account_number, choice, contract_name, instant, order_key, several
from topstep_sync.api.changing import DAY, Changer
from topstep_sync.api.contracts import ContractsApi
from topstep_sync.api.guard import Guard
from topstep_sync.api.history import WEEK
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import Intent, Ledger
from topstep_sync.api.lookup import SEARCH, SEARCH_BY_ID, SEARCH_OPEN, Lookup
from topstep_sync.api.placing import Placer
from topstep_sync.api.positions import PositionsApi
from topstep_sync.api.results import CancelResult, ModifyResult, PlacedOrder, Recovered, Report
from topstep_sync.api.seam import Call, Deaf, Listen, present
from topstep_sync.api.sweeping import Sweeper
from topstep_sync.api.verifying import Verifier
from topstep_sync.api.waiting import Waiter
from topstep_sync.clock import SYSTEM_CLOCK, Clock, Signal, Waitable
from topstep_sync.config import HttpConfig, OrderConfig
from topstep_sync.errors import InvalidRequest, OrderNotFound
from topstep_sync.messages import ByAccount, OrderFilter, OrdersReply, PlaceOrder, SearchOrders
from topstep_sync.models import Account, Contract, Order, OrderSide, OrderStatus
from topstep_sync.tables import Rows

FRESH: Final = 120.0  # GUESS: seconds after which the newest minute bar says little about how far a price is from it


class OrdersApi:
    """Orders of the user's accounts. Thread-safe.

    Args:
        accounts: every account of the user; asked only when a tag is verified that nothing is known about.
        last_price: contract and seconds → the latest price of the market, if it is no older.
        guard: the rules under which new risk is refused.
        listen: hears the user hub while an order is placed or waited for.
        skew: seconds the gateway's clock is ahead of ours.
        closed: set when the session closes.
        longest_call: seconds after which a call for which nobody gave a timeout has ended.
    """

    def __init__(
        self,
        call: Call,
        contracts: ContractsApi,
        positions: PositionsApi,
        *,
        config: OrderConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
        accounts: Callable[[], Iterable[Account]] = tuple,
        last_price: Callable[[Contract, float], float | None] = lambda *_: None,
        guard: Guard | None = None,
        listen: Listen | None = None,
        skew: Callable[[], float] = float,
        closed: Waitable | None = None,
        longest_call: float = HttpConfig.total_timeout,
    ) -> None:
        self._call = call
        self._contracts = contracts
        self._clock = clock
        self._last_price = last_price
        self._guard = guard if guard is not None and guard.on else None
        self._ledger = Ledger()
        settings, shut, ears = config or OrderConfig(), closed or Signal(), listen or Deaf()
        journal = None if settings.journal_path is None else Journal(settings.journal_path)
        # A tag that an earlier process left open is looked up, not sent again as if nobody had heard of it.
        for line in () if journal is None else journal.open_intents():
            self._ledger.adopt(line.intent(clock.epoch()))
        self._lookup = Lookup(call, settings, skew, clock)
        self._placer = Placer(
            call, self._lookup, self._ledger, settings,
            clock=clock, listen=ears, closed=shut, journal=journal, longest_call=longest_call,
        )  # fmt: skip
        self._verifier = Verifier(self._placer, self._ledger, journal, accounts, clock)
        self._changer = Changer(call, self._lookup, settings, clock, shut)
        self._waiter = Waiter(self._lookup, clock, ears, shut)
        self.sweeper: Final = Sweeper(
            call, self._lookup, positions, horizon=self._placer.horizon, clock=clock, closed=shut
        )
        """Cancels and closes everything; what `cancel_all` and `Session.flatten` use."""

    def search(self, account_id: int | Account, start: Any, end: Any = None) -> Rows[Order]:
        """The account's orders from *start* to *end* (default: now), ended ones too, oldest first."""
        request = SearchOrders(
            account_id=account_number(account_id),
            start_timestamp=instant(start, "start"),
            end_timestamp=UNSET if end is None else instant(end, "end"),
        )
        found = present(self._call(SEARCH, request, OrdersReply).orders, SEARCH, "orders")
        return Rows(sorted(found, key=lambda order: (order.creation_timestamp, order.id)), of=Order)

    def search_open(self, account_id: int | Account) -> Rows[Order]:
        """The account's open orders; without bracket legs that wait for their entry, which `query` shows."""
        reply = self._call(SEARCH_OPEN, ByAccount(account_id=account_number(account_id)), OrdersReply)
        return Rows(present(reply.orders, SEARCH_OPEN, "orders"), of=Order)

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
            custom_tag: a tag of your own instead. Unique in the account for ever; rejected orders use it up, too. Where
                it is in use by an order that is not older than this call, and the same, that one is the answer.
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
        try:
            wish = ticket.Wish(account_id=account_id, contract_id=contract_id, side=side, size=size, **terms)
        except TypeError:
            raise ticket.unexpected(terms) from None
        if label is not None and custom_tag is not None:
            raise InvalidRequest("give a label (and the tag is minted) or a custom_tag, not both")
        now = self._clock.epoch()
        tag = tags.mint(label, now) if custom_tag is None else tags.checked(custom_tag)
        request = ticket.check(wish, tag)
        if wish.needs_contract:
            request = self._priced(wish, request)
        if dry_run:
            return request
        entry = Intent(request, tag, now, minted=custom_tag is None)
        wanted = resend if callable(resend) else (lambda: True) if resend else None
        if self._guard is None:
            return self._placer.place(entry, wanted, timeout)
        guard, asked = self._guard, wanted
        if asked is not None:  # the look-up takes its time, and what was allowed before it need not be after it
            wanted = lambda: asked() and guard.allows(request, self._ledger.open)  # noqa: E731
        with guard.placing(request, self._ledger.open):
            return self._placer.place(entry, wanted, timeout)

    @overload
    def buy(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Unpack[ticket.Live]
    ) -> PlacedOrder: ...
    @overload
    def buy(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Unpack[ticket.Dry]
    ) -> PlaceOrder: ...
    def buy(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Any
    ) -> PlacedOrder | PlaceOrder:
        """`place` with ``side="buy"``; at the market unless a price is given."""
        placed: PlacedOrder | PlaceOrder = self.place(account_id, contract_id, side="buy", size=size, **rest)
        return placed

    @overload
    def sell(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Unpack[ticket.Live]
    ) -> PlacedOrder: ...
    @overload
    def sell(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Unpack[ticket.Dry]
    ) -> PlaceOrder: ...
    def sell(
        self, account_id: int | Account, contract_id: str | Contract, size: int, **rest: Any
    ) -> PlacedOrder | PlaceOrder:
        """`place` with ``side="sell"``; at the market unless a price is given."""
        placed: PlacedOrder | PlaceOrder = self.place(account_id, contract_id, side="sell", size=size, **rest)
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
            OrderStateUnknown: the look-ups failed, so nothing is known; or it is not to be seen, and yet on its way.
        """
        account = None if account_id is None else account_number(account_id)
        begun = None if since is None else instant(since, "since").timestamp()
        return self._verifier.verify(tags.checked(custom_tag), account, begun, wait=wait)

    def recover(self) -> Rows[Recovered]:
        """Every intent that the journal has open is settled as far as the gateway answers, oldest first.

        Call it once after a start, before placing orders: an earlier process may have ended between an order and its
        reply. Not while another process that shares the journal places orders: what that one has under way counts as
        left behind, too.

        Raises:
            InvalidRequest: this session has no journal.
        """
        return Rows(self._verifier.recover(), of=Recovered)

    ########################################### orders that exist ###########################################

    def get(self, account_id: Any, order_id: Any = None) -> Order:
        """One order, as the gateway has it now. Takes an account and an order id, or an order.

        Raises:
            OrderNotFound: the gateway does not know it (where it cannot look up a single order: not of the last day).
        """
        account, number = order_key(account_id, order_id)
        order = self._lookup.by_id(account, number, self._clock.epoch() - DAY, None)
        if order is None:
            raise OrderNotFound(f"account {account} has no order {number}", endpoint=SEARCH_BY_ID)
        return order

    def query(
        self,
        account_id: int | Account,
        *,
        statuses: OrderStatus | str | Iterable[OrderStatus | str] | None = None,
        contract_id: str | Contract | None = None,
        start: Any = None,
        end: Any = None,
    ) -> Rows[Order]:
        """The account's orders by status, contract and time of creation, oldest first; all pages.

        The one way to see bracket legs that wait for their entry (SUSPENDED). Empty where an older gateway has no such
        endpoint.
        """
        names = {status.name.lower(): status for status in OrderStatus}
        wanted = OrderFilter(
            account_id=account_number(account_id),
            statuses=UNSET if statuses is None else [choice(status, names, "status") for status in several(statuses)],
            contract_id=UNSET if contract_id is None else contract_name(contract_id),
            created_after=UNSET if start is None else instant(start, "start"),
            created_before=UNSET if end is None else instant(end, "end"),
        )
        return Rows([order for page in self._lookup.pages(wanted) for order in page], of=Order)

    def working(self, account_id: int | Account, contract_id: str | Contract | None = None) -> Rows[Order]:
        """Every order that may still fill, bracket legs that wait for their entry included where the gateway tells."""
        contract = None if contract_id is None else contract_name(contract_id)
        return Rows(self._lookup.working(account_number(account_id), contract), of=Order)

    def cancel(self, account_id: Any, order_id: Any = None, *, timeout: float | None = None) -> CancelResult:
        """The order does not work any more. Takes an account and an order id, or an order.

        Of an order that had already ended the result says how: `change` ALREADY (cancelled before) or TOO_LATE
        (filled, expired, rejected). When the reply is lost the order is read back, and cancelled again if need be.

        Raises:
            OrderNotFound: there is no such order.
            OrderRejected: the gateway refused, and the order still works.
            OrderStateUnknown: it could neither be confirmed nor read back.
        """
        return self._changer.cancel(*order_key(account_id, order_id), timeout)

    def modify(
        self,
        account_id: Any,
        order_id: Any = None,
        *,
        size: int | None = None,
        limit_price: float | None = None,
        stop_price: float | None = None,
        trail_price: float | None = None,
        trail_ticks: int | None = None,
        timeout: float | None = None,
    ) -> ModifyResult:
        """The order has the new size and prices; what is left out stays. Takes an account and an order id, or an order.

        Args:
            trail_price: absolute price from which the stop trails, as in `place`; an order reads it back as a distance.
            trail_ticks: the same as a distance from the latest price.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            OrderRejected: the gateway refused; a note says how the order stands.
            OrderStateUnknown: it may have been changed; look with `get`. It is never sent twice.
        """
        account, number = order_key(account_id, order_id)
        wish = ticket.Revision(
            size=size, limit_price=limit_price, stop_price=stop_price, trail_price=trail_price, trail_ticks=trail_ticks
        )
        ticket.check_revision(wish)
        order = contract = last = None
        if wish.needs_contract:
            order = self._known(account_id, order_id, account, number)
            contract = self._contracts.get(order.contract_id)
            last = self._last(wish, contract)
        request, trail = ticket.revise(wish, account, number, order, contract, last)
        guard = self._guard
        if guard is None or not isinstance(request.size, int):
            return self._changer.modify(request, contract, trail, timeout)
        # As it is now: by a record from before another change, a bigger size may look like a smaller one.
        now = guard.sure(lambda: self.get(account, number))
        with guard.changing(now, request.size, self._ledger.open):
            return self._changer.modify(request, contract, trail, timeout)

    def wait(self, account_id: Any, order_id: Any = None, *, timeout: float | None = 60.0) -> Order:
        """The order once it has ended: filled, cancelled, expired or rejected. Takes ids, or an order.

        By hub event where a stream of the account is open, else by polling, up to 40 calls in the first minute.

        Args:
            timeout: seconds; `None`: as long as it takes.

        Raises:
            OrderStillWorking: it has not, within *timeout*; its `order` is the last state.
        """
        return self._waiter.wait(*order_key(account_id, order_id), timeout)

    def cancel_all(
        self, account_id: int | Account, contract_id: str | Contract | None = None, *, timeout: float = 30.0
    ) -> Report:
        """No order of the account (and contract) works any more. The report is false if some still do, and lists them.

        Args:
            timeout: seconds after which it gives up and reports.
        """
        contract = None if contract_id is None else contract_name(contract_id)
        return self.sweeper.cancel_all(account_number(account_id), contract, timeout)

    ################################################ the inside ################################################

    def _known(self, account_id: Any, order_id: Any, account: int, number: int) -> Order | PlacedOrder:
        """The order as it was given, as it was placed here, or as the gateway has it."""
        given = next((value for value in (order_id, account_id) if isinstance(value, (Order, PlacedOrder))), None)
        return given or self._ledger.order(number) or self.get(account, number)

    def _last(self, wish: ticket.Wish | ticket.Revision, contract: Contract) -> float | None:
        """The latest price where it matters. To refuse an absolute price by, it must be a fresh one."""
        if not wish.needs_last:
            return None
        return self._last_price(contract, WEEK if wish.trail_price is None else FRESH)

    def _priced(self, wish: ticket.Wish, draft: PlaceOrder) -> PlaceOrder:
        """The request, checked against its contract."""
        given = wish.contract_id
        contract = given if isinstance(given, Contract) else self._contracts.get(given)
        return ticket.write(wish, draft, contract, self._last(wish, contract))
