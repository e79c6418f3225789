"""Tokens: reading a valid one, and what 16 and 100 threads do when it runs out, beside google-auth and botocore.

A refresh takes a fixed time here, so that what is left is the library's own. Printed besides: how many refreshes one
expiry, one 401 that 16 threads share, and one look into the advisory window cost, and how long callers wait there.
"""

import datetime as dt
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._measure import Timed, compare, human, installed, measure, options, report
from topstep_sync.auth import token_cipher
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_storage import TokenStorage
from topstep_sync.models import Token
from topstep_sync.redact import Secret

REFRESH = 0.1  # seconds a refresh takes at its server
DAY = 86_400.0
HOUR = 3600.0


class Scheme:
    """One way to hand out tokens. Counts its refreshes; `left` is the life of the token it begins with."""

    def __init__(self, left: float) -> None:
        self.left = left
        self.refreshes = 0
        self.lock = threading.Lock()
        self.dead = ""

    def refreshed(self) -> str:
        """A new token, after the time that takes."""
        with self.lock:
            self.refreshes += 1
            number = self.refreshes
        time.sleep(REFRESH)
        return f"token-{number}"

    def read(self) -> Any:
        """What a call does to get its token."""

    def call(self) -> None:
        """A whole call, its 401 and replay included."""
        self.read()


class Ours(Scheme):
    def __init__(self, left: float) -> None:
        super().__init__(left)
        self.manager = TokenManager(None, self)
        if left > 0:
            now = time.time()
            first = Token(Secret("token-0"), 1, now - DAY + left, now + left)
            self.manager._decide(lambda policy: policy.adopt(first, self.manager._now(), 0.0))
        self.read = self.manager.get_token  # type: ignore[method-assign]

    def login(self) -> Token:
        value, now = self.refreshed(), time.time()
        return Token(Secret(value), 0, now, now + DAY)

    def validate(self, token: Token) -> Token:
        return self.login()

    def logout(self, token: Token) -> None: ...

    def call(self) -> None:
        token = self.manager.token()
        if token.value == self.dead:
            self.manager.rejected(token)


class Botocore(Scheme):
    """`RefreshableCredentials`, the scheme by itself; botocore signs rather than sends a token, and knows no 401."""

    def __init__(self, left: float) -> None:
        super().__init__(left)
        from botocore.credentials import RefreshableCredentials

        self.credentials = RefreshableCredentials(
            "key", "secret", "token-0", _in(left), self._refresh, "bench", advisory_timeout=7200, mandatory_timeout=60
        )
        self.read = self.credentials.get_frozen_credentials  # type: ignore[method-assign]

    def _refresh(self) -> dict[str, str]:
        value = self.refreshed()
        return {"access_key": "key", "secret_key": "secret", "token": value, "expiry_time": _in(DAY).isoformat()}


class Google(Scheme):
    """`AuthorizedSession` over an adapter that answers at once: 401 to the dead token, 200 to any other."""

    def __init__(self, left: float) -> None:
        super().__init__(left)
        import google.auth.credentials
        import requests
        from google.auth.transport.requests import AuthorizedSession

        scheme = self

        class Credentials(google.auth.credentials.Credentials):  # type: ignore[misc]
            def refresh(self, request: Any) -> None:
                self.token, self.expiry = scheme.refreshed(), _in(DAY).replace(tzinfo=None)

        class Server(requests.adapters.BaseAdapter):
            def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
                response = requests.Response()
                refused = request.headers.get("authorization") == f"Bearer {scheme.dead}"
                response.status_code, response.request = (401 if refused else 200), request
                response._content = b""
                return response

            def close(self) -> None: ...

        self.credentials = Credentials()
        self.credentials.token, self.credentials.expiry = "token-0", _in(left).replace(tzinfo=None)
        self.session = AuthorizedSession(self.credentials)
        self.session.mount("https://", Server())

    def read(self) -> None:
        self.credentials.before_request(None, "POST", "https://bench.example/", {})

    def call(self) -> None:
        self.session.post("https://bench.example/")


