"""The plain way out, against real sockets that answer badly."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from token_fakes import locals_of

from topstep_sync.auth.transport import MAX_REPLY, PlainPost
from topstep_sync.clock import SYSTEM_CLOCK
from topstep_sync.config import Config
from topstep_sync.errors import ConnectFailed, ConnectTimedOut, ReplyLost, ReplyTimedOut, RequestError
from topstep_sync.redact import SecretBytes

KEY = "key-of-joe-0000-abcdef"
TOKEN = "eyJold1.token2.value-1234"


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that calls *talk* with its first connection, once the request is read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    request = b""
                    while not request.endswith(b"}"):  # unread bytes would turn a later close into a reset
                        request += connection.recv(65536)
                    talk(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.close()
            thread.join(10)


def config(url: str, read_timeout: float = 5.0) -> Config:
    return Config(base_url=url, http={"connect_timeout": 1.0, "read_timeout": read_timeout})


def post(url: str, read_timeout: float = 5.0) -> tuple[int, object, bytes]:
    return PlainPost(config(url, read_timeout), SYSTEM_CLOCK)("/api/Auth/loginKey", b"{}", TOKEN)


def answer(head: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body)


def test_a_whole_reply() -> None:
    """Status, headers, body; the body does not show."""
    with server(answer("Content-Length: 5\r\nDate: x\r\n", b"hello")) as url:
        status, headers, body = post(url)
    assert (200, b"hello", "<5 secret bytes>", "x") == (status, body, repr(body), headers["date"])  # type: ignore[index]


def test_nobody_listens() -> None:
    """A refused connection was never sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectFailed):
        post(url)


def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect timeout was never sent either."""

    def slow(*args: object, **kwargs: object) -> None:
        raise requests.ConnectTimeout("slow")

    monkeypatch.setattr(requests.Session, "post", slow)
    with pytest.raises(ConnectTimedOut):
        post("http://127.0.0.1:1")


def test_silence() -> None:
    """A reply that does not come is given up after the read timeout."""

    def wait(connection: socket.socket) -> None:
        connection.recv(1)  # returns when the client has gone

    with server(wait) as url, pytest.raises(ReplyTimedOut):
        post(url, 0.2)


def test_a_dripping_reply_is_given_up() -> None:
    """A byte now and then resets every timeout of the socket; the whole reply is bounded all the same."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"1\r\nx\r\n")
                time.sleep(0.02)

    begun = time.monotonic()
    with server(drip) as url, pytest.raises(ReplyTimedOut, match="longer than"):
        PlainPost(Config(base_url=url, http={"connect_timeout": 0.2, "read_timeout": 0.3}), SYSTEM_CLOCK)(
            "/api/Auth/validate", b"{}", TOKEN
        )
    assert time.monotonic() - begun < 3


def test_an_endless_reply_is_given_up() -> None:
    """More than any token needs is not read to its end."""
    endless = answer(f"Content-Length: {10 * MAX_REPLY}\r\n", b"x" * (2 * MAX_REPLY))
    with server(endless) as url, pytest.raises(ReplyLost, match="larger than"):
        post(url)


@pytest.mark.parametrize("head", ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"])
def test_half_a_reply(head: str) -> None:
    """A body that ends early is lost, not short."""
    with server(answer(head, b"5\r\nhel")) as url, pytest.raises(ReplyLost):
        post(url)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("end", [reset, lambda connection: None])
def test_the_connection_ends_without_a_reply(end: Callable[[socket.socket], None]) -> None:
    """It was sent, and may have been worked on."""
    with server(end) as url, pytest.raises(ReplyLost) as caught:
        post(url)
    assert (1, "/api/Auth/loginKey") == (caught.value.attempts, caught.value.endpoint)


@pytest.mark.parametrize("talk", [reset, lambda connection: None, answer("Content-Length: 9\r\n", b"x")])
def test_no_secret_in_the_locals_of_a_failure(talk: Callable[[socket.socket], None]) -> None:
    """Whatever goes wrong, a crash reporter that prints locals prints neither key nor token."""
    body = SecretBytes(f'{{"apiKey":"{KEY}"}}'.encode())
    with server(talk) as url, pytest.raises(RequestError) as caught:
        PlainPost(config(url), SYSTEM_CLOCK)("/api/Auth/loginKey", body, TOKEN)
    shown = locals_of(caught.value, __file__)
    assert "PlainPost" in shown
    assert KEY not in shown
    assert TOKEN not in shown


def test_no_secret_in_the_locals_when_nobody_listens() -> None:
    """The same when the request was never sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    body = SecretBytes(f'{{"apiKey":"{KEY}"}}'.encode())
    with pytest.raises(ConnectFailed) as caught:
        PlainPost(config(url), SYSTEM_CLOCK)("/api/Auth/loginKey", body, TOKEN)
    shown = locals_of(caught.value, __file__)
    assert "PlainPost" in shown
    assert KEY not in shown
    assert TOKEN not in shown


def test_the_sessions_own_settings() -> None:
    """Proxies, certificates and the like are asked for at each call, and the environment's are not used then."""
    asked: list[int] = []

    def settings() -> dict[str, object]:
        asked.append(1)
        return {"proxies": {"http": "http://127.0.0.1:1"}}

    with server(answer("Content-Length: 0\r\n")) as url:
        with pytest.raises(ConnectFailed, match="proxy"):
            PlainPost(config(url), SYSTEM_CLOCK, settings)("/api/Auth/loginKey", b"{}", None)
        assert 200 == post(url)[0]
    assert [1] == asked
