"""The one seam between the exchange and the hubs: what happened, told to whoever listens on the loop thread."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

USER_HUB: Final = "user"
MARKET_HUB: Final = "market"


class Publication(NamedTuple):
    """One invocation that the hubs owe their subscribers, in its canonical shape; switches reshape it on the way out.

    User hub: `arguments` is ``({"action": int, "data": record},)``. Market hub: ``(contract_id, record)`` for
    quotes and ``(contract_id, [record, ...])`` for trades and depth. Records are ready for JSON: camelCase, absent
    values as None, times as text. They are never changed after publication, so they may be encoded once and shared.
    """

    hub: str
    target: str
    arguments: tuple[Any, ...]
    account_id: int | None = None
    contract_id: str | None = None


class Bus:
    """Calls every subscriber, in order of subscription, for every publication. Loop thread only."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Publication], None]] = []

    def subscribe(self, callback: Callable[[Publication], None]) -> Callable[[], None]:
        """*callback* hears everything from now on; the returned function ends that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def publish(self, publication: Publication) -> None:
        """Every subscriber has been called with *publication*."""
        for callback in self._callbacks:
            callback(publication)
