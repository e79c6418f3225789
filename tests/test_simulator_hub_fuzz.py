"""Any bytes on the hubs' port, over real sockets: the gateway answers or closes, and goes on for everybody else."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hub_wire import Ended, Refused, Wire, opened
from topstep_sync.testing import Gateway


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Any, str]]:
    with Gateway(market_rate=0.0) as gateway:
        yield gateway, gateway.run(lambda world: world.tokens.issue())


def alive(gateway: Any) -> bool:
    """Whether the gateway still serves others."""
    with opened(f"{gateway.url}/hubs/echo") as wire:
        return wire.result("Add", 1, 2)["result"] == 3 and requests.get(f"{gateway.url}/api/Status/ping", timeout=5).ok


head = st.sampled_from(
    [
        b"GET /hubs/user HTTP/1.1\r\n",
        b"GET /hubs/user?access_token=%zz&id=\xff HTTP/1.1\r\n",
        b"POST /hubs HTTP/1.1\r\n",
        b"",
    ]
)
headers = st.lists(
    st.sampled_from(
        [
            b"Host: x\r\n",
            b"Upgrade: websocket\r\n",
            b"Connection: Upgrade\r\n",
            b"Sec-WebSocket-Key: ?\r\n",
            b": \r\n",
            b"Authorization: Bearer \xe9\r\n",
            b"Content-Length: 5\r\n",
            b"Sec-WebSocket-Version: 13\r\n",
        ]
    )
    | st.binary(max_size=30),
    max_size=6,
).map(b"".join)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.tuples(head, headers, st.sampled_from([b"\r\n", b""]), st.binary(max_size=40)).map(b"".join))
def test_any_bytes_instead_of_a_request(shared: tuple[Any, str], data: bytes) -> None:
    """Whatever is sent in the place of an upgrade, the gateway stays."""
    gateway, _ = shared
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert alive(gateway)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    frames=st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 15), st.booleans(), st.booleans()), max_size=5),
    raw=st.binary(max_size=50),
)
def test_any_frames(shared: tuple[Any, str], frames: list[tuple[bytes, int, bool, bool]], raw: bytes) -> None:
    """Whatever frames a client sends, its connection is answered or closed, and the gateway stays."""
    gateway, token = shared
    with contextlib.suppress(Ended, Refused, OSError), opened(gateway.user_hub_url, token) as wire:
        for payload, opcode, fin, mask in frames:
            wire.send_frame(payload, opcode, fin=fin, mask=mask)
        wire.sock.sendall(raw)
        wire.sock.shutdown(socket.SHUT_WR)
        while True:
            wire.frame()
    assert alive(gateway)


@pytest.mark.parametrize("path", ["/hubs/user", "/hubs/user?id=", "/hubs/user?id=\u00e9"])
def test_odd_upgrades_are_refused(shared: tuple[Any, str], path: str) -> None:
    """An upgrade without a token, or with an odd id, gets a status."""
    gateway, _ = shared
    with pytest.raises(Refused):
        Wire(gateway.url + path.encode().decode("latin-1"))
