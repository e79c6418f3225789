"""Connections: watched while in use, kept warm while idle, not used when old."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.echo_server import EchoServer, running
from topstep_sync import errors
from topstep_sync.clock import FOREVER, ManualClock
from topstep_sync.config import Config
from topstep_sync.http import forks
from topstep_sync.http.pool import WARM
from topstep_sync.http.warmth import Warmth
from topstep_sync.http.watch import Watch
from topstep_sync.session import Session


class Line:
    """A connection with a real socket, as urllib3's have one."""

    def __init__(self) -> None:
        self.sock, self.far = socket.socketpair()

    def close(self) -> None:
        self.sock.close()
        self.far.close()

    @property
    def cut(self) -> bool:
        """Whether the far side sees the end."""
        self.far.settimeout(0.5)
        try:
            return self.far.recv(1) == b""
        except TimeoutError:
            return False


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line()
    yield one
    one.close()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.fixture
def session(server: EchoServer) -> Iterator[Session]:
    with Session(config=Config(base_url=server.url)) as one:
        one.tokens.adopt("token")
        yield one


################################################## the watch ##################################################


def test_a_connection_is_cut_at_its_deadline(line: Line) -> None:
    """When the time is up, whoever reads from the connection wakes."""
    watch = Watch()
    watched = watch.enter(time.monotonic() + 0.05)
    watched.connection = line
    assert line.cut
    assert watched.cut
    watch.leave(watched)
    watch.close()


def test_a_connection_that_was_taken_back_is_not_cut(line: Line) -> None:
    """After the call is done, its connection belongs to somebody else."""
    watch = Watch()
    watched = watch.enter(time.monotonic() + 0.05)
    watched.connection = line
    watch.leave(watched)
    assert not line.cut
    watch.close()


def test_a_shorter_deadline_wakes_the_watch(line: Line) -> None:
    """A call with little time is cut in time, though one with much time came first."""
    watch = Watch()
    long = watch.enter(time.monotonic() + 100.0)
    short = watch.enter(time.monotonic() + 0.05)
    short.connection = line
    assert line.cut
    assert not long.cut
    watch.close()
    assert long.cut


def test_no_deadline_needs_no_thread() -> None:
    """A call that may take for ever is watched only by `close`."""
    watch = Watch()
    watched = watch.enter(FOREVER)
    assert watch._thread is None
    watch.close()
    assert watched.cut
    watch.enter(time.monotonic() + 1.0)
    assert watch._thread is None


def test_a_connection_that_is_gone_is_no_trouble(line: Line) -> None:
    """Cutting a closed socket, or a connection without one, does nothing."""
    watch = Watch()
    for connection in (line, None, object()):
        watched = watch.enter(FOREVER)
        watched.connection = connection
    line.sock.close()
    watch.close()
    assert all(watched.cut for watched in watch._current)


def test_the_thread_leaves_when_nobody_waits() -> None:
    """Soon after the last call there is no thread left, and the next call starts a new one."""
    watch = Watch()
    for _ in range(2):
        watched = watch.enter(time.monotonic() + 10.0)
        thread = watch._thread
        assert thread is not None
        watch.leave(watched)
        thread.join(5.0)
        assert not thread.is_alive()
    watch.close()


@pytest.mark.slow
def test_32_threads_come_and_go() -> None:
    """Entering and leaving from many threads: exactly those that overstay are cut."""
    watch = Watch()
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(200):
            watched = watch.enter(time.monotonic() + (0.02 if (turn + number) % 50 == 0 else 10.0))
            if (turn + number) % 50 == 0:
                end = time.monotonic() + 5.0
                while not watched.cut and time.monotonic() < end:
                    time.sleep(0.001)
            if watched.cut is not ((turn + number) % 50 == 0):
                wrong.append(f"{number}/{turn}")
            watch.leave(watched)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    watch.close()
    assert [] == wrong
    assert not watch._current


################################################## the pool ##################################################


def idle(session: Session, seconds: float) -> None:
    """Every pooled connection has been idle that much longer."""
    for connection in session._adapter._pool[0].pool.queue:  # type: ignore[index]
        if connection is not None:
            connection.idle_since -= seconds


def test_an_old_connection_is_not_used_again(session: Session, server: EchoServer) -> None:
    """A connection idle for longer than allowed is closed, and the call gets a new one."""
    for _ in range(2):
        session.post("/echo", json={})
    assert 1 == server.connections
    idle(session, session.config.http.max_idle + 1.0)
    session.post("/echo", json={})
    assert 2 == server.connections


def test_a_warm_connection_is_used_again_after_a_quiet_hour(session: Session, server: EchoServer) -> None:
    """Pinged in time, the connection is the same one an hour later: an order pays no handshake."""
    session.post("/echo", json={})
    for _ in range(72):
        idle(session, 50.0)
        assert 1 == warm(session)
    session.post("/echo", json={})
    assert 1 == server.connections
    pings = [path for method, path, *_ in server.seen if method == "GET"]
    assert ["/api/Status/ping"] * 72 == pings


def warm(session: Session) -> int:
    request = session.prepare_request(requests.Request("GET", "/api/Status/ping"))
    return session._adapter.warm(request, **session._settings())


