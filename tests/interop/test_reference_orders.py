"""ORDER-001 and the typed API on the real ASP.NET Core, whose source shares no line with library or simulator."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import aspnetcore
import pytest

from topstep_sync import errors
from topstep_sync.api.results import Change
from topstep_sync.config import Config
from topstep_sync.models import OrderStatus
from topstep_sync.session import Session

pytestmark = [pytest.mark.interop, aspnetcore.needed]

MNQ = "CON.F.US.MNQ.Z26"


class Reference:
    """The gateway, and its switches."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self.url = ready["url"]
        self.config = Config(
            user_name=ready["user_name"],
            api_key=ready["api_key"],
            base_url=self.url,
            user_hub_url=f"{self.url}/hubs/user",
            market_hub_url=f"{self.url}/hubs/market",
            orders={"verify_seconds": (0.1, 0.2, 0.4, 0.8)},
        )

    def control(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/control/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def fault(self, path: str, kind: str, **options: Any) -> None:
        self.control("faults", {"path": path, "kind": kind, "times": 1, **options})


@pytest.fixture(scope="module")
def running() -> Iterator[Reference]:
    with aspnetcore.reference() as ready:
        yield Reference(ready)


@pytest.fixture
def gateway(running: Reference) -> Reference:
    running.control("faults", method="DELETE")
    running.control("reset")
    return running


@pytest.fixture
def session(gateway: Reference) -> Iterator[Session]:
    with Session(config=gateway.config) as opened:
        yield opened


@pytest.fixture(params=["hub", "rest"])
def heard(request: pytest.FixtureRequest, session: Session) -> Iterator[None]:
    """With a stream of the account open, and without."""
    if request.param == "rest":
        yield
        return
    with session.subscribe(accounts=[704]):
        yield


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(("kind", "options"), [("lose", {}), ("after", {"status": 500}), ("truncate", {})])
def test_a_lost_reply_is_one_order(gateway: Reference, session: Session, kind: str, options: dict[str, Any]) -> None:
    """However the reply is lost after the order was accepted, the order comes back, and there is one."""
    gateway.fault("/Order/place", kind, **options)
    placed = session.orders.buy(704, MNQ, 1, stop_loss_ticks=40, take_profit_ticks=80)
    tagged = [o for o in session.orders.search(704, "2026-01-01") if o.custom_tag == placed.custom_tag]
    assert [placed.id] == [order.id for order in tagged]


@pytest.mark.usefixtures("heard")
def test_an_order_that_comes_late_is_found(gateway: Reference, session: Session) -> None:
    """An order that the gateway executes after its client gave up is found, and is one."""
    session.accounts.search()
    gateway.fault("/Order/place", "late", seconds=1.0)
    placed = session.orders.buy(704, MNQ, 1, timeout=0.5)
    assert OrderStatus.FILLED is session.orders.wait(placed, timeout=10).status


def test_an_order_that_never_ran(gateway: Reference, session: Session) -> None:
    """A call that was cut before the work is unknown at first, and absent once it was looked for."""
    gateway.fault("/Order/place", "status", status=500)
    with pytest.raises(errors.OrderStateUnknown) as caught:
        session.orders.buy(704, MNQ, 1)
    assert None is session.orders.verify(caught.value.tag)


def test_an_order_lives(gateway: Reference, session: Session) -> None:
    """Placed, changed, cancelled, with replies lost on the way; a trail is a price to write and a distance to read."""
    order = session.orders.buy(704, MNQ, 1, limit_price=20000.0)
    gateway.fault("/Order/modify", "lose")
    assert 20000.25 == session.orders.modify(order, limit_price=20000.25).order.limit_price
    gateway.fault("/Order/cancel", "lose")
    assert OrderStatus.CANCELLED is session.orders.cancel(order).status
    assert Change.ALREADY is session.orders.cancel(order).change
    market = session.history.last_price(MNQ)
    gateway.control(f"market?contractId={MNQ}&price={market}")
    trailing = session.orders.sell(704, MNQ, 1, type="trailing_stop", trail_price=market - 10.0)
    assert 40 == session.orders.get(trailing).trail_ticks
    with pytest.raises(errors.DuplicateCustomTag), Session(config=gateway.config) as other:
        other.orders.buy(704, MNQ, 1, custom_tag=order.custom_tag)


def test_the_kill_switch(gateway: Reference, session: Session) -> None:
    """Orders and positions with lost replies in between: the account is flat, and that is read back."""
    session.orders.buy(704, MNQ, 3, stop_loss_ticks=40, take_profit_ticks=80)
    session.orders.buy(704, MNQ, 1, limit_price=20000.0)
    gateway.fault("/Position/partialCloseContract", "lose")
    assert 2 == session.positions.close_part(704, MNQ, 1).position.size
    gateway.fault("/Order/cancel", "lose")
    gateway.fault("/Position/closeContract", "lose")
    assert (report := session.flatten(704)), report
    assert ([], []) == (session.orders.working(704), session.positions.search_open(704))


def test_bars_page_alike(session: Session) -> None:
    """Any paging gives the same bars, each once, oldest first; the newest come by number."""
    one = session.history.bars(MNQ, "1m", start="2026-11-18", end="2026-11-19")
    many = session.history.bars(MNQ, "1m", start="2026-11-18", end="2026-11-19", page_size=111)
    newest = session.history.bars(MNQ, "1m", end="2026-11-19", limit=100, page_size=33)
    assert (one, 24 * 60, one[-100:]) == (many, len(one), newest)


def test_the_rooms_that_read(session: Session) -> None:
    """Accounts, contracts, trades and the ping, decoded as they come from the framework."""
    assert {536, 704} == {account.id for account in session.accounts.search()}
    assert MNQ == session.contracts.front_month("MNQ").id
    assert 5e-7 == session.contracts.get("CON.F.US.JY6.Z26").tick_size
    session.orders.buy(536, MNQ, 1)
    assert [1] == [trade.size for trade in session.trades.search(536, "2026-01-01")]
    assert 0.0 < session.status.ping() < 10.0
