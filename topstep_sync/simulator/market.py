"""The seeded market: a random walk per contract, told to the hubs as quotes, trades and depth.

A market that nobody watches stands still and costs nothing. Watching starts with the first subscription, order or
position in a contract. Prices are whole ticks.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from topstep_sync.models import DepthType, OrderSide
from topstep_sync.simulator.bus import MARKET_HUB, Bus, Publication
from topstep_sync.simulator.catalogue import Catalogue, Instrument
from topstep_sync.simulator.simclock import SimClock, Timer
from topstep_sync.simulator.terrain import level
from topstep_sync.simulator.wire import wire_time

# Depth of the initial image and the mix of events: 42 quotes, 20 trades and 62 depth records a second were
# recorded for MNQ at the open (2026-07): per step of the walk one quote, about half a trade, one and a half of depth.
LEVELS: Final = 60
MOVES: Final = 0.3  # share of the steps that change the price; each is a trade
TRADES: Final = 0.25  # share of the other steps that are a trade at the same price
SECOND_DEPTH: Final = 0.5
PULL: Final = 0.1  # how much likelier a move towards the level than one away from it


class Market:
    """One contract's market."""

    def __init__(self, instrument: Instrument, last: int, seed: str) -> None:
        self.instrument = instrument
        self.last = last
        self.open = self.high = self.low = last
        self.volume = 12_000
        self.random = random.Random(seed)  # noqa: S311 - a market, not a secret
        self.offset = 0
        self.priced = True
        """Whether it has a last price at all; until one comes nothing fills and nothing trails."""
        self.timer: Timer | None = None

    @property
    def bid(self) -> int:
        return self.last - 1

    @property
    def ask(self) -> int:
        return self.last + 1


