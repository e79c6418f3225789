"""The accounts, orders and positions as last known; a fact that never changes, replaced by a newer one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from topstep_sync.models import Account, Order, Position

_EMPTY: Final[Mapping[int, Account]] = MappingProxyType({})


class TradingState(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent view, published by one reference assignment: reading it takes no lock and no request."""

    accounts: Mapping[int, Account] = _EMPTY
    """By id."""
    orders: Mapping[int, Order] = MappingProxyType({})
    """Orders that may still fill, by id."""
    positions: Mapping[tuple[int, str], Position] = MappingProxyType({})
    """Open positions, by account id and contract id."""
    as_of: float = 0.0
    """When the last change came in, in seconds since 1970; 0.0 while nothing is known."""
    reconciled: bool = False
    """Whether it agrees with a snapshot taken since the connection was last lost."""

    def position(self, account_id: int, contract_id: str) -> Position | None:
        """The open position of an account in a contract; `None` when it is flat."""
        return self.positions.get((account_id, contract_id))

    def __repr__(self) -> str:
        sizes = f"{len(self.accounts)} accounts, {len(self.orders)} working orders, {len(self.positions)} positions"
        return f"TradingState({sizes}, {'reconciled' if self.reconciled else 'not reconciled'})"
