"""TLS and proxies, real ones: private CAs, client certificates, wrong names, proxies with and without a password."""

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.echo_server import EchoServer, running
from topstep_sync.config import Config
from topstep_sync.errors import ConnectTimedOut, Fate, ProxyFailed, RequestError, TlsFailed
from topstep_sync.session import Session

trustme = pytest.importorskip("trustme")

ORDER = "/echo/order"


class Papers:
    """A private CA, and certificates by it, as files."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca, self.server, self.other, self.client = (folder / f"{name}.pem" for name in ("ca", "srv", "oth", "cli"))
        ca.cert_pem.write_to_path(self.ca)
        for path, name in ((self.server, "localhost"), (self.other, "other.example"), (self.client, "joe@example.org")):
            issued = ca.issue_cert(name)
            issued.private_key_and_cert_chain_pem.write_to_path(path)

    def context(self, path: Path, *, ask_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


@pytest.fixture(autouse=True)
def _no_bundles_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA bundle that the machine's environment names would win over a session's own, as in requests."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def secure(papers: Papers) -> Iterator[EchoServer]:
    with running(papers.context(papers.server)) as one:
        yield one


@pytest.fixture(scope="module")
def plain() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@contextlib.contextmanager
def session_for(server: EchoServer, **config: Any) -> Iterator[Session]:
    with Session(config=Config(base_url=server.url, retry={"max_attempts": 1}, **config)) as session:
        session.tokens.adopt("token")
        server.seen.clear()
        yield session


#################################################### TLS ####################################################


@pytest.mark.parametrize("way", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "session.verify", "verify="])
def test_a_private_ca_is_trusted_when_named(
    way: str, secure: EchoServer, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By environment, by session or by call: the private CA's server is trusted, and its connection is used again."""
    options: dict[str, Any] = {}
    with session_for(secure) as session:
        before = secure.connections
        if way == "session.verify":
            session.verify = str(papers.ca)
        elif way == "verify=":
            options["verify"] = str(papers.ca)
        else:
            monkeypatch.setenv(way, str(papers.ca))
        for _ in range(3):
            reply = session.post(ORDER, json={"a": 1}, **options)
            assert (200, "Bearer token") == (reply.status_code, reply.json()["headers"]["authorization"])
        assert 1 == secure.connections - before


def test_the_login_trusts_the_same_ca(secure: EchoServer, papers: Papers) -> None:
    """Session settings hold for the token manager's calls, too: the login reaches the private CA's server."""
    with Session("joe", "key", config=Config(base_url=secure.url, http={"total_timeout": 5})) as session:
        session.verify = str(papers.ca)
        secure.seen.clear()
        with pytest.raises(RequestError):  # it only echoes, and so gives no token
            session.post(ORDER, json={})
    assert any("loginkey" in str(said).lower() for said in secure.seen)


def test_an_unknown_ca_is_refused_and_nothing_sent(secure: EchoServer) -> None:
    """Without the CA the call fails as in requests, and says that it was never sent."""
    with session_for(secure) as session, pytest.raises(requests.exceptions.SSLError) as caught:
        session.post(ORDER, json={})
    assert isinstance(caught.value, TlsFailed)
    assert Fate.NOT_SENT is caught.value.fate
    assert not secure.seen


def test_a_wrong_host_name_is_refused(papers: Papers) -> None:
    """A certificate for another name is not accepted, though its CA is trusted."""
    with running(papers.context(papers.other)) as server, session_for(server) as session:
        session.verify = str(papers.ca)
        with pytest.raises(TlsFailed, match=r"(?i)host ?name"):
            session.post(ORDER, json={})
        assert not server.seen


