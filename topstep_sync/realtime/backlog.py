"""What waits in an event queue, and the policy of each kind for when it waits for long. No locks, no waiting.

A Ctrl-C may come after any call. So what moves events calls nothing between taking them from one place and the call
that puts them in the other: an event is in one place at any time.

| kind | when the consumer is slow |
|---|---|
| user events, and those about the stream | never dropped |
| quotes | merged per contract into the oldest one that waits; a price left out, or null, is kept and not zeroed |
| market trades | the oldest are dropped, and a `Gap` in their place says how many |
| depth | all updates are dropped, and a `BookReset` for each contract in their place says so |

Batches are taken as they come. They are looked through only when the consumer is behind or much has piled up, so an
event costs its share of one deque operation while the consumer keeps up, and each look pays for as many events as
it goes through.
"""

import itertools
from collections import Counter, deque
from typing import Any, Final

import msgspec

from topstep_sync.clock import FOREVER, Clock
from topstep_sync.events import BookReset, DepthEvent, Gap, QuoteEvent, TradesEvent
from topstep_sync.models import Quote, given

# Merging begins when the consumer is this far behind; below it nobody could tell the difference.
BEHIND: Final = 0.1  # GUESS: seconds; quotes of one contract come 42 a second at the open
PILE: Final = 4096  # events that may wait before they are looked through; about 4 MB


