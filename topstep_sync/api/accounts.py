"""`session.accounts`."""

from topstep_sync.api.seam import Call, present
from topstep_sync.messages import AccountsReply, SearchAccounts
from topstep_sync.models import Account
from topstep_sync.tables import Rows

SEARCH = "/api/Account/search"


class AccountsApi:
    """The user's trading accounts. Nothing in this library ever picks one by itself."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def search(self, *, only_active: bool = True) -> Rows[Account]:
        """The user's accounts, in the gateway's order. There are often several that may trade: choose by name."""
        reply = self._call(SEARCH, SearchAccounts(only_active_accounts=only_active), AccountsReply)
        return Rows(present(reply.accounts, SEARCH, "accounts"), of=Account)
