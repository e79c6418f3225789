"""Bars: pages, seams, holes, progress, frames, several contracts, continuous histories."""

import threading
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from gateway_model import MES, MNQ, MNQ_OLD, GatewayModel
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from topstep_sync import errors
from topstep_sync.api import months
from topstep_sync.api.bars import Bars
from topstep_sync.api.continuous import Roll, build, chain, roll, stitch
from topstep_sync.api.contracts import ExpiredMonthWarning, LiveDataWarning
from topstep_sync.api.joins import ByOverlap, between
from topstep_sync.api.progress import Meter, Progress
from topstep_sync.api.rooms import Rooms
from topstep_sync.config import RateConfig
from topstep_sync.models import Bar, BarUnit

START = datetime(2026, 11, 23, 23, tzinfo=UTC)  # Monday evening's session
MINUTE = timedelta(minutes=1)


def bar(number: int, step: timedelta = MINUTE, start: datetime = START, volume: int = 1, close: float = 1.0) -> Bar:
    return Bar(start + number * step, 1.0, 2.0, 0.5, close, volume)


def with_bars(count: int, step: timedelta = MINUTE) -> tuple[GatewayModel, Rooms]:
    model = GatewayModel()
    model.clock.jump(START.timestamp() + count * step.total_seconds() - model.clock.epoch())
    model.bars = [bar(number, step) for number in range(count)]
    return model, Rooms(model.call, get=str, clock=model.clock)


@given(st.integers(1, 400), st.integers(1, 50), st.integers(0, 400), st.integers(1, 500))
def test_whatever_the_pages_every_bar_comes_once(count: int, page: int, begin: int, length: int) -> None:
    """Any window, cut into pages of any size, gives its bars oldest first and each once."""
    model, rooms = with_bars(count)
    start, end = START + begin * MINUTE, START + (begin + length) * MINUTE
    found = rooms.history.bars(MNQ, "1m", start=start, end=end, page_size=page)
    assert [b for b in model.bars if start <= b.t < end] == found


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 300))
def test_the_newest_bars(count: int, page: int, limit: int) -> None:
    """Without a start, the newest *limit* bars come, in as many pages as it takes."""
    model, rooms = with_bars(count)
    assert model.bars[-limit:] == rooms.history.bars(MNQ, "1m", limit=limit, page_size=page)


@pytest.mark.parametrize("cap", [7, 13])
@pytest.mark.parametrize("order", ["newest first", "oldest first", "shuffled", "doubled"])
def test_a_gateway_that_pages_in_its_own_way(cap: int, order: str) -> None:
    """Fewer bars than were asked for, any order within a page, and repetitions lose no bar and double none."""
    model, rooms = with_bars(100)
    plain = model.do_history_retrievebars

    def odd(request: Any) -> Any:
        code, message, fields = plain(replace(request, limit=min(cap, request.limit)))
        bars = fields["bars"]
        changed = {"oldest first": bars[::-1], "shuffled": bars[1::2] + bars[::2], "doubled": bars + bars}
        return code, message, {"bars": changed.get(order, bars)}

    model.do_history_retrievebars = odd
    assert model.bars == rooms.history.bars(MNQ, "1m", start=START, page_size=50)


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 999, 1000, 250_000]), st.sampled_from([1.0, 1.0, 1.25]))),
    st.integers(1, 7),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 40),
)
def test_tick_bars_of_one_instant_all_come(
    ticks: list[tuple[int, float]], page: int, inside: bool, partial: bool, limit: int | None
) -> None:
    """Bars that share an instant, alike or not, come each once, however the pages cut them and the end is counted."""
    model, rooms = with_bars(0)
    at = START
    for microseconds, close in ticks:
        at += timedelta(microseconds=microseconds)
        model.bars.append(Bar(at, 1.0, 2.0, 0.5, close, 1))

    def pages(request: Any) -> Any:
        ends = request.end_time if inside else request.end_time - timedelta(microseconds=1)
        found = [b for b in model.bars if request.start_time <= b.t <= ends]
        return 0, None, {"bars": found[::-1][: request.limit]}

    model.do_history_retrievebars = pages
    window = {"start": START, "end": at + MINUTE, "limit": limit, "partial": partial}
    assert model.bars[-(limit or 999) :] == rooms.history.bars(MNQ, "1t", page_size=page, **window)


