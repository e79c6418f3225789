"""The snapshot: all of what REST has, however few rows it gives at once, and before all other calls."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_reconcile import START, trade
from test_stream import settled

from topstep_sync import snapshots
from topstep_sync.events import Reconnected
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.routes import Priority
from topstep_sync.models import Trade
from topstep_sync.session import Session


def searching(rows: list[Trade], most: int, newest: bool) -> tuple[Callable[..., list[Trade]], list[Any]]:
    """A search that gives at most *most* of *rows*, of either end, and a list of what it was asked."""
    asked: list[Any] = []

    def search(account_id: int, start: Any, end: Any = None) -> list[Trade]:
        asked.append((start, end))
        found = [r for r in rows if r.creation_timestamp >= start and (end is None or r.creation_timestamp <= end)]
        return found[-most:] if newest else found[:most]

    return search, asked


@given(st.lists(st.floats(0, 100), max_size=400).map(sorted), st.integers(100, 150), st.booleans())
def test_no_row_is_missed(moments: list[float], most: int, newest: bool) -> None:
    """Whichever end a reply is cut off at, all rows are found; a short reply costs no second question."""
    rows = [trade(number, moment + number / 100) for number, moment in enumerate(moments)]
    search, asked = searching(rows, most, newest)
    assert {row.id for row in rows} == {row.id for row in snapshots._whole(search, 5, START)}
    assert len(rows) >= snapshots.MANY or 1 == len(asked)
    assert len(asked) <= 4 + len(rows) / (most - 2)


def test_a_long_reply_of_undated_rows_is_no_trouble() -> None:
    """Where no time tells what may lie before or behind, nothing more is asked."""
    never = START.min.replace(tzinfo=START.tzinfo)
    rows = [trade(number, 1.0) for number in range(100)]
    odd = [replace(row, creation_timestamp=never) for row in rows]
    assert 100 == len(snapshots._whole(lambda *_: odd, 5, START + timedelta(1)))


def test_the_calls_of_a_snapshot_go_first(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the account holds after a gap must not wait behind the program's own calls for a permit."""
    taken: list[tuple[str, Any]] = []
    acquire = RateLimiter.acquire

    def noted(self: Any, endpoint: str, *arguments: Any, **options: Any) -> Any:
        taken.append((endpoint, options.get("priority")))
        return acquire(self, endpoint, *arguments, **options)

    config = gateway.config_with(stream={"backoff_seconds": (0.0,)})
    with Session(config=config) as session, session.subscribe(accounts=[536]) as events:
        settled(events, 0.1)
        monkeypatch.setattr(RateLimiter, "acquire", noted)
        gateway.drop_hubs(hub="user", how="fin")
        events.wait_for(lambda event: isinstance(event, Reconnected) and event.reconciled, 5)
    asked = {path for path, _ in taken}
    assert {"/api/Account/search", "/api/Order/search", "/api/Position/searchOpen", "/api/Trade/search"} <= asked
    assert {Priority.URGENT} == {priority for _, priority in taken}


def test_rows_that_come_meanwhile_are_not_run_after() -> None:
    """However fast orders come, a snapshot is done after three questions: of what is new the hub tells."""
    rows = [trade(number, number / 100) for number in range(150)]
    asked: list[Any] = []

    def search(account_id: int, start: Any, end: Any = None) -> list[Trade]:
        rows.extend(trade(len(rows) + more, (len(rows) + more) / 100) for more in range(10))
        asked.append((start, end))
        return [r for r in rows if r.creation_timestamp >= start and (end is None or r.creation_timestamp <= end)]

    assert 160 <= len(snapshots._whole(search, 5, START))
    assert 3 == len(asked)
    assert all(end is None or end > start for start, end in asked)


@pytest.mark.parametrize("count", [1, 100])
def test_a_fill_and_its_correction_are_two_rows(count: int) -> None:
    """A trade that was voided bears the id of the one that it takes back; both are kept."""
    rows = [row for number in range(count) for row in (trade(number, 1.0), replace(trade(number, 1.0), voided=True))]
    assert rows == snapshots._whole(lambda *_: list(rows), 5, START)
