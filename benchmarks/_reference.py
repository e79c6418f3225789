"""The reference gateway on ASP.NET Core, where it is: a server whose limiters nobody here wrote."""

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from topstep_sync.errors import RateLimitTimeout
from topstep_sync.http.rate_limiter import RateLimiter

CALLS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "general": ("/api/Account/search", {"onlyActiveAccounts": True}),
    "history": (
        "/api/History/retrieveBars",
        {
            "contractId": "CON.F.US.MNQ.Z26",
            "live": False,
            "startTime": "2026-11-02T15:00:00Z",
            "endTime": "2026-11-02T15:05:00Z",
            "unit": 2,
            "unitNumber": 1,
            "limit": 5,
            "includePartialBar": False,
        },
    ),
}


def _find() -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "aspnetcore"
    program = Path(os.environ.get("TOPSTEP_ASPNETCORE") or beside) / "start"
    return program if program.exists() else None


_PROGRAM: Final = _find()  # now, because tests remove the variables of whoever runs them


def reference() -> Path | None:
    """The program that starts it; `None` where it is missing."""
    return _PROGRAM


class Gateway:
    """One gateway process, and what it answered when."""

    def __init__(self, *switches: str) -> None:
        program = reference()
        assert program is not None
        command = [str(program), "gateway", "--port", "0", *switches]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        self._host = urlsplit(ready["url"]).netloc
        self._token = ""
        login = {"userName": ready["user_name"], "apiKey": ready["api_key"]}
        with contextlib.closing(self.connect()) as connection:
            _, _, body = self.post(connection, "/api/Auth/loginKey", login)
        self._token = json.loads(body)["token"]
        self._start = time.monotonic()
        self.answers: dict[str, list[tuple[float, int]]] = {name: [] for name in CALLS}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host)

    def post(self, connection: http.client.HTTPConnection, path: str, value: Any) -> tuple[int, str | None, bytes]:
        """Status, Retry-After and body."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        connection.request("POST", path, json.dumps(value), headers)
        reply = connection.getresponse()
        return reply.status, reply.headers.get("Retry-After"), reply.read()

    def call(self, connection: http.client.HTTPConnection, name: str) -> tuple[int, str | None]:
        """One call of the class *name*."""
        status, retry_after, _ = self.post(connection, *CALLS[name])
        self.answers[name].append((time.monotonic() - self._start, status))
        return status, retry_after

    def refusals(self, name: str) -> list[float]:
        """Instants of the 429s."""
        return [at for at, status in self.answers[name] if status == 429]

    def accepted(self, name: str, begin: float, end: float) -> int:
        return sum(1 for at, status in self.answers[name] if status == 200 and begin <= at < end)

    def rate(self, name: str, window: float, begin: float) -> float:
        """Calls accepted a second since *begin*, from the start of one burst to that of the last.

        Counted over a span of any other length, one burst of ten would be in or out by chance.
        """
        times = [at for at, status in self.answers[name] if status == 200 and at >= begin]
        starts = [at for before, at in itertools.pairwise(times) if at - before > window / 20]
        if len(starts) < 3:  # they come in a steady trickle
            starts = [times[0], times[-1]]
        first, last = starts[0], starts[-1]
        return sum(1 for at in times if first <= at < last) / (last - first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()


def spend(gateway: Gateway, limiter: RateLimiter, seconds: dict[str, float], *, threads: int) -> None:
    """So many threads a class call as fast as *limiter* lets them, for so long."""
    begin = time.monotonic()

    def work(name: str) -> None:
        end = begin + seconds[name]
        with contextlib.closing(gateway.connect()) as connection, contextlib.suppress(RateLimitTimeout):
            while time.monotonic() < end:
                permit = limiter.acquire(CALLS[name][0], deadline=end)
                status, retry_after = gateway.call(connection, name)
                if status == 429:
                    permit.throttled(float(retry_after) if retry_after else None)
                else:
                    permit.done()

    workers = [threading.Thread(target=work, args=(name,)) for name in seconds for _ in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()


def hammer(gateway: Gateway, name: str, seconds: float) -> None:
    """One that asks all the time and minds no refusal: what the limiter permits at most."""
    end = time.monotonic() + seconds
    with contextlib.closing(gateway.connect()) as connection:
        while time.monotonic() < end:
            status, _ = gateway.call(connection, name)
            if status == 429:
                time.sleep(0.04)
