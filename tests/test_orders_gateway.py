"""ORDER-001 and the typed API against the simulator, over real sockets and both hubs."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_codes import ALL, ENUM_OF

from topstep_sync import errors
from topstep_sync.api.results import Change
from topstep_sync.codes import failure
from topstep_sync.messages import Reply
from topstep_sync.models import OrderStatus
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

MNQ, MES = "CON.F.US.MNQ.Z26", "CON.F.US.MES.Z26"
QUICK = {"verify_seconds": (0.05, 0.1, 0.2, 0.3, 0.4)}  # the look-ups of a gateway that is not far away


@pytest.fixture
def session(gateway: Gateway) -> Iterator[Session]:
    gateway.set_price(MNQ, 21000.0)
    gateway.set_price(MES, 6000.0)
    with Session(config=gateway.config_with(orders=QUICK)) as opened:
        yield opened


@pytest.fixture(params=["hub", "rest"])
def hub(request: pytest.FixtureRequest, session: Session) -> Iterator[bool]:
    """With a stream of the account open, and without."""
    if request.param == "rest":
        yield False
        return
    with session.subscribe(accounts=[704]):
        yield True


def calls(gateway: Gateway, name: str) -> int:
    return sum(arrival.path.lower() == f"/api/{name}".lower() for arrival in gateway.requests)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lose", {}),
        ("after", {"status": 500}),
        ("after", {"status": 502}),
        ("truncate", {}),
        ("after", {"status": 408}),
    ],
)
def test_a_lost_reply_is_one_order(
    gateway: Gateway, session: Session, hub: bool, kind: str, options: dict[str, Any]
) -> None:
    """However the reply is lost after the order was accepted, the order comes back, and there is one."""
    gateway.faults.add("Order/place", kind, **options)
    placed = session.orders.buy(704, MNQ, 1, stop_loss_ticks=40, take_profit_ticks=80)
    assert [placed.id] == [order.id for order in gateway.executed_orders]
    assert placed.custom_tag == placed.record.custom_tag
    assert 1 == calls(gateway, "Order/place")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reset-read", "status", "html"])
def test_an_order_that_never_ran_is_unknown_and_then_absent(
    gateway: Gateway, session: Session, hub: bool, kind: str
) -> None:
    """A call that may have run and did not ends as unknown, and `verify` settles it."""
    gateway.faults.add("Order/place", kind, status=500)
    with pytest.raises(errors.OrderStateUnknown) as caught:
        session.orders.buy(704, MNQ, 1)
    assert None is session.orders.verify(caught.value.tag)
    assert ([], 1) == (gateway.executed_orders, calls(gateway, "Order/place"))


def test_an_order_that_comes_late_is_found(gateway: Gateway, session: Session, hub: bool) -> None:
    """An order that the gateway executes after its client gave up is found, with `resend`, too, and is one."""
    session.accounts.search()
    gateway.faults.late("Order/place", 1.0)
    placed = session.orders.buy(704, MNQ, 1, timeout=0.6, resend=True)
    assert [placed.id] == [order.id for order in gateway.executed_orders]


@pytest.mark.slow
def test_the_same_tag_is_sent_again(gateway: Gateway, session: Session) -> None:
    """With `resend`, an order that was looked for in vain goes out once more, and is one."""
    gateway.faults.add("Order/place", "reset-read")
    placed = session.orders.buy(704, MNQ, 1, resend=True)
    assert ([placed.custom_tag], 2) == (
        [order.custom_tag for order in gateway.executed_orders], calls(gateway, "Order/place"),
    )  # fmt: skip


def test_a_token_that_dies_midway(gateway: Gateway, session: Session) -> None:
    """A 401 in the middle of an order is not an order: a new token, the same tag, one order."""
    session.accounts.search()
    gateway.revoke_tokens()
    placed = session.orders.buy(704, MNQ, 1)
    assert [placed.id] == [order.id for order in gateway.executed_orders]


def test_brackets_on_an_account_that_takes_none(gateway: Gateway, session: Session) -> None:
    """An account in the platform's default mode refuses brackets, and the error says what to do about it."""
    with pytest.raises(errors.BracketRejected, match="You must enable Auto OCO Brackets") as caught:
        session.orders.buy(536, MNQ, 1, stop_loss_ticks=40)
    assert OrderStatus.REJECTED is session.orders.verify(caught.value.custom_tag, account_id=536).status
    with pytest.raises(errors.PermanentError):
        session.orders.buy(999, MNQ, 1)


