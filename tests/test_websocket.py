"""The reading and the ending of a WebSocket whose peer behaves badly."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from rude_hub import frame

from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.realtime.channel import Channel
from topstep_sync.realtime.waker import Waker
from topstep_sync.realtime.websocket import LINGER, BufferedWebSocket


@pytest.fixture
def ends() -> Iterator[tuple[BufferedWebSocket, socket.socket]]:
    """A WebSocket that is open, and the bare socket at its other end."""
    waker = Waker(SYSTEM_CLOCK)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    ours.setblocking(False)
    ws = BufferedWebSocket(1 << 20)
    ws.sock, ws.connected = Channel(ours, waker, time.monotonic() + 5.0), True
    yield ws, peer
    ours.close()
    peer.close()
    waker.close()


def test_messages_are_not_lost_with_the_pong_that_fails(ends: tuple[BufferedWebSocket, socket.socket]) -> None:
    """What came before a ping that cannot be answered is returned; that the connection is over is told after it."""
    ws, peer = ends
    peer.sendall(frame("event") + frame("", opcode=9))
    ws.sock.sock.shutdown(socket.SHUT_WR)
    ws.sock.waker.wait_for(ws.sock.sock, ws.sock.at)
    assert ([b"event"], True) == (ws.messages(), ws.more)
    for _ in range(2):
        with pytest.raises(OSError, match="pipe"):
            ws.messages()


def test_a_goodbye_does_not_wait_for_a_peer_that_goes_on(ends: tuple[BufferedWebSocket, socket.socket]) -> None:
    """However a peer dawdles with what it still sends, the connection is closed in time."""
    ws, peer = ends
    over = threading.Event()

    def dawdle() -> None:
        with contextlib.suppress(OSError):  # it is closed
            while not over.wait(LINGER / 5):
                peer.sendall(frame("event"))

    dawdling = threading.Thread(target=dawdle)
    dawdling.start()
    try:
        begun = time.monotonic()
        ws.goodbye([])
        assert time.monotonic() - begun < 4 * LINGER
    finally:
        over.set()
        dawdling.join(5.0)
