"""An order book built from depth events.

The gateway documents neither what `volume` and `currentVolume` mean apart nor what `Reset` covers. Read here as the
field reports of 2026-08 do: `volume` is what rests at the level, 0 removes it, `Reset` clears both sides.
"""

from collections.abc import Iterable
from typing import Any, Final

from topstep_sync.errors import InvalidRequest
from topstep_sync.events import BookReset, ConnectionEvent, DepthEvent
from topstep_sync.models import Contract, Depth, DepthType
from topstep_sync.realtime.lifecycle import State

CHANGING: Final = frozenset((DepthEvent, BookReset, ConnectionEvent))
"""Events that change a book."""

_BIDS: Final = (DepthType.BID, DepthType.BEST_BID, DepthType.NEW_BEST_BID)
_ASKS: Final = (DepthType.ASK, DepthType.BEST_ASK, DepthType.NEW_BEST_ASK)
# A best price says that nothing better is left. GUESS: nobody has seen the gateway contradict it.
_BEST: Final = (DepthType.BEST_BID, DepthType.NEW_BEST_BID, DepthType.BEST_ASK, DepthType.NEW_BEST_ASK)


class Book:
    """Resting volume by price, both sides. Belongs to the thread that takes the events."""

    def __init__(self, contract_id: str) -> None:
        self.contract_id = contract_id
        self._bids: dict[float, int] = {}
        self._asks: dict[float, int] = {}
        self.updates = 0
        """Depth updates since the last reset; 0 when nothing is known."""

    def apply(self, updates: Iterable[Depth]) -> None:
        """The book after *updates*, oldest first."""
        for update in updates:
            self.updates += 1
            if update.type == DepthType.RESET:
                self.clear()
            elif update.type in _BIDS:
                self._level(self._bids, update)
                if update.type in _BEST and update.volume:
                    self._drop(self._bids, [price for price in self._bids if price > update.price])
            elif update.type in _ASKS:
                self._level(self._asks, update)
                if update.type in _BEST and update.volume:
                    self._drop(self._asks, [price for price in self._asks if price < update.price])

    @staticmethod
    def _level(side: dict[float, int], update: Depth) -> None:
        if update.volume > 0:
            side[update.price] = update.volume
        else:
            side.pop(update.price, None)

    @staticmethod
    def _drop(side: dict[float, int], prices: list[float]) -> None:
        for price in prices:
            del side[price]

    def clear(self) -> None:
        """Nothing is known."""
        self._bids.clear()
        self._asks.clear()
        self.updates = 0

    def bids(self, levels: int | None = None) -> list[tuple[float, int]]:
        """(price, volume) of the best *levels* bids, best first."""
        return sorted(self._bids.items(), reverse=True)[:levels]

    def asks(self, levels: int | None = None) -> list[tuple[float, int]]:
        """(price, volume) of the best *levels* asks, best first."""
        return sorted(self._asks.items())[:levels]

    @property
    def best_bid(self) -> float | None:
        """The highest bid; `None` when there is none."""
        return max(self._bids, default=None)

    @property
    def best_ask(self) -> float | None:
        """The lowest ask; `None` when there is none."""
        return min(self._asks, default=None)

    def __repr__(self) -> str:
        return f"Book({self.contract_id!r}, bid={self.best_bid}, ask={self.best_ask}, updates={self.updates})"


class Books(dict[str, Book]):
    """The book of every contract that was asked for or told of."""

    def __missing__(self, contract_id: str) -> Book:
        return self.setdefault(contract_id, Book(contract_id))

    def of(self, contract_id: str | Contract) -> Book:
        """The book of a contract, given by its id or as such; raises `InvalidRequest` for anything else."""
        name = getattr(contract_id, "id", contract_id)
        if type(name) is not str:
            raise InvalidRequest(f"no book of {name!r} can be; expected a contract, or an id such as CON.F.US.MNQ.Z26")
        return self[name]

    def apply(self, event: Any) -> None:
        """The books are as *event*, whatever it is, leaves them."""
        if type(event) is DepthEvent:
            self[event.contract_id].apply(event.data)
        elif type(event) is BookReset and event.contract_id in self:
            self[event.contract_id].clear()
        elif type(event) is ConnectionEvent and event.source == "market" and event.state != State.CONNECTED:
            # What changes from here on is never told, and the hub need not begin anew with a reset.
            for book in list(self.values()):
                book.clear()