def test_a_taken_tag(gateway: Gateway, session: Session) -> None:
    """A tag of an earlier program is refused by the gateway, also when that order was rejected."""
    with Session(config=gateway.config) as earlier, pytest.raises(errors.BracketRejected):
        earlier.orders.buy(536, MNQ, 1, stop_loss_ticks=40, custom_tag="entry-1")
    with pytest.raises(errors.DuplicateCustomTag):
        session.orders.buy(536, MNQ, 1, custom_tag="entry-1")


@pytest.mark.parametrize("kind", ["lose", "reset-read"])
def test_a_lost_cancellation(gateway: Gateway, session: Session, hub: bool, kind: str) -> None:
    """Whether it ran or not, a cancellation whose reply is lost ends with the order cancelled."""
    order = session.orders.buy(704, MNQ, 1, limit_price=20000.0)
    gateway.faults.add("Order/cancel", kind)
    assert OrderStatus.CANCELLED is session.orders.cancel(order).status
    assert OrderStatus.CANCELLED is session.orders.get(order).status
    assert Change.ALREADY is session.orders.cancel(order).change


def test_changes_are_read_back(gateway: Gateway, session: Session) -> None:
    """A change whose reply is lost is compared with the order; a trail by its distance."""
    order = session.orders.buy(704, MNQ, 1, limit_price=20000.0)
    trailing = session.orders.sell(704, MES, 1, trail_price=5990.0, type="trailing_stop")
    gateway.faults.lose("Order/modify", times=2)
    assert 20000.25 == session.orders.modify(order, limit_price=20000.25).order.limit_price
    assert (40, 10.0) == ((found := session.orders.get(trailing)).trail_ticks, found.trail_price)
    assert None is session.orders.get(order).trail_ticks
    assert 3 == session.orders.modify(order, size=3).order.size
    assert 2 == calls(gateway, "Order/modify")


def test_waiting_for_a_fill(gateway: Gateway, session: Session, hub: bool) -> None:
    """`wait` ends when the market reaches the price: by one look where the hub tells, else by polling."""
    order = session.orders.buy(704, MNQ, 1, limit_price=20990.0)
    session.listen(lambda event: gateway.set_price(MNQ, 20990.0))  # once the first look has been
    filled = session.orders.wait(order, timeout=10)
    assert (OrderStatus.FILLED, 20990.0) == (filled.status, filled.filled_price)
    assert (1 if hub else 2) == calls(gateway, "Order/searchById")


@pytest.mark.parametrize("part", [True, False])
def test_a_lost_close_is_compared(gateway: Gateway, session: Session, part: bool) -> None:
    """A close whose reply is lost is found in the positions, and is sent once."""
    session.orders.buy(704, MNQ, 3)
    gateway.faults.lose("Position/partialCloseContract" if part else "Position/closeContract")
    if part:
        assert 2 == session.positions.close_part(704, MNQ, 1).position.size
    else:
        session.positions.close(704, MNQ)
        assert [] == session.positions.search_open(704)
    assert 1 == len([a for a in gateway.requests if a.path.lower().endswith("closecontract")])


def test_orphans_are_swept(gateway: Gateway, session: Session) -> None:
    """Protective orders that the gateway leaves after a close are cancelled, and the account is quiet."""
    session.orders.buy(704, MNQ, 1, stop_loss_ticks=40, take_profit_ticks=80)
    result = session.positions.close(704, MNQ, cancel_orders=True)
    assert (2, True, ()) == (len(result.cancelled), result.swept, result.orders_left)
    assert [] == session.orders.working(704)


