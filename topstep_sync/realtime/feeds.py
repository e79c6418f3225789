"""What each hub's thread does with what arrives; market events go straight on (those of the user hub: `user_feed`).

Everything here runs on the owner's thread of its hub, except where a method says otherwise.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from topstep_sync.clock import FOREVER, Clock
from topstep_sync.events import (
    ConnectionEvent,
    DepthEvent,
    Event,
    MarketEvent,
    QuoteEvent,
    Reconnected,
    SessionConflict,
    SubscriptionFailed,
    TradesEvent,
)
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.subscriptions import Step, Want
from topstep_sync.realtime.wire import Partly, interpret

_log = logging.getLogger("topstep_sync.realtime")

_SMALL: Final = 64  # events; a larger batch is sampled for the times of the last data


class Route(NamedTuple):
    """One queue and what it asked for."""

    queue: EventQueue
    wanted: frozenset[Any]  # (event class, contract) on the market hub, account ids on the user hub
    all: bool  # whether it asked for everything that this hub was ever asked for


class Feed:
    """The common half: queues, what is about the stream itself, and the tolerant reading."""

    def __init__(self, hub: str, clock: Clock) -> None:
        self.hub = hub
        self._clock = clock
        self.routes: tuple[Route, ...] = ()
        """Replaced as a whole by whoever subscribes, on any thread."""
        self.conflicted: Callable[[], None] = lambda: None
        """Tells the connection of a `GatewayLogout`."""
        self.last_data: dict[Any, float] = {}
        """What was subscribed → monotonic time of its last event."""
        self.malformed = 0
        """Records that were not what the contract says, and were dropped."""
        self.tick: Callable[[float], float] = lambda now: FOREVER
        """Called every turn with the time; returns when it wants to be called next."""
        self.look: Callable[[], None] = lambda: None
        """Called when something happened that may have changed the hub's health."""
        self.report: Callable[[Any], None] = lambda event: None
        """Takes every event about the stream itself, for who listens beside the queues."""

    def tell(self, event: Any) -> None:
        """*event* is in every queue."""
        event.received_at, event.received_epoch = self._clock.monotonic(), self._clock.epoch()
        for route in self.routes:
            route.queue.put([event])
        self.report(event)

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        """Deliver events of the fast decoder; each hub in its own way."""

    def take(self, events: list[Any], now: float, epoch: float) -> None:
        """Deliver events that were read the tolerant way; each hub in its own way."""

    def invocation(self, target: str, arguments: list[Any], now: float, epoch: float) -> None:
        """Whatever it is: events, or counted and told as something that was missed; it is not the stream's end."""
        try:
            events = interpret(target, arguments)
        except Partly as error:
            events = error.events
            self._dropped(target, error)
        if events is None:
            _log.info("< %s: nobody knows the target %s", self.hub, target)
            return
        for event in events:
            event.received_at, event.received_epoch = now, epoch
            try:
                self._conflict(event) if isinstance(event, SessionConflict) else self.take([event], now, epoch)
            except Exception as error:  # a bug of ours; what the others say is not to be lost with it
                self._dropped(target, error, bug=True)

    def _dropped(self, target: str, error: Exception, bug: bool = False) -> None:
        self.malformed += 1
        reason = f"{type(error).__name__}: {error}" if bug else error
        _log.warning(
            "! %s: a %s that makes no sense was dropped: %s", self.hub, target, reason, exc_info=error if bug else None
        )
        self.missed()

    def missed(self) -> None:
        """Something was told, and could not be read."""

    def _conflict(self, event: SessionConflict) -> None:
        _log.warning("! %s: the gateway said GatewayLogout: another program of this user, or a dead token", self.hub)
        self.conflicted()
        event.source = self.hub
        self.tell(event)

    def refused(self, step: Step, reason: str) -> None:
        argument = str(step.want.arguments[0]) if step.want.arguments else None
        _log.warning("! %s: the hub refused %s: %s", self.hub, step.want, reason)
        self.tell(SubscriptionFailed(source=self.hub, target=step.target, argument=argument, reason=reason))

    def changed(self, state: State, reason: str | None) -> None:
        self.tell(ConnectionEvent(source=self.hub, state=state.value, reason=reason))
        if state is State.FAILED:
            for route in self.routes:
                route.queue.finish(f"the {self.hub} hub gave up: {reason}", failed=True)
        self.look()

    def established(self, gap_start: float | None, gap_end: float) -> None:
        if gap_start is not None:
            self.tell(Reconnected(source=self.hub, gap_start=gap_start, gap_end=gap_end))

    def due(self, now: float) -> float:
        return self.tick(now)


class MarketFeed(Feed):
    """Quotes, trades and depth."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("market", clock)

    def events(self, batch: list[Any], now: float, epoch: float) -> None:
        if len(batch) == 1:  # most of the time in a calm market, and then each step counts
            kind = type(batch[0]), batch[0].contract_id
            self.last_data[kind] = now
            for queue, wanted, everything in self.routes:
                if everything or kind in wanted:
                    queue.put(batch)
            return
        for queue, wanted, everything in self.routes:
            queue.put(batch if everything else [e for e in batch if (type(e), e.contract_id) in wanted])
        for event in batch if len(batch) <= _SMALL else batch[:: len(batch) // _SMALL]:
            self.last_data[type(event), event.contract_id] = now

    def take(self, events: list[Any], now: float, epoch: float) -> None:
        self.events([event for event in events if isinstance(event, MarketEvent)], now, epoch)


def market_wants(
    quotes: Iterable[str], trades: Iterable[str], depth: Iterable[str]
) -> dict[tuple[type[Event], str], Want]:
    """What a queue asks of the market hub: what it gets → the call that asks for it."""
    kinds: tuple[tuple[type[Event], str, Iterable[str]], ...] = (
        (QuoteEvent, "SubscribeContractQuotes", quotes),
        (TradesEvent, "SubscribeContractTrades", trades),
        (DepthEvent, "SubscribeContractMarketDepth", depth),
    )
    return {(kind, contract): Want(target, (contract,)) for kind, target, wanted in kinds for contract in wanted}


def user_wants(accounts: Iterable[int]) -> list[Want]:
    """The calls that ask the user hub for everything about some accounts."""
    wants = [
        Want(f"Subscribe{topic}", (account,)) for account in accounts for topic in ("Orders", "Positions", "Trades")
    ]
    return [Want("SubscribeAccounts"), *wants] if wants else []
