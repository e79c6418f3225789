"""The hubs' switches: timings of ASP.NET Core's SignalR, and the shapes in which payloads have been seen."""

from dataclasses import dataclass, field
from typing import Any, Final

HUB_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "envelope": ("wrapped", "flat", "list", "mixed"),
    "market_trades": ("list", "single"),
    "market_depth": ("mixed", "list", "single", "nulls"),
    "quotes": ("sparse", "full"),
    "ids": ("number", "text"),
}
"""Hub switch → the values it may have."""


def switch(default: Any, text: str) -> Any:
    """A field with its one-line explanation, which the command line and the README show."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class HubSettings:
    """Every switch of the hubs with its default. Times are in real seconds: they are about the network."""

    keep_alive: float = switch(15.0, "real seconds between the hubs' pings; 0: none")
    client_timeout: float = switch(
        30.0, "real seconds of silence after which a client that has pinged is closed; 0: never"
    )
    handshake_timeout: float = switch(15.0, "real seconds a client has for its handshake; 0: for ever")
    close_on_expiry: bool = switch(False, "whether a hub connection is closed when its token expires")
    receive_limit: int = switch(32_768, "largest record a hub takes, in bytes with its end")
    fragment: int = switch(4_096, "size of the fragments a larger message is cut into; 0: never cut")
    records_per_message: int = switch(0, "most records in one message; 0: all that piled up")

    replay: str = switch("", "recording that is played to subscribers from the first subscription on")
    replay_speed: float = switch(1.0, "how many times as fast as it was recorded; 0: as fast as it goes")

    envelope: str = switch("wrapped", "user events: {action, data}, bare, a list of envelopes, or only orders wrapped")
    market_trades: str = switch("list", "GatewayTrade: an array of trades, or one trade an event")
    market_depth: str = switch("mixed", "GatewayDepth: object or array as it comes, arrays, objects, arrays with nulls")
    quotes: str = switch("sparse", "GatewayQuote after the first: what changed, or everything")
    ids: str = switch("number", "order and trade ids on the hubs: numbers, or strings")
    omit_nulls: bool = switch(True, "whether null fields are left out of hub payloads")
