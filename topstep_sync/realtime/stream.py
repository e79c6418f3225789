"""Both hubs behind one door: queues of typed events, the trading state, health.

| attribute | written by | read by |
|---|---|---|
| a feed's `routes` | whoever subscribes or closes a queue, under the lock, as a whole | the hub's thread |
| a feed's commands | anybody | the hub's thread |
| `user.reconciler` | the user hub's thread | the same; its `state` by anybody |
| a queue | the hubs' threads on one side, the consumer on the other | |
| what listeners are told | the hubs' threads | a thread of their own |

A signal's handler may close a queue, or all of this, in the middle of anything here. So closing needs no lock: whoever
connects looks before and after whether it was closed. And a queue that is closed in the middle of a change of the
routes is seen off by whoever makes that change.
"""

import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final

from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline
from topstep_sync.config import Config
from topstep_sync.errors import InvalidRequest, SessionClosed, StreamError, StreamFailed
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.dispatch import Dispatcher
from topstep_sync.realtime.feeds import Feed, MarketFeed, Route, market_wants, user_wants
from topstep_sync.realtime.forks import survive
from topstep_sync.realtime.health import Health
from topstep_sync.realtime.lifecycle import State
from topstep_sync.realtime.monitor import Monitor
from topstep_sync.realtime.owner import Owner
from topstep_sync.realtime.ownlock import OwnLock
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.state import TradingState
from topstep_sync.realtime.subscriptions import Want
from topstep_sync.realtime.user_feed import Fetch, UserFeed
from topstep_sync.realtime.wire import market_decoder

_log = logging.getLogger("topstep_sync.realtime")

_UNDER_WAY: Final = (State.CONNECTING, State.RECONNECTING)

WAIT: Final = 15.0  # seconds for a new subscription to stand


class _Hub:
    """One hub: its connection, its feed, and who wants what of it."""

    def __init__(self, connection: SignalRConnectionManager, feed: Feed, clock: Clock) -> None:
        self.connection = connection
        self.feed = feed
        self.monitor = Monitor(connection, feed, connection.config, clock)
        feed.tick, feed.look = self.monitor.tick, self.monitor.look
        self.ever: set[Any] = set()  # everything asked for since it was connected

    def route(self, queue: EventQueue, wanted: Iterable[Any]) -> None:
        """*queue* gets what it wants from here on."""
        keys = frozenset(wanted)
        self.ever |= keys
        routes = [*self.feed.routes, Route(queue, keys, False)]
        self.feed.routes = tuple(route._replace(all=route.wanted == self.ever) for route in routes)

    def unroute(self, queue: EventQueue) -> None:
        """*queue* gets nothing any more."""
        self.feed.routes = tuple(route for route in self.feed.routes if route.queue is not queue)


