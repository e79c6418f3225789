"""Faults of the hubs: upgrades that go wrong, events that come twice, late, never, out of order, cut, or in floods."""

from typing import Any

import pytest

from tests.hub_wire import Ended, Refused, Wire, opened, wait_until
from topstep_sync.simulator.faults import HUB_KINDS, STREAM_KINDS
from topstep_sync.simulator.hub_blast import chunks, record_template
from topstep_sync.simulator.hub_dialect import CLOSED_WITH_ERROR, HANDSHAKE_FAILED

MNQ = "CON.F.US.MNQ.Z26"


@pytest.fixture
def token(gateway: Any) -> str:
    return str(gateway.run(lambda world: world.tokens.issue()))


################################################ upgrades ################################################


@pytest.mark.parametrize(("kind", "status"), [("refuse", 503), ("unauthorized", 401)])
def test_upgrade_is_refused_as_often_as_told(gateway: Any, token: str, kind: str, status: int) -> None:
    """A refused upgrade gets that status; the one after it succeeds."""
    with gateway.faults.add("hubs/user", kind) as fault:
        with pytest.raises(Refused) as refused:
            Wire(gateway.user_hub_url, token)
        assert (status, 1) == (refused.value.status, fault.struck)
        opened(gateway.user_hub_url, token).close()
    assert ["refused", "open"] == [event.kind for event in gateway.hubs.history][:2]


def test_refusal_carries_retry_after(gateway: Any, token: str) -> None:
    """A refused upgrade may say when to come again."""
    gateway.faults.add("hubs/market", "refuse", status=429, retry_after="7")
    with pytest.raises(Refused) as refused:
        Wire(gateway.market_hub_url, token)
    assert (429, "7") == (refused.value.status, refused.value.headers["retry-after"])


@pytest.mark.parametrize(("kind", "end"), [("refuse-reset", "rst"), ("refuse-fin", "fin")])
def test_upgrade_answered_by_the_end_of_tcp(gateway: Any, token: str, kind: str, end: str) -> None:
    """An upgrade may meet a reset, or the end of the connection, instead of an answer."""
    gateway.faults.add("hubs/user", kind)
    with pytest.raises(Ended) as ended:
        Wire(gateway.user_hub_url, token)
    assert end == ended.value.how


def test_upgrade_never_answered(gateway: Any, token: str) -> None:
    """An upgrade may be left waiting."""
    gateway.faults.add("hubs/user", "refuse-silence")
    with pytest.raises(TimeoutError):
        Wire(gateway.user_hub_url, token, timeout=0.1)


def test_handshake_never_answered(gateway: Any, token: str) -> None:
    """The upgrade may succeed and the handshake be left waiting."""
    gateway.faults.add("hubs/user", "handshake-silence")
    with Wire(gateway.user_hub_url, token, timeout=0.1) as wire, pytest.raises(TimeoutError):
        wire.handshake()


@pytest.mark.parametrize(("body", "text"), [("", HANDSHAKE_FAILED), ("come later", "come later")])
def test_handshake_error(gateway: Any, token: str, body: str, text: str) -> None:
    """The handshake may be refused, with words of one's own; the connection then closes."""
    gateway.faults.add("hubs/user", "handshake-error", body=body)
    with Wire(gateway.user_hub_url, token) as wire:
        assert {"error": text} == wire.handshake()
        assert "close" == wire.until_end()[1].how


def test_close_right_after_the_handshake(gateway: Any, token: str) -> None:
    """A hub may accept the handshake and close at once, in the same message."""
    gateway.faults.add("hubs/user", "close")
    with Wire(gateway.user_hub_url, token) as wire:
        assert {} == wire.handshake()
        records, ended = wire.until_end()
    error = f"{CLOSED_WITH_ERROR} HubException: refused on connect"
    assert ([{"type": 7, "error": error}], "close") == (records, ended.how)


def test_fault_of_one_hub_leaves_the_other(gateway: Any, token: str) -> None:
    """A rule for the market hub does not meet the user hub."""
    gateway.faults.add("hubs/market", "refuse", times=None)
    opened(gateway.user_hub_url, token).close()


################################################ events ################################################


def trades(gateway: Any, token: str, prices: list[float]) -> list[float]:
    """The prices of the trades a subscriber sees when the market takes *prices*."""
    with opened(gateway.market_hub_url, token) as wire:
        wire.result("SubscribeContractTrades", MNQ)
        for price in prices:
            gateway.set_price(MNQ, price)
        gateway.hubs.send("market", "End")
        found = []
        while (record := wire.record()).get("target") != "End":
            found.append(record["arguments"][1][0]["price"])
        return found


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("duplicate", [1.0, 1.0, 2.0, 3.0]),
        ("gap", [2.0, 3.0]),
        ("reorder", [2.0, 1.0, 3.0]),
        ("delay", [2.0, 3.0]),
        ("flood", [1.0] * 1000 + [2.0, 3.0]),
    ],
)
def test_event_fault(gateway: Any, token: str, kind: str, seen: list[float]) -> None:
    """An event may come twice, never, after the next one, or late."""
    gateway.set_price(MNQ, 100.0)
    gateway.faults.add("GatewayTrade", kind, seconds=60)
    assert seen == trades(gateway, token, [1.0, 2.0, 3.0])


