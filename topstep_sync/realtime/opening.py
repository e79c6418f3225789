"""Opening a connection so that it can be given up at any moment: names, TCP, a proxy's tunnel, TLS.

Every blocking step of the ordinary way (getaddrinfo, connect, the TLS handshake, reading a reply) can hang for its
whole timeout, or for ever, and cannot be called off. Here each waits for the socket *and* for a `Waker`, so a
connection attempt into a black hole ends within milliseconds of `Waker.stop()`.
"""

import base64
import contextlib
import ipaddress
import os
import selectors
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import certifi

from topstep_sync.checks import LOOPBACK
from topstep_sync.clock import SLICE, Clock

Result = TypeVar("Result")

CHUNK: Final = 64 * 1024
_HEADER_LIMIT: Final = 64 * 1024  # no reply to an upgrade or a CONNECT is longer


class Interrupted(Exception):
    """The wait was called off by `Waker.stop()`."""


class Waker:
    """Lets other threads wake the one thread that waits on a socket.

    `wake` and `stop` may be called from any thread; the rest belongs to the owner.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._watched: tuple[socket.socket | None, int] = (None, 0)
        self._signalled = False
        self.stopped = False

    def wake(self) -> None:
        """The owner's current or next `wait` returns at once."""
        if self._signalled:
            return
        self._signalled = True
        # It fails when full, so there is something to read already; or when closed, so nobody waits.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def stop(self) -> None:
        """The owner's current wait, and every later one, raises `Interrupted`."""
        self.stopped = True
        self.wake()

    def wait(self, sock: socket.socket | None, timeout: float, *, write: bool = False) -> bool:
        """Whether *sock* became ready within *timeout* seconds; False also when somebody called `wake`.

        Raises:
            Interrupted: `stop` was called.
        """
        if self.stopped:
            raise Interrupted
        watched = (sock, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        if watched != self._watched:
            self._watch(watched)
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, min(timeout, SLICE)))]
        if self._reader in ready:
            self._clear()
        if self.stopped:
            raise Interrupted
        return sock in ready

    def _watch(self, watched: tuple[socket.socket | None, int]) -> None:
        """Wait for this socket from here on; a change costs system calls, so it stays until there is another."""
        before, self._watched = self._watched[0], watched
        if before is not None:
            self._selector.unregister(before)
        sock, mask = watched
        if sock is not None:
            self._selector.register(sock, mask)

    def wait_for(self, sock: socket.socket, at: float, *, write: bool = False) -> None:
        """*sock* is ready.

        Raises:
            TimeoutError: it was not by *at*, an instant of the monotonic clock.
            Interrupted: `stop` was called.
        """
        while not self.wait(sock, at - self._clock.monotonic(), write=write):
            if self._clock.monotonic() >= at:
                raise TimeoutError("no progress in time")

    def _clear(self) -> None:
        """Whatever `wake` announced so far counts as seen; look for it after this call, not before."""
        # In this order: a byte that is eaten while the flag is down would leave the flag up with nothing to read, and
        # every later `wake` would count on a byte that is not there.
        with contextlib.suppress(OSError):
            self._reader.recv(4096)
        self._signalled = False

    def sleep(self, until: float) -> None:
        """The monotonic clock shows *until*; raises `Interrupted` when `stop` comes first."""
        while (left := until - self._clock.monotonic()) > 0:
            self.wait(None, left)
        if self.stopped:
            raise Interrupted

    def errand(self, work: Callable[[], Result], at: float, what: str) -> Result:
        """What *work* returns or raises; it runs on a thread of its own, because it cannot be called off.

        Raises:
            TimeoutError: it was not done by *at*.
            Interrupted: `stop` was called. The thread is left behind to end by itself.
        """
        outcome: list[tuple[bool, Any]] = []

        def run() -> None:
            try:
                outcome.append((True, work()))
            except BaseException as error:  # handed to the owner, whatever it is
                outcome.append((False, error))
            self.wake()

        threading.Thread(target=run, name=f"topstep-{what}", daemon=True).start()
        while not outcome:
            left = at - self._clock.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} took too long")
            self.wait(None, left)
        succeeded, value = outcome[0]
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        self._selector.close()
        self._reader.close()
        self._writer.close()