def test_the_kill_switch(gateway: Gateway, session: Session) -> None:
    """Orders, positions, lost replies and errors in between: the account is flat, and that is read back."""
    session.orders.buy(704, MNQ, 2, stop_loss_ticks=40, take_profit_ticks=80)
    session.orders.sell(704, MES, 1)
    for number in range(6):
        session.orders.buy(704, MNQ, 1, limit_price=20000.0 + number, stop_loss_ticks=40)
    gateway.faults.lose("Order/cancel", times=3)
    gateway.faults.status("Order/v2/query", 503)
    gateway.faults.lose("Position/closeContract")
    report = session.flatten(704)
    assert report, report
    assert ([], []) == (session.orders.working(704), session.positions.search_open(704))


def test_the_kill_switch_passes_an_open_breaker(gateway: Gateway, session: Session) -> None:
    """With the gateway failing so often that calls are refused here, getting out still goes out."""
    session.orders.buy(704, MNQ, 1)
    with gateway.faults.status("Order/search", 500, times=None):
        for _ in range(12):
            with pytest.raises(errors.RequestError) as caught:
                session.orders.search(704, "2026-01-01")
            if isinstance(caught.value, errors.CircuitOpen):
                break
        else:
            pytest.fail("the breaker did not open")
        assert session.flatten(704)


@pytest.mark.parametrize("paths", [("Order/v2/query",), ("Order/searchOpen", "Order/v2/query", "Position/searchOpen")])
def test_the_kill_switch_is_over_in_time(gateway: Gateway, session: Session, paths: tuple[str, ...]) -> None:
    """Look-ups that hang keep it no longer than it was given, and what could be read was acted upon."""
    orders = [session.orders.buy(704, MNQ, 1, limit_price=20000.0 + number) for number in range(3)]
    for path in paths:
        gateway.faults.add(path, "slow", seconds=30.0, times=None)
    begun = time.monotonic()
    report = session.flatten(704, timeout=0.6)
    assert 0.6 + 1.0 > time.monotonic() - begun
    assert (False, False) == (bool(report), report.verified)
    ended = {order.id: order.status for order in gateway.executed_orders}
    assert (len(paths) == 1) == ({OrderStatus.CANCELLED} == {ended[order.id] for order in orders})


def test_many_cancellations_that_hang_end_in_time(gateway: Gateway, session: Session) -> None:
    """However many orders cannot be cancelled, the sweep is over when its time is, and says which were not tried."""
    for number in range(120):
        session.orders.buy(704, MNQ, 1, limit_price=20000.0 + number)
    gateway.faults.add("Order/cancel", "slow", seconds=30.0, times=None)
    gateway.faults.add("Order/v2/query", "slow", seconds=30.0, times=None)  # so that the first round takes a while
    begun = time.monotonic()
    report = session.orders.cancel_all(704, timeout=0.5)
    assert 0.5 + 2.0 > time.monotonic() - begun
    assert "the time was up" in str(report.failures)


@pytest.mark.slow
def test_every_thread_its_order(gateway: Gateway) -> None:
    """32 threads place orders while every third reply is lost: 32 orders, each once, none unknown."""
    gateway.faults.lose("Order/place", times=None, probability=0.34)
    patient = {"consecutive_failures": 1000, "min_calls": 1000}
    placed: list[Any] = []
    with Session(config=gateway.config_with(breaker=patient)) as session:
        threads = [threading.Thread(target=lambda: placed.append(session.orders.buy(704, MNQ, 1))) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    executed = Counter(order.custom_tag for order in gateway.executed_orders)
    assert (32, {1}) == (len({order.id for order in placed}), set(executed.values()))
    assert {order.custom_tag for order in placed} == set(executed)


KILLED = """
import os, sys
from topstep_sync.session import Session
from topstep_sync.testing import Config
session = Session(config=Config(
    user_name=sys.argv[1], api_key=sys.argv[2], base_url=sys.argv[3], orders={"journal_path": sys.argv[4]}))
session.accounts.search()
session.orders._lookup.by_tag = lambda *_: os.kill(os.getpid(), 9)
session.orders.buy(704, "CON.F.US.MNQ.Z26", 1, custom_tag=sys.argv[5])
"""


@pytest.mark.slow
def test_a_killed_process_is_recovered(gateway: Gateway, session: Session, tmp_path: Path) -> None:
    """A process that is killed between its order and the reply leaves a journal that the next one settles."""
    journal = str(tmp_path / "orders.jsonl")
    with gateway.faults.lose("Order/place"):
        arguments = [gateway.user_name, gateway.api_key, gateway.url, journal, "entry-1"]
        killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=60)
    assert -9 == killed.returncode
    with Session(config=gateway.config_with(orders={**QUICK, "journal_path": journal})) as next_one:
        recovered = next_one.orders.recover()
        assert [("entry-1", "accepted")] == [(found.custom_tag, found.state.value) for found in recovered]
        assert [recovered[0].order.id] == [order.id for order in gateway.executed_orders]
        assert [] == next_one.orders.recover()


