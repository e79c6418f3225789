"""The simulator's switches. What nobody knows about the real gateway is a switch here, not an assumption."""

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, Self

from topstep_sync.simulator.hub_settings import HUB_CHOICES, HubSettings, switch

CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "limiter": ("sliding", "fixed", "segmented", "none"),
    "retry_after": ("seconds", "date", "none"),
    "validate": ("rotate", "null"),
    "replaced": ("keep", "revoke"),
    "expired_validate": ("401", "code"),
    "hours": ("always", "cme"),
    "closed_code": (2, 5),
    "closed_text": ("2026", "2025"),
    "funds_code": (3, 2),
    **HUB_CHOICES,
}
"""Switch → the values it may have."""


@dataclass(frozen=True)
class AccountSpec:
    """An account the simulation starts with."""

    id: int
    name: str
    balance: float
    """Account currency."""
    can_trade: bool = True
    auto_oco: bool = False
    """Whether brackets are accepted; otherwise the account is in the platform's default mode, Position Brackets."""
    follower: bool = False
    """Copies another account: may not place, change or cancel orders itself."""
    simulated: bool = True
    violation: bool = False
    """Has broken a rule (daily loss, say), so that new orders are refused."""
    max_loss: float | None = None
    """Account currency; an account that has lost so much is in violation. None: no such rule."""


ACCOUNTS: Final = (
    AccountSpec(536, "PRAC-V2-536", 150_000.0),
    AccountSpec(704, "50KTC-V2-704", 50_000.0, auto_oco=True),
    AccountSpec(999, "50KTC-V2-999", 48_000.0, can_trade=False),
)


@dataclass(frozen=True, kw_only=True)
class Settings(HubSettings):
    """Every switch with its default. Times are in seconds of the simulation clock unless they say otherwise."""

    host: str = switch("127.0.0.1", "address to listen on")
    port: int = switch(0, "port to listen on; 0: a free one")
    seed: int = switch(7, "seed of the market and of everything else that is random")
    speed: float = switch(1.0, "seconds of simulation per real second; 0: time moves only by advance()")
    start: float | None = switch(None, "first instant, in seconds since 1970; none: now")

    user_name: str = switch("trader", "the user that may log in (any case)")
    api_key: str = switch("key-123", "the key it logs in with")
    login_code: int = switch(0, "errorCode of every login with the right pair; 7: agreements not signed")
    accounts: tuple[AccountSpec, ...] = switch(ACCOUNTS, "the user's accounts")

    token_lifetime: float = switch(86400.0, "life of a token")
    clock_skew: float = switch(0.0, "how long after its expiry a token is still taken")
    validate: str = switch("rotate", "what validate gives: a new token, or null")
    replaced: str = switch("keep", "what becomes of the token that validate replaces")
    expired_validate: str = switch("401", "how validate answers an expired token: HTTP 401, or errorCode 3")

    limiter: str = switch("sliding", "how arrivals are counted; segmented: as ASP.NET Core does")
    segments: int = switch(30, "segments of a window, for the segmented limiter")
    general_limit: int = switch(200, "calls per window of all endpoints but bars")
    general_window: float = switch(60.0, "length of that window")
    history_limit: int = switch(50, "calls of retrieveBars per window (30 in the documentation of 2025)")
    history_window: float = switch(30.0, "length of that window")
    retry_after: str = switch("seconds", "form of Retry-After in a 429")

    search_rows: int = switch(0, "most rows of a reply of Order/search and Trade/search, the first of them; 0: all")

    market_rate: float = switch(10.0, "steps per second of each market that somebody watches; 0: still")
    hours: str = switch("always", "trading hours: always open, or as at CME with its daily break")
    closed_code: int = switch(2, "errorCode of an order outside trading hours")
    closed_text: str = switch("2026", "its errorMessage: that of 2026, or that of May 2025")
    expire_at_close: bool = switch(False, "whether working orders expire when a session ends")
    liquidity: int = switch(0, "most contracts an order fills at once; 0: all of it")
    fill_delay: float = switch(0.0, "time from acceptance (status 6) to working (status 1)")
    margin: float = switch(0.0, "funds needed per contract held; 0: not checked")
    funds_code: int = switch(3, "errorCode of an order without the funds; 2: with the text seen in the field")
    close_cancels_brackets: bool = switch(False, "whether closing a position cancels its protective orders")
    stop_limit: bool = switch(False, "whether order type 3 is taken")
    listing: str = switch("2026-11-24", "day whose front months are active; empty: the simulation's first")
    first_order_id: int = switch(2_200_009_056, "id of the first order; beyond 2**31 as seen live, July 2026")

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"simulator setting {name} is {value!r}; expected one of {allowed}")
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"simulator setting {entry.name} is {value!r}; expected 0 or more")

    def listing_date(self, epoch: float) -> dt.date:
        """The day whose front months are active."""
        return dt.date.fromisoformat(self.listing) if self.listing else dt.datetime.fromtimestamp(epoch, dt.UTC).date()

    @classmethod
    def of(cls, **changes: Any) -> Self:
        """The defaults with *changes*; an unknown name is refused with the names there are."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(f"the simulator has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return cls(**changes)