class Stream:
    """Live events of both hubs. Thread-safe; connects with the first subscription.

    Args:
        config: where the hubs are, and the settings of its part `stream`.
        tokens: gives the token for every connection, see `tokens.Tokens`.
        snapshot: fetches what REST says about some accounts since a time; `None` to do without reconciliation.
        tls: how to verify the hubs; `None` for the system's authorities and certifi's.
        skew: seconds the gateway's clock is ahead of ours; orders and trades bear its dates.
        listener: asked, at every event about the stream itself, who is to be called with it, on a thread of its own.
    """

    def __init__(
        self,
        config: Config,
        tokens: Any,
        *,
        snapshot: Fetch | None = None,
        clock: Clock = SYSTEM_CLOCK,
        tls: ssl.SSLContext | None = None,
        skew: Callable[[], float] = lambda: 0.0,
        listener: Callable[[], Callable[[Any], None] | None] = lambda: None,
    ) -> None:
        self._config, self._tokens, self._clock, self._tls = config, tokens, clock, tls
        self._lock = OwnLock()  # guards the routes, the wants and what follows from them
        self._leaving: set[EventQueue] = set()  # closed queues that are still routed
        self._user = UserFeed(clock, snapshot, config.stream.hold_seconds, skew)
        self._market = MarketFeed(clock)
        self._reports = Dispatcher("topstep-stream-listeners", clock)
        self._listener = listener
        self._user.report = self._market.report = self._report
        self._hubs = {
            "user": self._hub(config.user_hub_url, self._user),
            "market": self._hub(config.market_hub_url, self._market),
        }
        user = self._hubs["user"].connection
        self._user.wake, self._user.conflicted = user.wake, user.conflicted
        self._user.sure = lambda: user.sure
        self._user.agreed = lambda account_id: user.subscriptions.agreed(user_wants([account_id]))
        self._market.conflicted = self._hubs["market"].connection.conflicted
        self._closed = False
        survive(self)

    def _hub(self, url: str, feed: Feed) -> _Hub:
        fast = market_decoder() if feed is self._market else None
        connection = SignalRConnectionManager(
            self._tokens,
            config=self._config.stream,
            url=url,
            name=feed.hub,
            clock=self._clock,
            sink=feed,
            fast=fast,
            tls=self._tls,
        )
        return _Hub(connection, feed, self._clock)

    def subscribe(
        self,
        *,
        accounts: Iterable[int] = (),
        quotes: Iterable[str] = (),
        trades: Iterable[str] = (),
        depth: Iterable[str] = (),
        wait: float = WAIT,
        **queue_options: Any,
    ) -> EventQueue:
        """A queue that gets the events asked for, from now on, until it is closed.

        Args:
            accounts: account ids whose account, order, position and trade events are wanted.
            quotes: contract ids whose best prices are wanted.
            trades: contract ids whose market trades are wanted.
            depth: contract ids whose order book is wanted.
            wait: seconds for the hubs to agree; 0 returns at once, and the queue tells how it goes.
            queue_options: see `EventQueue`.

        Raises:
            InvalidRequest: nothing was asked for, or not as ids.
            StreamFailed: a hub gave up; the message says why.
            StreamError: the hubs did not agree in time. Nothing is subscribed.
            SessionClosed: the stream is closed, perhaps meanwhile.
        """
        account_ids = _checked(accounts, int, "accounts", "account ids such as 536")
        contracts = {
            name: _checked(given, str, name, "contract ids such as CON.F.US.MNQ.Z26")
            for name, given in (("quotes", quotes), ("trades", trades), ("depth", depth))
        }
        if not account_ids and not any(contracts.values()):
            raise InvalidRequest("nothing to subscribe to; expected at least one of accounts, quotes, trades, depth")
        market = market_wants(**contracts)
        queue = self._queue(queue_options)
        asked: list[tuple[_Hub, list[Want]]] = []
        if account_ids:
            asked.append((self._hubs["user"], user_wants(account_ids)))
        if market:
            asked.append((self._hubs["market"], list(market.values())))
        try:
            with self._lock:
                for hub, wants in asked:
                    hub.route(queue, account_ids if hub.feed is self._user else market)
                    if hub.feed is self._user:
                        self._user.watch(account_ids)
                    hub.connection.want(*wants, holder=queue)
            self._see_off()
            self._settle(asked, Deadline(wait, self._clock))
        except BaseException:
            queue.close()
            raise
        return queue

    def _queue(self, options: dict[str, Any]) -> EventQueue:
        limits = {"max_trades": self._config.stream.queue_trades, "max_depth": self._config.stream.queue_depth}
        try:
            return EventQueue(
                clock=self._clock, on_close=self._release, on_reset=self._renew_book, **{**limits, **options}
            )
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"a queue cannot be made like that: {error}") from None

    def _settle(self, asked: list[tuple[_Hub, list[Want]]], deadline: Deadline) -> None:
        for hub, _ in asked:
            self._connect(hub)
        if deadline.remaining() <= 0:
            return
        for hub, wants in asked:
            connection = hub.connection
            watch = connection.subscriptions.watch(wants)
            while self._clock.wait(watch, deadline.remaining()) and connection.state in _UNDER_WAY:
                # Whoever owned the connection before let go of all who wait; who owns it now will have it answered.
                watch = connection.subscriptions.watch(wants)
                if watch.is_set():
                    break
            self._refuse_closed()
            if connection.state is State.FAILED:
                raise StreamFailed(f"the {connection.name} hub gave up: {connection.reason}")
            if not watch.is_set():
                raise StreamError(
                    f"the {connection.name} hub did not agree in time, and is {connection.state}"
                    f"{f' ({connection.reason})' if connection.reason else ''}",
                    retryable=True,
                )
            if hub.feed is self._user:
                self._clock.wait(self._user.caught_up, min(deadline.remaining(), self._config.stream.hold_seconds))

    def _connect(self, hub: _Hub) -> None:
        """The hub's connection is kept up; but not if the stream is closed, whenever that was."""
        self._refuse_closed()
        try:
            hub.connection.connect(timeout=0)
        finally:
            if self._closed:
                hub.connection.disconnect()
        self._refuse_closed()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SessionClosed("the session was closed; make a new one")

    def _release(self, queue: EventQueue) -> None:
        """*queue* was closed: nothing comes for it any more, and what only it wanted is taken back."""
        self._leaving.add(queue)
        if not self._lock.mine():  # else in a signal's handler, and whom it interrupted sees the queue off
            self._see_off()

    def _see_off(self) -> None:
        while self._leaving:
            with self._lock:
                self._unroute(list(self._leaving))
                idle = [hub for hub in self._hubs.values() if not hub.feed.routes]
                for hub in idle:
                    hub.ever.clear()
                # Both at once, though the wait for the first be interrupted; and before anybody else subscribes, whose
                # connection must not be the one that ends.
                owners = [hub.connection.hang_up() for hub in idle]
            for hub, owner in zip(idle, owners, strict=True):
                self._end(hub, owner)

    def _unroute(self, queues: list[EventQueue]) -> None:
        assert self._lock.mine()
        before = self._watched()
        for queue in queues:
            for hub in self._hubs.values():
                hub.unroute(queue)
                hub.connection.unwant(hub.connection.subscriptions.wanted(), holder=queue)
        if gone := before - self._watched():
            self._user.forget(gone)
            self._hubs["user"].connection.wake()
        self._leaving.difference_update(queues)

    def _end(self, hub: _Hub, owner: Owner | None) -> None:
        try:
            hub.connection.see_off(owner)
        finally:
            if hub.feed.routes:  # somebody subscribed while the connection was ending, and is told how that goes
                with contextlib.suppress(SessionClosed, StreamError):
                    self._connect(hub)

    def _watched(self) -> set[int]:
        return {account for route in self._user.routes for account in route.wanted}

    def _renew_book(self, contract_id: str) -> None:
        self._hubs["market"].connection.renew(Want("SubscribeContractMarketDepth", (contract_id,)))

    @property
    def state(self) -> TradingState:
        """Accounts, working orders and positions of every subscribed account, as last known; costs nothing to read."""
        return self._user.reconciler.state

    def health(self) -> Health:
        """How both hubs do, from what is known here; no request is made."""
        return Health(user=self._hubs["user"].monitor.report(), market=self._hubs["market"].monitor.report())

    def close(self) -> None:
        """Every queue ends and both threads are gone within a second; idempotent."""
        self._closed = True
        queues = {route.queue for hub in self._hubs.values() for route in hub.feed.routes}
        for queue in queues:
            queue.finish("the session was closed")
        for hub in self._hubs.values():
            hub.connection.hang_up()  # both at once: a hub that does not listen takes its time
        for hub in self._hubs.values():
            hub.connection.disconnect()
        self._listener = lambda: None  # whatever a thread of ours still says would begin another of theirs
        self._reports.close()

    def _report(self, event: Any) -> None:
        if (listener := self._listener()) is not None:
            self._reports.put(listener, event)

    def forked(self) -> None:
        """In a child process: nothing is subscribed any more, and subscribing connects anew."""
        self._lock, self._leaving = OwnLock(), set()
        for hub in self._hubs.values():
            hub.feed.routes = ()
            hub.ever.clear()
        self._user.forked()
        self._reports.forked()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _checked(given: Iterable[Any], kind: type, name: str, expected: str) -> list[Any]:
    """*given* as a list without repetitions; refused unless each is a *kind*."""
    if isinstance(given, (str, bytes, int)):
        raise InvalidRequest(f"{name} is {given!r}; expected a list of {expected}")
    found = list(dict.fromkeys(getattr(item, "id", item) for item in given))
    for item in found:
        if type(item) is not kind or not item:
            raise InvalidRequest(f"{name} holds {item!r}; expected {expected}")
    return found