def test_a_young_connection_is_not_pinged(session: Session, server: EchoServer) -> None:
    """A connection that was just used needs no ping; without any connection one is opened."""
    assert 1 == warm(session)
    assert 0 == warm(session)
    assert 1 == server.connections


def test_only_a_few_connections_are_kept(session: Session, server: EchoServer) -> None:
    """Of many idle connections the newest few are pinged; the others stay in the pool and grow old."""
    replies = [session.post("/echo", json={}, stream=True) for _ in range(WARM + 3)]
    for reply in replies:
        assert reply.content
    idle(session, 60.0)
    assert WARM == warm(session)
    kept = [one for one in session._adapter._pool[0].pool.queue if one is not None]  # type: ignore[index]
    assert WARM + 3 == len(kept)


def test_a_ping_that_fails_closes_its_connection(session: Session, server: EchoServer) -> None:
    """A dead connection is found by the ping, not by an order."""
    session.post("/echo", json={})
    idle(session, 60.0)
    session._adapter._pool[0].pool.queue[-1].sock.shutdown(socket.SHUT_RDWR)  # type: ignore[index]
    warm(session)
    assert session.post("/echo", json={}).ok
    assert 2 == server.connections


def test_warmth_pings_until_told_otherwise() -> None:
    """One ping at once and then regularly; failures are logged; a second start changes nothing."""
    clock, pings, second = ManualClock(), [], threading.Event()

    def ping() -> None:
        pings.append(clock.monotonic())
        if len(pings) == 2:
            second.set()
        raise errors.ConnectFailed("no network")

    warmth = Warmth(ping, 25.0, clock)
    warmth.start()
    warmth.start()
    assert warmth.on
    clock.wait_for_sleepers(1)
    clock.advance(25.0)
    assert second.wait(5.0)
    warmth.stop()
    warmth.stop()
    assert not warmth.on
    assert [1000.0, 1025.0] == pings


def test_a_session_keeps_warm_when_asked(session: Session, server: EchoServer) -> None:
    """`keep_warm` opens a connection before the first call; `keep_warm(False)` ends it."""
    session.keep_warm()
    end = time.monotonic() + 5.0
    while not server.seen and time.monotonic() < end:
        time.sleep(0.005)
    assert [("GET", "/api/Status/ping")] == [(method, path) for method, path, *_ in server.seen]
    thread = session._warmth._thread
    session.keep_warm(False)
    assert not session._warmth.on
    assert thread is not None
    thread.join(5.0)  # the reply has come, and the connection is back
    session.post("/echo", json={})
    assert 1 == server.connections


def test_nobody_wants_it_warm_any_more(session: Session, server: EchoServer) -> None:
    """Once the last queue is closed and nobody asked for it, the next ping is not sent and the thread ends."""
    session._ping()
    assert not server.seen
    assert not session._warmth.on


############################################# what goes into memory #############################################


@pytest.mark.parametrize("path", ["/lines", "/gzip", "/echo"])
def test_the_connection_is_back_after_the_body(session: Session, server: EchoServer, path: str) -> None:
    """Chunked, packed or plain: ten calls in a row use one connection."""
    for _ in range(10):
        assert session.post(path, json={}).content
    assert 1 == server.connections


def test_a_reply_without_a_length_that_is_cut_is_not_taken_for_whole() -> None:
    """A body that ends with its connection looks whole; when the watch ended it, it is not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            far, _ = listener.accept()
            with far:
                far.recv(65536)
                far.sendall(b"HTTP/1.0 200 OK\r\n\r\n{")
                while far.recv(65536):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Session(config=Config(base_url=url, http={"total_timeout": 0.3})) as session:
            session.tokens.adopt("token")
            with pytest.raises(errors.ReplyTimedOut):
                session.post("/api/Order/place", json={})
        thread.join(5.0)


def test_a_pool_gives_what_it_has_to_any_mock(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw reply without headers, as stand-ins make them, is a reply."""

    class Raw:
        status, reason, headers = 200, "OK", {}

        def read(self, *_: Any, **__: Any) -> bytes:
            return b"{}"

    def stand_in(adapter: Any, request: Any, **_: Any) -> Any:
        return adapter.build_response(request, Raw())

    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", stand_in)
    assert {} == session.post("/echo", json={}).json()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(session: Session, server: EchoServer) -> None:
    """Parent and child never speak over one connection, and locks held at the fork do not bind the child."""
    session.post("/echo", json={})
    session.keep_warm()
    adapter = session._adapter
    breaker = next(iter(adapter.breakers.values()))
    with adapter.handler._lock, adapter.handler.budget._lock, breaker._lock, adapter._watch._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - coverage does not see the child
            ok = session.post("/echo/child", json={}).ok and not session._warmth.on
            os._exit(0 if ok else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert session.post("/echo/parent", json={}).ok
    session.keep_warm(False)
    assert 2 == server.connections


def test_what_a_forked_child_is_told(session: Session, server: EchoServer) -> None:
    """Told that it is a child, the session leaves its connections alone, opens new ones, and keeps nothing warm."""
    session.post("/echo", json={})
    forks._tell()
    assert session.post("/echo", json={}).ok
    assert 2 == server.connections
    assert not session._warmth.on
