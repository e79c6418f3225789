"""Looking an order up by its custom tag. A look-up that fails says nothing; only one that succeeds can say "absent"."""

import copy
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from topstep_sync.api.seam import Call, R, patience, present
from topstep_sync.clock import Clock, Deadline
from topstep_sync.config import OrderConfig
from topstep_sync.errors import OrderNotFound, PermanentError, TopstepError
from topstep_sync.http.routes import Priority
from topstep_sync.messages import (
    ByAccount,
    ByOrder,
    OrderFilter,
    OrderReply,
    OrdersReply,
    PlaceOrder,
    QueryOrders,
    SearchOrders,
)
from topstep_sync.models import Order, OrderSortField, OrderStatus, Record, SortDirection

SEARCH: Final = "/api/Order/search"
SEARCH_OPEN: Final = "/api/Order/searchOpen"
SEARCH_BY_ID: Final = "/api/Order/searchById"
QUERY: Final = "/api/Order/v2/query"

WORKING: Final = [status for status in OrderStatus if status.working]
PAGE: Final = 500  # GUESS: rows asked for per page of v2/query; its default and largest page are not documented
PAGES: Final = 100  # a stop for a gateway that never runs out
NOT_THERE: Final = (404, 405)  # statuses by which an older gateway says that it has no such endpoint
ABSENCE: Final = 300.0  # GUESS: seconds for which that is believed; one 404 may come from a proxy, or during an update

UNSURE: Final = 2.0  # seconds by which the two clocks may differ without anybody noticing: `adapter.MIN_SKEW`

log = logging.getLogger("topstep_sync.orders")


