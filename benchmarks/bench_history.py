"""A year of one-minute bars: against the time that the rate limit itself takes, in memory, and on its way to pandas.

Server: the simulator in a process of its own, with trading hours (about 360 000 bars a year) and a limit small enough
to bind for one contract; the floor is a window for every full one of calls before the last. Expected: at least 98 % of
the floor's pace; at most twice the result's size in memory at any time; at most 0.5 s to a frame. Peer for the frame:
`pandas.DataFrame` of the bars as dictionaries, as they come out of `json.loads`.
"""

import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks._measure import Options, Samples, Timed, compare, installed, options, report
from benchmarks.bench_orders import config_of, simulator
from topstep_sync.api.bars import Bars
from topstep_sync.models import Bar
from topstep_sync.session import Session

MNQ = "CON.F.US.MNQ.Z26"
END = datetime(2026, 11, 24, tzinfo=UTC)
LIMIT = 6  # calls per window: the nineteenth page is the first of a window, so what is measured is the waiting
EXPECTED = 0.98
TO_FRAME = 0.5  # seconds


def pull(asked: Options) -> Bars:
    """A year in 19 pages (quick: two weeks), and how its time compares with the floor."""
    days, page, window = asked.pick(quick=(14, 750, 1.4), full=(365, 20_000, 30.0))
    limits = {"history_limit": LIMIT, "history_window": window}
    arguments = ("--hours", "cme", "--history-limit", str(LIMIT), "--history-window", str(window))
    calls = 0

    def count(_: Any) -> None:
        nonlocal calls
        calls += 1

    with simulator(*arguments) as told, Session(config=config_of(told, rate=limits)) as session:
        session.accounts.search()
        begun, cpu = time.perf_counter(), time.process_time()
        bars = session.history.bars(MNQ, "1m", start=END - timedelta(days=days), end=END, page_size=page, on_page=count)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    floor = (calls - 1) // LIMIT * window
    race = {"history.bars": Samples([wall], [cpu]), "the limit itself": Samples([floor], [0.0])}
    report(
        "history.year", race, ours="history.bars", unit="pull", bound={"the limit itself": EXPECTED},
        bars=len(bars), calls=calls, holes=len(bars.holes),
    )  # fmt: skip
    return bars


def memory(asked: Options) -> None:
    """Largest memory during a pull against the size of its result; the simulator hands out pages that exist already."""
    count, page = asked.pick(quick=(40_000, 4_000), full=(360_000, 20_000))
    pages = _Pages(count, page)
    with Session("bench", "key-of-no-value", config={}) as session:
        session.history._call = pages
        tracemalloc.start()
        bars = session.history.bars(MNQ, "1m", start=END - timedelta(days=9999), end=END, page_size=page)
        size, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == len(bars)
    race = {"peak of the pull": Samples([peak / 1e6], [0.0]), "twice the result": Samples([2 * size / 1e6], [0.0])}
    report(
        "history.memory", race, ours="peak of the pull", unit="pull (seconds stand for MB)",
        bound={"twice the result": 1.0}, result_mb=round(size / 1e6, 1), peak_mb=round(peak / 1e6, 1),
    )  # fmt: skip


class _Pages:
    """A `call` that answers with fresh pages, newest first, as if they came from the wire."""

    def __init__(self, count: int, page: int) -> None:
        self._left, self._page = count, page

    def __call__(self, path: str, request: Any, reply: Any, **_: Any) -> Any:
        number = min(self._left, self._page)
        self._left -= number
        end = request.end_time
        bars = [Bar(end - timedelta(minutes=n + 1), 1.25 + n, 2.25 + n, n / 4, n / 8, n + 1000) for n in range(number)]
        return reply(success=True, error_code=0, bars=bars)


def frames(asked: Options, bars: Bars) -> None:
    """To pandas, against what `json.loads` would leave to do."""
    if not installed("pandas"):
        print("history.frame: pandas is not installed")
        return
    import pandas as pd

    dicts = [{"t": bar.t.isoformat(), "o": bar.o, "h": bar.h, "l": bar.l, "c": bar.c, "v": bar.v} for bar in bars]

    def naive() -> None:
        frame = pd.DataFrame(dicts)
        frame["t"] = pd.to_datetime(frame["t"])
        frame.set_index("t")

    race = compare(
        {"Bars.to_frame": bars.to_frame, "DataFrame of dicts": naive, "allowed": lambda: Timed(TO_FRAME)},
        rounds=asked.pick(quick=3, full=11),
    )  # fmt: skip
    report("history.frame", race, ours="Bars.to_frame", unit="frame", bound={"allowed": 1.0}, bars=len(bars))


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    bars = pull(asked)
    memory(asked)
    frames(asked, bars)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
