"""The shapes in which hub events have been seen, made from the exchange's canonical one. Pure.

Source: field reports of 2025 and 2026 that disagree; each shape is a switch of `HubSettings`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from topstep_sync.simulator.bus import USER_HUB, Publication
from topstep_sync.simulator.hub_settings import HubSettings

_ORDER: Final = "GatewayUserOrder"
_ID_FIELDS: Final = {
    _ORDER: ("id", "parentOrderId", "linkedOrderId"),
    "GatewayUserTrade": ("id", "orderId"),
}
USER_TOPICS: Final = {
    "GatewayUserAccount": "accounts",
    _ORDER: "orders",
    "GatewayUserPosition": "positions",
    "GatewayUserTrade": "trades",
}
MARKET_TOPICS: Final = {"GatewayQuote": "quotes", "GatewayTrade": "trades", "GatewayDepth": "depth"}


def topic_of(publication: Publication) -> str:
    """The subscription that a publication belongs to; empty when it is none's."""
    if publication.hub == USER_HUB:
        topic = USER_TOPICS.get(publication.target, "")
        return topic if topic in ("", "accounts") else f"{topic}:{publication.account_id}"
    topic = MARKET_TOPICS.get(publication.target, "")
    return f"{topic}:{publication.contract_id}" if topic else ""


class Shaper:
    """Shapes arguments as the settings say.

    Args:
        full_quote: the whole quote of a contract, for the switch that sends nothing sparse.
    """

    def __init__(self, settings: HubSettings, full_quote: Callable[[str], dict[str, Any] | None]) -> None:
        self._settings = settings
        self._full_quote = full_quote
        self._shapes: dict[str, Callable[[str, Any], Iterable[Any]]] = {
            "GatewayQuote": self._quote,
            "GatewayTrade": self._trades,
            "GatewayDepth": self._depth,
        }

    def shape(self, target: str, arguments: tuple[Any, ...]) -> list[list[Any]]:
        """The argument lists of the invocations to send, in order; usually one."""
        if target in self._shapes:
            contract_id, record = arguments
            return [[contract_id, shaped] for shaped in self._shapes[target](contract_id, record)]
        if target in USER_TOPICS:
            return [[self._user(target, arguments[0])]]
        return [list(arguments)]

    def _user(self, target: str, event: dict[str, Any]) -> Any:
        data = self._clean(event["data"])
        if self._settings.ids == "text":
            for name in _ID_FIELDS.get(target, ()):
                if data.get(name) is not None:
                    data[name] = str(data[name])
        envelope = self._settings.envelope
        if envelope == "flat" or (envelope == "mixed" and target != _ORDER):
            return data
        wrapped = {"action": event["action"], "data": data}
        return [wrapped] if envelope == "list" else wrapped

    def _quote(self, contract_id: str, record: dict[str, Any]) -> Iterable[Any]:
        if self._settings.quotes == "full":
            record = self._full_quote(contract_id) or record
        return [self._clean(record)]

    def _trades(self, contract_id: str, rows: list[dict[str, Any]]) -> Iterable[Any]:
        clean = [self._clean(row) for row in rows]
        return clean if self._settings.market_trades == "single" else [clean]

    def _depth(self, contract_id: str, rows: list[dict[str, Any]]) -> Iterable[Any]:
        shape = self._settings.market_depth
        clean: list[Any] = [self._clean(row) for row in rows]
        if shape == "single" or (shape == "mixed" and len(clean) == 1):
            return clean
        return [[*clean, None] if shape == "nulls" else clean]

    def _clean(self, record: dict[str, Any]) -> dict[str, Any]:
        if self._settings.omit_nulls:
            return {name: value for name, value in record.items() if value is not None}
        return dict(record)
