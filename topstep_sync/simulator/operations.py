"""The gateway's 21 operations: each takes a bound request and gives the content of a 200."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from topstep_sync import messages
from topstep_sync.models import OrderSortField, SortDirection, given
from topstep_sync.simulator.bars import SECONDS, bars
from topstep_sync.simulator.binding import Binder, BindingError
from topstep_sync.simulator.tokens import Claims, TokenFault, Verdict
from topstep_sync.simulator.world import World

Content = dict[str, Any]

# GUESS: neither default nor maximum is documented; a live call with an absurd page size would settle it.
PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000


class Call(NamedTuple):
    """What an operation is given."""

    world: World
    request: Any
    claims: Claims | None


class Operation(NamedTuple):
    """One operation of the contract."""

    run: Callable[[Call], Content]
    binder: Binder | None
    authorized: bool = True


def done(content: Content | None = None, code: int = 0, message: str | None = None) -> Content:
    """The envelope around *content*."""
    return {**(content or {}), "success": code == 0, "errorCode": code, "errorMessage": message}


################################################## auth ##################################################


def login_key(call: Call) -> Content:
    settings, request = call.world.settings, call.request
    if request.user_name.lower() != settings.user_name.lower() or request.api_key != settings.api_key:
        return done({"token": None}, 3)
    if settings.login_code:
        text = AGREEMENTS_TEXT if settings.login_code == 7 else None
        return done({"token": None}, settings.login_code, text)
    return done({"token": call.world.tokens.issue()})


AGREEMENTS_TEXT: Final = "Please log into the ProjectX platform and complete the required agreements"


def login_app(call: Call) -> Content:
    return done({"token": None}, 4)


def validate(call: Call) -> Content:
    world = call.world
    if world.settings.validate == "null":
        return done({"newToken": None})
    if world.settings.replaced == "revoke" and call.claims:
        world.tokens.revoke(call.claims.jti)
    return done({"newToken": world.tokens.issue()})


def refused_validate(verdict: Verdict) -> Content:
    """How validate answers a token that is not taken, where the gateway is set to answer with a code."""
    return done({"newToken": None}, 3 if verdict.fault is TokenFault.EXPIRED else 1)


def logout(call: Call) -> Content:
    assert call.claims is not None
    call.world.tokens.revoke(call.claims.jti)
    return done()


######################################### accounts and contracts #########################################


def search_accounts(call: Call) -> Content:
    accounts = call.world.exchange.accounts.values()
    return done({"accounts": [a.wire() for a in accounts if a.can_trade or not call.request.only_active_accounts]})


def search_contracts(call: Call) -> Content:
    text = call.request.search_text
    found = [] if call.request.live else call.world.catalogue.search(text if given(text) else "")
    return done({"contracts": [instrument.wire for instrument in found]})


def contract_by_id(call: Call) -> Content:
    found = call.world.catalogue.get(call.request.contract_id)
    return done({"contract": found.wire}) if found else done({"contract": None}, 1)


def available_contracts(call: Call) -> Content:
    found = [] if call.request.live else call.world.catalogue.front
    return done({"contracts": [instrument.wire for instrument in found]})


def retrieve_bars(call: Call) -> Content:
    request, world = call.request, call.world
    instrument = world.catalogue.get(request.contract_id)
    # `live: true` gives evaluation and practice accounts ContractNotFound (seen live, July 2026).
    if instrument is None or request.live:
        return done({"bars": None}, 1)
    if not 1 <= request.unit <= 6:
        return done({"bars": None}, 2)
    if request.unit_number <= 0:
        return done({"bars": None}, 3)
    if not 0 < request.limit <= MAX_BARS:
        return done({"bars": None}, 4)
    always = world.settings.hours == "always"
    now = world.clock.epoch()
    found = bars(instrument, request, now, world.settings.seed, always=always)
    length = SECONDS[request.unit] * request.unit_number
    reaches_now = request.include_partial_bar and request.end_time.timestamp() >= now // length * length
    market = world.markets.known(instrument.id)
    if found and reaches_now and market and market.priced:
        found[0] = _forming(found[0], instrument.price(market.last))
    return done({"bars": found})


def _forming(bar: dict[str, Any], last: float) -> dict[str, Any]:
    """The newest bar ends where the market stands: whoever takes its close for the latest price must not be misled."""
    return {**bar, "h": max(bar["h"], last), "l": min(bar["l"], last), "c": last}


MAX_BARS: Final = 20_000

################################################# orders #################################################


def _within(created: float, start: Any, end: Any) -> bool:
    created = round(created, 6)  # as REST shows it: who asks from a time he was shown must find its order
    if given(start) and created < start.timestamp():
        return False
    return not given(end) or created <= end.timestamp()


def search_orders(call: Call) -> Content:
    request, exchange = call.request, call.world.exchange
    if request.account_id not in exchange.accounts:
        return done({"orders": None}, 1)
    orders = exchange.orders_of(request.account_id)
    start, end = request.start_timestamp, request.end_timestamp
    # They ascend by creation: a search for the last minute does not look at the whole day.
    first = bisect_left(orders, start.timestamp() - 1.0, key=lambda order: order.created)
    found = [order.wire() for order in orders[first:] if _within(order.created, start, end)]
    return done({"orders": found[: call.world.settings.search_rows or None]})


def search_open_orders(call: Call) -> Content:
    exchange = call.world.exchange
    if call.request.account_id not in exchange.accounts:
        return done({"orders": None}, 1)
    return done({"orders": [order.wire() for order in exchange.open_orders(call.request.account_id)]})


def order_by_id(call: Call) -> Content:
    order = call.world.exchange.order(call.request.account_id, call.request.order_id)
    return done({"order": order.wire()}) if order else done({"order": None}, 1)


def query_orders(call: Call) -> Content:
    request, exchange = call.request, call.world.exchange
    size = request.page_size if given(request.page_size) else PAGE_SIZE
    if not 0 < size <= MAX_PAGE_SIZE:
        raise BindingError({"PageSize": [f"The field PageSize must be between 1 and {MAX_PAGE_SIZE}."]})
    wanted = request.filter
    if wanted.account_id not in exchange.accounts:
        return done({"orders": None, "totalCount": None}, 1)
    found = [order for order in exchange.orders_of(wanted.account_id) if _wanted(order, wanted)]
    if given(request.sort_by) and request.sort_by == OrderSortField.ID:
        found.sort(key=lambda order: order.id)
    # Newest first unless told otherwise (seen live, July 2026).
    if not given(request.sort_direction) or request.sort_direction == SortDirection.DESCENDING:
        found.reverse()
    offset = max(0, request.page_offset) if given(request.page_offset) else 0
    count = len(found) if given(request.include_total_count) and request.include_total_count else None
    return done({"orders": [order.wire() for order in found[offset : offset + size]], "totalCount": count})


def _wanted(order: Any, wanted: messages.OrderFilter) -> bool:
    if given(wanted.statuses) and wanted.statuses and order.status not in wanted.statuses:
        return False
    if given(wanted.contract_id) and order.instrument.id != wanted.contract_id:
        return False
    return _within(order.created, wanted.created_after, wanted.created_before)


def place_order(call: Call) -> Content:
    order_id, refusal = call.world.exchange.place(call.request)
    return done({"orderId": order_id}, *(refusal or (0, None)))


def cancel_order(call: Call) -> Content:
    return done(None, *call.world.exchange.cancel(call.request.account_id, call.request.order_id))


def modify_order(call: Call) -> Content:
    return done(None, *call.world.exchange.modify(call.request))


########################################## positions and trades ##########################################


def search_open_positions(call: Call) -> Content:
    exchange = call.world.exchange
    if call.request.account_id not in exchange.accounts:
        return done({"positions": None}, 1)
    positions = exchange.ledger.positions.values()
    return done({"positions": [p.wire() for p in positions if p.account_id == call.request.account_id]})


def close_contract(call: Call) -> Content:
    return done(None, call.world.exchange.close(call.request.account_id, call.request.contract_id, None))


def partial_close_contract(call: Call) -> Content:
    request = call.request
    return done(None, call.world.exchange.close(request.account_id, request.contract_id, request.size))


def search_trades(call: Call) -> Content:
    request, exchange = call.request, call.world.exchange
    if request.account_id not in exchange.accounts:
        return done({"trades": None}, 1)
    start, end = request.start_timestamp, request.end_timestamp
    found = (t for t in reversed(exchange.ledger.trades) if t.account_id == request.account_id)
    wire = [trade.wire() for trade in found if _within(trade.created, start, end)]
    return done({"trades": wire[: call.world.settings.search_rows or None]})


_ORDER_KEY: Final = Binder(messages.ByOrder)
_OF_ACCOUNT: Final = Binder(messages.ByAccount)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "/api/auth/loginkey": Operation(login_key, Binder(messages.LoginKey), authorized=False),
    "/api/auth/loginapp": Operation(login_app, Binder(messages.LoginApp), authorized=False),
    "/api/auth/validate": Operation(validate, None),
    "/api/auth/logout": Operation(logout, None),
    "/api/account/search": Operation(search_accounts, Binder(messages.SearchAccounts)),
    "/api/contract/search": Operation(search_contracts, Binder(messages.SearchContracts, optional=("search_text",))),
    "/api/contract/searchbyid": Operation(contract_by_id, Binder(messages.ContractById)),
    "/api/contract/available": Operation(available_contracts, Binder(messages.AvailableContracts)),
    "/api/history/retrievebars": Operation(retrieve_bars, Binder(messages.RetrieveBars)),
    "/api/order/search": Operation(search_orders, Binder(messages.SearchOrders)),
    "/api/order/searchopen": Operation(search_open_orders, _OF_ACCOUNT),
    "/api/order/searchbyid": Operation(order_by_id, _ORDER_KEY),
    "/api/order/v2/query": Operation(query_orders, Binder(messages.QueryOrders)),
    "/api/order/place": Operation(place_order, Binder(messages.PlaceOrder)),
    "/api/order/cancel": Operation(cancel_order, _ORDER_KEY),
    "/api/order/modify": Operation(modify_order, Binder(messages.ModifyOrder)),
    "/api/position/searchopen": Operation(search_open_positions, _OF_ACCOUNT),
    "/api/position/closecontract": Operation(close_contract, Binder(messages.ClosePosition)),
    "/api/position/partialclosecontract": Operation(partial_close_contract, Binder(messages.PartialClosePosition)),
    "/api/trade/search": Operation(search_trades, Binder(messages.SearchTrades)),
}
"""Lower-case path → operation; all are POST. GET /api/Status/ping is the 21st."""

PING: Final = "/api/status/ping"