class Channel:
    """A connected socket whose reads and writes wait interruptibly. Looks enough like one for websocket-client."""

    def __init__(self, sock: socket.socket, waker: Waker, at: float) -> None:
        self.sock = sock
        self.waker = waker
        self.at = at
        """By when a blocking read or write must be done, on the monotonic clock."""
        self.ahead = b""
        """Bytes that were read together with the header of a reply."""
        self.patient = True
        """Whether `send` waits for room by the waker; else by the socket's own timeout."""
        self._taken = 0
        self._closed = False

    def recv(self, size: int) -> bytes:
        """At least one and at most *size* bytes, or none at the end of the stream; waits for them."""
        while not self.ahead:
            data = self.read()
            if data is None:
                self.waker.wait_for(self.sock, self.at)
            elif not data:
                return b""
            else:
                self._taken += len(data)
                self.ahead = data
                if self._taken > _HEADER_LIMIT:
                    raise OSError(f"the reply's header is longer than {_HEADER_LIMIT} bytes")
        part, self.ahead = self.ahead[:size], self.ahead[size:]
        return part

    def read(self) -> bytes | None:
        """What has arrived: bytes, none at the end of the stream, or `None` when there is nothing yet."""
        try:
            return self.sock.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, InterruptedError):
            return None
        except ssl.SSLWantWriteError:
            self.waker.wait_for(self.sock, self.at, write=True)
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def send(self, data: bytes) -> int:
        """How many bytes of *data* were taken, at least one; waits for room."""
        while self.patient:
            try:
                return self.sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError, InterruptedError):
                self.waker.wait_for(self.sock, self.at, write=True)
            except ssl.SSLWantReadError:
                self.waker.wait_for(self.sock, self.at)
        return self.sock.send(data)

    def pending(self) -> bool:
        """Whether TLS holds decrypted bytes that no select would announce."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def gettimeout(self) -> float:
        return 0.0  # websocket-client then calls recv and send once and does no waiting of its own

    def close(self) -> None:
        self._closed = True
        self.sock.close()


def open_channel(url: str, waker: Waker, at: float, clock: Clock, tls: ssl.SSLContext | None = None) -> Channel:
    """A channel to *url*'s host, through the environment's proxy where there is one, TLS included.

    Raises:
        OSError: what went wrong; `TimeoutError` (one of them) when it was not open by *at*.
        Interrupted: `waker.stop()` was called.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme in ("https", "wss")
    port = parts.port or (443 if secure else 80)
    proxy = _proxy(host, secure)
    if proxy is None:
        channel = Channel(_connect(host, port, waker, at, clock), waker, at)
    else:
        via = proxy.hostname or ""
        channel = Channel(_connect(via, proxy.port or 80, waker, at, clock), waker, at)
        _tunnel(channel, host, port, proxy)
    if secure:
        _secure(channel, host, tls or trusting_context())
    return channel


def trusting_context(ca_bundle: str | None = None, cert: str | tuple[str, str] | None = None) -> ssl.SSLContext:
    """A context that verifies against the system's and certifi's authorities, or against *ca_bundle* alone.

    Args:
        ca_bundle: a file, or a folder as OpenSSL hashes it.
        cert: a client certificate with its key in one file, or the two files.
    """
    folder = ca_bundle is not None and Path(ca_bundle).is_dir()
    context = ssl.create_default_context(capath=ca_bundle) if folder else ssl.create_default_context(cafile=ca_bundle)
    if ca_bundle is None:
        context.load_verify_locations(certifi.where())
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    return context


def _connect(host: str, port: int, waker: Waker, at: float, clock: Clock) -> socket.socket:
    addresses = _resolve(host, port, waker, at)
    failure: OSError | None = None
    for tried, address in enumerate(addresses):
        # The first address may be a black hole; the others get their share of the time.
        share = (at - clock.monotonic()) / (len(addresses) - tried)
        try:
            return _connect_one(address, waker, clock.monotonic() + share)
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")


def _resolve(host: str, port: int, waker: Waker, at: float) -> list[Any]:
    def lookup() -> list[Any]:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return waker.errand(lookup, at, "resolve")
    return lookup()  # an address is not looked up anywhere


def _connect_one(address: Any, waker: Waker, at: float) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            sock.connect(target)
        except BlockingIOError:
            waker.wait_for(sock, at, write=True)
            trouble = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if trouble:
                raise OSError(trouble, f"{os.strerror(trouble)}: {target[0]} port {target[1]}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _proxy(host: str, secure: bool) -> SplitResult | None:
    """The http proxy the environment names for *host*; the machine itself is never reached through one."""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get("https" if secure else "http") or proxies.get("all")
    if not found:
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    if parts.scheme != "http":
        raise OSError(f"a {parts.scheme} proxy is not supported for the stream; expected an http proxy")
    return parts


def _tunnel(channel: Channel, host: str, port: int, proxy: SplitResult) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}")
    request = "\r\n".join([*lines, "", ""]).encode()
    try:
        while request:
            request = request[channel.send(request) :]
        reply = b""
        while not reply.endswith(b"\r\n\r\n"):
            byte = channel.recv(1)
            if not byte:
                raise OSError("the proxy closed the connection")
            reply += byte
        first = reply.partition(b"\r\n")[0]
        if first.split()[1:2] != [b"200"]:
            raise OSError(f"the proxy answered {first[:80]!r} to CONNECT")
    except BaseException:
        channel.close()
        raise


def _secure(channel: Channel, host: str, context: ssl.SSLContext) -> None:
    plain = channel.sock
    try:
        sock = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        channel.sock = sock
        while True:
            try:
                sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                channel.waker.wait_for(sock, channel.at)
            except ssl.SSLWantWriteError:
                channel.waker.wait_for(sock, channel.at, write=True)
    except BaseException:
        channel.close()
        raise