def test_tick_bars_that_were_revised_come_once() -> None:
    """A bar at the edge that is another one by now is taken as the one that is there already."""
    join, first = ByOverlap(), bar(1)
    join.took([first, bar(2)])
    assert (1, first.t + timedelta(milliseconds=1)) == (join.spare, join.until(first.t))
    got = [bar(0), replace(first, v=7)]
    assert [bar(0)] == join.fresh(got[::-1], START, first.t, inclusive=False)


def test_a_window_that_is_full_costs_its_pages() -> None:
    """A short last page that reaches the start ends the pull without another call."""
    model, rooms = with_bars(100)
    assert 100 == len(rooms.history.bars(MNQ, "1m", start=START, page_size=40))
    assert 3 == len(model.calls)


def test_a_short_page_before_open_market_is_not_trusted() -> None:
    """Where open market lies before a short page, one more call makes sure that there is nothing."""
    model, rooms = with_bars(100)
    early = START - timedelta(hours=8)
    assert 100 == len(rooms.history.bars(MNQ, "1m", start=early, page_size=1000))
    assert 2 == len(model.calls)
    daily = Rooms(model.call, get=str, clock=model.clock).history.bars(MNQ, "1d", start="2026-11-21", page_size=1000)
    assert (BarUnit.DAY, 3) == (daily.unit, len(model.calls))