class Lookup:
    """Orders by tag and by id, asked with priority 0 and past the breaker. Thread-safe.

    Args:
        skew: seconds the gateway's clock is ahead of ours; the window of a search is on the gateway's clock.
    """

    def __init__(self, call: Call, config: OrderConfig, skew: Callable[[], float], clock: Clock) -> None:
        self._call = call
        self._config = config
        self._skew = skew
        self._clock = clock
        self._deadline: Deadline | None = None
        # Endpoint that this gateway does not have → until when that is believed. Setting a key is atomic.
        self._missing: dict[str, float] = {}
        self._page_size: dict[str, int] = {"page_size": PAGE}  # emptied for a gateway that refuses so large a page

    def within(self, deadline: Deadline) -> "Lookup":
        """The same, for somebody who has only until *deadline*: no urgent call takes more than half of what is left."""
        hurried = copy.copy(self)
        hurried._deadline = deadline
        return hurried

    def by_tag(self, account_id: int, tag: str, since: float) -> Order | None:
        """The order that carries *tag*, in any status; `None` if every source answered and none has it.

        Args:
            since: seconds since 1970, on our clock, before which it cannot have been placed.

        Raises:
            RequestError: at least one source did not answer, and none of the others has it.
        """
        failed: TopstepError | None = None
        for source in (self._recent, self._open, self._working):
            try:
                found = [order for order in source(account_id, since) if order.custom_tag == tag]
            except TopstepError as error:
                log.info("! look-up of %s in %s: %s", tag, error.endpoint or source.__name__, error)
                failed = error
                continue
            if found:
                # One tag, one order; should there be two, the one that can still fill is the one to know about.
                return max(found, key=lambda order: (order.status.working, order.status is OrderStatus.FILLED))
        if failed is not None:
            raise failed
        return None

    def is_of(self, order: Order, request: PlaceOrder, since: float) -> bool:
        """Whether *order* can be what became of *request*, first sent at *since*: taken, not older, the same terms."""
        begun = since + self._skew() - UNSURE
        names = ("contract_id", "side", "size", "type")
        alike = all(getattr(order, name) == getattr(request, name) for name in names)
        taken = order.status is not OrderStatus.REJECTED
        return alike and taken and order.creation_timestamp.timestamp() >= begun

    def by_id(
        self, account_id: int, order_id: int, since: float, priority: Priority | None = Priority.URGENT
    ) -> Order | None:
        """The order with this id; `None` if the gateway does not know it.

        Args:
            since: seconds since 1970 from which to search where the gateway cannot look up a single order.

        Raises:
            RequestError: the gateway did not answer.
        """
        request = ByOrder(account_id=account_id, order_id=order_id)
        try:
            reply = self._optional(SEARCH_BY_ID, request, OrderReply, priority)
        except OrderNotFound:
            return None
        if reply is not None:
            order: Order = present(reply.order, SEARCH_BY_ID, "order")
            return order
        for source in (self._open, self._recent):
            for order in source(account_id, since):
                if order.id == order_id:
                    return order
        return None

    def working(self, account_id: int, contract_id: str | None = None) -> list[Order]:
        """Every order that may still fill, bracket legs that wait for their entry included where the gateway tells.

        Raises:
            RequestError: a source did not answer.
        """
        orders, failed = self.working_seen(account_id, contract_id)
        if failed is not None:
            raise failed
        return orders

    def working_seen(self, account_id: int, contract_id: str | None) -> tuple[list[Order], TopstepError | None]:
        """The same as far as the gateway answers, and what kept it from telling all."""
        found: dict[int, Order] = {}
        failed: TopstepError | None = None
        for source in (self._open, self._working):
            try:
                found.update((order.id, order) for order in source(account_id, 0.0))
            except TopstepError as error:
                failed = error
        return [order for order in found.values() if contract_id in (None, order.contract_id)], failed

    def _recent(self, account_id: int, since: float) -> list[Order]:
        start = datetime.fromtimestamp(max(0.0, since + self._skew() - self._config.search_margin), UTC)
        reply = self._ask(SEARCH, SearchOrders(account_id=account_id, start_timestamp=start), OrdersReply)
        return list(present(reply.orders, SEARCH, "orders"))

    def _open(self, account_id: int, _: float) -> list[Order]:
        reply = self._ask(SEARCH_OPEN, ByAccount(account_id=account_id), OrdersReply)
        return list(present(reply.orders, SEARCH_OPEN, "orders"))

    def _working(self, account_id: int, _: float) -> list[Order]:
        wanted = OrderFilter(account_id=account_id, statuses=WORKING)
        return [order for page in self.pages(wanted, Priority.URGENT) for order in page]

    def pages(self, wanted: OrderFilter, priority: Priority | None = None) -> Iterator[list[Order]]:
        """Pages of v2/query, oldest first; none where the gateway has no such endpoint.

        Raises:
            APIError: it has, and refuses the filter.
        """
        seen: set[int] = set()
        for number in range(PAGES):
            # Whether the offset counts rows or pages is not documented: rows first, pages where rows bring nothing.
            more, fresh = False, list[Order]()
            for offset in dict.fromkeys((len(seen), number)):
                reply = self._page(wanted, offset, priority)
                if reply is None:
                    return
                fresh = [order for order in present(reply.orders, QUERY, "orders") if order.id not in seen]
                more = _more(reply.total_count, len(seen) + len(fresh))
                if fresh or not more:
                    break
            seen.update(order.id for order in fresh)
            if fresh:
                yield fresh
            if not fresh or not more:
                return

    def _page(self, wanted: OrderFilter, offset: int, priority: Priority | None) -> OrdersReply | None:
        request = QueryOrders(
            filter=wanted,
            **self._page_size,
            page_offset=offset,
            sort_by=OrderSortField.ID,
            sort_direction=SortDirection.ASCENDING,
            include_total_count=True,
        )
        try:
            return self._optional(QUERY, request, OrdersReply, priority)
        except PermanentError as error:
            if error.status_code != 400 or request.page_size is UNSET:
                raise
        # The largest page is not documented: whether that was what the gateway did not like, its own size tells.
        reply = self._optional(QUERY, replace(request, page_size=UNSET), OrdersReply, priority)
        if reply is not None:
            self._page_size.clear()
        return reply

    def _ask(self, path: str, request: Record, reply: type[R], priority: Priority | None = Priority.URGENT) -> R:
        urgent = priority is Priority.URGENT
        timeout = patience(self._deadline, 0.5) if urgent else None
        return self._call(path, request, reply, priority=priority, must_try=urgent, timeout=timeout)

    def _optional(self, path: str, request: Record, reply: type[R], priority: Priority | None) -> R | None:
        """The reply of an endpoint that only newer gateways have; `None` where it does not exist."""
        if self._clock.monotonic() < self._missing.get(path, 0.0):
            return None
        try:
            return self._ask(path, request, reply, priority)
        except PermanentError as error:
            if error.status_code not in NOT_THERE:
                raise
            log.info("~ this gateway has no %s (%s)", path, error.status_code)
            self._missing[path] = self._clock.monotonic() + ABSENCE
            return None


def _more(total: Any, seen: int) -> bool:
    """Whether there are rows that were not seen; a gateway that does not count may always have more."""
    return not isinstance(total, int) or seen < total
