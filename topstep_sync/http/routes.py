"""What kind of call each path is. Every gateway call is a POST, so safety can never come from the verb."""

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from topstep_sync.codes import normalise


class Safety(enum.Enum):
    """What may be done about a call whose reply is lost."""

    READ = "read"  # send it again
    AUTH = "auth"  # the token manager decides
    MUTATION = "mutation"  # never resend unless provably not sent
    ORDER = "order"  # ORDER-001: verify by custom tag


class Priority(enum.IntEnum):
    """Who goes first where permits are scarce."""

    URGENT = 0  # cancel, close, modify, auth, verification
    NORMAL = 1
    BULK = 2  # history


class Window(enum.StrEnum):
    """Which of the gateway's windows counts a call. Source: gateway docs, Rate Limits, seen 2026-11."""

    GENERAL = "general"  # 200 / 60 s
    HISTORY = "history"  # 50 / 30 s
    FREE = "free"  # not counted


class Circuit(enum.StrEnum):
    """Which breaker guards a call, so that an outage of one part does not block another."""

    AUTH = "auth"
    ORDERS = "orders"
    ACCOUNT = "account"
    HISTORY = "history"
    MARKET = "market"


class Route(NamedTuple):
    """How a path is treated."""

    window: Window
    priority: Priority
    safety: Safety
    circuit: Circuit
    must_try: bool = False
    """Risk-reducing: passes an open breaker, because refusing it would be the greater danger."""


_G, _U, _N = Window.GENERAL, Priority.URGENT, Priority.NORMAL

ROUTES: Final[Mapping[str, Route]] = {
    # GUESS: logins count towards the general window (documentation of 2026 says so, one client says not).
    "/api/auth/loginkey": Route(_G, _U, Safety.AUTH, Circuit.AUTH),
    "/api/auth/loginapp": Route(_G, _U, Safety.AUTH, Circuit.AUTH),
    "/api/auth/validate": Route(_G, _U, Safety.AUTH, Circuit.AUTH),
    "/api/auth/logout": Route(_G, _U, Safety.AUTH, Circuit.AUTH),
    "/api/account/search": Route(_G, _N, Safety.READ, Circuit.ACCOUNT),
    "/api/contract/search": Route(_G, _N, Safety.READ, Circuit.MARKET),
    "/api/contract/searchbyid": Route(_G, _N, Safety.READ, Circuit.MARKET),
    "/api/contract/available": Route(_G, _N, Safety.READ, Circuit.MARKET),
    "/api/history/retrievebars": Route(Window.HISTORY, Priority.BULK, Safety.READ, Circuit.HISTORY),
    "/api/order/search": Route(_G, _N, Safety.READ, Circuit.ORDERS),
    "/api/order/searchopen": Route(_G, _N, Safety.READ, Circuit.ORDERS),
    "/api/order/searchbyid": Route(_G, _N, Safety.READ, Circuit.ORDERS),
    "/api/order/v2/query": Route(_G, _N, Safety.READ, Circuit.ORDERS),
    "/api/order/place": Route(_G, _N, Safety.ORDER, Circuit.ORDERS),
    "/api/order/modify": Route(_G, _U, Safety.MUTATION, Circuit.ORDERS),
    "/api/order/cancel": Route(_G, _U, Safety.MUTATION, Circuit.ORDERS, must_try=True),
    "/api/position/searchopen": Route(_G, _N, Safety.READ, Circuit.ACCOUNT),
    "/api/position/closecontract": Route(_G, _U, Safety.MUTATION, Circuit.ORDERS, must_try=True),
    "/api/position/partialclosecontract": Route(_G, _U, Safety.MUTATION, Circuit.ORDERS, must_try=True),
    "/api/trade/search": Route(_G, _N, Safety.READ, Circuit.ACCOUNT),
    "/api/status/ping": Route(Window.FREE, _N, Safety.READ, Circuit.MARKET),
}
"""Lower-case path → route."""

# A path nobody told us about might change something: counted, and never resent.
UNKNOWN_ROUTE: Final = Route(_G, _N, Safety.MUTATION, Circuit.MARKET)


def route(path: str) -> Route:
    """The route of *path*, in whatever case; an unknown path is treated as a mutation."""
    return ROUTES.get(path) or ROUTES.get(normalise(path), UNKNOWN_ROUTE)
