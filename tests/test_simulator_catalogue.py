"""The contracts the gateway knows."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.catalogue import ROOTS, Catalogue

CATALOGUE = Catalogue(dt.date(2026, 11, 24))


def test_the_front_months_of_the_documentation_are_active() -> None:
    """On the listing date of the examples, their contracts are the front months."""
    fronts = {instrument.id for instrument in CATALOGUE.front}
    assert 51 == len(fronts)
    assert {f"CON.F.US.{code}" for code in ("MNQ.Z26", "EP.Z26", "MGC.G27", "CLE.F27", "JY6.Z26")} <= fronts


@pytest.mark.parametrize(
    ("code", "tick", "value"),
    [
        ("EP", 0.25, 12.5), ("ENQ", 0.25, 5), ("MES", 0.25, 1.25), ("MNQ", 0.25, 0.5), ("RTY", 0.1, 5), ("YM", 1, 5),
        ("CLE", 0.01, 10), ("GCE", 0.1, 10), ("MGC", 0.1, 1), ("JY6", 5e-7, 6.25), ("TUA", 0.00390625, 7.8125),
    ],
)  # fmt: skip
def test_ticks_are_those_recorded(code: str, tick: float, value: float) -> None:
    """Tick sizes and values agree with the recorded list of August 2026."""
    root = next(root for root in ROOTS if root.code == code)
    assert (tick, value) == (root.tick_size, root.tick_value)


@given(st.dates(dt.date(2020, 1, 1), dt.date(2035, 1, 1)))
def test_every_day_has_one_front_month_per_product(day: dt.date) -> None:
    """Whatever the day, each product has one active contract, and it lies ahead."""
    front = Catalogue(day).front
    assert [root.code for root in ROOTS] == [instrument.root.code for instrument in front]
    for instrument in front:
        letter, year = instrument.id[-3], 2000 + int(instrument.id[-2:])
        assert letter in instrument.root.months
        assert dt.date(year, "FGHJKMNQUVXZ".index(letter) + 1, 1) >= day.replace(day=1)


def test_expired_and_later_months_are_known_but_not_active() -> None:
    """A contract by id also answers for other months of a product's cycle, with a one-digit year in its name."""
    old = CATALOGUE.get("CON.F.US.ENQ.H25")
    assert old is not None
    assert ("NQH5", "E-mini NASDAQ-100: March 2025", False) == (old.name, old.wire["description"], old.active)
    assert old is CATALOGUE.get("CON.F.US.ENQ.H25")
    assert "NQH25" == old.display_name


@pytest.mark.parametrize(
    "name",
    ["", "x", "CON.F.US.NOPE.Z26", "CON.F.US.MNQ.F26", "CON.F.US.MNQ.Z2", "CON.F.US.MNQ.Z99", "CON.F.US.MNQ.ZZZ",
     "CON.F.EU.MNQ.Z26", "con.f.us.mnq.z26", "CON.F.US.MNQ.Z²6", "MNQ.Z26", "CON.F.US..Z26"],
)  # fmt: skip
def test_anything_else_is_unknown(name: str) -> None:
    """Ids match exactly."""
    assert CATALOGUE.get(name) is None


def test_search_looks_into_name_description_and_id() -> None:
    """Search ignores case and gives at most 20 rows."""
    assert {"CON.F.US.MNQ.Z26", "CON.F.US.ENQ.Z26"} == {i.id for i in CATALOGUE.search("nasdaq")}
    assert ["CON.F.US.MNQ.Z26"] == [i.id for i in CATALOGUE.search("mnq")]
    assert 20 == len(CATALOGUE.search(""))


@given(st.sampled_from(CATALOGUE.front), st.integers(1, 10**6))
def test_prices_and_ticks_are_one(instrument: object, ticks: int) -> None:
    """A whole number of ticks becomes a price and comes back, and half a tick is noticed."""
    price = instrument.price(ticks)  # type: ignore[attr-defined]
    assert ticks == instrument.ticks(price)  # type: ignore[attr-defined]
    assert instrument.aligned(price)  # type: ignore[attr-defined]
    assert not instrument.aligned(price + instrument.root.tick_size / 2)  # type: ignore[attr-defined]
