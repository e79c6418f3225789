"""What REST says about some accounts right now, for the stream to make its belief true again."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from topstep_sync.models import Order, Trade
from topstep_sync.realtime.reconcile import Snapshot
from topstep_sync.realtime.versions import dated

if TYPE_CHECKING:
    from topstep_sync.api.rooms import Rooms

R = TypeVar("R", Order, Trade)

# GUESS: no reply of a search is cut off below so many rows. Whether any is, and at which end, is undocumented, and the
# reply does not say so; a live account with a busy day would settle it.
MANY: Final = 100
_OVERLAP: Final = timedelta(milliseconds=1)  # two rows may bear the same time, or be told apart by its last digits only


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
        orders=[order for number in account_ids for order in _whole(rooms.orders.search, number, start)],
        positions=[position for number in account_ids for position in rooms.positions.search_open(number)],
        trades=[trade for number in account_ids for trade in _whole(rooms.trades.search, number, start)],
    )


def _whole(search: Callable[..., Iterable[R]], account_id: int, start: datetime) -> list[R]:
    """Every row since *start*: what lies before and behind a long reply is asked for, as long as replies are as long.

    Two calls more than one where nothing was cut off, however fast new rows come meanwhile: of those the hub tells.
    """
    found = list(search(account_id, start))
    if len(found) < MANY:
        return found
    rows: dict[Any, R] = {_key(row): row for row in found}
    for behind in (False, True):
        page, known = found, 0
        while len(page) >= len(found) and len(rows) > known:
            known = len(rows)
            times = [row.creation_timestamp for row in rows.values() if dated(row.creation_timestamp)]
            first, last = min(times, default=start), max(times, default=start)
            # What is asked for by, undocumented, may be another time than that of the creation.
            span: tuple[Any, ...] = (max(start, last) - _OVERLAP,) if behind else (start, max(start, first) + _OVERLAP)
            page = list(search(account_id, *span))
            rows |= {_key(row): row for row in page}
    return list(rows.values())


def _key(row: Order | Trade) -> Any:
    return row.id, isinstance(row, Trade) and row.voided
