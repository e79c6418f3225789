"""Bars and the level of the market, as pure functions of time."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.messages import RetrieveBars
from topstep_sync.models import BarUnit
from topstep_sync.simulator.bars import SECONDS, bars
from topstep_sync.simulator.catalogue import Catalogue, Instrument
from topstep_sync.simulator.sessions import DAY, cme_open
from topstep_sync.simulator.terrain import level, levels
from topstep_sync.simulator.wire import parse_time

CATALOGUE = Catalogue(dt.date(2026, 11, 24))
NOW = dt.datetime(2026, 11, 24, 15, 30, 20, tzinfo=dt.UTC).timestamp()


def contract(code: str = "MNQ.Z26") -> Instrument:
    found = CATALOGUE.get(f"CON.F.US.{code}")
    assert found is not None
    return found


MNQ = contract()


def pull(
    start: float, end: float, unit: int = 2, number: int = 1, limit: int = 20_000, *, partial: bool = False,
    always: bool = True, instrument: Instrument = MNQ, now: float = NOW,
) -> list[dict[str, Any]]:  # fmt: skip
    """Bars, with `t` in seconds since 1970."""
    request = RetrieveBars(
        contract_id=instrument.id, live=False, start_time=dt.datetime.fromtimestamp(start, dt.UTC),
        end_time=dt.datetime.fromtimestamp(end, dt.UTC), unit=BarUnit(unit), unit_number=number, limit=limit,
        include_partial_bar=partial,
    )  # fmt: skip
    found = bars(instrument, request, now, 7, always=always)
    return [{**bar, "t": parse_time(bar["t"]).timestamp()} for bar in found]  # type: ignore[union-attr]


@given(st.lists(st.floats(0, 2e9), max_size=60), st.sampled_from(CATALOGUE.front), st.integers(0, 99))
def test_one_instant_and_a_long_series_agree(instants: list[float], instrument: Instrument, seed: int) -> None:
    """The level is the same to the tick however it is asked for."""
    instants = sorted(instants)
    assert [level(instrument, t, seed) for t in instants] == levels(instrument, instants, seed)


@given(st.floats(NOW - 300 * DAY, NOW), st.sampled_from(CATALOGUE.front))
def test_levels_stay_near_the_contract(instant: float, instrument: Instrument) -> None:
    """A level is within 11 % of where the contract starts, and above zero."""
    price = instrument.price(level(instrument, instant, 7))
    assert 0 < price
    assert abs(price / instrument.root.level - 1) < 0.12


@given(
    st.integers(int(NOW) - 40 * DAY, int(NOW)), st.integers(60, DAY // 4), st.sampled_from([1, 2, 3]),
    st.integers(1, 7),
    st.integers(1, 500), st.booleans(), st.booleans(),
)  # fmt: skip
def test_pages_fit_together(
    end: int, span: int, unit: int, number: int, limit: int, partial: bool, always: bool
) -> None:
    """A page is the newest rows of the window; moving the end back gives the rows before, to the last digit."""
    whole = pull(end - span, end, unit, number, partial=partial, always=always)
    page = pull(end - span, end, unit, number, limit, partial=partial, always=always)
    assert whole[:limit] == page
    if len(page) == limit and limit < len(whole):
        rest = pull(end - span, page[-1]["t"], unit, number, always=always)
        assert whole[limit:] == rest[: len(whole) - limit]


@given(st.integers(int(NOW) - 400 * DAY, int(NOW)), st.sampled_from(list(SECONDS)), st.integers(1, 5), st.booleans())
def test_bars_are_sound(end: int, unit: int, number: int, always: bool) -> None:
    """Descending, on multiples of their length, complete, high and low around open and close, with volume."""
    length = SECONDS[BarUnit(unit)] * number
    found = pull(end - 50 * length, end, unit, number, 40, always=always)
    opens = [bar["t"] for bar in found]
    assert sorted(set(opens), reverse=True) == opens
    for bar in found:
        assert bar["t"] % length == 0
        assert bar["t"] + length <= end
        assert bar["l"] <= min(bar["o"], bar["c"]) <= max(bar["o"], bar["c"]) <= bar["h"]
        assert bar["v"] > 0
        assert all(MNQ.aligned(bar[k]) for k in "ohlc")


def test_opens_and_closes_agree_between_units() -> None:
    """A bar opens where the last one closed, and an hour opens and closes with its minutes."""
    hour = NOW // 3600 * 3600
    minutes = pull(hour - 3600, hour - 1, 2, partial=False, now=NOW)[::-1] + pull(hour - 60, hour, 2)
    whole = pull(hour - 3600, hour, 3)[0]
    assert (whole["o"], whole["c"]) == (minutes[0]["o"], minutes[-1]["c"])
    assert [bar["c"] for bar in minutes[:-1]] == [bar["o"] for bar in minutes[1:]]


def test_the_forming_bar_is_given_on_demand() -> None:
    """With `includePartialBar` the newest bar is the one that now lies in."""
    minute = NOW // 60 * 60
    assert [minute - 60, minute] == [pull(NOW - 300, NOW, partial=p)[0]["t"] for p in (False, True)]
    assert [] == pull(NOW + 60, NOW + 120, partial=True)


def test_a_window_before_its_start_is_empty() -> None:
    """An end before the start gives no bars, and so does a window beyond the history."""
    assert [] == pull(NOW, NOW - 3600)
    assert [] == pull(0, 1000)


def test_hours_without_trading_have_no_bars() -> None:
    """In CME hours there are no bars in the break and on Saturdays, and every session hour has all its minutes."""
    found = pull(NOW - 7 * DAY, NOW, always=False)
    assert all(cme_open(bar["t"]) for bar in found)
    assert sum(cme_open(t) for t in range(int(NOW // 60 * 60) - 7 * DAY + 60, int(NOW) - 60, 60)) == len(found)
    days = [dt.datetime.fromtimestamp(bar["t"], dt.UTC).weekday() for bar in pull(NOW - 14 * DAY, NOW, 4, always=False)]
    assert 5 not in days
    assert 6 in days
    assert 1 == len(pull(NOW - 15 * DAY, NOW, 5, always=False))


def test_expired_contracts_keep_hours_only() -> None:
    """Seconds and minutes exist only for the active contract."""
    old = contract("ENQ.H25")
    assert [] == pull(NOW - 3600, NOW, instrument=old)
    assert pull(NOW - 7200, NOW, 3, instrument=old)


@pytest.mark.slow
def test_a_year_of_minutes_comes_in_eighteen_pages() -> None:
    """Some 350 000 bars of one year, with CME's hours, none twice, paged backwards."""
    seen, end, pages = 0, NOW, 0
    oldest = end
    while page := pull(NOW - 365 * DAY, end, always=False):
        assert page[0]["t"] < oldest
        oldest = end = page[-1]["t"]
        seen, pages = seen + len(page), pages + 1
    assert 340_000 < seen < 370_000
    assert -(-seen // 20_000) == pages
