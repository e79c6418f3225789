"""Opening connections interruptibly: names, several addresses, proxies, TLS."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import authority, server_context
from rude_hub import RudeHub, soon

from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.realtime import waker as waking
from topstep_sync.realtime.channel import Channel
from topstep_sync.realtime.opening import open_channel, trusting_context
from topstep_sync.realtime.waker import Interrupted, Waker


@pytest.fixture(params=["poll", "select"])
def waker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waker]:
    """One that waits as on most systems, and one that waits as on Windows."""
    if request.param == "select":
        monkeypatch.setattr(waking, "_Poll", waking._Select)
    made = Waker(SYSTEM_CLOCK)
    yield made
    made.close()


def opened(url: str, waker: Waker, timeout: float = 5.0, tls: ssl.SSLContext | None = None) -> Channel:
    return open_channel(url, waker, time.monotonic() + timeout, SYSTEM_CLOCK, tls)


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


#################################################### the waker ####################################################


def test_wake_ends_a_wait_and_is_not_lost(waker: Waker) -> None:
    """Woken during or before the wait: it returns at once, once."""
    waker.wake()
    waker.wake()
    start = time.perf_counter()
    assert not waker.wait(None, 0.5)
    in_thread(waker.wake)
    assert not waker.wait(None, 0.5)
    assert time.perf_counter() - start < 0.4


class Interleaved:
    """A socket to whose reading something happens first."""

    def __init__(self, sock: socket.socket, first: Callable[[], Any]) -> None:
        self._sock, self._first = sock, first

    def recv(self, size: int) -> bytes:
        self._first()
        return self._sock.recv(size)


def test_a_wake_during_the_reading_of_another_loses_neither(waker: Waker) -> None:
    """Whoever wakes after that is heard at once, not a second later."""
    plain = waker._reader
    waker.wake()
    waker._reader = Interleaved(plain, waker.wake)  # type: ignore[assignment]
    waker._clear()
    waker._reader = plain
    start = time.perf_counter()
    in_thread(waker.wake)
    assert not waker.wait(None, 5.0)
    assert 0.5 > time.perf_counter() - start


def test_a_byte_that_comes_after_its_flag_was_seen_wakes_once(waker: Waker) -> None:
    """The owner does not go round and round because of a byte that nobody reads."""
    waker._writer.send(b"\0")
    assert not waker.wait(None, 5.0)
    start = time.perf_counter()
    assert not waker.wait(None, 0.05)
    assert 0.04 < time.perf_counter() - start


def test_stop_ends_every_wait(waker: Waker) -> None:
    """The current one and all later ones, sleeping and errands included."""
    in_thread(waker.stop)
    with pytest.raises(Interrupted):
        waker.sleep(time.monotonic() + 5)
    for attempt in (
        lambda: waker.wait(None, 1.0),
        lambda: waker.sleep(0.0),
        lambda: waker.errand(lambda: time.sleep(0.2), time.monotonic() + 5, "errand"),
    ):
        with pytest.raises(Interrupted):
            attempt()


def test_an_errand_returns_raises_or_takes_too_long(waker: Waker) -> None:
    """What the work returns or raises comes back; a time limit ends the wait, not the work."""
    at = time.monotonic() + 5
    assert 7 == waker.errand(lambda: 7, at, "errand")
    with pytest.raises(ZeroDivisionError):
        waker.errand(lambda: 1 // 0, at, "errand")
    release = threading.Event()
    with pytest.raises(TimeoutError, match="errand took too long"):
        waker.errand(lambda: release.wait(5), time.monotonic() + 0.05, "errand")
    release.set()


def test_after_close_waking_does_nothing() -> None:
    """Whoever still holds it may call it."""
    waker = Waker(SYSTEM_CLOCK)
    waker.close()
    waker.wake()
    waker.stop()


##################################################### TCP #####################################################


def test_a_channel_reads_and_writes(waker: Waker) -> None:
    """Bytes go both ways; what arrives in one piece may be taken in small ones; the end is no bytes."""
    with RudeHub() as hub:
        channel = opened(hub.url, waker)
        peer = hub.tcp()
        assert (None, 5) == (channel.read(), channel.send(b"hello"))
        assert b"hello" == peer._read(5)
        peer.raw(b"abc")
        assert [b"a", b"bc"] == [channel.recv(1), channel.recv(10)]
        assert (0.0, True) == (channel.gettimeout(), channel.fileno() > 0)
        peer.fin()
        assert b"" == channel.recv(1)
        channel.close()


def test_a_full_socket_is_waited_for(waker: Waker) -> None:
    """Writing more than fits goes on once the peer reads, and ends at the deadline when it does not."""
    with RudeHub() as hub:
        channel = opened(hub.url, waker)
        peer = hub.tcp()
        data = b"x" * 8_000_000
        read = in_thread(lambda: peer._read(len(data)))
        while data:
            data = data[channel.send(data) :]
        read.join(5)
        channel.at = time.monotonic() + 0.1
        with pytest.raises(TimeoutError):
            _send_for_ever(channel)
        channel.close()


def _send_for_ever(channel: Channel) -> None:
    while True:
        channel.send(b"x" * 1_000_000)


def test_the_second_address_gets_its_chance(waker: Waker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first address of a name refuses, the next is tried; when all do, the last refusal is told."""
    with RudeHub() as hub, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        row = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        rows = [(*row, closed.getsockname()), (*row, ("127.0.0.1", hub.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: rows)
        opened("http://hub.example/x", waker).close()
        rows.pop()
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1 port"):
            opened("http://hub.example/x", waker)
        rows.clear()
        with pytest.raises(OSError, match="has no address"):
            opened("http://hub.example/x", waker)


##################################################### proxies #####################################################


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the environment name a proxy for everything."""

    def use(url: str) -> None:
        monkeypatch.setenv("https_proxy", url)
        monkeypatch.setenv("http_proxy", url)

    return use


def test_the_environment_s_proxy_is_asked_for_a_tunnel(waker: Waker, proxied: Callable[[str], None]) -> None:
    """CONNECT with the login, then the tunnel is the channel; what follows the reply is not lost."""
    with RudeHub() as proxy:
        proxied(f"http://us%20er:pass@127.0.0.1:{proxy.port}")
        asked: list[str] = []

        def serve() -> None:
            peer = proxy.tcp().read_request()
            asked.extend(peer.request)
            peer.raw(b"HTTP/1.1 200 Fine\r\nX: y\r\n\r\nhello")

        in_thread(serve)
        channel = opened("http://hub.example/hub", waker)
        assert b"hello" == channel.recv(10)
        assert ["CONNECT hub.example:80 HTTP/1.1", "Host: hub.example:80"] == asked[:2]
        assert "Proxy-Authorization: Basic dXMgZXI6cGFzcw==" == asked[2]
        channel.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 No\r\n\r\n", b"garbage\r\n\r\n", b""])
def test_a_proxy_that_refuses(waker: Waker, proxied: Callable[[str], None], answer: bytes) -> None:
    """Its words are in the error; a proxy that hangs up, too."""
    with RudeHub() as proxy:
        proxied(f"127.0.0.1:{proxy.port}")

        def serve() -> None:
            peer = proxy.tcp().read_request()
            peer.raw(answer)
            peer.fin()

        in_thread(serve)
        with pytest.raises(OSError, match="proxy"):
            opened("https://hub.example/hub", waker)


def test_proxies_that_are_no_help(
    waker: Waker, proxied: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind we do not speak is refused by name; this machine and no_proxy hosts are reached directly."""
    proxied("socks5://127.0.0.1:1")
    with pytest.raises(OSError, match="socks5 proxy is not supported"):
        opened("https://hub.example/hub", waker)
    with RudeHub() as hub:
        opened(hub.url, waker).close()
        monkeypatch.setenv("no_proxy", "hub.example")
        row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", hub.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [row])
        opened("http://hub.example/hub", waker).close()


@pytest.mark.parametrize(
    "named",
    [
        "http://me:pa/ss@proxy:8080",
        "http://me:80/ss@proxy:8080",
        "http://me:pa?ss@proxy:8080",
        "http://me:80#ss@proxy:8080",
        "http://me:ss@proxy:eighty-ss",
        "http://me:ss@[proxy:8080",
        "http://me:ss@proxy:99999",
        "http://me:s\u2100s@proxy:8080",
        "ss://me:ss@proxy",
        "http://",
    ],
)
def test_a_proxy_that_makes_no_sense_is_refused_without_its_password(
    waker: Waker, proxied: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """What is expected is said, and nothing that may be a piece of a password; nor is it looked up as a host."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    proxied(named)
    with pytest.raises(OSError, match="makes no sense; expected http://user:password@host:port") as caught:
        opened("https://hub.example/hub", waker)
    assert "ss" not in str(caught.value).replace("makes no sense", "").replace("password", "")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_proxy_that_never_answers_is_left_in_time(waker: Waker, proxied: Callable[[str], None]) -> None:
    """CONNECT has as long as everything else."""
    with RudeHub() as proxy:
        proxied(f"http://127.0.0.1:{proxy.port}")
        start = time.perf_counter()
        with pytest.raises(TimeoutError):
            opened("https://hub.example/hub", waker, timeout=0.1)
        assert 0.1 <= time.perf_counter() - start < 2.0


####################################################### TLS #######################################################


def test_tls_verifies_and_carries(waker: Waker, tmp_path: Path) -> None:
    """With the authority's certificate the channel works, whole records and parts of them."""
    ca = authority(tmp_path)
    with RudeHub(server_context(ca)) as hub:
        peers: list[Any] = []
        in_thread(lambda: peers.append(hub.tcp()))
        channel = opened(hub.url, waker, tls=trusting_context(str(ca.certificate)))
        assert soon(lambda: peers)
        peers[0].raw(b"x" * 20_000)
        got = channel.recv(1)
        while len(got) < 20_000:
            got += channel.recv(70_000)
        assert b"x" * 20_000 == got
        channel.send(b"hello")
        assert b"hello" == peers[0]._read(5)
        channel.close()


def test_one_read_takes_many_tls_records(waker: Waker, tmp_path: Path) -> None:
    """Records that have arrived together are read together, and nothing is left that no select would announce."""
    ca = authority(tmp_path)
    with tls_pair(waker, ca) as (channel, peer):
        for number in range(100):
            peer.sendall(b"%3d" % number)
        time_out = time.monotonic() + 5
        got = b""
        while len(got) < 300 and time.monotonic() < time_out:
            waker.wait_for(channel.sock, channel.at)
            got += channel.read() or b""
        assert b"".join(b"%3d" % number for number in range(100)) == got
        assert channel.read() is None


def test_more_than_a_chunk_of_tls_is_announced(waker: Waker, tmp_path: Path) -> None:
    """While a read fills its chunk, `more` says that another may find something; the last one says no."""
    with tls_pair(waker, authority(tmp_path)) as (channel, peer):
        in_thread(lambda: peer.sendall(bytes(1_000_000)))
        got, filled = 0, False
        while got < 1_000_000:
            if not channel.more:
                waker.wait_for(channel.sock, channel.at)
            got += len(channel.read() or b"")
            filled |= channel.more
        assert (1_000_000, True) == (got, filled)


def test_the_end_of_tls_is_told_after_what_came_before(waker: Waker, tmp_path: Path) -> None:
    """What the peer sent before its closing alert is read; then the end, again and again."""
    with tls_pair(waker, authority(tmp_path)) as (channel, peer):
        peer.sendall(b"last words")
        with contextlib.suppress(OSError):
            peer.settimeout(0.05)
            peer.unwrap()
        waker.wait_for(channel.sock, channel.at)
        got = b""
        while len(got) < 10:
            got += channel.read() or b""
        assert b"last words" == got
        assert soon(lambda: channel.read() == b"")
        assert (b"", True) == (channel.read(), channel.more)


def test_tls_that_is_cut_off_is_an_end(waker: Waker, tmp_path: Path) -> None:
    """A connection that ends without the closing alert ends as any other: SignalR's own Close tells what is missing."""
    with tls_pair(waker, authority(tmp_path)) as (channel, peer):
        peer.sendall(b"cut")
        socket.socket(fileno=peer.detach()).close()
        assert soon(lambda: channel.read() == b"cut")
        assert soon(lambda: channel.read() == b"")


@pytest.mark.parametrize("gone", [False, True])
def test_a_broken_tls_record_is_an_error_after_what_came_before(waker: Waker, tmp_path: Path, gone: bool) -> None:
    """Bytes that were tampered with are refused; whole records in front of them are read first.

    That holds for a peer that is gone, too, so that the alert about them cannot be sent.
    """
    with tls_pair(waker, authority(tmp_path)) as (channel, peer):
        peer.sendall(b"first")
        assert soon(lambda: channel.read() == b"first")
        peer.sendall(b"good")
        raw = socket.socket(fileno=peer.detach())
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        # Both come with one read.
        assert soon(lambda: len(channel.sock.recv(4096, socket.MSG_PEEK)) >= 4 + 22 + 37)
        if gone:
            channel.sock.shutdown(socket.SHUT_WR)
        assert (b"good", True) == (channel.read(), channel.more)
        with pytest.raises(ssl.SSLError):
            channel.read()
        raw.close()


def test_a_goodbye_over_tls_is_read_to_its_end(waker: Waker, tmp_path: Path) -> None:
    """The peer reads what was sent last and a clean end, though it had sent something that nobody read."""
    with tls_pair(waker, authority(tmp_path)) as (channel, peer):
        peer.sendall(b"unread")
        channel.send(b"goodbye")
        channel.sock.settimeout(1.0)
        channel.patient = False
        ended = in_thread(lambda: channel.finish(1.0))
        assert (b"goodbye", b"") == (peer.recv(100), peer.recv(100))
        peer.close()
        ended.join(5)
        channel.close()


@contextlib.contextmanager
def tls_pair(waker: Waker, ca: Any) -> Iterator[tuple[Channel, ssl.SSLSocket]]:
    """A channel and the plain TLS socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peers: list[ssl.SSLSocket] = []

        def accept() -> None:
            peers.append(server_context(ca).wrap_socket(listener.accept()[0], server_side=True))

        accepting = in_thread(accept)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        channel = opened(url, waker, tls=trusting_context(str(ca.certificate)))
        accepting.join(5)
        try:
            yield channel, peers[0]
        finally:
            channel.close()
            peers[0].close()


def test_tls_without_trust_is_refused(waker: Waker, tmp_path: Path) -> None:
    """A certificate nobody vouches for ends the attempt before a byte of ours is sent."""
    with RudeHub(server_context(authority(tmp_path))) as hub:
        in_thread(lambda: _quietly(hub.tcp))
        with pytest.raises(ssl.SSLCertVerificationError):
            opened(hub.url, waker)


def _quietly(work: Callable[[], Any]) -> None:
    with contextlib.suppress(OSError):
        work()


def test_a_tls_handshake_that_hangs_can_be_called_off(waker: Waker) -> None:
    """A server that accepts and says nothing holds nobody."""
    with RudeHub() as hub:
        threading.Timer(0.1, waker.stop).start()
        with pytest.raises(Interrupted):
            opened(hub.url.replace("http", "https"), waker)


def test_a_tls_handshake_that_hangs_ends_in_time(waker: Waker) -> None:
    """A server that accepts and says nothing has as long as the connection may take."""
    with RudeHub() as hub:
        start = time.perf_counter()
        with pytest.raises(TimeoutError):
            opened(hub.url.replace("http", "https"), waker, timeout=0.1)
        assert 0.1 <= time.perf_counter() - start < 2.0
