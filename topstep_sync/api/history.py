"""`session.history`: bars, in pages that the gateway hands out newest first."""

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from topstep_sync.api import calendar
from topstep_sync.api.arguments import contract_name, instant, span, whole, window
from topstep_sync.api.bars import SECONDS, Bars
from topstep_sync.api.continuous import ADJUSTMENTS, Adjust, Continuous, build
from topstep_sync.api.contracts import ContractsApi, ExpiredMonthWarning, warn, warn_live
from topstep_sync.api.joins import join_for
from topstep_sync.api.progress import Meter, Report, Terminal
from topstep_sync.api.seam import Call, present
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.config import RateConfig
from topstep_sync.errors import ContractNotFound, InvalidRequest, RequestError
from topstep_sync.messages import BarsReply, RetrieveBars
from topstep_sync.models import Bar, BarUnit, Contract

RETRIEVE: Final = "/api/History/retrieveBars"
MOST: Final = 20_000  # bars per call: gateway docs, Retrieve Bars, seen 2026-09
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)

SIDE_BY_SIDE: Final = 4  # pulls at a time; the rate limit is reached with two on a fast line
LISTED: Final = 4  # GUESS: months before a window that a contract traded in it may expire: the quarter, and one more

WEEK: Final = 7 * 86400.0  # seconds; over a weekend and a holiday the latest price is still the latest

