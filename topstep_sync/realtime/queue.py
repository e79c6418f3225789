"""The queue a main loop polls: events of both hubs, in the order they came.

A consumer that keeps up sees every event; what happens to those of a slow one is in `backlog`. The hub's thread hands
over whole batches and wakes the consumer once a batch. What the policies have let go of lies at hand and is taken
without the lock, which is most of what an event costs.

A signal's handler may call any of this, in the middle of any of it. So the end is one step without the lock, and the
lock lets its own thread in; but who would take what a step has under its hands finds nothing. A handler may raise, too:
an event goes from one place to the next in one step of C code, or its taker puts it back.
"""

import logging
import queue
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Clock
from topstep_sync.errors import StreamError, StreamFailed
from topstep_sync.events import QuoteEvent
from topstep_sync.models import Contract
from topstep_sync.realtime.backlog import Backlog, is_late, waiting_since
from topstep_sync.realtime.baton import Baton, LockBaton
from topstep_sync.realtime.book import CHANGING, Book, Books
from topstep_sync.realtime.forks import REASON, survive
from topstep_sync.realtime.ownlock import OwnLock

_log = logging.getLogger("topstep_sync.realtime")

_ASIDE: Final = 10_000  # events that `wait_for` keeps aside before it treats them as those of a slow consumer
_WARN_AT: Final = 50_000  # waiting events at which the first warning comes; then at each doubling


