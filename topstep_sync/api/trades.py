"""`session.trades`."""

from typing import Any, Final

from msgspec import UNSET

from topstep_sync.api.arguments import account_number, instant
from topstep_sync.api.seam import Call, present
from topstep_sync.messages import SearchTrades, TradesReply
from topstep_sync.models import Account, Trade
from topstep_sync.tables import Rows

SEARCH: Final = "/api/Trade/search"


class TradesApi:
    """Fills, one row each; a row without `profit_and_loss` opened, one with it closed."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def search(self, account_id: int | Account, start: Any, end: Any = None) -> Rows[Trade]:
        """The account's fills from *start* to *end* (default: now), oldest first.

        Args:
            start: aware datetime, or ISO 8601 text.
        """
        request = SearchTrades(
            account_id=account_number(account_id),
            start_timestamp=instant(start, "start"),
            end_timestamp=UNSET if end is None else instant(end, "end"),
        )
        trades = present(self._call(SEARCH, request, TradesReply).trades, SEARCH, "trades")
        return Rows(sorted(trades, key=lambda trade: (trade.creation_timestamp, trade.id)), of=Trade)
