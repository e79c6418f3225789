"""`session.positions`."""

from typing import Final

from topstep_sync.api.arguments import account_number
from topstep_sync.api.seam import Call, present
from topstep_sync.http.routes import Priority
from topstep_sync.messages import ByAccount, PositionsReply
from topstep_sync.models import Account, Position
from topstep_sync.tables import Rows

SEARCH_OPEN: Final = "/api/Position/searchOpen"


class PositionsApi:
    """Open positions, one row per account and contract."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def search_open(self, account_id: int | Account) -> Rows[Position]:
        """The account's open positions."""
        return self._open(account_number(account_id), None)

    def _open(self, account_id: int, priority: Priority | None) -> Rows[Position]:
        request = ByAccount(account_id=account_id)
        reply = self._call(SEARCH_OPEN, request, PositionsReply, priority=priority, must_try=priority is not None)
        return Rows(present(reply.positions, SEARCH_OPEN, "positions"))
