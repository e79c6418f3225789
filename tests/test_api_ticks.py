"""Prices in whole ticks."""

import json
from decimal import Decimal

import msgspec
import pytest
from gateway_model import MNQ
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from topstep_sync import ticks

# Tick sizes of contracts that the gateway lists; source: contracts seen 2026-08.
SIZES = [0.25, 0.1, 0.01, 5e-7, 0.00390625, 0.0078125, 1.0, 0.005, 0.0001, 0.00005, 0.02]


@given(st.integers(-(10**8), 10**8), st.sampled_from(SIZES))
def test_a_count_of_ticks_comes_back(count: int, size: float) -> None:
    """From ticks to a price and back nothing is lost, and the price is on a tick."""
    price = ticks.price_of(count, size)
    assert (count, True) == (ticks.ticks(price, size), ticks.aligned(price, size))


@given(st.integers(-(10**6), 10**6), st.sampled_from(SIZES))
def test_prices_are_the_shortest_decimal(count: int, size: float) -> None:
    """What goes over the wire is the exact product, with no digit more."""
    price = ticks.price_of(count, size)
    sent = json.loads(msgspec.json.encode(price), parse_float=Decimal, parse_int=Decimal)
    assert count * Decimal(repr(size)) == sent


def test_accumulated_floats_are_on_their_tick() -> None:
    """Three times 0.1 is not 0.3, but it is three ticks, and is sent as 0.3."""
    price = 0.1 + 0.1 + 0.1
    assert price != 0.3
    assert (True, 0.3) == (ticks.aligned(price, 0.1), ticks.nearest(price, 0.1))


@pytest.mark.parametrize(("price", "size"), [(21000.1, 0.25), (0.0066995, 1e-6), (6000.125, 0.25)])
def test_prices_between_ticks_are_noticed(price: float, size: float) -> None:
    """A price that lies between two ticks is not aligned."""
    assert not ticks.aligned(price, size)


def test_a_contract_counts_in_its_ticks() -> None:
    """A contract compares, rounds and values prices by its own tick."""
    yen = replace(MNQ, tick_size=5e-7, tick_value=6.25)
    assert (13400, 0.0067) == (yen.ticks(0.0067), yen.price(13400))
    assert (21000.25, 84001) == (MNQ.round(21000.3), MNQ.ticks(21000.3))
    assert (True, False) == (MNQ.aligned(21000.25), MNQ.aligned(21000.3))
    assert 6.5 == MNQ.money(13)
