"""A gateway that costs nothing: fixed replies over keep-alive connections, in a process of its own."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TOKEN = "bench-token-0123456789abcdef"

# Small enough that transport is what is measured, real enough to be decoded.
BODY = b'{"orderId":9056,"success":true,"errorCode":0,"errorMessage":null}'

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nServer: Kestrel\r\n"


def reply(body: bytes) -> bytes:
    """*body* as a whole HTTP reply."""
    return _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


LOGIN = reply(json.dumps({"token": TOKEN, "success": True, "errorCode": 0, "errorMessage": None}).encode())
REPLY = reply(BODY)


class Connection(asyncio.Protocol):
    """Answers every request as soon as it is whole, or `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found or len(body) < self._length(head):
            return
        self._read = b""
        answer = LOGIN if b"loginKey" in head.partition(b"\r\n")[0] else REPLY
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)

    @staticmethod
    def _length(head: bytes) -> int:
        _, found, rest = head.lower().partition(b"content-length:")
        return int(rest.partition(b"\r\n")[0]) if found else 0


class Side(asyncio.Protocol):
    """One end of a relayed connection: what comes in goes out at the other end, later."""

    def __init__(self, delay: float, idle: float) -> None:
        self._delay, self._idle = delay, idle
        self.other: Side | None = None
        self._waiting: list[bytes] = []
        self._touched = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._watch()

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._touched = loop.time()
        loop.call_later(self._delay, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self.other is None:
            self._waiting.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def join(self, other: "Side") -> None:
        self.other, other.other = other, self
        for data in self._waiting:
            self._pass_on(data)

    def _watch(self) -> None:
        """Like any server, and any router on the way, it ends what has been idle for long."""
        loop = asyncio.get_running_loop()
        if self._touched and loop.time() - self._touched > self._idle:
            self.transport.close()
        elif not self.transport.is_closing():
            loop.call_later(self._idle / 8, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def relay(delay: float, idle: float, port: int) -> "asyncio.Server":
    """A server that passes everything on to *port*, *delay* seconds later in either direction."""
    loop = asyncio.get_running_loop()

    def accept() -> Side:
        near = Side(delay, idle)

        async def connect() -> None:
            # The client's own handshake takes one round trip; this stands for it.
            await asyncio.sleep(2 * delay)
            _, far = await loop.create_connection(lambda: Side(delay, idle), "127.0.0.1", port)
            near.join(far)

        near.task = loop.create_task(connect())  # type: ignore[attr-defined]
        return near

    return await loop.create_server(accept, "127.0.0.1", 0)


async def serve(delay: float, distance: float, idle: float, certificate: str) -> None:
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(delay), "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    front = await relay(distance, idle, port) if distance else server
    print(front.sockets[0].getsockname()[1], flush=True)
    await front.serve_forever()


@contextmanager
def running(delay: float = 0.0, *, distance: float = 0.0, idle: float = 130.0, certificate: str = "") -> Iterator[str]:
    """The base URL of such a server, which ends with the context.

    Args:
        delay: seconds it takes for an answer.
        distance: seconds one way between it and the client.
        idle: seconds after which an idle connection is closed, where there is a distance.
        certificate: file of certificate and key, for TLS.
    """
    options = [str(delay), str(distance), str(idle), certificate]
    command = [sys.executable, "-m", "benchmarks._server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield f"https://localhost:{port}" if certificate else f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve(*map(float, sys.argv[1:4]), sys.argv[4]))
