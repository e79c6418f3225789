"""16 threads against a server that answers after 20 ms: whether anything of ours makes threads wait for each other."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from benchmarks._measure import Timed, compare, installed, options, report
from benchmarks._server import running
from benchmarks.bench_post import BEARER, PATH, QUESTION
from topstep_sync import Config
from topstep_sync.session import Session

THREADS = 16
DELAY = 0.020


def pooled(session: requests.Session) -> requests.Session:
    session.mount("http://", HTTPAdapter(pool_maxsize=32))
    session.headers.update(BEARER)
    return session


def bare(url: str) -> Callable[[], Any]:
    session = pooled(requests.Session())
    return lambda: session.post(url, json=QUESTION, timeout=(5, 20)).json()


def broken(url: str) -> Callable[[], Any]:
    import pybreaker

    session, breaker = pooled(requests.Session()), pybreaker.CircuitBreaker()
    return lambda: breaker.call(session.post, url, json=QUESTION, timeout=(5, 20)).json()


def limited(url: str) -> Callable[[], Any]:
    from requests_ratelimiter import LimiterAdapter

    session = requests.Session()
    session.mount("http://", LimiterAdapter(per_second=1_000_000, pool_maxsize=32))
    session.headers.update(BEARER)
    return lambda: session.post(url, json=QUESTION, timeout=(5, 20)).json()


def authorized(url: str) -> Callable[[], Any]:
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    session = pooled(AuthorizedSession(AnonymousCredentials()))  # type: ignore[no-untyped-call]
    return lambda: session.post(url, json=QUESTION, timeout=20).json()


PEERS = {
    "requests": (bare, ()),
    "pybreaker": (broken, ("pybreaker",)),
    "LimiterAdapter": (limited, ("requests_ratelimiter",)),
    "google-auth": (authorized, ("google.auth",)),
}


def together(call: Callable[[], Any], each: int) -> Timed:
    """Seconds until 16 threads have made *each* calls."""

    def work() -> None:
        for _ in range(each):
            call()

    with ThreadPoolExecutor(THREADS) as pool:
        begun, cpu = time.perf_counter(), time.process_time()
        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()
        return Timed(time.perf_counter() - begun, time.process_time() - cpu)


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    rounds, each = asked.pick(quick=1, full=9), asked.pick(quick=5, full=20)
    with running(DELAY) as base:
        config = Config(user_name="u", api_key="k", base_url=base, rate={"general_limit": 10**7, "burst": None})
        with Session(config=config) as session:
            calls: dict[str, Callable[[], Any] | None] = {
                "topstep_sync": lambda: session.post(PATH, json=QUESTION).json()
            }
            for name, (make, needs) in PEERS.items():
                calls[name] = make(base + PATH) if installed(*needs) else None
            contestants = {
                name: (lambda call=call: together(call, each)) if call else None for name, call in calls.items()
            }
            race = compare(contestants, rounds=rounds, work=THREADS * each)
    report("throughput", race, ours="topstep_sync", unit="request", bound={"requests": 0.98})
    for name, samples in race.items():
        print(f"  {name:<16} {1 / samples.median:7.1f} requests/s of {THREADS / DELAY:.0f} possible")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