def test_a_handshake_that_takes_too_long_was_sent_nothing() -> None:
    """The server takes the connection and says nothing more: no order can have reached it, and the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        config = Config(base_url=url, retry={"max_attempts": 1}, http={"connect_timeout": 0.1, "read_timeout": 5.0})
        with Session(config=config) as session:
            session.tokens.adopt("token")
            with pytest.raises(ConnectTimedOut) as caught:
                session.post(ORDER, json={})
    assert Fate.NOT_SENT is caught.value.fate


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_verification_can_be_switched_off_and_on_again(secure: EchoServer) -> None:
    """`verify=False` holds for its call alone; the next call is verified on a connection of its own."""
    with session_for(secure) as session:
        assert session.post(ORDER, json={}, verify=False).ok
        with pytest.raises(TlsFailed):
            session.post(ORDER, json={})


def test_a_client_certificate_is_shown(papers: Papers) -> None:
    """With the certificate the server answers, as attribute and as argument; without it, the call fails."""
    with running(papers.context(papers.server, ask_client=True)) as server, session_for(server) as session:
        session.verify = str(papers.ca)
        with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)) as caught:
            session.post(ORDER, json={})
        assert isinstance(caught.value, RequestError)
        assert not server.seen
        assert session.post(ORDER, json={}, cert=str(papers.client)).ok
        session.cert = str(papers.client)
        assert session.post(ORDER, json={}).ok


def test_connections_over_tls_are_kept_warm(secure: EchoServer, papers: Papers) -> None:
    """A ping opens a verified connection, and the order after it uses that one."""
    with session_for(secure) as session:
        session.verify = str(papers.ca)
        before = secure.connections
        request = session.prepare_request(requests.Request("GET", "/api/Status/ping"))
        assert 1 == session._adapter.warm(request, **session._settings())
        assert session.post(ORDER, json={}).ok
        assert 1 == secure.connections - before


################################################### proxies ###################################################


@contextlib.contextmanager
def proxy(folder: Path, *options: str) -> Iterator[str]:
    """host:port of a proxy.py in a process of its own."""
    pytest.importorskip("proxy")
    port_file = folder / "port"
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--log-level", "ERROR", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 30.0
            while not (port_file.exists() and port_file.read_text().strip()):
                assert process.poll() is None
                assert time.monotonic() < end, "the proxy did not start"
                time.sleep(0.01)
            yield f"127.0.0.1:{port_file.read_text().split()[0]}"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def open_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxy(tmp_path_factory.mktemp("open")) as address:
        yield address


@pytest.fixture(scope="module")
def locked_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxy(tmp_path_factory.mktemp("locked"), "--basic-auth", "joe:secret") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("way", ["environment", "session", "call"])
@pytest.mark.parametrize("tls", [False, True])
def test_calls_go_through_a_proxy(
    way: str, tls: bool, open_proxy: str, plain: EchoServer, secure: EchoServer, papers: Papers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Plain and through a tunnel; named by environment, session or call; the bearer arrives either way."""
    server = secure if tls else plain
    scheme = "https" if tls else "http"
    options: dict[str, Any] = {}
    with session_for(server) as session:
        session.verify = str(papers.ca)
        if way == "environment":
            monkeypatch.setenv(f"{scheme}_proxy", f"http://{open_proxy}")
        elif way == "session":
            session.proxies[scheme] = f"http://{open_proxy}"
        else:
            options["proxies"] = {scheme: f"http://{open_proxy}"}
        for _ in range(2):
            said = session.post(ORDER, json={"a": 1}, **options).json()
            assert (ORDER, "Bearer token") == (said["path"], said["headers"]["authorization"])
        (pool, *_) = session._adapter._pool or (None,)
        assert f"http://{open_proxy}" == pool.proxy.url


@pytest.mark.slow
def test_no_proxy_is_heard(plain: EchoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that the environment excludes is called directly, though a (dead) proxy is named."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with session_for(plain) as session:
        assert session.post(ORDER, json={}).ok


@pytest.mark.slow
def test_a_proxy_with_a_password(locked_proxy: str, plain: EchoServer, secure: EchoServer, papers: Papers) -> None:
    """With the right password both ways work; with a wrong one plain calls get the 407, tunnels a ProxyError."""
    good, bad = f"http://joe:secret@{locked_proxy}", f"http://joe:wrong@{locked_proxy}"
    with session_for(plain) as session:
        assert session.post(ORDER, json={}, proxies={"http": good}).ok
        assert 407 == session.post(ORDER, json={}, proxies={"http": bad}).status_code
    with session_for(secure) as session:
        session.verify = str(papers.ca)
        assert session.post(ORDER, json={}, proxies={"https": good}).ok
        with pytest.raises(requests.exceptions.ProxyError) as caught:
            session.post(ORDER, json={}, proxies={"https": bad})
        assert isinstance(caught.value, ProxyFailed)
        assert Fate.NOT_SENT is caught.value.fate
        assert "wrong" not in str(caught.value)


@pytest.mark.slow
def test_a_tunnel_is_kept_warm(open_proxy: str, secure: EchoServer, papers: Papers) -> None:
    """The ping goes through the proxy, too."""
    with session_for(secure) as session:
        session.verify = str(papers.ca)
        session.proxies["https"] = f"http://{open_proxy}"
        request = session.prepare_request(requests.Request("GET", "/api/Status/ping"))
        assert 1 == session._adapter.warm(request, **session._settings())
        before = secure.connections
        assert session.post(ORDER, json={}).ok
        assert before == secure.connections
