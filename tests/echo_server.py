"""A small HTTP server for comparing clients: it says what it was sent, and misbehaves by path."""

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """One connection. `/echo` and every path that is not named here returns the request as JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "EchoServer"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def handle_any(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunks()
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.server.seen.append((self.command, parts.path, dict(self.headers), self.body))
        if self.server.script and parts.path.startswith("/api/"):
            self.play(self.server.script.pop(0))
            return
        name = parts.path.strip("/").split("/")[0].replace("-", "_")
        getattr(self, f"on_{name}", self.on_echo)(parts)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = handle_any  # noqa: N815

    def _read_chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def reply(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def play(self, scene: Any) -> None:
        status, headers, *body = scene
        if status == "drop":
            self.on_drop(None)
        else:
            self.reply(status, body[0] if body else b'{"success":true,"errorCode":0}', **headers)

    def on_echo(self, parts: Any) -> None:
        said = {
            "method": self.command,
            "path": parts.path,
            "query": parse_qs(parts.query, keep_blank_values=True),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.body.decode("latin-1"),
        }
        self.reply(200, json.dumps(said).encode())

    def on_status(self, parts: Any) -> None:
        status = int(parts.path.split("/")[2])
        self.reply(status, b"" if status == 204 else b'{"success":false,"errorCode":1}')

    def on_text(self, parts: Any) -> None:
        self.reply(200, "prêt à négocier".encode("latin-1"), "text/plain")

    def on_utf16(self, parts: Any) -> None:
        self.reply(200, '{"a":"é"}'.encode("utf-16"))

    def on_nan(self, parts: Any) -> None:
        self.reply(200, b'{"a":NaN,"big":123456789012345678901234567890,"e":1e400}')

    def on_page(self, parts: Any) -> None:
        self.reply(200, b"<html>maintenance</html>", "text/html")

    def on_gzip(self, parts: Any) -> None:
        self.reply(200, gzip.compress(b'{"zipped":true}'), Content_Encoding="gzip")

    def on_garbled(self, parts: Any) -> None:
        self.reply(200, b"this is no gzip", Content_Encoding="gzip")

    def on_cookie(self, parts: Any) -> None:
        self.reply(200, b"{}", Set_Cookie="flavour=oat; Path=/")

    def on_link(self, parts: Any) -> None:
        self.reply(200, b"{}", Link='</echo>; rel="next"')

    def on_redirect(self, parts: Any) -> None:
        self.reply(302, b"", Location=self.server.url + "/echo")

    def on_lines(self, parts: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(5):
            line = f"line {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def on_drop(self, parts: Any) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def on_truncate(self, parts: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"half":')
        self.on_drop(parts)

    def on_slow(self, parts: Any) -> None:
        self.server.release.wait(5.0)
        self.reply(200, b"{}")

    def on_auth(self, parts: Any) -> None:
        if "Authorization" in self.headers and self.headers["Authorization"].startswith(("Basic", "Digest")):
            self.on_echo(parts)
        else:
            self.reply(401, b"", WWW_Authenticate='Digest realm="r", nonce="n", qop="auth"')


class EchoServer(ThreadingHTTPServer):
    """The server, with what it has seen."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.script: list[Any] = []  # what the next calls below /api/ get: (status or "drop", headers[, body])
        self.release = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"
        if tls:
            self.url = f"https://localhost:{self.server_port}"
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: clients that go away are what is tested."""


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[EchoServer]:
    """A server on a free port, until the end of the context."""
    with EchoServer(tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join(5.0)