def _in(seconds: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)


SCHEMES: dict[str, tuple[type[Scheme], tuple[str, ...]]] = {
    "topstep_sync": (Ours, ()),
    "botocore": (Botocore, ("botocore",)),
    "google-auth": (Google, ("google.auth", "requests")),
}


def crowd(scheme: Scheme, threads: int) -> list[float]:
    """How long each of *threads* that call at the same moment took."""
    barrier = threading.Barrier(threads + 1)
    took: list[float] = []

    def work() -> None:
        barrier.wait()
        begun = time.perf_counter()
        scheme.call()
        took.append(time.perf_counter() - begun)

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    barrier.wait()
    for thread in crew:
        thread.join()
    return took


def stampede(kind: type[Scheme], threads: int, counts: list[int]) -> Callable[[], Timed]:
    """Seconds that the last of *threads* needs beyond the refresh itself, when the token has run out."""

    def run() -> Timed:
        scheme = kind(-60.0)
        took = max(crowd(scheme, threads))
        counts.append(scheme.refreshes)
        return Timed(max(took - REFRESH, 1e-9))

    return run


def shared_401(kind: type[Scheme]) -> int:
    """Refreshes when 16 calls get a 401 for the same token."""
    scheme = kind(DAY)
    scheme.dead = "token-0"
    crowd(scheme, 16)
    return scheme.refreshes


def advisory(kind: type[Scheme]) -> tuple[float, float]:
    """Median and longest wait of 16 callers, whose token needs a refresh soon and is good for minutes."""
    took = crowd(kind(200.0), 16)  # within 2 h (ours, botocore) and 3 min 45 s (google-auth) of its end
    time.sleep(2 * REFRESH)
    return statistics.median(took), max(took)


def warm_start() -> tuple[float, float]:
    """Seconds from nothing to a stored token, and those of reading it again; one derivation, no login."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.token"
        TokenStorage(path, passphrase="bench", keyring=False).store_token("token", time.time() + DAY)
        token_cipher._KEYS.clear()
        manager = TokenManager(None, Ours(DAY), storage=TokenStorage(path, passphrase="bench", keyring=False))
        first = measure(manager.get_token).wall
        storage = TokenStorage(path, passphrase="bench", keyring=False)
        return first, measure(storage.load, 100).wall / 100


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    kinds = {name: kind for name, (kind, needs) in SCHEMES.items() if installed(*needs)}
    number = asked.pick(quick=20_000, full=200_000)
    readers = {name: kind(DAY).read for name, kind in kinds.items()}
    race = compare(readers, rounds=asked.pick(quick=5, full=15), number=number)
    line = report("tokens.read", race, ours="topstep_sync", unit="read", bound={"botocore": 1.0, "google-auth": 1.0})
    print(f"  target: at most 300 ns of processor time; here {line['cpu']['topstep_sync'] * 1e9:.0f} ns, loop included")
    for threads in (16, 100):
        counts: dict[str, list[int]] = {name: [] for name in kinds}
        runs = {name: stampede(kind, threads, counts[name]) for name, kind in kinds.items()}
        race = compare(runs, rounds=asked.pick(quick=2, full=7), warmup=0)
        most = {name: max(found) for name, found in counts.items()}
        line = report(f"tokens.stampede.{threads}", race, ours="topstep_sync", unit="drained crowd", refreshes=most)
        print(f"  refreshes: {most}; target: 1, drained within 50 ms of it")
    refused = {name: shared_401(kind) for name, kind in kinds.items() if name != "botocore"}
    print(f"\n  refreshes for one 401 that 16 calls share: {refused}")
    for name, kind in kinds.items():
        median, longest = advisory(kind)
        print(f"  {name}: wait in the advisory window: median {human(median)}, longest {human(longest)}")
    first, again = warm_start()
    print(
        f"  warm start from the sealed file: {human(first)}, of which nearly all is the one key; again: {human(again)}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
