"""The REST side as an ASGI application: arrival, bearer, limit, fault, work, answer, in ASP.NET Core's order."""

import datetime as dt
import email.utils
import logging
import secrets
from typing import Any, Final

import msgspec

from topstep_sync.simulator.asgi import (
    EMPTY,
    JSON,
    PROBLEM,
    TEXT,
    Answer,
    Application,
    Gone,
    Receive,
    Scope,
    Send,
    TooLarge,
    header,
    read_body,
    send_answer,
)
from topstep_sync.simulator.binding import BindingError, acceptable, problem
from topstep_sync.simulator.evidence import Arrival
from topstep_sync.simulator.injection import Injection
from topstep_sync.simulator.limits import FREE, window_of
from topstep_sync.simulator.operations import OPERATIONS, PING, Call, refused_validate
from topstep_sync.simulator.tokens import Verdict
from topstep_sync.simulator.world import World

log = logging.getLogger("topstep_sync.simulator")

ANONYMOUS: Final = "anonymous"
_VALIDATE: Final = "/api/auth/validate"
_encode: Final = msgspec.json.Encoder().encode


class Rest:
    """The ASGI application of one world. Paths under a mounted prefix go to what is mounted there, uncounted."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._mounts: list[tuple[str, Application]] = []

    def mount(self, prefix: str, application: Application) -> None:
        """Requests whose path is *prefix*, or starts with it and a slash, go to *application*."""
        self._mounts.append((prefix.rstrip("/").lower(), application))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/").lower()
        for prefix, application in self._mounts:
            if path == prefix or (prefix and path.startswith(prefix + "/")):
                await application(scope, receive, send)
                return
        arrival, verdict = self._arrived(scope, path)
        try:
            await self._serve(scope, receive, send, path, arrival, verdict)
        except Gone:
            log.info("~ client left during %s", path)
        except TooLarge:
            arrival.status = 413
            await send_answer(send, Answer(413, (EMPTY, (b"connection", b"close"))))
        except Exception:
            # A bug here must not look like a gateway that died: it says 500, as ASP.NET Core does, and goes on.
            log.exception("! %s failed", path)
            arrival.status = 500
            await send_answer(send, Answer(500))
        finally:
            arrival.done = self._world.clock.monotonic()

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, path: str, arrival: Arrival, verdict: Verdict
    ) -> None:
        answer = self._gate(arrival, path, verdict)
        if answer is None:
            # A fault meets only calls that would have been worked on, as in the reference gateway.
            fault = self._world.faults.take(path, arrival.at)
            if fault:
                arrival.fault = fault.kind
                work = Injection(
                    fault, scope, receive, send, arrival, lambda: self._work(scope, path, arrival, verdict)
                )
                await work.run()
                return
            arrival.body = await read_body(receive)
            answer = self._work(scope, path, arrival, verdict)
        arrival.status = answer.status
        await send_answer(send, answer)

    def _arrived(self, scope: Scope, path: str) -> tuple[Arrival, Verdict]:
        world = self._world
        verdict = world.tokens.check_header(header(scope, b"authorization"))
        client = scope.get("client")
        arrival = Arrival(
            at=world.clock.monotonic(),
            method=scope["method"],
            path=scope["path"],
            window=window_of(path),
            port=client[1] if client else 0,
            token=verdict.claims.jti if verdict.claims else None,
            partition="" if verdict.fault else world.settings.user_name,
        )
        world.evidence.arrivals.append(arrival)
        return arrival, verdict

    def _gate(self, arrival: Arrival, path: str, verdict: Verdict) -> Answer | None:
        """The answer to a call that is not worked on: 429, 404, 405 or 401."""
        world = self._world
        if arrival.window != FREE:
            wait = world.limits.arrive(arrival.window, arrival.partition or ANONYMOUS, arrival.at)
            if wait is not None:
                return self._throttled(wait)
        operation = OPERATIONS.get(path)
        if operation is None and path != PING:
            return Answer(404)
        allowed = "GET" if path == PING else "POST"
        if arrival.method != allowed:
            return Answer(405, (EMPTY, (b"allow", allowed.encode())))
        if operation and operation.authorized and verdict.fault:
            if path == _VALIDATE and verdict.claims and world.settings.expired_validate == "code":
                return Answer(200, (JSON,), _encode(refused_validate(verdict)))
            return Answer(401, (EMPTY, (b"www-authenticate", world.tokens.challenge(verdict).encode())))
        return None

    def _throttled(self, wait: float) -> Answer:
        form = self._world.settings.retry_after
        if form == "none":
            return Answer(429)
        seconds = max(1, int(-(-wait // 1)))
        if form == "seconds":
            return Answer(429, (EMPTY, (b"retry-after", str(seconds).encode())))
        when = dt.datetime.fromtimestamp(self._world.clock.epoch() + seconds + 1, dt.UTC)
        return Answer(429, (EMPTY, (b"retry-after", email.utils.format_datetime(when, usegmt=True).encode())))

    def _work(self, scope: Scope, path: str, arrival: Arrival, verdict: Verdict) -> Answer:
        operation = OPERATIONS.get(path)
        if operation is None:
            return _pong(scope)
        if operation.binder is not None and not acceptable(header(scope, b"content-type")):
            return Answer(415, (PROBLEM,), problem(415, "Unsupported Media Type", "15.5.16", _trace()))
        try:
            request: Any = operation.binder(arrival.body) if operation.binder else None
            content = operation.run(Call(self._world, request, verdict.claims))
        except BindingError as error:
            text = "One or more validation errors occurred."
            return Answer(400, (PROBLEM,), problem(400, text, "15.5.1", _trace(), error.errors))
        arrival.code, arrival.order_id = content["errorCode"], content.get("orderId")
        return Answer(200, (JSON,), _encode(content))


def _pong(scope: Scope) -> Answer:
    if "json" in (header(scope, b"accept") or "").lower():
        return Answer(200, (JSON,), b'"pong"')
    return Answer(200, (TEXT,), b"pong")


def _trace() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