def test_only_the_newest_page_has_the_partial_bar() -> None:
    """`partial` asks for the bar that is forming once, and it is the last one."""
    model, rooms = with_bars(50)
    found = rooms.history.bars(MNQ, "1m", start=START, end=model.bars[-1].t, partial=True, page_size=20)
    assert model.bars == found
    assert [True, False, False] == [request.include_partial_bar for _, request in model.calls]
    assert model.bars[:-1] == rooms.history.bars(MNQ, "1m", start=START, end=model.bars[-1].t)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "give a start, or a limit"), ({"start": datetime(2026, 11, 1)}, "start has no time zone"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "is not before end"), ({"limit": 0}, "limit is 0"),
        ({"start": "2026-11-01", "page_size": 20_001}, "expected 20000 at most"),
        ({"start": "2026-11-01", "length": "1y"}, "the bar length is '1y'"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused(words: dict[str, Any], message: str) -> None:
    """A request that cannot be meant is refused before anything is sent."""
    model, rooms = with_bars(1)
    with pytest.raises(errors.InvalidRequest, match=message):
        rooms.history.bars(MNQ, **words)
    assert [] == model.calls


def test_pages_come_as_they_are_pulled() -> None:
    """`on_page` gets each page, newest first; with their first bar as the end, a pull that broke off goes on."""
    model, rooms = with_bars(100)
    pages: list[Bars] = []
    model.faults["History/retrieveBars"] = ["", "", "500"]
    with pytest.raises(errors.TransientError):
        rooms.history.bars(MNQ, "1m", start=START, page_size=30, on_page=pages.append)
    rest = rooms.history.bars(MNQ, "1m", start=START, end=pages[-1][0].t, page_size=30)
    assert ([30, 30], 40) == ([len(page) for page in pages], len(rest))
    assert model.bars == [*rest, *pages[1], *pages[0]]


def test_progress_tells_how_far_and_how_long() -> None:
    """After each page the share of the window grows to one, and the estimate knows the rate limit."""
    _, rooms = with_bars(200)
    seen: list[Progress] = []
    rooms.history.bars(MNQ, "1m", start=START, page_size=10, progress=seen.append)
    assert [10 * n for n in range(1, 21)] == [p.bars for p in seen]
    assert sorted(p.share for p in seen) == [p.share for p in seen]
    assert (1.0, 0.0, 20) == (seen[-1].share, seen[-1].eta, seen[-1].calls)
    assert [] == [p.eta for p in seen if p.eta > 1.0]


def test_the_estimate_counts_windows_of_the_limit() -> None:
    """A pull of more pages than a window allows is expected to take the windows it needs."""
    _, rooms = with_bars(400)
    seen: list[Progress] = []
    rooms.history.bars(MNQ, "1m", start=START, page_size=2, progress=seen.append)
    assert 200 == seen[-1].calls
    assert (200 - 50) / 50 * 30.0 == pytest.approx(seen[0].eta, rel=0.02)


def test_progress_by_number() -> None:
    """Where a number of bars was asked for, that is what the share is of."""
    _, rooms = with_bars(200)
    seen: list[Progress] = []
    rooms.history.bars(MNQ, "1m", limit=40, page_size=10, progress=seen.append)
    assert [0.25, 0.5, 0.75, 1.0] == [p.share for p in seen]


def test_nothing_done_yet_has_no_estimate() -> None:
    """A first page that reached nowhere cannot say how long the rest takes; in an empty window nothing is left."""
    clock = GatewayModel().clock
    meter = Meter(MNQ.id, START, START + MINUTE, RateConfig(), clock)
    assert float("inf") == meter.page(0, START + MINUTE, last=False).eta
    assert 1.0 == Meter(MNQ.id, START, START, RateConfig(), clock).page(0, START, last=False).share


def test_a_week_that_is_short_is_asked_for_once() -> None:
    """Weekly bars have no sessions to check: a short page that reaches within a week of the start is the last."""
    model, rooms = with_bars(3, timedelta(days=7))
    assert 3 == len(rooms.history.bars(MNQ, "1w", start=START - timedelta(days=2), page_size=10))
    assert 1 == len(model.calls)


def test_progress_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """`progress=True` draws with tqdm, and the bar ends with the pull, also when it breaks off."""
    model, rooms = with_bars(50)
    rooms.history.bars(MNQ, "1m", start=START, page_size=20, progress=True)
    assert "100%" in capsys.readouterr().err
    model.faults["History/retrieveBars"] = ["", "500"]
    with pytest.raises(errors.TransientError):
        rooms.history.bars(MNQ, "1m", start=START, page_size=20, progress=True)
    assert "20 bars" in capsys.readouterr().err


def test_silence_about_live_data_is_said_aloud() -> None:
    """`live=True` on an account without live data gets no bars and no contracts, and a warning that says why."""
    model, rooms = with_bars(1)
    with pytest.warns(LiveDataWarning, match="use live=False"), pytest.raises(errors.ContractNotFound):
        rooms.history.bars(MNQ, "1m", start=START, live=True)
    model.do_history_retrievebars = lambda request: (0, None, {"bars": []})
    with pytest.warns(LiveDataWarning, match="simulated=true"):
        assert [] == rooms.history.bars(MNQ, "1m", start=START, live=True)
    with pytest.warns(LiveDataWarning):
        assert [] == rooms.contracts.search("MNQ", live=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [] == rooms.history.bars(MNQ, "1m", start=START)


def test_an_empty_history_of_an_expired_month_says_why() -> None:
    """Where the gateway keeps no short bars, an empty history comes with its reason, at the caller's line."""
    model, rooms = with_bars(1)
    model.do_history_retrievebars = lambda request: (0, None, {"bars": []})
    for contract in (MNQ_OLD, MNQ_OLD.id):
        with pytest.warns(ExpiredMonthWarning, match="no bars of MNQU6") as caught:
            assert [] == rooms.history.bars(contract, "1m", start=START)
        assert [__file__] == [warning.filename for warning in caught]
    model.faults["Contract/searchById"] = ["500"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [] == rooms.history.bars(MNQ_OLD.id, "1h", start=START)
        assert [] == Rooms(model.call, get=str, clock=model.clock).history.bars(MNQ_OLD.id, "1m", start=START)
        assert None is rooms.history.last_price(MNQ_OLD)


def test_missing_bars_are_not_no_bars() -> None:
    """A reply that says success and has no bars at all is a broken reply, not an empty history."""
    model, rooms = with_bars(1)
    model.do_history_retrievebars = lambda request: (0, None, {"bars": None})
    with pytest.raises(errors.BadReply, match="has no bars"):
        rooms.history.bars(MNQ, "1m", start=START)


def test_refused_bars_raise_their_class() -> None:
    """The codes of retrieveBars are errors of their own."""
    model, rooms = with_bars(1)
    for code, name in ((2, "UnitInvalid"), (3, "UnitNumberInvalid"), (4, "LimitInvalid")):
        model.do_history_retrievebars = lambda request, code=code: (code, None, {})
        with pytest.raises(errors.BadBarRequest) as caught:
            rooms.history.bars(MNQ, "1m", start=START)
        assert (code, name) == (caught.value.error_code, caught.value.error_name)


################################################ the result ################################################


def test_holes_of_a_history() -> None:
    """A history knows where open market has no bars; a week, a month and ticks have no calendar."""
    model, rooms = with_bars(100)
    del model.bars[40:50]
    found = rooms.history.bars(MNQ, "1m", start=START, end=START + 100 * MINUTE)
    assert [(START + 40 * MINUTE, 10)] == [(hole.start, hole.missing) for hole in found.holes]
    for unit in (BarUnit.WEEK, BarUnit.MONTH, BarUnit.TICK):
        assert [] == Bars(found, unit=unit, start=START, end=START + timedelta(days=99)).holes
    assert [] == Bars([], end=START).holes
    days = Bars([], unit=BarUnit.DAY, start=START, end=START + timedelta(days=3))
    assert 3 == len(days.holes)
    assert [] == Bars([], unit=BarUnit.DAY, number=2, start=START, end=START + timedelta(days=3)).holes


def test_bars_are_a_list() -> None:
    """Slices stay bars, with their window; items are bars; the repr is one line."""
    found = Bars([bar(n) for n in range(5)], contract_id=MNQ.id, number=5)
    part = found[1:3]
    assert (2, MNQ.id, START + MINUTE, "5m") == (len(part), part.contract_id, part.start, part.span)
    assert bar(4) == found[-1]
    assert f"<Bars 5 × 5m {MNQ.id}, 2026-11-23T23:00:00Z … 2026-11-23T23:04:00Z>" == repr(found)
    assert "<Bars 0 × 1m >" == repr(Bars())
    assert [] == Bars()[:1]
    assert "5 × Bar" in found._repr_html_()


def test_bars_become_a_frame() -> None:
    """A frame has full names, a UTC index to the microsecond, and whole volumes."""
    odd = Bar(START + timedelta(microseconds=123457), 1.25, 2.0, 0.5, 1.5, 2**40)
    frame = Bars([odd, bar(1)]).to_frame()
    assert ["open", "high", "low", "close", "volume"] == list(frame.columns)
    assert [odd.t, START + MINUTE] == [stamp.to_pydatetime() for stamp in frame.index]
    assert ("time", "UTC", 2**40, 1.25) == (
        frame.index.name, str(frame.index.tz), frame["volume"].iloc[0], frame["open"].iloc[0],
    )  # fmt: skip
    assert 0 == len(Bars().to_frame())


def test_what_lies_between() -> None:
    """A page is cut to its window, sorted, and rid of repetitions; the newest image of a bar wins."""
    old, new = bar(2, close=1.0), bar(2, close=9.0)
    page = [bar(3), new, old, bar(1), bar(0)]
    assert [bar(1), new] == between(page, START + MINUTE, START + 3 * MINUTE)
    assert [bar(1), new, bar(3)] == between(page, START + MINUTE, START + 3 * MINUTE, inclusive=True)
    assert [] == between([], START, START)


############################################ several contracts ############################################


def test_several_contracts_are_pulled_side_by_side() -> None:
    """`many` gives the bars of each contract under its id; the callbacks know which is which."""
    _, rooms = with_bars(50)
    pages: list[str] = []
    found = rooms.history.many(
        [MNQ, MES.id, MNQ.id], "1m", start=START, page_size=20, on_page=lambda page: pages.append(page.contract_id)
    )
    assert {MNQ.id: 50, MES.id: 50} == {name: len(bars) for name, bars in found.items()}
    assert {MNQ.id: 3, MES.id: 3} == {name: pages.count(name) for name in found}


def test_one_that_fails_stops_the_others() -> None:
    """The first trouble is raised, and the others stop after their page."""
    _, rooms = with_bars(50)
    with pytest.raises(errors.ContractNotFound):
        rooms.history.many([MNQ, "CON.F.US.NOPE.Z26"], "1m", start=START, page_size=1)


def test_a_pull_can_be_stopped() -> None:
    """A set stop ends a pull after its page, with what came so far."""
    model, rooms = with_bars(50)
    stop = threading.Event()
    found = rooms.history.bars(MNQ, "1m", start=START, page_size=20, stop=stop, on_page=lambda _: stop.set())
    assert model.bars[30:] == found


def test_the_latest_price() -> None:
    """The latest price is the close of the newest bar, the forming one included; unknown where nothing answers."""
    model, rooms = with_bars(3)
    model.bars[-1] = bar(2, close=21000.25)
    assert 21000.25 == rooms.history.last_price(MNQ)
    model.faults["History/retrieveBars"] = ["500"]
    assert None is rooms.history.last_price(MNQ)
    model.bars = []
    assert None is rooms.history.last_price(MNQ)


############################################ contract months ############################################


@pytest.mark.parametrize(
    ("symbol", "expected"), [("MNQ", "CON.F.US.MNQ.Z26"), ("mnq ", "CON.F.US.MNQ.Z26"), ("NQ", "CON.F.US.ENQ.Z26"),
                             ("ENQ", "CON.F.US.ENQ.Z26"), ("ES", "CON.F.US.EP.Z26")],
)  # fmt: skip
def test_the_front_month(symbol: str, expected: str) -> None:
    """The nearest active month, by the platform's name of a product or the exchange's, and never a product alike."""
    model, rooms = with_bars(1)
    model.contracts += [
        replace(MNQ, id="CON.F.US.ENQ.Z26", name="NQZ6", symbol_id="F.US.ENQ"),
        replace(MNQ, id="CON.F.US.EP.Z26", name="ESZ6", symbol_id="F.US.EP"),
        replace(MNQ, id="CON.F.US.MNQ.H27", name="MNQH7"),
    ]
    assert expected == rooms.contracts.front_month(symbol).id


def test_no_front_month() -> None:
    """A product that is not there is an error that lists what resembles it."""
    model, rooms = with_bars(1)
    model.contracts = [MNQ_OLD]
    with pytest.raises(errors.ContractNotFound, match="no active contract of 'MNQ'; found: nothing"):
        rooms.contracts.front_month("MNQ")


def test_neighbouring_months() -> None:
    """Ids of other months follow the form that ids have had; an id of another form has no neighbours."""
    assert ["CON.F.US.MNQ.F27", "CON.F.US.MNQ.Z26"] == list(months.earlier("CON.F.US.MNQ.G27", 2))
    assert [] == list(months.earlier("opaque", 5))
    assert None is months.id_of("opaque", months.Month(2026, 1))
    _, rooms = with_bars(1)
    assert [MNQ_OLD] == rooms.contracts.earlier(MNQ, 6)


def days(*volumes: int, start: int = 0, close: float = 1.0) -> list[Bar]:
    return [bar(start + n, timedelta(days=1), START, volume, close) for n, volume in enumerate(volumes)]


def test_a_roll_follows_the_volume() -> None:
    """The roll is the day after the later month first traded more; its gap is of the last day that both had."""
    found = roll(MNQ_OLD, MNQ, days(9, 9, 9, 1, close=10.0), days(1, 2, 10, 20, close=12.5))
    assert Roll(at=START + timedelta(days=3), before=MNQ_OLD.id, after=MNQ.id, gap=2.5, ratio=1.25) == found


def test_a_month_that_ends_rolls_at_its_end() -> None:
    """Where the earlier month simply ends, the later one follows; without a day in common there is no gap to tell."""
    found = roll(MNQ_OLD, MNQ, days(9, 9), days(9, start=5))
    assert (START + timedelta(days=2), 0.0, 1.0) == (found.at, found.gap, found.ratio)
    assert None is roll(MNQ_OLD, MNQ, days(9, 9, 9), days(1, 1, 1))
    assert None is roll(MNQ_OLD, MNQ, [], [])


def test_months_that_nobody_trades_are_passed_over() -> None:
    """A month without bars, and one that never overtakes, are not part of the chain."""
    daily = {MNQ_OLD.id: days(9, 9, 9), MES.id: [], MNQ.id: days(1, 1, 1)}
    assert [(MNQ_OLD, None)] == chain([MNQ_OLD, MES, MNQ], lambda contract: Bars(daily[contract.id]))


@pytest.mark.parametrize(("adjust", "expected"), [("none", 1.0), ("difference", 3.5), ("ratio", 1.25)])
def test_adjusting_moves_what_came_before(adjust: Any, expected: float) -> None:
    """Prices before a roll are left, shifted or scaled; those after the last are as traded."""
    change = Roll(at=START, before="a", after="b", gap=2.5, ratio=1.25)
    bars, rolls = stitch([([bar(0)], change), ([bar(1)], None)], adjust)
    assert ([expected, 1.0], [change]) == ([b.c for b in bars], rolls)


def test_a_month_that_never_led_is_no_part_of_a_seam() -> None:
    """The month after it had overtaken it before it followed: the seam names that one, with the whole gap."""
    daily = {
        MNQ_OLD.id: days(9, 9, 9, close=100.0),
        MES.id: days(1, 1, 1, 1, 1, close=110.0),
        MNQ.id: days(5, 5, 5, 5, 5, 5, close=130.0),
    }

    def fetch(contract: Any, length: Any, *, start: Any, end: Any) -> Bars:
        return Bars([b for b in daily[contract.id] if start <= b.t < end], contract_id=contract.id)

    found = build([MNQ_OLD, MES, MNQ], "1d", START, START + timedelta(days=6), "difference", fetch)
    assert [(MNQ_OLD.id, MNQ.id, 30.0)] == [(r.before, r.after, r.gap) for r in found.rolls]
    assert [130.0] * 6 == [bar.c for bar in found]


def test_a_continuous_history() -> None:
    """Bars of several months in one ascending history, with the rolls and the months it is made of."""
    model, rooms = with_bars(60 * 24, timedelta(hours=1))
    plain = model.do_history_retrievebars

    def by_contract(request: Any) -> Any:
        old = request.contract_id == MNQ_OLD.id
        if request.unit is BarUnit.DAY:
            first = date(2026, 11, 24)
            volume = lambda n: 9 if old == (n < 20) else 1  # noqa: E731
            bars = [
                Bar(datetime(first.year, first.month, first.day, tzinfo=UTC) + timedelta(days=n), 1, 1, 1, 1, volume(n))
                for n in range(60)
            ]
            inside = [b for b in bars if request.start_time <= b.t <= request.end_time]
            return 0, None, {"bars": inside[::-1]}
        code, message, fields = plain(request)
        return code, message, {"bars": [replace(b, c=10.0 if old else 12.0) for b in fields["bars"]]}

    model.do_history_retrievebars = by_contract
    found = rooms.history.continuous("MNQ", "1h", start=START, end=START + timedelta(days=50))
    assert [(MNQ_OLD.id, MNQ.id, date(2026, 12, 15))] == [(r.before, r.after, r.at.date()) for r in found.rolls]
    assert [MNQ_OLD, MNQ] == found.contracts
    assert sorted({b.t for b in found}) == [b.t for b in found]
    assert [10.0, 12.0] == list(dict.fromkeys(b.c for b in found))
    assert (50 * 24, MNQ.id, "none") == (len(found), found.contract_id, found.adjust)
    late = rooms.history.continuous(MNQ, "1h", start="2026-12-20", end="2026-12-25")
    assert ([], [MNQ]) == (late.rolls, late.contracts)
    model.do_history_retrievebars = lambda request: (0, None, {"bars": []})
    assert ([], []) == (
        (empty := rooms.history.continuous(MNQ, "1h", start=START, end=START + timedelta(days=5))), empty.rolls,
    )  # fmt: skip
    with pytest.raises(errors.InvalidRequest, match="adjust is 'panama'"):
        rooms.history.continuous("MNQ", "1h", start=START, adjust="panama")