def test_delayed_event_comes(gateway: Any, token: str) -> None:
    """A delayed event comes after its delay, behind those that were sent meanwhile."""
    gateway.faults.add("hubs/market", "delay", seconds=0.05)
    with opened(gateway.market_hub_url, token) as wire:
        wire.result("SubscribeContractTrades", MNQ)
        gateway.set_price(MNQ, 1.0)
        gateway.set_price(MNQ, 2.0)
        assert [2.0, 1.0] == [wire.record()["arguments"][1][0]["price"] for _ in range(2)]


@pytest.mark.parametrize("body", ["", "no json"])
def test_garbled_event(gateway: Any, token: str, body: str) -> None:
    """A record may be cut in half, or be something else altogether."""
    gateway.faults.add("GatewayTrade", "garble", body=body)
    with opened(gateway.market_hub_url, token) as wire:
        wire.result("SubscribeContractTrades", MNQ)
        gateway.set_price(MNQ, 1.0)
        message = wire.message()
    assert message.endswith(b"\x1e")
    assert message.startswith(body.encode() or b'{"type":1,')
    assert (body.encode() or message[:-1]) == message[:-1]
    assert not message.endswith(b"}\x1e")


def test_held_event_dies_with_its_connection(gateway: Any, token: str) -> None:
    """An event held back for a connection that ended is forgotten."""
    gateway.faults.add("GatewayTrade", "reorder")
    with opened(gateway.market_hub_url, token) as wire:
        wire.result("SubscribeContractTrades", MNQ)
        gateway.set_price(MNQ, 1.0)
    wait_until(lambda: not gateway.hubs.connections)
    assert [2.0] == trades(gateway, token, [2.0])


def test_gap_with_fills_inside(gateway: Any, token: str) -> None:
    """Fills while no connection stands are on nobody's stream, and in the books."""
    wire = opened(gateway.user_hub_url, token)
    wire.result("SubscribeTrades", 536)
    gateway.faults.add("hubs/user", "refuse", times=1)
    gateway.drop_hubs("user", "rst")
    wire.close()
    with pytest.raises(Refused):
        Wire(gateway.user_hub_url, token)
    place(gateway)
    with opened(gateway.user_hub_url, token) as again:
        again.result("SubscribeTrades", 536)
        assert again.quiet(0.05)
    assert 1 == len(gateway.executed_orders)


def place(gateway: Any) -> None:
    """One contract is bought at the market."""
    from topstep_sync.messages import PlaceOrder
    from topstep_sync.models import OrderSide, OrderType

    order = PlaceOrder(account_id=536, contract_id=MNQ, type=OrderType.MARKET, side=OrderSide.BUY, size=1)
    gateway.run(lambda world: world.exchange.place(order))


################################################ floods ################################################


@pytest.mark.parametrize(("burst", "count"), [(1, 1234), (20, 1234), (7, 10), (3, 0), (1, 1), (50, 20)])
def test_blast_numbers_every_quote(gateway: Any, token: str, burst: int, count: int) -> None:
    """A blast brings the quotes numbered 0, 1, 2 …, so many records a message."""
    with opened(gateway.market_hub_url, token) as wire:
        said = gateway.hubs.blast("market", count, burst=burst)
        found, sizes = [], []
        while len(found) < count:
            records = wire.message().split(b"\x1e")[:-1]
            sizes.append(len(records))
            found += [int(record.split(b'"volume":')[1].split(b",")[0]) for record in records]
        assert wire.quiet(0.01)
    assert list(range(count)) == found
    assert max(sizes, default=0) <= burst
    assert (1, count) == (said["connections"], said["sent"])


def test_blast_keeps_its_pace(gateway: Any, token: str) -> None:
    """A paced blast takes as long as its rate says."""
    with opened(gateway.market_hub_url, token):
        assert 0.08 <= gateway.hubs.blast("market", 100, rate=1000)["seconds"] < 2


def test_blast_without_connections_says_so(gateway: Any) -> None:
    """A blast at nobody sends nothing."""
    said = gateway.hubs.blast("market", 1000)
    assert (0, 0) == (said["connections"], said["sent"])


def test_blast_ends_with_its_connection(gateway: Any, token: str) -> None:
    """A client that leaves in the middle of a blast ends it."""
    wire = opened(gateway.market_hub_url, token)
    gateway.run(lambda world: None)
    wire.reset()
    assert gateway.hubs.blast("market", 10_000_000, patience=20)["sent"] < 10_000_000


@pytest.mark.parametrize("size", [275, 500, 4000])
def test_record_has_the_size_asked_for(size: int) -> None:
    """Records are about as long as asked, once they have room for a quote."""
    assert size == pytest.approx(len(record_template(size)), abs=20)


def test_chunks_cover_every_number_once() -> None:
    """No number is lost where the digits grow."""
    assert 12_345 == sum(number for number, _ in chunks(12_345, 20, 275))


def test_every_kind_says_what_it_does() -> None:
    """Each kind has its line of explanation."""
    assert all(text for kinds in (HUB_KINDS, STREAM_KINDS) for text in kinds.values())
