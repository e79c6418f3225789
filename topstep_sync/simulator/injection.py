"""How each REST fault is brought about, down to the TCP connection."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from topstep_sync.simulator.asgi import JSON, TRANSPORT, Answer, Receive, Scope, Send, read_body, send_answer
from topstep_sync.simulator.evidence import Arrival
from topstep_sync.simulator.faults import Fault

log = logging.getLogger("topstep_sync.simulator")

_RST: Final = struct.pack("ii", 1, 0)  # linger on, no time: the kernel sends RST instead of FIN
_HTML: Final = "<html><body><h1>Service maintenance</h1></body></html>"


def cut(transport: Any, *, reset: bool) -> None:
    """The TCP connection has ended: with RST, or with FIN after what was written."""
    if reset:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        transport.abort()
    else:
        transport.close()


class Injection:
    """One fault, meeting one call.

    Args:
        work: does the call's work and gives the answer; called at most once, after the body was read.
    """

    def __init__(
        self, fault: Fault, scope: Scope, receive: Receive, send: Send, arrival: Arrival, work: Callable[[], Answer]
    ) -> None:
        self._fault = fault
        self._transport: Any = scope[TRANSPORT]
        self._receive = receive
        self._send = send
        self._arrival = arrival
        self._work = work

    async def run(self) -> None:
        """The fault has happened.

        Raises:
            Gone: the client left before its body was complete.
        """
        log.info("! fault %s at %s", self._fault.kind, self._arrival.path)
        if self._fault.kind == "reset":
            await self._cut(reset=True)
            return
        self._arrival.body = await read_body(self._receive)
        await getattr(self, f"_{self._fault.kind.replace('-', '_')}")()

    ################################ answers that are not the work's, or late ################################

    async def _status(self) -> None:
        await self._answer(self._substitute())

    async def _after(self) -> None:
        self._work()
        await self._answer(self._substitute())

    async def _code(self) -> None:
        await self._answer(self._refusal())

    async def _code_after(self) -> None:
        self._work()
        await self._answer(self._refusal())

    async def _html(self) -> None:
        body = (self._fault.body or _HTML).encode()
        await self._answer(Answer(200, ((b"content-type", b"text/html"),), body))

    async def _late(self) -> None:
        await asyncio.sleep(self._fault.seconds)
        await self._answer(self._work())

    async def _slow(self) -> None:
        answer = self._work()
        await asyncio.sleep(self._fault.seconds)
        await self._answer(answer)

    async def _drip(self) -> None:
        answer = self._sized(self._work())
        self._arrival.status = answer.status
        await self._send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        for byte in answer.body:
            if self._transport.is_closing():
                return
            await self._send({"type": "http.response.body", "body": bytes((byte,)), "more_body": True})
            await asyncio.sleep(self._fault.seconds)
        await self._send({"type": "http.response.body", "body": b""})

    ########################################## below HTTP ##########################################

    async def _lose(self) -> None:
        self._work()
        await self._cut(reset=False)

    async def _reset_read(self) -> None:
        await self._cut(reset=True)

    async def _truncate(self) -> None:
        answer = self._sized(self._work())
        self._transport.write(self._head(answer) + answer.body[: len(answer.body) // 2])
        await self._cut(reset=False)

    async def _slow_headers(self) -> None:
        answer = self._sized(self._work())
        self._arrival.status = answer.status
        head = self._head(answer)
        for byte in head:
            if self._transport.is_closing():
                break
            self._transport.write(bytes((byte,)))
            await asyncio.sleep(self._fault.seconds / len(head))
        self._transport.write(answer.body)
        await self._cut(reset=False)

    async def _cut(self, *, reset: bool) -> None:
        cut(self._transport, reset=reset)
        # The server must learn of the end first, or it would take the missing answer for a bug and send a 500.
        while (await self._receive())["type"] != "http.disconnect":
            pass

    ############################################ answers ############################################

    async def _answer(self, answer: Answer) -> None:
        self._arrival.status = answer.status
        await send_answer(self._send, answer)

    def _refusal(self) -> Answer:
        envelope = {"success": False, "errorCode": self._fault.error_code, "errorMessage": self._fault.message}
        return Answer(200, (JSON,), msgspec.json.encode(envelope))

    def _substitute(self) -> Answer:
        headers = [(b"retry-after", self._fault.retry_after.encode("latin-1"))] if self._fault.retry_after else []
        body = self._fault.body.encode()
        headers.append((b"content-length", str(len(body)).encode()))
        return Answer(self._fault.status, tuple(headers), body)

    @staticmethod
    def _sized(answer: Answer) -> Answer:
        headers = [pair for pair in answer.headers if pair[0] != b"content-length"]
        return answer._replace(headers=(*headers, (b"content-length", str(len(answer.body)).encode())))

    @staticmethod
    def _head(answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.headers]
        return b"\r\n".join([*lines, b"connection: close", b"", b""])
