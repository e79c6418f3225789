"""Opening a connection so that it can be given up at any moment: names, TCP, a proxy's tunnel, TLS.

Every blocking step of the ordinary way (getaddrinfo, connect, the TLS handshake, reading a reply) can hang for its
whole timeout, or for ever, and cannot be called off. Here each waits for the socket *and* for a `Waker`, so a
connection attempt into a black hole ends within milliseconds of `Waker.stop()`.
"""

import base64
import ipaddress
import os
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import certifi

from topstep_sync.checks import LOOPBACK
from topstep_sync.clock import Clock
from topstep_sync.realtime.channel import Channel
from topstep_sync.realtime.waker import Waker

_OTHER_PROXIES: Final = ("https", "socks", "socks4", "socks4a", "socks5", "socks5h")


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
        via, door, login = proxy
        channel = Channel(_connect(via, door, waker, at, clock), waker, at)
        _tunnel(channel, host, port, login)
    if secure:
        try:
            channel.secure(tls or trusting_context(), host)
        except BaseException:
            channel.close()
            raise
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


def _proxy(host: str, secure: bool) -> tuple[str, int, str | None] | None:
    """The http proxy the environment names for *host*: host, port and login; this machine is never reached through one.

    Raises:
        OSError: what is named is no http proxy. Nothing of it is quoted but the kind, as a password may be anywhere.
    """
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    found = proxies.get("https" if secure else "http") or proxies.get("all")
    if not found:
        return None
    try:
        parts = urlsplit(found if "://" in found else f"http://{found}")
        kind, via, port = parts.scheme, parts.hostname, parts.port or 80
        cut = "@" in parts.path + parts.query + parts.fragment  # in the middle of the password
    except ValueError:  # its words quote what stands where the port should
        kind, via, port, cut = "http", None, 0, True
    if kind in _OTHER_PROXIES:
        raise OSError(f"a {kind} proxy is not supported for the stream; expected an http proxy")
    if kind != "http" or cut or not via:
        raise OSError(
            "the proxy that the environment names makes no sense; expected http://user:password@host:port, "
            "with / ? # @ and : in a password written as %2F %3F %23 %40 and %3A"
        )
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return via, port, login


def _tunnel(channel: Channel, host: str, port: int, login: str | None) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if login:
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