class Markets:
    """All markets. Loop thread only.

    Args:
        rate: steps per second of every watched market; 0: they stand still until `set_price`.
        on_price: called with the instrument after its price moved, so that resting orders can fill.
    """

    def __init__(self, catalogue: Catalogue, clock: SimClock, bus: Bus, *, seed: int, rate: float) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._bus = bus
        self._seed = seed
        self._rate = rate
        self._markets: dict[str, Market] = {}
        self.on_price: Callable[[Instrument], None] = lambda _: None
        self.trading: Callable[[], bool] = lambda: True

    def get(self, contract_id: str) -> Market | None:
        """The market of an active contract; None when there is none."""
        market = self._markets.get(contract_id)
        if market is not None:
            return market
        instrument = self._catalogue.get(contract_id)
        if instrument is None or not instrument.active:
            return None
        start = level(instrument, self._clock.epoch(), self._seed)
        market = Market(instrument, start, f"{self._seed}/{contract_id}")
        self._markets[contract_id] = market
        return market

    def known(self, contract_id: str) -> Market | None:
        """The market of a contract somebody has asked for; None when nobody has."""
        return self._markets.get(contract_id)

    def watch(self, contract_id: str) -> Market | None:
        """The market of *contract_id*, moving from now on."""
        market = self.get(contract_id)
        if market is not None and market.timer is None and self._rate:
            self._schedule(market)
        return market

    def set_rate(self, rate: float) -> None:
        """Watched markets take *rate* steps per second from now on; 0 stops them."""
        watched = [m for m in self._markets.values() if m.timer or not self._rate]
        self._rate = rate
        for market in watched:
            if market.timer:
                market.timer.cancel()
                market.timer = None
            if rate:
                self._schedule(market)

    def set_price(self, contract_id: str, price: float | None) -> None:
        """The market stands at *price*, and has told so; the walk goes on from there. None: it has no price yet."""
        market = self.get(contract_id)
        if market is None:
            raise ValueError(f"no active contract {contract_id!r}")
        market.priced = price is not None
        if price is None:
            return
        if not market.instrument.aligned(price):
            raise ValueError(f"{price!r} is not a whole number of ticks of {market.instrument.root.tick_size}")
        ticks = market.instrument.ticks(price)
        market.offset = ticks - level(market.instrument, self._clock.epoch(), self._seed)
        self._move(market, ticks)

    def quote(self, contract_id: str) -> dict[str, Any] | None:
        """The full first quote a subscriber gets; None for a contract without a market."""
        market = self.get(contract_id)
        if market is None:
            return None
        return {
            **self._head(market),
            "symbolName": f"/{market.instrument.name}",
            **(self._prices(market) if market.priced else {}),
        }

    @staticmethod
    def _prices(market: Market) -> dict[str, Any]:
        price = market.instrument.price
        return {
            "lastPrice": price(market.last),
            "bestBid": price(market.bid),
            "bestAsk": price(market.ask),
            "change": price(market.last - market.open),
            "changePercent": round((market.last - market.open) / max(1, market.open), 6),
            "open": price(market.open),
            "high": price(market.high),
            "low": price(market.low),
            "volume": market.volume,
        }

    def depth(self, contract_id: str) -> list[dict[str, Any]]:
        """The first image of the book: `LEVELS` prices on each side, best first; empty without a market."""
        market = self.get(contract_id)
        if market is None or not market.priced:
            return []
        rows = []
        for i in range(LEVELS):
            volume = 5 + (market.last + i) % 23
            rows.append(self._row(market, DepthType.BID, market.bid - i, volume))
            rows.append(self._row(market, DepthType.ASK, market.ask + i, volume))
        return rows

    ############################################## the walk ##############################################

    def _schedule(self, market: Market) -> None:
        pause = market.random.uniform(0.5, 1.5) / self._rate
        market.timer = self._clock.call_later(pause, lambda: self._step(market))

    def _step(self, market: Market) -> None:
        self._schedule(market)
        if not self.trading() or not market.priced:
            return
        target = level(market.instrument, self._clock.epoch(), self._seed) + market.offset
        pull = PULL if target > market.last else -PULL if target < market.last else 0.0
        move = market.random.choices((-1, 0, 1), (MOVES / 2 - pull, 1 - MOVES, MOVES / 2 + pull))[0]
        self._move(market, max(2, market.last + move))  # a bid stays above zero

    def _move(self, market: Market, ticks: int) -> None:
        moved = ticks != market.last
        market.last = ticks
        market.high, market.low = max(market.high, ticks), min(market.low, ticks)
        if moved or market.random.random() < TRADES:
            self._publish_trade(market)
        self._publish_quote(market, moved)
        self._publish_depth(market)
        self.on_price(market.instrument)

    def _publish_quote(self, market: Market, moved: bool) -> None:
        record = self._head(market)
        price = market.instrument.price
        if moved:
            record |= {"lastPrice": price(market.last), "volume": market.volume}
        record |= {"bestBid": price(market.bid), "bestAsk": price(market.ask)}
        self._publish(market, "GatewayQuote", record)

    def _publish_trade(self, market: Market) -> None:
        volume = market.random.randint(1, 9)
        market.volume += volume
        record = {
            "symbolId": market.instrument.symbol_id,
            "price": market.instrument.price(market.last),
            "timestamp": wire_time(self._clock.epoch(), 3),
            "type": int(market.random.choice((OrderSide.BUY, OrderSide.SELL))),
            "volume": volume,
            "contractId": market.instrument.id,
        }
        self._publish(market, "GatewayTrade", [record])

    def _publish_depth(self, market: Market) -> None:
        volume = market.random.randint(0, 30)
        rows = [self._row(market, DepthType.NEW_BEST_BID, market.bid, volume)]
        if market.random.random() < SECOND_DEPTH:
            rows.append(self._row(market, DepthType.NEW_BEST_ASK, market.ask, market.random.randint(0, 30)))
        self._publish(market, "GatewayDepth", rows)

    def _publish(self, market: Market, target: str, record: Any) -> None:
        contract_id = market.instrument.id
        self._bus.publish(Publication(MARKET_HUB, target, (contract_id, record), None, contract_id))

    def _head(self, market: Market) -> dict[str, Any]:
        now = self._clock.epoch()
        return {
            "symbol": market.instrument.symbol_id,
            "contract": market.instrument.id,
            "lastUpdated": wire_time(now, 7),
            "timestamp": wire_time(now, 3),
        }

    def _row(self, market: Market, kind: DepthType, ticks: int, volume: int) -> dict[str, Any]:
        return {
            "contractId": market.instrument.id,
            "timestamp": wire_time(self._clock.epoch(), 3),
            "type": int(kind),
            "price": market.instrument.price(ticks),
            "volume": volume,
            "currentVolume": volume,
        }
