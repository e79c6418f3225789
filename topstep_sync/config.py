"""Settings: frozen, composed, checked when made. Every field says its unit and where its default comes from.

Each part can be given as its class, as a mapping of field names, or left out. `Config.from_env()` reads
``TOPSTEP_<PART>_<FIELD>``, for instance ``TOPSTEP_RATE_HISTORY_LIMIT=30``.
"""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from topstep_sync.checks import checked_url, delays, not_negative, positive, share, time_of_day
from topstep_sync.errors import ConfigError
from topstep_sync.redact import Secret

BASE_URL: Final = "https://api.topstepx.com"  # gateway docs, Connection URLs, seen 2026-11
USER_HUB_URL: Final = "https://rtc.topstepx.com/hubs/user"
MARKET_HUB_URL: Final = "https://rtc.topstepx.com/hubs/market"


def setting(default: Any, check: Callable[[Any], str | None] | None = None) -> Any:
    """A field with a default and, optionally, a check that names what it expected."""
    return field(default=default, metadata={"check": check})


class Part:
    """What every part of the configuration can do."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            name = f"{type(self).__name__}.{entry.name}"
            object.__setattr__(self, entry.name, _checked(type(self), entry.name, getattr(self, entry.name), name))

    @classmethod
    def of(cls, value: "Mapping[str, Any] | Part | None") -> Self:
        """This part from a mapping, from itself, from a whole `Config`, or (`None`) with its defaults."""
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, Config) and cls is not Config:
            return next(v for v in vars(value).values() if isinstance(v, cls))
        if not isinstance(value, Mapping):
            raise ConfigError(f"{cls.__name__} is made from a mapping or a {cls.__name__}, not {type(value).__name__}")
        known = {entry.name for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(str(key) for key in value if key not in known)
        if unknown:
            raise ConfigError(f"{cls.__name__} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return cls(**value)

    def replace(self, **changes: Any) -> Self:
        """A copy with *changes*, checked."""
        return type(self).of({**vars(self), **changes})


@dataclass(frozen=True)
class HttpConfig(Part):
    """Connections and timeouts of the REST side."""

    connect_timeout: float = setting(5.0, positive)
    """Seconds for name, TCP and TLS."""
    read_timeout: float = setting(20.0, positive)
    """Seconds between two bytes of a reply."""
    total_timeout: float = setting(90.0, positive)
    """Seconds for a whole call: permit, token, attempts, backoff and body. Not the specification's 60: a burst waits a
    whole window (60 s, up to 62 s at ASP.NET Core's own limiters) for its permits, so less than that refuses the 201st
    call of a minute; and a clock that began with the permit would bound no call as a whole."""
    pool_size: int = setting(32, positive)
    """Kept connections; as many as threads that call at once, else connections are thrown away."""
    max_idle: float = setting(100.0, positive)
    """Seconds after which an idle connection is not used again; Kestrel closes it after 130."""
    max_reply_bytes: int = setting(64 * 1024 * 1024, positive)
    """Largest reply body in bytes; 20 000 bars are about 2 MB."""


@dataclass(frozen=True)
class RateConfig(Part):
    """RATE-001. Figures: gateway docs, Rate Limits, seen 2026-11."""

    history_limit: int = setting(50, positive)
    """Calls of retrieveBars per window (30 in the documentation of 2025)."""
    history_window: float = setting(30.0, positive)
    """Seconds."""
    general_limit: int = setting(200, positive)
    """All other authenticated calls per window."""
    general_window: float = setting(60.0, positive)
    """Seconds."""
    margin: float = setting(0.0025, share)
    """Share of the window added against clock drift between two machines."""
    reserved: int = setting(2, not_negative)
    """General permits that only priority 0 (cancel, close, verify, auth) may take; no urgent call counts as history."""
    ageing: float = setting(30.0, not_negative)
    """Seconds by which a call of priority 2 lets later ones of priority 1 pass; GUESS: half a window."""
    burst: int | None = setting(None, positive)
    """Size of the pacing bucket in calls; `None`: no pacing, the first 200 go at once."""
    grace: float = setting(5.0, not_negative)
    """Seconds after giving up on a reply during which the gateway may still count the call."""
    max_queue_depth: int = setting(1000, positive)
    """Most callers waiting for a permit, per class."""
    budget: Literal["memory", "sqlite", "redis"] = setting("memory")
    """Who shares the budget: this limiter alone, the processes of this machine, or several machines."""
    budget_path: str | None = field(default=None, repr=False)  # an address may hold a password
    """SQLite file, or a ``redis://`` address; `None`: a file in the user's state folder."""
    lease: int = setting(16, positive)
    """Most permits taken from a shared budget at once."""
    on_budget_loss: Literal["refuse", "share"] = setting("refuse")
    """When the store is out of reach: refuse every counted call, or go on with ``1/processes`` of the limits."""
    processes: int = setting(2, positive)
    """How many share the budget; only for `on_budget_loss="share"`."""


@dataclass(frozen=True)
class TokenConfig(Part):
    """SEC-001 and SEC-002. Names and defaults as the specification has them."""

    refresh_buffer_seconds: float = setting(7200.0, not_negative)
    """Refresh in the background from this long before expiry; at most half of the token's life."""
    mandatory_seconds: float = setting(60.0, not_negative)
    """Within this long of expiry the token is not used any more; at most a tenth of its life."""
    max_retries: int = setting(4, not_negative)
    """Failed refreshes before a full login is tried."""
    max_queue_depth: int = setting(100, positive)
    """Callers that may wait for a token; the next is refused."""
    backoff_seconds: tuple[float, ...] = setting((30.0, 60.0, 120.0, 300.0), delays)
    """Schedule of the refreshes after a failed one."""
    lifetime_seconds: float = setting(86400.0, positive)
    """Assumed life of a token that does not say; and the most that is believed (gateway docs: 24 h)."""
    login_cooldown_seconds: float = setting(30.0, not_negative)
    """At most one refused login in this time."""
    wait_seconds: float = setting(60.0, positive)
    """Longest wait for a token by a caller that names no deadline."""
    storage_path: str | None = setting(None)
    """Encrypted token file, or a ``redis://`` address; `None`: a file in the user's state folder."""
    memory_only: bool = setting(True)
    """Keep the token in memory only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.storage_path is not None and "@" in self.storage_path and "://" in self.storage_path:
            object.__setattr__(self, "storage_path", Secret(self.storage_path))  # it has a password in it


@dataclass(frozen=True)
class RetryConfig(Part):
    """ERR-001. Repetition of calls that only read, and of any call that was provably not sent."""

    max_attempts: int = setting(3, positive)
    """Attempts of one call, the first included."""
    base_delay: float = setting(0.25, not_negative)
    """Seconds; the first delay after a transient failure is up to this long (botocore: 0.05, stripe: 0.5)."""
    throttle_delay: float = setting(1.0, not_negative)
    """Seconds; the same after a 429."""
    max_delay: float = setting(20.0, not_negative)
    """Seconds; no delay is longer (botocore standard mode)."""
    budget_share: float = setting(0.2, share)
    """Retries as a share of the calls of the last minute (Finagle, Envoy: 20 %)."""
    budget_min: int = setting(3, not_negative)
    """Retries that are always allowed within a minute."""


@dataclass(frozen=True)
class BreakerConfig(Part):
    """CIRC-001. Sized for 200 calls a minute: a minimum of 100 calls in 30 s could never be reached."""

    consecutive_failures: int = setting(5, positive)
    """Failures in a row that open the breaker."""
    failure_share: float = setting(0.5, share)
    """Share of failures within the window that opens it."""
    min_calls: int = setting(10, positive)
    """Calls within the window before the share counts."""
    window: float = setting(30.0, positive)
    """Seconds."""
    open_min: float = setting(5.0, positive)
    """Seconds of the first opening; doubled by each failed probe."""
    open_max: float = setting(60.0, positive)
    """Seconds of the longest opening."""


@dataclass(frozen=True)
class StreamConfig(Part):
    """CONN-001, CONN-002, CONN-003 and STATE-001."""

    backoff_seconds: tuple[float, ...] = setting((0.0, 2.0, 10.0, 30.0, 60.0), delays)
    """Delays between attempts to reconnect; the last one repeats."""
    max_attempts: int | None = setting(None, not_negative)
    """Attempts in a row to reconnect before giving up; `None`: never, 0: at the first loss."""
    connect_timeout: float = setting(10.0, positive)
    """Seconds for TCP, TLS and the upgrade together."""
    handshake_timeout: float = setting(15.0, positive)
    """Seconds for the hub's answer to the handshake (official clients: 15)."""
    ping_interval: float = setting(15.0, positive)
    """Seconds without a send before a ping; must be well below the server's 30 s client timeout."""
    server_timeout: float = setting(30.0, positive)
    """Seconds without a byte before the link counts as dead (official clients: 30)."""
    invoke_timeout: float = setting(10.0, positive)
    """Seconds for the answer to a subscription or another invocation."""
    heartbeat_seconds: float = setting(30.0, positive)
    """How often health is evaluated."""
    stale_seconds: float = setting(120.0, positive)
    """Seconds without data on a subscribed, open market before it counts as stale."""
    close_limit: int = setting(5, positive)
    """Closes without allowReconnect in a row before giving up."""
    reconnect_on_close: Literal["always", "server"] = setting("always")
    """"server" follows the official clients: a Close without allowReconnect is final."""
    hold_seconds: float = setting(5.0, not_negative)
    """Seconds that live user events wait for the snapshot after a reconnect before they are delivered without it."""
    max_message_bytes: int = setting(16 * 1024 * 1024, positive)
    """Largest message accepted (depth snapshots exceed 10 kB)."""
    queue_trades: int = setting(100_000, positive)
    """Market trades kept for a slow consumer before the oldest are dropped and a `Gap` says so."""
    queue_depth: int = setting(20_000, positive)
    """Depth updates kept for a slow consumer before the book is dropped and a `BookReset` says so."""


@dataclass(frozen=True)
class OrderConfig(Part):
    """ORDER-001."""

    verify_seconds: tuple[float, ...] = setting((0.25, 0.5, 1.0, 2.0, 4.0, 8.0), delays)
    """Delays between look-ups of an order whose fate is unknown; a broker's order appeared 8 s late."""
    search_margin: float = setting(60.0, not_negative)
    """Seconds before the first attempt from which the look-up searches, on the server's clock."""
    journal_path: str | None = setting(None)
    """File of intents and outcomes; `None`: no journal."""


@dataclass(frozen=True)
class GuardConfig(Part):
    """When `session.orders` refuses new risk. What only reduces a position passes, even if all of that side fills that
    is pending; closing, cancelling and `flatten` always do. All off by default."""

    max_order_size: int | None = setting(None, positive)
    """Most contracts of one order; `None`: no rule."""
    max_position: int | None = setting(None, positive)
    """Most contracts held in one contract, all that may still fill on the same side counted as filled; `None`: no
    rule."""
    max_daily_loss: float | None = setting(None, positive)
    """Account currency; realised after fees, since 17:00 in Chicago; open positions are not valued. `None`: no rule."""
    open_from: str | None = setting(None, time_of_day)
    """Chicago time of day from which new risk is taken; `None`: from its begin."""
    open_until: str | None = setting(None, time_of_day)
    """Chicago time of day until which new risk is taken (Topstep flattens at 15:10); `None`: to its end."""


@dataclass(frozen=True)
class Config(Part):
    """Everything, in one place. URLs are https; plain http is accepted for addresses of this machine only."""

    user_name: str | None = None
    """Platform login (not the e-mail address)."""
    api_key: Secret | None = None
    """Key from TopstepX, Settings, API."""
    base_url: str = field(default=BASE_URL, metadata={"fit": checked_url})
    """Where the REST operations are."""
    user_hub_url: str = field(default=USER_HUB_URL, metadata={"fit": checked_url})
    """Hub of accounts, orders, positions and trades; https, as the documentation writes it."""
    market_hub_url: str = field(default=MARKET_HUB_URL, metadata={"fit": checked_url})
    """Hub of quotes, trades and depth."""
    http: HttpConfig = field(default_factory=HttpConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    token: TokenConfig = field(default_factory=TokenConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    orders: OrderConfig = field(default_factory=OrderConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **changes: Any) -> Self:
        """The configuration that the ``TOPSTEP_*`` variables describe; *changes* win over them.

        ``TOPSTEP_USERNAME``, ``TOPSTEP_API_KEY``, ``TOPSTEP_BASE_URL``, ``TOPSTEP_USER_HUB_URL``,
        ``TOPSTEP_MARKET_HUB_URL``, and ``TOPSTEP_<PART>_<FIELD>`` for every field of every part.

        Raises:
            ConfigError: a variable names no setting, or its value does not fit; the message names it.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        for variable, (*part, name) in _variables(cls).items():
            if variable in environ:
                owner, target = (_hints(cls)[part[0]], found.setdefault(part[0], {})) if part else (cls, found)
                target[name] = _checked(owner, name, environ[variable], variable)
        _refuse_unknown(cls, environ)
        for name, value in changes.items():
            whole = not (isinstance(value, Mapping) and isinstance(found.get(name), dict))
            found[name] = value if whole else {**found[name], **value}
        return cls.of(found)


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _checked(cls: type, field_name: str, value: Any, name: str) -> Any:
    """*value* as the field of *cls* asks for; *name* is what an error calls it."""
    value = _fit(value, _hints(cls)[field_name], name)
    extra = cls.__dataclass_fields__[field_name].metadata  # type: ignore[attr-defined]
    if "fit" in extra:
        value = extra["fit"](value, name)
    check = extra.get("check")
    expected = check(value) if check and value is not None else None
    if expected:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")
    return value


def _fit(value: Any, hint: Any, name: str) -> Any:
    """*value* as the type *hint* asks for; text is read, as it comes from the environment."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _fit(value, next(a for a in arguments if a is not type(None)), name)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)):
            raise ConfigError(f"{name} is {value!r}; expected a list of numbers")
        return tuple(_fit(v, arguments[0], name) for v in values)
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint.of(value)
    return _fit_scalar(value, hint, name)


def _fit_scalar(value: Any, hint: Any, name: str) -> Any:
    if hint is bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        value = words.get(value.lower(), value) if isinstance(value, str) else value
        if isinstance(value, bool):
            return value
    elif hint in (int, float):
        if not isinstance(value, (bool, bytes)):
            try:
                number = hint(value)
                exact = math.isfinite(number) and (hint is float or not isinstance(value, float) or value == number)
            except (TypeError, ValueError, OverflowError):
                exact = False
            if exact:
                return number
    elif isinstance(value, (str, Path)):
        text = str(value)
        if text.strip() and not any(ord(c) < 32 for c in text):
            return Secret(text) if hint is Secret else text
        raise ConfigError(f"{name} is empty or holds control characters; expected text")
    shown = "a secret" if hint is Secret else repr(value)
    expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, "text")
    raise ConfigError(f"{name} is {shown}; expected {expected}")


def _variables(cls: type[Config]) -> dict[str, tuple[str, ...]]:
    """Environment variable → path of the field it sets."""
    names: dict[str, tuple[str, ...]] = {"TOPSTEP_USERNAME": ("user_name",)}
    for entry in dataclasses.fields(cls):
        hint = _hints(cls)[entry.name]
        if isinstance(hint, type) and issubclass(hint, Part):
            for inner in dataclasses.fields(hint):  # type: ignore[arg-type]
                names[f"TOPSTEP_{entry.name}_{inner.name}".upper()] = (entry.name, inner.name)
        elif entry.name != "user_name":
            names[f"TOPSTEP_{entry.name}".upper()] = (entry.name,)
    return names


# Read elsewhere, though they look like settings of the part "token".
_ELSEWHERE: Final = frozenset({"TOPSTEP_TOKEN_PASSPHRASE"})


def _refuse_unknown(cls: type[Config], environ: Mapping[str, str]) -> None:
    known = _variables(cls)
    parts = tuple(sorted({f"TOPSTEP_{path[0]}_".upper() for path in known.values() if len(path) == 2}))
    for variable in environ:
        if variable.startswith(parts) and variable not in known and variable not in _ELSEWHERE:
            raise ConfigError(f"the environment variable {variable} names no setting")
