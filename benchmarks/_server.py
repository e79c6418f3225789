"""A gateway that costs nothing: fixed replies over keep-alive connections, in a process of its own."""

import asyncio
import json
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


async def serve(delay: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running(delay: float = 0.0) -> Iterator[str]:
    """The base URL of such a server, which ends with the context."""
    command = [sys.executable, "-m", "benchmarks._server", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
