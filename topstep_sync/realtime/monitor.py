"""Watches one hub: gathers the facts for its health, and does what `health` decides about silent feeds."""

import logging
from typing import Any, Final

from topstep_sync.clock import Clock
from topstep_sync.config import StreamConfig
from topstep_sync.events import DepthEvent, QuoteEvent, TradesEvent
from topstep_sync.realtime.connection import SignalRConnectionManager
from topstep_sync.realtime.feeds import Feed
from topstep_sync.realtime.health import Action, HubHealth, StaleWatch, Status, judge
from topstep_sync.realtime.lifecycle import Ending, State
from topstep_sync.realtime.link import Ended
from topstep_sync.realtime.subscriptions import Want
from topstep_sync.realtime.user_feed import UserFeed

_log = logging.getLogger("topstep_sync.realtime")

# What a market subscription brings. The user hub is quiet by nature: its subscriptions are never stale.
_BRINGS: Final = {
    "SubscribeContractQuotes": QuoteEvent,
    "SubscribeContractTrades": TradesEvent,
    "SubscribeContractMarketDepth": DepthEvent,
}


class Monitor:
    """The health of one hub. `tick` and `look` run on the hub's thread, `report` on any."""

    def __init__(self, connection: SignalRConnectionManager, feed: Feed, config: StreamConfig, clock: Clock) -> None:
        self._connection, self._feed, self._config, self._clock = connection, feed, config, clock
        self._watch = StaleWatch(config)
        self._link: Any = None
        self._next = 0.0
        self._status = Status.HEALTHY

    def tick(self, now: float) -> float:
        """Look after the hub, when it is time to; return when it will be.

        Raises:
            Ended: the feed is silent, and the connection is to be replaced.
        """
        if self._connection.link is not self._link:
            self._link = self._connection.link
            self._watch.fresh()
            self._next = now + self._config.heartbeat_seconds
        if now < self._next:
            return self._next
        self._next = now + self._config.heartbeat_seconds
        standing = self._standing()
        action, keys = self._watch.decide(set(standing), self._feed.last_data, now, self._clock.epoch())
        self.look()
        if action is Action.PROBE:
            _log.warning("~ %s: no data from %d subscriptions; subscribing anew", self._feed.hub, len(keys))
            for key in keys:
                self._connection.renew(standing[key])
        elif action is Action.REPLACE:
            raise Ended(Ending.LOST, f"no market data for {self._config.stale_seconds:g} s, though the market is open")
        return self._next

    def look(self) -> None:
        """The health is judged now; that it is another is logged, once."""
        health = self.report()
        if health.state is State.DISCONNECTED:  # as somebody wanted it
            self._status = Status.HEALTHY
        elif health.status is not self._status:
            self._status = health.status
            expected = health.status is Status.HEALTHY or health.state is State.CONNECTING
            level = logging.INFO if expected else logging.WARNING
            _log.log(level, "= %s is %s: %s", health.hub, health.status, "; ".join(health.reasons) or "all is well")

    def _standing(self) -> dict[Any, Want]:
        """What brings data → the subscription that stands for it."""
        wants = self._connection.subscriptions.standing()
        return {(_BRINGS[want.target], want.arguments[0]): want for want in wants if want.target in _BRINGS}

    def report(self) -> HubHealth:
        """The hub's health now."""
        now, connection, feed = self._clock.monotonic(), self._connection, self._feed
        link, standing, last_data = connection.link, self._standing(), dict(feed.last_data)
        ages = self._watch.ages(set(standing), last_data, now)
        named = feed.ages(now) if isinstance(feed, UserFeed) else {str(standing[key]): age for key, age in ages.items()}
        queues = [route.queue for route in feed.routes]
        hub = HubHealth(
            hub=feed.hub,
            state=connection.state,
            reason=connection.reason,
            since_inbound=None if link is None else now - link.heard_at,
            round_trip=None if link is None else link.round_trip,
            since_data=named,
            stale=tuple(str(standing[key]) for key in self._watch.stale(ages, self._clock.epoch())),
            reconnects=sum(now - at < 3600 for at in connection.reconnects),
            faults=connection.faults + (0 if link is None else link.faults),
            malformed=feed.malformed,
            queue_depth=max((queue.qsize() for queue in queues), default=0),
            lag=max((queue.lag for queue in queues), default=0.0),
            trouble=feed.trouble if isinstance(feed, UserFeed) else None,
        )
        return judge(hub, wanted=bool(queues), config=self._config)