class EventQueue:
    """Typed events for one consumer, from both hubs. Thread-safe; raises `queue.Empty` like the standard queue.

    Args:
        conflate: whether quotes of a contract are merged while the consumer is behind; False keeps every one.
        max_trades: events of market trades kept at least before the oldest are dropped; `None` for no limit.
        max_depth: events of depth kept at least before the books are dropped; `None` for no limit.
        on_close: called with the queue when it is closed; once, unless an exception ends the call.
        on_reset: called with the contract's id when its book was dropped, so that it can be fetched anew.
    """

    def __init__(
        self,
        *,
        conflate: bool = True,
        max_trades: int | None = 100_000,
        max_depth: int | None = 20_000,
        clock: Clock = SYSTEM_CLOCK,
        on_close: "Callable[[EventQueue], None] | None" = None,
        on_reset: Callable[[str], None] | None = None,
    ) -> None:
        for name, limit in (("max_trades", max_trades), ("max_depth", max_depth)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is {limit!r}; expected a number above 0, or None for no limit")
        self._clock, self._on_close, self._on_reset = clock, on_close, on_reset
        self._at_hand: deque[Any] = deque()  # next to be taken, by whoever is first; not only under the lock
        self._taking = iter(self._at_hand.popleft, None)
        self._merging = bool(conflate)
        self._arrived = Baton()
        self._ends: list[tuple[str, bool]] = []  # why no more will come, and whether it failed; the first counts
        self._books = Books()
        self._lock = OwnLock()  # guards everything below, and the contents of the books
        self._backlog = Backlog(self._merging, max_trades, max_depth)
        self._hungry = False  # whether nothing waits but a consumer: what comes then need not go through the backlog
        self._seen = 0  # of the first events in the backlog, how many that change a book have changed it already
        self._warn_at = _WARN_AT
        self.received = 0
        """Events handed over so far."""
        survive(self)

    def put(self, batch: list[Any]) -> None:
        """The events of *batch* are behind those already here; their order stays. Does nothing once it is closed."""
        if not batch or self._ends:  # at its end the hub's thread waits for no lock; a signal's handler may wait for it
            return
        try:
            with self._lock:
                if self._ends:
                    return
                self.received += len(batch)
                at_hand, self._hungry = self._hungry and CHANGING.isdisjoint(map(type, batch)), False
                if at_hand:
                    self._at_hand.extend(batch)
                else:
                    resets = self._backlog.put(batch)
                    if resets:  # whatever was seen of the books is among what was dropped
                        self._seen = 0
            self._arrived.set()
        except BaseException:
            self._arrived.set()  # something may have come
            raise
        if at_hand:  # quickly now: whoever was woken waits for the interpreter
            return
        if (size := self._backlog.size) > self._warn_at:
            self._warn_at = 2 * size
            _log.warning("! %d events wait for a consumer that is %.1f s behind", size, self.lag)
        if self._on_reset is not None:
            for contract_id in resets:
                self._on_reset(contract_id)

    def finish(self, reason: str, failed: bool = False) -> None:
        """No more events will come; iteration ends once those that wait are taken."""
        try:
            if not self._ends:
                self._ends.append((reason, failed))
            self._arrived.set()
        except BaseException:
            self._arrived.set()  # as in `put`
            raise

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The oldest event that waits.

        Args:
            block: False to return at once.
            timeout: seconds to wait for one; `None` for as long as it takes.

        Raises:
            queue.Empty: there was none in time.
            StreamFailed: the stream gave up, and every event before that was taken.
            StreamError: the queue is closed, and every event before that was taken.
        """
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout is {timeout!r}; expected 0 or more seconds, or None")
        hand, end, sorted_out = self._at_hand, None, not self._merging
        try:
            while True:
                late = False
                if hand:
                    try:
                        for event in self._taking:  # one step: no signal is looked at before it has its name
                            if sorted_out or event.__class__ is not QuoteEvent:
                                return event
                            break
                    except IndexError:  # another consumer was first
                        continue
                    late = True  # for all that is known
                    try:
                        late = is_late(event, self._clock)
                    finally:
                        if late:
                            hand.appendleft(event)
                    if not late:
                        return event
                end = self._next(block, timeout, end, late)
                sorted_out = True
        except BaseException as error:
            if not isinstance(error, queue.Empty):
                self._arrived.set()  # others may wait for the same end, or can take what this one was woken for
            raise

    def _next(self, block: bool, timeout: float | None, end: float | None, late: bool) -> float | None:
        """Until when there is patience, as something may be at hand now; *late* is what was there before."""
        if self._lock.mine():  # in a signal's handler, in the middle of a step
            raise queue.Empty
        with self._lock:
            if late:
                self._take_back()
            if self._at_hand or self._let_go():
                return end
            self._hungry = True
            self._arrived.clear()  # before the look at the end, which is told without the lock
            if self._at_hand or self._backlog.size:  # put (back) by a handler; `clear` may have undone the telling
                self._hungry = False
                self._arrived.set()
                return end
            self._refuse_ended()
            now = self._clock.monotonic()
            if end is None:
                end = now if not block else FOREVER if timeout is None else now + timeout
            if now >= end:
                raise queue.Empty
        self._clock.wait(self._arrived, None if end == FOREVER else end - now)
        if len(self._at_hand) > 1 or self._backlog.size:  # another consumer may wait, too
            self._arrived.set()
        return end

    def _let_go(self) -> bool:
        """Whether the oldest events, as far as no policy holds them, are at hand now."""
        assert self._lock.mine()
        if not self._backlog.hand_over(self._at_hand, CHANGING, self._clock):
            event = self._backlog.first(self._clock)
            if event is None:
                return False
            self._noted([event])
            self._at_hand.append(self._backlog.take(event))
        self._arrived.set()  # another consumer may wait, and have missed its turn
        return True

    def _take_back(self) -> None:
        """What is at hand waits in the backlog again, in front of all others."""
        assert self._lock.mine()
        self._hungry = False
        if self._at_hand:
            self._seen += self._backlog.put_back(self._at_hand, CHANGING)  # each has changed its book

    def get_nowait(self) -> Any:
        """The oldest event that waits; raises `queue.Empty` when there is none."""
        return self.get(block=False)

    def drain(self, max: int | None = None, timeout: float = 0.0) -> list[Any]:  # noqa: A002 - what everybody expects
        """The events that wait, oldest first, at most *max* of them; an empty list when there is none.

        Args:
            max: `None` for all of them.
            timeout: seconds to wait for the first one.

        Raises:
            StreamError: as `get`, once the queue has ended and all was taken.
        """
        if max is not None and max < 0:
            raise ValueError(f"max is {max!r}; expected 0 or more events, or None")
        end = self._clock.monotonic() + timeout
        events: list[Any] = []
        try:
            while not self._lock.mine():  # else in a signal's handler, in the middle of a step
                with self._lock:
                    self._take_back()  # what is taken all at once is in the backlog
                    if self._backlog.size:
                        events = self._backlog.take_all(self._clock, max)
                        self._noted(events)
                        if self._backlog.size:
                            self._arrived.set()  # another consumer may have slept through what is left
                        break
                    self._arrived.clear()
                    if self._at_hand or self._backlog.size:  # as in `_next`
                        continue
                    self._refuse_ended()
                    if (now := self._clock.monotonic()) >= end:
                        break
                self._clock.wait(self._arrived, None if end == FOREVER else end - now)
            return events
        except BaseException:
            self._give_back(events)
            self._arrived.set()  # as in `get`
            raise

    def _give_back(self, events: list[Any]) -> None:
        """*events*, which drain did not see through to its caller, are at hand, and the books know all of them."""
        self._at_hand.extendleft(reversed(events))
        with self._lock:
            self._noted(events)  # what was noted before may be noted again

    def _noted(self, events: list[Any]) -> None:
        """The books are as *events* leave them; what `wait_for` looked at and put back has changed them then."""
        assert self._lock.mine()
        for event in events if not CHANGING.isdisjoint(map(type, events)) else ():
            if self._seen and type(event) in CHANGING:
                self._seen -= 1
            else:
                self._books.apply(event)

    def wait_for(self, predicate: Callable[[Any], bool], timeout: float | None = None) -> Any:
        """The first event for which *predicate* is true. The others stay, in their order, for `get`.

        Books are as of the last event that was looked at, so *predicate* may ask one.

        Raises:
            queue.Empty: none came within *timeout* seconds.
        """
        event = None
        try:
            place, event = self._found(predicate, timeout)
            self._arrived.set()  # another consumer may have found nothing meanwhile
            return event
        except BaseException:
            if event is not None:
                self._at_hand.insert(place, event)
            self._arrived.set()
            raise

    def _found(self, predicate: Callable[[Any], bool], timeout: float | None) -> tuple[int, Any]:
        """The first event for which *predicate* is true, and how many that came before it are at hand again."""
        end = FOREVER if timeout is None else self._clock.monotonic() + timeout
        aside: list[Any] = []
        backwards = iter(aside.pop, None)
        try:
            while True:
                left = end - self._clock.monotonic()
                event = self.get(timeout=None if left == FOREVER else max(0.0, left))
                aside.append(event)  # before the predicate, which may raise
                if predicate(event):
                    break
                if event.received_at > end:  # else a predicate slower than the events would be asked for ever
                    raise queue.Empty
                if len(aside) % _ASIDE == 0:
                    aside[:] = self._squeezed(aside)
            place = len(aside) - 1
            del aside[-1]
            return place, event
        finally:
            try:  # noqa: SIM105 - `suppress` is Python, in which a Ctrl-C could come
                self._at_hand.extendleft(backwards)  # all in one step
            except IndexError:  # it has no other end
                pass

    def _squeezed(self, aside: list[Any]) -> list[Any]:
        with self._lock:
            left, resets = self._backlog.squeezed(aside)
            if resets:  # they are in *left*; what was put back behind them is to be applied to empty books
                self._seen = 0
                for contract_id in resets:
                    self._books[contract_id].clear()
        if self._on_reset is not None:
            for contract_id in resets:
                self._on_reset(contract_id)
        return left

    def _refuse_ended(self) -> None:
        if self._ends:
            reason, failed = self._ends[0]
            raise (StreamFailed if failed else StreamError)(reason)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except StreamFailed:
            raise
        except StreamError:
            raise StopIteration from None

    @property
    def lag(self) -> float:
        """Seconds that the oldest waiting event has been here, or the oldest quote that is merged into it; else 0.0."""
        try:
            oldest = self._at_hand[0]
        except IndexError:
            oldest = self._backlog.oldest()
        return 0.0 if oldest is None else max(0.0, self._clock.monotonic() - waiting_since(oldest))

    @property
    def dropped(self) -> int:
        """Market trades and depth updates dropped so far, because the consumer was slow."""
        return self._backlog.dropped

    @property
    def merged(self) -> int:
        """Quotes merged into an earlier one so far."""
        return self._backlog.merged

    def qsize(self) -> int:
        """How many events wait."""
        return self._backlog.size + len(self._at_hand)

    __len__ = qsize

    def empty(self) -> bool:
        """Whether none waits."""
        return len(self) == 0

    @property
    def closed(self) -> bool:
        """Whether no more events will come."""
        return bool(self._ends)

    @property
    def reason(self) -> str | None:
        """Why no more will come; `None` while they do."""
        return self._ends[0][0] if self._ends else None

    def book(self, contract_id: str | Contract) -> Book:
        """The order book of a contract or its id, as of the last depth event looked at; it goes on changing.

        It is empty after an event that says that the market hub is gone, until the hub tells of it anew.
        """
        return self._books.of(contract_id)

    def close(self) -> None:
        """Nobody wants these events any more; subscriptions that no other queue needs are taken back. Idempotent."""
        self.finish("the queue was closed")
        if (callback := self._on_close) is not None:
            callback(self)
            self._on_close = None  # only now: what is interrupted is seen through by the next `close`

    def forked(self) -> None:
        """In a child process: what was here can still be taken; no more will come."""
        left, self._lock, self._arrived = self._arrived, OwnLock(), Baton()
        LockBaton.set(left)  # who forks in a signal's handler may wait there; the pipe, though, is the parent's
        self._on_close = None
        self.finish(REASON, failed=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        return True  # an empty queue is still a queue

    def __repr__(self) -> str:
        ended = f", closed: {self.reason}" if self._ends else ""
        return f"EventQueue({len(self)} waiting, lag {self.lag:.3f} s, {self.dropped} dropped{ended})"
