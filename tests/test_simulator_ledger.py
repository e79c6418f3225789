"""Positions, half-turns, fees and money."""

import pytest
from simulator_world import BUY, MNQ, SELL, Desk

FEES = 0.61  # fees and commissions of one contract and side


def test_an_opening_half_turn_has_no_profit_and_a_closing_one_has() -> None:
    """13 ticks of MNQ are 6.50, as in the recorded trade; the balance pays fees on both sides."""
    desk = Desk(29539.0)
    before = desk.exchange.accounts[704].balance
    desk.place()
    desk.move(29542.25)
    desk.place(side=SELL)
    assert [None, 6.5] == [t.profit for t in desk.exchange.ledger.trades]
    assert pytest.approx(before + 6.5 - 2 * FEES) == desk.exchange.accounts[704].balance


def test_scaling_in_averages_on_the_same_position() -> None:
    """A second buy changes size and average of the position with the same id."""
    desk = Desk()
    desk.place(size=1)
    desk.move(21003.0)
    desk.place(size=2)
    events = desk.events("GatewayUserPosition")
    assert 1 == len({e["id"] for e in events})
    assert [(1, 1, 21000.0), (1, 3, 21002.0)] == [(e["type"], e["size"], e["averagePrice"]) for e in events]


def test_going_flat_is_told_with_size_0_and_the_old_average() -> None:
    """A flat position is a delete with type 0 and size 0; the next one has a new id."""
    desk = Desk()
    desk.place()
    desk.move(21010.0)
    desk.place(side=SELL)
    last = [p.arguments[0] for p in desk.published if p.target == "GatewayUserPosition"][-1]
    assert (2, 0, 0, 21000.0) == (last["action"], *(last["data"][k] for k in ("type", "size", "averagePrice")))
    desk.place()
    assert last["data"]["id"] + 1 == desk.events("GatewayUserPosition")[-1]["id"]


def test_turning_around_closes_and_opens() -> None:
    """Selling more than is held realises the profit on what was held, and opens the rest at the new price."""
    desk = Desk()
    desk.place(size=2)
    desk.move(21001.0)
    desk.place(side=SELL, size=5)
    position = desk.exchange.ledger.positions[704, MNQ]
    assert (-3, 84004.0) == (position.held, position.average)
    assert 4.0 == desk.exchange.ledger.trades[-1].profit
    desk.move(21000.0)
    desk.place(side=BUY, size=1)
    assert 2.0 == desk.exchange.ledger.trades[-1].profit


def test_reducing_keeps_the_average() -> None:
    """A partial exit leaves the average of the rest as it was."""
    desk = Desk()
    desk.place(size=4)
    desk.move(21005.0)
    desk.place(side=SELL, size=1)
    position = desk.exchange.ledger.positions[704, MNQ]
    assert (3, 84000.0) == (position.held, position.average)
