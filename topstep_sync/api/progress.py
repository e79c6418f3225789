"""How far a long pull is, and how long it will still take under the gateway's limit."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from topstep_sync.clock import Clock
from topstep_sync.config import RateConfig
from topstep_sync.errors import MissingExtra
from topstep_sync.tables import Shown


class Progress(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """Where the pull of one contract stands after a page."""

    contract_id: str
    bars: int
    """Bars so far."""
    calls: int
    """Calls so far."""
    share: float
    """Part of the window that is done, 0.0 to 1.0."""
    elapsed: float
    """Seconds since the first call."""
    eta: float
    """Seconds it will still take, the rate limit considered."""


Report = Callable[[Progress], object]


class Bar(Protocol):
    """What of a `tqdm` is used."""

    n: float
    total: float

    def update(self, n: float) -> Any: ...
    def set_postfix_str(self, s: str, refresh: bool) -> Any: ...
    def close(self) -> Any: ...


class Meter:
    """Counts the pages of one pull. For one thread."""

    def __init__(
        self,
        contract_id: str,
        start: datetime,
        end: datetime,
        rate: RateConfig,
        clock: Clock,
        *,
        limit: int | None = None,
    ) -> None:
        self._contract_id = contract_id
        self._limit = limit
        self._start = start
        self._end = end
        self._rate = rate
        self._clock = clock
        self._begun = clock.monotonic()
        self._calls = 0
        self._bars = 0

    def page(self, bars: int, edge: datetime, *, last: bool) -> Progress:
        """The state after a page of *bars* bars that reaches back to *edge*."""
        self._calls += 1
        self._bars += bars
        share = 1.0 if last else self._share(edge)
        elapsed = self._clock.monotonic() - self._begun
        return Progress(
            contract_id=self._contract_id,
            bars=self._bars,
            calls=self._calls,
            share=share,
            elapsed=elapsed,
            eta=self._eta(share, elapsed),
        )

    def _share(self, edge: datetime) -> float:
        """By the time that is covered, or by the number of bars where one was asked for: the first to be full."""
        whole = (self._end - self._start).total_seconds()
        covered = (self._end - edge).total_seconds() / whole if whole > 0 else 1.0
        return min(1.0, max(covered, self._bars / self._limit if self._limit else 0.0))

    def _eta(self, share: float, elapsed: float) -> float:
        """At the pace so far, but no faster than the limit once its window is used up."""
        if share <= 0:
            return float("inf")
        total = self._calls / share
        left = total - self._calls
        pace = elapsed / self._calls * left
        windows = max(0.0, total - self._rate.history_limit) / self._rate.history_limit
        return max(pace, windows * self._rate.history_window - elapsed) if left > 0 else 0.0


class Terminal:
    """A `Report` that draws with `tqdm`, in a terminal or a notebook.

    Raises:
        MissingExtra: tqdm is not installed.
    """

    def __init__(self, title: str, make: Callable[..., Bar] | None = None) -> None:
        self._bar = (make or _tqdm())(total=1.0, desc=title, bar_format=FORMAT)

    def __call__(self, progress: Progress) -> None:
        self._bar.update(progress.share - self._bar.n)
        self._bar.set_postfix_str(f"{progress.bars:,} bars, {progress.eta:.0f} s left", refresh=True)
        if progress.share >= 1.0:
            self.close()

    def close(self) -> None:
        self._bar.close()


FORMAT: Final = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}{postfix}"


def _tqdm() -> Callable[..., Bar]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingExtra("progress=True needs tqdm: pip install 'topstep-sync[notebook]'") from error
    made: Callable[..., Bar] = tqdm
    return made
