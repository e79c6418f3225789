"""Positions, half-turn trades, fees and balances: what a fill does to an account."""

import itertools
from typing import Final

from topstep_sync.simulator.book import SimAccount, SimOrder, SimPosition, SimTrade

# Per side and contract of MNQ: recorded trades, August 2026.
FEES: Final = 0.36
COMMISSIONS: Final = 0.25


class Ledger:
    """The books of all accounts. Loop thread only."""

    def __init__(self, first_trade: int, first_position: int = 6124) -> None:
        self.trades: list[SimTrade] = []
        """Every fill, oldest first."""
        self.positions: dict[tuple[int, str], SimPosition] = {}
        """(account, contract) → what is held, flat ones not included."""
        self._trade_ids = itertools.count(first_trade)
        self._position_ids = itertools.count(first_position)

    def held(self, account_id: int, contract_id: str) -> int:
        """Signed contracts the account holds."""
        position = self.positions.get((account_id, contract_id))
        return position.held if position else 0

    def book(
        self, account: SimAccount, order: SimOrder, size: int, ticks: int, now: float
    ) -> tuple[SimTrade, SimPosition]:
        """A fill is booked: the trade it makes, and the position as it is after it (maybe flat)."""
        key = (account.id, order.instrument.id)
        position = self.positions.get(key)
        if position is None:
            position = SimPosition(next(self._position_ids), account.id, order.instrument, now)
            self.positions[key] = position
        profit = self._move(position, order.sign * size, ticks)
        fees, commissions = round(FEES * size, 2), round(COMMISSIONS * size, 2)
        account.balance += (profit or 0.0) - fees - commissions
        trade = SimTrade(
            next(self._trade_ids), account.id, order.instrument, now, ticks, profit, fees, commissions,
            order.side, size, order.id,
        )  # fmt: skip
        self.trades.append(trade)
        if position.held == 0:
            del self.positions[key]
        return trade, position

    @staticmethod
    def _move(position: SimPosition, change: int, ticks: int) -> float | None:
        """The position has changed by *change* contracts at *ticks*; returns the profit of what was closed."""
        held = position.held
        after = held + change
        position.held = after
        if held == 0 or (held > 0) == (change > 0):
            position.average = (position.average * abs(held) + ticks * abs(change)) / abs(after)
            return None
        closed = min(abs(held), abs(change))
        profit = position.instrument.money((ticks - position.average) * (1 if held > 0 else -1)) * closed
        if after and (after > 0) != (held > 0):  # turned around: the rest opened at this price
            position.average = float(ticks)
        return round(profit, 2)