class Backlog:
    """Events in the order they came. Belongs to whoever holds the lock of its queue."""

    def __init__(self, merging: bool, max_trades: int | None, max_depth: int | None) -> None:
        self.merging = merging
        self._max_trades = FOREVER if max_trades is None else max_trades
        self._max_depth = FOREVER if max_depth is None else max_depth
        self._inbox: deque[list[Any]] = deque()  # batches as they came
        self._ready: deque[Any] = deque()  # events, older than the inbox
        self._slots: dict[str, QuoteEvent] = {}  # contract → the quote in `_ready` that later ones merge into
        self._plain = False  # whether `_ready` may hold quotes that were not merged
        self._pile = int(min(PILE, 2 * self._max_trades, 2 * self._max_depth))
        self._look_at = self._pile  # how many may wait until the next look
        self._boxed = 0  # events in the inbox
        self.dropped = 0
        self.merged = 0

    @property
    def size(self) -> int:
        """How many events wait."""
        return self._boxed + len(self._ready)

    def put(self, batch: list[Any]) -> list[str]:
        """*batch* is behind the others; returns the contracts whose books were dropped because of it."""
        count = len(batch)  # first: a signal's handler may put something during any call
        self._boxed += count
        self._inbox.append(batch)
        return self._relieve() if self._boxed + len(self._ready) > self._look_at else []

    def first(self, clock: Clock) -> Any:
        """The oldest event, which goes on waiting; `None` when there is none."""
        if self._inbox or (self._ready and self._plain):
            merge = self.merging and self._is_behind(clock)
            if merge or not self._ready:
                self._sort_in(merge)
        return self._ready[0] if self._ready else None

    def take(self, event: Any) -> Any:
        """*event*, which was `first` just now, and waits no more."""
        if self._slots and type(event) is QuoteEvent and self._slots.get(event.contract_id) is event:
            del self._slots[event.contract_id]
        del self._ready[0]
        return event

    def hand_over(self, into: deque[Any], unless: frozenset[type], clock: Clock) -> bool:
        """The oldest batch, in which no policy has anything to do, is in *into*, and waits here no more.

        False when there is none, or when events of the types *unless* are in it.
        """
        if self._ready or not self._inbox:
            return False
        batch = self._inbox[0]
        if (self.merging and is_late(batch[0], clock)) or not unless.isdisjoint(map(type, batch)):
            return False
        count = len(batch)
        del self._inbox[0]
        self._boxed -= count
        into.extend(batch)
        return True

    def take_all(self, clock: Clock, most: int | None = None) -> list[Any]:
        """Everything that waits, oldest first, at most *most* of it."""
        self._sort_in(merge=self.merging and self._is_behind(clock))
        if self._slots:
            self._slots.clear()
        events: list[Any]
        rest: deque[Any]
        look_at = self._pile
        if most is None or most >= len(self._ready):
            events, rest = list(self._ready), deque()
        else:
            events, rest = list(itertools.islice(self._ready, most)), deque(itertools.islice(self._ready, most, None))
            look_at = max(look_at, 2 * len(rest))
        self._ready, self._plain, self._look_at = rest, True, look_at
        return events

    def put_back(self, events: deque[Any] | list[Any], kinds: frozenset[type]) -> int:
        """*events* are in front of the others, and nowhere else; returns how many of them are of these *kinds*.

        Others may take from *events* meanwhile. Called again after an interruption, it goes on.
        """
        self._slots.clear()
        before, self._plain = len(self._ready), True
        try:  # noqa: SIM105 - `suppress` is Python, in which a Ctrl-C could come
            self._ready.extendleft(iter(events.pop, None))  # all in one step
        except IndexError:  # it has no other end
            pass
        moved = itertools.islice(self._ready, len(self._ready) - before)
        return sum(map(kinds.__contains__, map(type, moved)))

    def insert(self, event: Any, behind: int) -> None:
        """*event* is behind the first *behind* others."""
        self._slots.clear()
        self._plain = True
        self._ready.insert(behind, event)

    def squeezed(self, events: list[Any]) -> tuple[list[Any], list[str]]:
        """What is left of *events*, which wait elsewhere, by the policies here; and the contracts whose books were
        dropped."""
        other = Backlog(self.merging, None, None)
        other._max_trades, other._max_depth = self._max_trades, self._max_depth
        other._inbox.append(events)
        other._boxed = len(events)
        resets = other._relieve()
        self.dropped += other.dropped
        self.merged += other.merged
        return list(other._ready), resets

    def oldest(self) -> Any:
        """The oldest event, which stays; `None` when there is none."""
        return self._ready[0] if self._ready else self._inbox[0][0] if self._inbox else None

    def _is_behind(self, clock: Clock) -> bool:
        late = bool(self._inbox) and is_late(self._inbox[0][0], clock)
        return late or (bool(self._ready) and is_late(self._ready[0], clock))

    def _relieve(self) -> list[str]:
        """Apply the policies to all that waits; return the contracts whose books were dropped."""
        self._sort_in(merge=self.merging)
        counts = Counter(map(type, self._ready))
        resets: list[str] = []
        if counts[TradesEvent] > self._max_trades:
            self._drop_trades(int(counts[TradesEvent] - self._max_trades))
        if counts[DepthEvent] > self._max_depth:
            resets = self._drop_books()
        self._look_at = max(self._pile, 2 * len(self._ready))
        return resets

    def _drop_trades(self, count: int) -> None:
        """Drop the oldest *count* events of market trades; a `Gap` for each contract takes the first one's place."""
        gaps: dict[str, Gap] = {}
        kept: deque[Any] = deque()
        for event in self._ready:
            if type(event) is Gap:
                gaps.setdefault(event.contract_id, event)
            if count and type(event) is TradesEvent:
                count -= 1
                self.dropped += len(event.data)
                gap = gaps.get(event.contract_id)
                if gap is None:
                    gap = gaps[event.contract_id] = self._stamped(Gap, event)
                    kept.append(gap)
                gap.count += len(event.data)
            else:
                kept.append(event)
        self._ready = kept

    def _drop_books(self) -> list[str]:
        """Drop all depth; a `BookReset` for each contract takes the first update's place."""
        resets: dict[str, BookReset] = {}
        kept: deque[Any] = deque()
        for event in self._ready:
            if type(event) is BookReset:
                resets.setdefault(event.contract_id, event)
            if type(event) is DepthEvent:
                self.dropped += len(event.data)
                reset = resets.get(event.contract_id)
                if reset is None:
                    reset = resets[event.contract_id] = self._stamped(BookReset, event)
                    kept.append(reset)
                reset.count += len(event.data)
            else:
                kept.append(event)
        self._ready = kept
        return list(resets)

    @staticmethod
    def _stamped(kind: Any, event: Any) -> Any:
        return kind(
            source="market",
            contract_id=event.contract_id,
            count=0,
            received_at=event.received_at,
            received_epoch=event.received_epoch,
        )

    def _sort_in(self, merge: bool) -> None:
        """Move the inbox behind what is ready; with *merge*, one quote a contract is left."""
        if not merge:
            inbox: deque[list[Any]] = deque()
            events = itertools.chain.from_iterable(self._inbox)
            self._inbox, self._boxed, self._plain = inbox, 0, True
            self._ready.extend(events)
            return
        if self._plain:
            again = [list(self._ready)] if self._ready else []
            ready, size = deque[Any](), self.size
            self._ready, self._boxed, self._slots, self._plain = ready, size, {}, False
            self._inbox.extendleft(again)
        while self._inbox:
            self._merge_in(self._inbox[0])

    def _merge_in(self, batch: list[Any]) -> None:
        """The oldest batch in the inbox, which is *batch*, is behind what is ready; interrupted, a part of it is."""
        ready, slots, done = self._ready, self._slots, 0
        try:
            for event in batch:
                slot = slots.get(event.contract_id) if type(event) is QuoteEvent else None
                if slot is not None:
                    image = merged(slot.data, event.data)
                    slot.data, slot.received_at, slot.received_epoch = image, event.received_at, event.received_epoch
                    done, self._boxed, self.merged = done + 1, self._boxed - 1, self.merged + 1
                elif type(event) is QuoteEvent:
                    slot = _copied(event)  # other queues may hold the same event
                    slots[event.contract_id] = slot
                    done, self._boxed = done + 1, self._boxed - 1
                    ready.append(slot)
                else:
                    done, self._boxed = done + 1, self._boxed - 1
                    ready.append(event)
        finally:
            rest = batch[done:]
            if rest:
                self._inbox[0] = rest
            else:
                del self._inbox[0]


def is_late(event: Any, clock: Clock) -> bool:
    """Whether *event* is so old that there may be fresher quotes to be merged into it.

    An image that was merged is as old as the freshest quote in it, however long the oldest has waited.
    """
    return bool(clock.monotonic() - event.received_at > BEHIND)


def waiting_since(event: Any) -> float:
    """When the oldest of what *event* holds came, in seconds of the monotonic clock."""
    return float(event.received_at if event.first_at is None else event.first_at)


def merged(old: Quote, new: Quote) -> Quote:
    """*old* with what *new* says; what *new* left out, or sent as null, stays as it was.

    Serializers differ in whether they leave a null out, so a null says no more than nothing does. An event that was not
    merged shows it.
    """
    news = {name: value for name in Quote.__struct_fields__ if given(value := getattr(new, name))}
    return msgspec.structs.replace(old, **news)


def _copied(event: QuoteEvent) -> QuoteEvent:
    return QuoteEvent(
        event.contract_id,
        event.data,
        first_at=waiting_since(event),
        received_at=event.received_at,
        received_epoch=event.received_epoch,
        recovered=event.recovered,
    )
