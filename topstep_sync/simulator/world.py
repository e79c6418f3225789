"""The simulation, put together: everything the REST side and the hubs share, on one loop thread."""

from topstep_sync.simulator.bus import Bus
from topstep_sync.simulator.catalogue import Catalogue
from topstep_sync.simulator.evidence import Evidence
from topstep_sync.simulator.exchange import Exchange
from topstep_sync.simulator.faults import Faults
from topstep_sync.simulator.limits import Limits
from topstep_sync.simulator.market import Markets
from topstep_sync.simulator.sessions import HOUR, cme_open
from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock
from topstep_sync.simulator.tokens import Tokens


class World:
    """Clock, market, exchange, tokens, limits, faults and evidence of one gateway. Loop thread only."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SimClock(settings.speed, settings.start)
        self.bus = Bus()
        self.catalogue = Catalogue(settings.listing_date(self.clock.epoch()))
        self.markets = Markets(self.catalogue, self.clock, self.bus, seed=settings.seed, rate=settings.market_rate)
        self.exchange = Exchange(settings, self.clock, self.bus, self.catalogue, self.markets)
        self.tokens = Tokens(settings, self.clock)
        self.limits = Limits(settings)
        self.faults = Faults(settings.seed)
        self.evidence = Evidence()
        self.markets.trading = self.exchange.trading = self.open
        if settings.hours == "cme" and settings.expire_at_close:
            self._was_open = self.open()
            self._watch_session()

    def open(self) -> bool:
        """Whether the market trades now."""
        return self.settings.hours == "always" or cme_open(self.clock.epoch())

    def _watch_session(self) -> None:
        """Working orders expire when a session ends; sessions begin and end with whole hours."""
        now_open = self.open()
        if self._was_open and not now_open:
            self.exchange.expire()
        self._was_open = now_open
        self.clock.call_later(HOUR - self.clock.epoch() % HOUR, self._watch_session)