log = logging.getLogger("topstep_sync.history")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, checked."""

    contract_id: str
    unit: BarUnit
    number: int
    start: datetime
    end: datetime
    limit: int | None
    live: bool
    partial: bool
    page: int


class HistoryApi:
    """Bars of the past. Thread-safe; the rate limit is shared by all threads of the session."""

    def __init__(
        self,
        call: Call,
        contracts: ContractsApi,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rate: RateConfig | None = None,
    ) -> None:
        self._call = call
        self._contracts = contracts
        self._clock = clock
        self._rate = rate or RateConfig()

    def bars(
        self,
        contract_id: str | Contract,
        length: Any = "1m",
        *,
        start: Any = None,
        end: Any = None,
        limit: int | None = None,
        live: bool = False,
        partial: bool = False,
        progress: bool | Report = False,
        on_page: Callable[[Bars], object] | None = None,
        page_size: int = MOST,
        stop: threading.Event | None = None,
    ) -> Bars:
        """Every bar that opened from *start* up to *end*, oldest first, each once; or the newest *limit* of them.

        Args:
            length: of a bar: ``30s``, ``1m``, ``5m``, ``1h``, ``1d``, ``1w``, ``1mo``; ``100t`` for ticks, which the
                gateway takes without documenting them.
            start: aware datetime, or ISO 8601 text; a day begins at 00:00 UTC.
            end: the same; default: now.
            limit: most bars to return; needed where there is no *start*.
            live: bars of the live data subscription; practice and evaluation accounts have none.
            partial: also the bar that is still forming.
            progress: True draws with tqdm; or a function that takes a `Progress` after each page.
            on_page: takes each page as it comes, newest page first, bars oldest first. To resume a pull that broke
                off, ask again with *end* set to the opening of the last page's first bar. Tick bars may share it: of
                those, take that page again, too.
            page_size: bars per call.
            stop: set by another thread to end the pull after its page; what came so far is returned.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            ContractNotFound: no such contract (or no live data).
        """
        ask = self._ask(contract_id, length, start, end, limit, live, partial, page_size)
        report = Terminal(ask.contract_id) if progress is True else progress or None
        result = self._pull(ask, report, on_page, stop)
        if not result:
            self._explain(ask, contract_id)
        return result

    def _pull(
        self, ask: Ask, report: Report | None, on_page: Callable[[Bars], object] | None, stop: threading.Event | None
    ) -> Bars:
        pages: list[list[Bar]] = []
        try:
            for page in self._pages(ask, report):
                pages.append(page)
                if on_page is not None:
                    on_page(self._bars(page, ask))
                if stop is not None and stop.is_set():
                    break
        finally:
            if isinstance(report, Terminal):
                report.close()
        result = self._bars([], ask)
        while pages:  # newest page first; each is let go as it is copied
            result.extend(pages.pop())
        return result

    def many(self, contract_ids: Iterable[str | Contract], length: Any = "1m", **rest: Any) -> dict[str, Bars]:
        """The bars of several contracts, by contract id, pulled side by side under the one rate limit.

        Args:
            rest: as for `bars`. Callbacks run on the threads that pull, one at a time for each contract.

        Raises:
            RequestError: the first trouble of any of them; the others have stopped after their page.
        """
        names = list(dict.fromkeys(contract_name(contract) for contract in contract_ids))
        stop = threading.Event()
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="topstep-history") as pool:
            pulls = [pool.submit(self.bars, name, length, stop=stop, **rest) for name in names]
            try:
                return {name: pull.result() for name, pull in zip(names, pulls, strict=True)}
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def continuous(
        self,
        symbol: str | Contract,
        length: Any = "1h",
        *,
        start: Any,
        end: Any = None,
        adjust: Adjust = "none",
        live: bool = False,
    ) -> Continuous:
        """One history of a product across its contract months, rolled the day after the volume moved on.

        The gateway keeps bars shorter than an hour for the active month only. `rolls` of the result lists the seams.

        Args:
            symbol: product, such as ``MNQ``, or a contract that the history ends with.
            adjust: what is done to prices before a roll: nothing, or shifted by the difference, or by the ratio.
        """
        if adjust not in ADJUSTMENTS:
            raise InvalidRequest(f"adjust is {adjust!r}; expected one of {', '.join(ADJUSTMENTS)}")
        span(length)
        first, last = window(start, end, self._clock.epoch())
        newest = symbol if isinstance(symbol, Contract) else self._contracts.front_month(symbol, live=live)
        count = (last.year - first.year) * 12 + last.month - first.month + LISTED
        chain = [*self._contracts.earlier(newest, count), newest]
        return build(chain, length, first, last, adjust, functools.partial(self.bars, live=live))

    def last_price(self, contract_id: str | Contract, within: float = WEEK) -> float | None:
        """The latest price by the newest bar, the forming one included; `None` where there is none.

        Args:
            within: seconds ago that the bar may have opened.
        """
        end = datetime.fromtimestamp(self._clock.epoch(), UTC)
        begin = end - timedelta(seconds=within)
        ask = self._ask(contract_id, "1m", begin, end, 1, False, True, MOST)
        try:
            found = self._pull(ask, None, None, None)
        except RequestError as error:
            log.info("! no latest price of %s: %s", contract_id, error)
            return None
        return found[-1].c if found else None

    def _ask(
        self, contract_id: Any, length: Any, start: Any, end: Any, limit: Any, live: bool, partial: bool, page: Any
    ) -> Ask:
        unit, number = span(length)
        first = FIRST if start is None else instant(start, "start")
        last = datetime.fromtimestamp(self._clock.epoch(), UTC) if end is None else instant(end, "end")
        if start is None and limit is None:
            raise InvalidRequest("give a start, or a limit for the newest bars")
        if first >= last:
            raise InvalidRequest(f"start ({first.isoformat()}) is not before end ({last.isoformat()})")
        if whole(page, "page_size") > MOST:
            raise InvalidRequest(f"page_size is {page}; expected {MOST} at most")
        return Ask(
            contract_id=contract_name(contract_id),
            unit=unit,
            number=number,
            start=first,
            end=last,
            limit=None if limit is None else whole(limit, "limit"),
            live=live,
            partial=partial,
            page=page,
        )

    def _explain(self, ask: Ask, contract: str | Contract) -> None:
        """Why there is not a single bar, where that is known and the gateway does not say it."""
        if ask.live:
            warn_live(RETRIEVE)
        elif SECONDS.get(ask.unit, 0) * ask.number < SECONDS[BarUnit.HOUR]:
            try:
                known = contract if isinstance(contract, Contract) else self._contracts.get(contract)
            except RequestError:  # the history has been pulled; that it is empty must not become a failure
                return
            if not known.active_contract:
                warn(
                    f"no bars of {known.name}: for a month that has expired the gateway keeps bars of an hour and "
                    "longer only",
                    ExpiredMonthWarning,
                )

    def _bars(self, bars: list[Bar], ask: Ask) -> Bars:
        start = None if ask.start is FIRST else ask.start
        return Bars(bars, contract_id=ask.contract_id, unit=ask.unit, number=ask.number, start=start, end=ask.end)

    def _pages(self, ask: Ask, report: Report | None) -> Iterator[list[Bar]]:
        """Pages from the newest back, each oldest first, none with a bar of another."""
        meter = Meter(ask.contract_id, ask.start, ask.end, self._rate, self._clock, limit=ask.limit)
        end, left, newest, join = ask.end, ask.limit, True, join_for(ask.unit)
        while True:
            count = ask.page if left is None else min(ask.page, left)
            got = self._page(ask, join.until(end), min(count + join.spare, MOST), partial=ask.partial and newest)
            fresh = join.fresh(got, ask.start, end, inclusive=newest and ask.partial)[-count:]
            if fresh:
                join.took(fresh)
                end, newest = fresh[0].t, False
                left = None if left is None else left - len(fresh)
            # The gateway may hand out less than was asked for at its own discretion: only a page that brings nothing,
            # or one that reaches the start, ends it.
            last = not fresh or left == 0 or reached(ask, end, short=len(got) < count)
            if report is not None:
                report(meter.page(len(fresh), end, last=last))
            if fresh:
                yield fresh
            if last:
                return

    def _page(self, ask: Ask, end: datetime, count: int, *, partial: bool) -> list[Bar]:
        request = RetrieveBars(
            contract_id=ask.contract_id,
            live=ask.live,
            start_time=ask.start,
            end_time=end,
            unit=ask.unit,
            unit_number=ask.number,
            limit=count,
            include_partial_bar=partial,
        )
        try:
            reply = self._call(RETRIEVE, request, BarsReply)
        except ContractNotFound:
            if ask.live:
                warn_live(RETRIEVE)
            raise
        bars: list[Bar] = present(reply.bars, RETRIEVE, "bars")
        return bars


def reached(ask: Ask, edge: datetime, *, short: bool) -> bool:
    """Whether a page that begins at *edge* left nothing before it that could have a bar; a *short* one tells more."""
    if ask.unit is BarUnit.TICK or ask.start is FIRST:  # there may be more even at the same instant
        return False
    if edge <= ask.start:
        return True
    if not short:
        return False
    seconds = SECONDS.get(ask.unit, 1) * ask.number
    if seconds == SECONDS[BarUnit.DAY]:
        return not calendar.missing_days([], ask.start, edge)
    if seconds > SECONDS[BarUnit.DAY]:
        return (edge - ask.start).total_seconds() < seconds
    return calendar.open_seconds(ask.start, edge) < seconds
