"""The handle of a running gateway: its life, its addresses, what it steers."""

import contextlib
import socket
import threading

import pytest
import requests

from topstep_sync.config import Config
from topstep_sync.simulator.gateway import GatewayClosed, Simulator
from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"


def ping(gateway: Simulator) -> int:
    return requests.get(f"{gateway.url}/api/Status/ping", timeout=10).status_code


def test_it_runs_within_its_block_and_not_after() -> None:
    """Inside the block it answers; afterwards its port is free, its thread gone, and questions are refused."""
    gateway = Simulator(market_rate=0)
    with pytest.raises(GatewayClosed, match="not running"):
        gateway.set_price(MNQ, 1.0)
    with gateway:
        assert 200 == ping(gateway)
        names = [thread.name for thread in threading.enumerate()]
        assert "topstep-simulator" in names
    with pytest.raises(requests.ConnectionError):
        ping(gateway)
    with pytest.raises(GatewayClosed):
        _ = gateway.requests
    gateway.close()
    with pytest.raises(GatewayClosed, match="runs once"):
        gateway.start()


def test_a_gateway_that_never_started_can_be_closed() -> None:
    """Closing what does not run does nothing."""
    gateway = Simulator()
    gateway.close()
    assert "Simulator(not started)" == repr(gateway)


def test_a_port_in_use_is_told_at_once() -> None:
    """The error of the socket reaches the caller."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Simulator(port=taken.getsockname()[1]).start()


def test_a_world_that_cannot_be_made_is_told_at_once() -> None:
    """An error on the simulation's thread reaches the caller of start, and the thread ends."""
    gateway = Simulator(listing="no date")
    with pytest.raises(ValueError, match="isoformat"):
        gateway.start()
    gateway.close()


def test_open_connections_end_with_it() -> None:
    """A client that waits for an answer sees the end of its connection, within two seconds."""
    with Simulator(market_rate=0) as gateway:
        idle = socket.create_connection(("127.0.0.1", gateway.port), 5)
        busy = socket.create_connection(("127.0.0.1", gateway.port), 5)
        gateway.faults.late("Auth/loginKey", 60.0)
        body = b'{"userName":"trader","apiKey":"key-123"}'
        head = f"POST /api/Auth/loginKey HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        busy.sendall(head.encode() + body)
        while not gateway.requests:
            threading.Event().wait(0.005)
    for sock in (idle, busy):
        sock.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert b"" == sock.recv(1000)
        sock.close()


def test_two_run_side_by_side() -> None:
    """Gateways share nothing: not port, orders or faults."""
    with Simulator(market_rate=0) as one, Simulator(market_rate=0) as two:
        one.faults.status("Status/ping", 500, times=None)
        assert [500, 200] == [ping(one), ping(two)]


def test_it_listens_where_it_is_told() -> None:
    """IPv6 loopback works, with brackets in the URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with Simulator(host="::1", market_rate=0) as gateway:
        assert gateway.url.startswith("http://[::1]:")
        assert 200 == ping(gateway)


def test_addresses_and_environment_make_a_config() -> None:
    """`config` and the environment's variables say the same."""
    with Gateway(market_rate=0) as gateway:
        assert f"http://127.0.0.1:{gateway.port}" == gateway.url
        assert (f"{gateway.url}/hubs/user", f"{gateway.url}/hubs/market") == (
            gateway.user_hub_url, gateway.market_hub_url,
        )  # fmt: skip
        assert gateway.config == Config.from_env(gateway.environ)
        assert 7 == gateway.config_with(rate={"history_limit": 7}).rate.history_limit
        assert repr(gateway) == f"Gateway('{gateway.url}')"


def test_questions_are_asked_on_its_own_thread() -> None:
    """`run` works from any thread, also from the simulation's own, and passes errors on."""
    with Simulator(market_rate=0) as gateway:
        assert "topstep-simulator" == gateway.run(lambda _: threading.current_thread().name)
        assert 0 == gateway.run(lambda _: len(gateway.requests))
        with pytest.raises(ZeroDivisionError):
            gateway.run(lambda _: 1 // 0)


def test_the_market_is_steered() -> None:
    """Price, rate, speed and time are set from outside."""
    with Simulator(market_rate=0, speed=0.0, start=1_795_500_000.0) as gateway:
        gateway.set_price(MNQ, 12345.25)
        assert 12345.25 == gateway.last_price(MNQ)
        with pytest.raises(ValueError, match="no active contract"):
            gateway.last_price("x")
        gateway.run(lambda world: world.markets.watch(MNQ))
        gateway.set_market_rate(50.0)
        gateway.advance(10.0)
        assert 12345.25 != gateway.last_price(MNQ)
        assert 1_795_500_010.0 == gateway.run(lambda world: world.clock.epoch())
        gateway.set_speed(1000.0)
        assert 1000.0 == gateway.run(lambda world: world.clock.speed)


def test_accounts_and_fills_are_steered() -> None:
    """An account's switches and an order's fills can be set, nonsense is refused."""
    with Simulator(market_rate=0) as gateway:
        gateway.set_account(536, can_trade=False, balance=1.0)
        account = gateway.run(lambda world: world.exchange.accounts[536].wire())
        assert (False, 1.0) == (account["canTrade"], account["balance"])
        with pytest.raises(ValueError, match="'nope'"):
            gateway.set_account(536, nope=1)
        with pytest.raises(ValueError, match="order 5"):
            gateway.fill(5, 1, 21000.0)
