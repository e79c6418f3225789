"""A signal's handler may call the queue at every moment of whatever the main loop does with it."""

import contextlib
import queue
from collections.abc import Callable
from typing import Any

import pytest
from interruptions import called_everywhere, elsewhere

from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.errors import StreamError
from topstep_sync.events import ConnectionEvent, DepthEvent, OrderEvent, QuoteEvent
from topstep_sync.models import Depth, Quote
from topstep_sync.realtime.queue import EventQueue

OURS = ("topstep_sync.realtime",)


def number(event: Any) -> Any:
    return event.data if isinstance(event, OrderEvent) else event.contract_id


class Loop:
    """A main loop before a queue, and what it and its handler have taken."""

    def __init__(self, late: bool, conflate: bool, at_hand: bool = False) -> None:
        self.closed: list[EventQueue] = []
        self.events = EventQueue(conflate=conflate, on_close=self.closed.append)
        self.taken: list[Any] = []
        self.stolen: list[Any] = []
        at = 0.0 if late else SYSTEM_CLOCK.monotonic()
        level = Depth(type=2, price=1.0, volume=1)  # type: ignore[arg-type]
        self.sent = [
            OrderEvent(data=0, received_at=at),  # type: ignore[arg-type]
            QuoteEvent("Q1", Quote(last_price=1.0), received_at=at),
            OrderEvent(data=1, received_at=at),  # type: ignore[arg-type]
            DepthEvent("D", [level], received_at=at),
            QuoteEvent("Q2", Quote(last_price=2.0), received_at=at),
            OrderEvent(data=2, received_at=at),  # type: ignore[arg-type]
        ]
        self.events.put(self.sent[:3])
        self.events.put(self.sent[3:])
        if at_hand:
            self.taken.append(self.events.get())

    # What the loop does.

    def get(self) -> None:
        with contextlib.suppress(queue.Empty, StreamError):
            while True:
                event = self.events.get(timeout=0.0)
                self.taken.append(event)

    def get_waiting(self) -> None:
        self.taken += self.events.drain()
        with contextlib.suppress(queue.Empty, StreamError):
            event = self.events.get(timeout=0.001)
            self.taken.append(event)

    def iterate(self) -> None:
        self.events.finish("all was said")
        for event in self.events:
            self.taken.append(event)

    def drain(self) -> None:
        with contextlib.suppress(StreamError):
            self.taken += self.events.drain(2)
            self.taken += self.events.drain()
            self.taken += self.events.drain(timeout=0.001)

    def wait_for(self) -> None:
        with contextlib.suppress(queue.Empty, StreamError):
            event = self.events.wait_for(lambda event: event.kind == "depth", timeout=0.0)
            self.taken.append(event)

    def put(self) -> None:
        event = OrderEvent(data=3, received_at=SYSTEM_CLOCK.monotonic())  # type: ignore[arg-type]
        self.events.put([event])

    def close(self) -> None:
        self.events.close()

    def ask(self) -> None:
        self.events.book("D")
        assert self.events.lag >= 0.0
        repr(self.events)

    # What the handler does.

    def steal(self) -> None:
        with contextlib.suppress(queue.Empty, StreamError):
            self.stolen.append(self.events.get_nowait())

    def steal_all(self) -> None:
        with contextlib.suppress(queue.Empty, StreamError):
            self.stolen += self.events.drain()
            self.stolen.append(self.events.wait_for(lambda event: event.kind == "depth", timeout=0.0))

    def look(self) -> None:
        assert 0 <= self.events.qsize()
        assert 0.0 <= self.events.lag

    def close_and_ask(self) -> None:
        self.events.close()
        self.look()
        assert self.events.closed

    def steal_and_raise(self) -> None:
        self.steal()
        raise KeyboardInterrupt

    def close_and_raise(self) -> None:
        self.events.close()
        raise KeyboardInterrupt

    def rest(self) -> list[Any]:
        with contextlib.suppress(StreamError):
            return self.events.drain()
        return []


ACTIONS = [
    Loop.get, Loop.get_waiting, Loop.iterate, Loop.drain, Loop.wait_for, Loop.put, Loop.close, Loop.ask,
]  # fmt: skip
HANDLERS = [
    Loop.steal_and_raise, Loop.close_and_ask, Loop.steal, Loop.steal_all, Loop.look, Loop.close_and_raise,
]  # fmt: skip


@pytest.mark.parametrize(("late", "conflate"), [pytest.param(False, False, marks=pytest.mark.slow), (True, True)])
@pytest.mark.parametrize(
    "handler", [*HANDLERS[:2], *(pytest.param(handler, marks=pytest.mark.slow) for handler in HANDLERS[2:])]
)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_handler_may_call_at_any_moment(
    action: Callable[[Loop], None], handler: Callable[[Loop], None], late: bool, conflate: bool
) -> None:
    """Nothing hangs; every event was taken by the loop or by the handler, or still waits: once, and in order."""
    count = 0
    for loop, where in called_everywhere(lambda: Loop(late, conflate), action, handler, OURS, 5.0):
        mine = [number(event) for event in loop.taken + elsewhere(loop.rest, 5.0)]
        stolen = [number(event) for event in loop.stolen]
        sent = [number(event) for event in loop.sent] + [3] * (3 in mine + stolen)
        assert sorted(map(str, sent)) == sorted(map(str, mine + stolen)), where
        if action is not Loop.wait_for:
            assert sorted(mine, key=sent.index) == mine, where
        if handler in (Loop.close_and_ask, Loop.close_and_raise) and where:
            assert (True, True) == (loop.events.closed, loop.closed != []), where
        count += 1
    assert count > 3


@pytest.mark.parametrize("late", [False, True])
def test_quotes_at_hand_outlive_whatever_comes(late: bool) -> None:
    """Those let go of together are taken once, or merged once their consumer is late, whoever steals and raises."""

    def prepare() -> Loop:
        loop = Loop(late=False, conflate=True)
        loop.events.drain()
        now = SYSTEM_CLOCK.monotonic() - (0.0 if not late else 5.0)
        batch = [QuoteEvent("Q", Quote(last_price=float(n)), received_at=now) for n in range(4)]
        loop.sent = list(batch)
        loop.steal()  # there is none: what comes now need not go through the backlog
        loop.events.put(batch)
        assert len(loop.events._at_hand) == 4
        return loop

    for loop, where in called_everywhere(prepare, Loop.get, Loop.steal_and_raise, OURS):
        got = sorted(event.data.last_price for event in loop.taken + loop.stolen + elsewhere(loop.rest))
        assert 3.0 == got[-1], where
        assert len(got) == len(set(got)), where
        assert (4 if not late else 4 - loop.events.merged) == len(got), where


def take_one(events: EventQueue) -> None:
    with contextlib.suppress(queue.Empty):
        events.get(timeout=1.0)


def take_all(events: EventQueue) -> None:
    events.drain(timeout=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("take", [take_one, take_all])
def test_what_a_handler_puts_is_not_slept_through(take: Callable[[EventQueue], None]) -> None:
    """At whatever moment of the wait it comes, the wait is over, though it may be at its end."""
    slept: list[float] = []

    def put(events: EventQueue) -> None:
        events.put([ConnectionEvent(source="user", state="connected", received_at=SYSTEM_CLOCK.monotonic())])
        slept.append(SYSTEM_CLOCK.monotonic())

    def act(events: EventQueue) -> None:
        take(events)
        slept.append(SYSTEM_CLOCK.monotonic())

    for _, where in called_everywhere(EventQueue, act, put, OURS, 5.0):
        assert not where or slept[-1] - slept[-2] < 0.5, where