# Logging in and out is the token manager's affair, and tested there.
@pytest.mark.parametrize("path", [path for path in ENUM_OF if not path.startswith("/api/Auth/")])
def test_every_code_of_every_endpoint(gateway: Gateway, session: Session, path: str) -> None:
    """Whatever documented code an endpoint answers with, the caller gets its error, with code, name and fate."""
    session.accounts.search()
    for _, code, name in (entry for entry in ALL if entry[0] == path and entry[1] > 0):
        expected = failure(path, code, "why")
        with gateway.faults.add(path, "code", error_code=code, message="why"), pytest.raises(type(expected)) as caught:
            session.call(path, None, Reply)
        found = caught.value
        assert (code, name, "why") == (found.error_code, found.error_name, found.error_message)
        assert (str(expected), expected.fate) == (str(found), found.fate)


def test_the_typed_rooms(gateway: Gateway, session: Session) -> None:
    """What the other rooms say is what the simulator has."""
    assert {536, 704} <= {account.id for account in session.accounts.search()}
    assert 999 in {account.id for account in session.accounts.search(only_active=False)}
    assert MNQ == session.contracts.front_month("MNQ").id
    assert 0.0 < session.status.ping() < 5.0
    session.orders.buy(536, MNQ, 1)
    session.orders.sell(536, MNQ, 1)
    trades = session.trades.search(536, "2026-01-01")
    assert [None, 0.0] == [trade.profit_and_loss or (0.0 if trade.side else None) for trade in trades]
    assert sorted(trade.id for trade in trades) == [trade.id for trade in trades]


def test_bars_are_the_gateways(gateway: Gateway, session: Session) -> None:
    """Any paging gives the same bars; a continuous history ascends over its rolls."""
    one = session.history.bars(MNQ, "1m", start="2026-11-18", end="2026-11-20")
    many = session.history.bars(MNQ, "1m", start="2026-11-18", end="2026-11-20", page_size=333)
    assert (one, 2 * 24 * 60) == (many, len(one))
    joined = session.history.continuous("MNQ", "1h", start="2026-06-01", end="2026-11-20")
    assert sorted({bar.t for bar in joined}) == [bar.t for bar in joined]


def test_the_latest_price_is_the_markets(gateway: Gateway, session: Session) -> None:
    """Where prices count from the market, it is the market that the simulator fills at, moved by hand or not."""
    gateway.set_price(MNQ, 20123.25)
    assert 20123.25 == session.history.last_price(MNQ)
    placed = session.orders.buy(704, MNQ, 1, stop_loss_price=20113.25, take_profit_price=20143.25)
    assert (-40, 80) == (placed.stop_loss_bracket.ticks, placed.take_profit_bracket.ticks)
    assert 20133.25 == session.orders.buy(704, MNQ, 1, trail_ticks=40).trail_price


@pytest.mark.gateway(market_rate=0.0, hours="cme")
def test_bars_of_trading_hours_have_no_holes(session: Session) -> None:
    """The simulator's trading hours and the calendar's agree over an ordinary week."""
    bars = session.history.bars(MNQ, "1m", start="2026-11-16", end="2026-11-21")
    assert (5 * 23 * 60 - 60, []) == (len(bars), bars.holes)
