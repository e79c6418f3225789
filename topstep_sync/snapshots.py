"""What REST says about some accounts right now, for the stream to make its belief true again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from topstep_sync.realtime.reconcile import Snapshot

if TYPE_CHECKING:
    from topstep_sync.api.rooms import Rooms


def fetch(rooms: "Rooms", account_ids: list[int], since: float) -> Snapshot:
    """Accounts, working orders and positions, and the orders and trades since *since* (seconds since 1970).

    Raises:
        TopstepError: any part of it could not be had; half a snapshot would make events up.
    """
    start = datetime.fromtimestamp(max(0.0, since), UTC)
    wanted = set(account_ids)
    accounts = [account for account in rooms.accounts.search(only_active=False) if account.id in wanted]
    # Orders before trades and positions: a fill between two looks is then in the later ones, and not lost. Trades last:
    # while they travel, what the hub told before the positions were read arrives, and is not taken for newer than they.
    return Snapshot(
        accounts=accounts,
        open_orders=[order for number in account_ids for order in rooms.orders.working(number)],
        orders=[order for number in account_ids for order in rooms.orders.search(number, start)],
        positions=[position for number in account_ids for position in rooms.positions.search_open(number)],
        trades=[trade for number in account_ids for trade in rooms.trades.search(number, start)],
    )
