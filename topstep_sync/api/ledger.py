"""The intents of this process by their tag: what `verify` knows without asking, and the single flight of each tag."""

import threading
from typing import Final

import msgspec

from topstep_sync.api import intent
from topstep_sync.api.results import PlacedOrder
from topstep_sync.clock import Signal
from topstep_sync.errors import InvalidRequest
from topstep_sync.events import Event, OrderEvent
from topstep_sync.messages import PlaceOrder
from topstep_sync.models import Order

KEPT: Final = (
    10_000  # settled intents remembered; a day at the gateway's limit is 288 000 calls, most of them no orders
)


class Sought(msgspec.Struct, frozen=True):
    """An order that is looked for."""

    account_id: int
    tag: str
    since: float
    """Seconds since 1970 before which it cannot have been placed."""
    lost: float = 0.0
    """Seconds since 1970 at which its last attempt was given up, where that is known: the horizon counts from there."""

    def hears(self, event: Event) -> Order | None:
        """The order, if *event* of the user hub carries it."""
        if isinstance(event, OrderEvent) and event.data.custom_tag == self.tag:
            return event.data if event.data.account_id == self.account_id else None
        return None


class Intent:
    """One order that somebody wanted. Written only by the thread that holds its flight."""

    __slots__ = ("doubtful", "flight", "lost", "minted", "placed", "request", "since", "state", "tag")

    def __init__(self, request: PlaceOrder, tag: str, since: float, *, minted: bool = True) -> None:
        self.request = request
        self.tag = tag
        self.since = since
        """Seconds since 1970 of the first attempt."""
        self.lost = 0.0
        """Seconds since 1970 when the reply of its last attempt was given up; a permit may have been waited for."""
        self.minted = minted
        """Whether the tag is ours, so that nobody else can have used it."""
        self.state = intent.PREPARED
        self.doubtful = False
        """Whether an earlier attempt may still execute; true for ever once a reply was lost."""
        self.placed: PlacedOrder | None = None
        self.flight: Flight | None = None

    @property
    def sought(self) -> Sought:
        return Sought(self.request.account_id, self.tag, self.since, self.lost)

    def step(self, event: intent.Event) -> None:
        self.state = intent.step(self.state, event)
        if event is intent.LOSE:
            self.doubtful = True


class Flight:
    """One carrying out of an intent, and what it came to, for those who joined it."""

    __slots__ = ("landed", "outcome")

    def __init__(self) -> None:
        self.landed = Signal()
        self.outcome: PlacedOrder | BaseException | None = None


ALONE: Final = Flight()  # stands for the flight that nobody has joined: most of them


class Ledger:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _intents, and the flight of each
        self._intents: dict[str, Intent] = {}

    def find(self, tag: str) -> Intent | None:
        return self._intents.get(tag)

    def order(self, order_id: int) -> PlacedOrder | None:
        """The order with this id, if it was placed here and is still remembered."""
        with self._lock:
            placed = (entry.placed for entry in reversed(self._intents.values()))
            return next((order for order in placed if order is not None and order.id == order_id), None)

    def board(self, new: Intent) -> Intent:
        """*new*, which the caller is the one to carry out; or the intent of the same tag, to whose flight it comes.

        Raises:
            InvalidRequest: the tag stands for a different order.
        """
        with self._lock:
            known = self._intents.get(new.tag)
            if known is not None:
                if known.request != new.request:
                    raise InvalidRequest(f"the custom tag {new.tag!r} stands for another order; each needs its own")
                if known.flight is not None or known.placed is not None:
                    return known
                if known.doubtful and known.state is not intent.State.REJECTED:
                    new.state, new.since, new.doubtful, new.minted = known.state, known.since, True, known.minted
                    new.lost = known.lost
            new.flight = ALONE
            self._intents[new.tag] = new
            if len(self._intents) > KEPT + KEPT // 10:  # a good many at a time: finding the settled ones looks at all
                self._forget(len(self._intents) - KEPT)
            return new

    def adopt(self, found: Intent) -> Intent:
        """*found* in the journal is known here from now on; the intent of the same tag that already is, wins."""
        with self._lock:
            return self._intents.setdefault(found.tag, found)

    def land(self, entry: Intent, outcome: PlacedOrder | BaseException | None) -> None:
        """The flight of *entry*, if it is in flight, is over, and everybody who has joined it knows the outcome."""
        with self._lock:
            flight = entry.flight
            if flight is ALONE:
                entry.flight = None
        if flight is not None and flight is not ALONE:  # in this order, so that it can be done again after a Ctrl-C
            flight.outcome = outcome
            flight.landed.set()
            entry.flight = None

    def conclude(self, entry: Intent, event: intent.Event, placed: PlacedOrder | None = None) -> bool:
        """*entry* has stepped by what a look-up came to; False: somebody settled it or sent it again first."""
        with self._lock:
            if entry.state in (intent.State.ACCEPTED, intent.State.REJECTED):
                return False
            if event is intent.Event.MISS and self._intents.get(entry.tag, entry) is not entry:
                return False  # the absence was that of another attempt
            entry.step(event)
            entry.placed = placed
            return True

    def join(self, entry: Intent) -> Flight | None:
        """The flight of *entry* that another thread carries out; `None` when it is over."""
        with self._lock:
            if entry.flight is ALONE:
                entry.flight = Flight()
            return entry.flight

    def open(self) -> list[Intent]:
        """Intents that may have an order nobody knows of, oldest first."""
        with self._lock:
            return [entry for entry in self._intents.values() if entry.state in intent.OPEN]

    def _forget(self, surplus: int) -> None:
        assert self._lock.locked()
        settled = [tag for tag, e in self._intents.items() if e.flight is None and e.state not in intent.OPEN]
        for tag in settled[:surplus]:
            del self._intents[tag]
