"""CPU of one POST of a small JSON and of decoding its reply: everything on, against requests and others without."""

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from benchmarks._measure import Samples, compare, installed, options, report
from benchmarks._server import TOKEN, running
from topstep_sync import Config
from topstep_sync.messages import PlaceReply, SearchAccounts
from topstep_sync.session import Session

PATH = "/api/Account/search"
QUESTION = {"onlyActiveAccounts": True}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def bare(url: str) -> Callable[[], Any]:
    session = requests.Session()
    session.headers.update(BEARER)
    return lambda: session.post(url, json=QUESTION, timeout=(5, 20)).json()


def untrusting(url: str) -> Callable[[], Any]:
    session = requests.Session()
    session.trust_env = False
    session.headers.update(BEARER)
    return lambda: session.post(url, json=QUESTION, timeout=(5, 20)).json()


def adapter_alone(url: str) -> Callable[[], Any]:
    session, adapter = requests.Session(), HTTPAdapter()
    prepared = session.prepare_request(requests.Request("POST", url, json=QUESTION, headers=BEARER))
    return lambda: json.loads(adapter.send(prepared, timeout=(5, 20)).content)


def pool(url: str) -> Callable[[], Any]:
    manager = urllib3.PoolManager()
    headers = {**BEARER, "Content-Type": "application/json"}
    return lambda: json.loads(manager.request("POST", url, body=json.dumps(QUESTION), headers=headers).data)


def stdlib(url: str) -> Callable[[], Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    headers = {**BEARER, "Content-Type": "application/json"}

    def call() -> Any:
        connection.request("POST", parts.path, json.dumps(QUESTION), headers)
        return json.loads(connection.getresponse().read())

    return call


def limited(url: str) -> Callable[[], Any]:
    from requests_ratelimiter import LimiterSession

    session = LimiterSession(per_second=1_000_000)
    session.headers.update(BEARER)
    return lambda: session.post(url, json=QUESTION, timeout=(5, 20)).json()


def broken(url: str) -> Callable[[], Any]:
    import pybreaker

    session, breaker = requests.Session(), pybreaker.CircuitBreaker()
    session.mount("http://", HTTPAdapter(max_retries=Retry(3)))
    session.headers.update(BEARER)
    return lambda: breaker.call(session.post, url, json=QUESTION, timeout=(5, 20)).json()


def authorized(url: str) -> Callable[[], Any]:
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    session = AuthorizedSession(AnonymousCredentials())  # type: ignore[no-untyped-call]
    session.headers.update(BEARER)
    return lambda: session.post(url, json=QUESTION, timeout=20).json()


def tenacious(url: str) -> Callable[[], Any]:
    import tenacity

    session = requests.Session()
    session.headers.update(BEARER)
    post = tenacity.retry(stop=tenacity.stop_after_attempt(3))(session.post)
    return lambda: post(url, json=QUESTION, timeout=(5, 20)).json()


PEERS = {
    "requests": (bare, ()),
    "requests trust_env=False": (untrusting, ()),
    "HTTPAdapter.send": (adapter_alone, ()),
    "urllib3": (pool, ()),
    "http.client": (stdlib, ()),
    "LimiterSession": (limited, ("requests_ratelimiter",)),
    "pybreaker + Retry": (broken, ("pybreaker",)),
    "google-auth": (authorized, ("google.auth",)),
    "tenacity": (tenacious, ("tenacity",)),
}


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    with running() as base:
        url = base + PATH
        config = Config(user_name="u", api_key="k", base_url=base, rate={"general_limit": 10**7, "burst": None})
        with Session(config=config) as session:
            request = SearchAccounts(only_active_accounts=True)
            contestants: dict[str, Callable[[], Any] | None] = {
                "drop-in": lambda: session.post(PATH, json=QUESTION).json(),
                "typed": lambda: session.call(PATH, request, PlaceReply),
            }
            for name, (make, needs) in PEERS.items():
                contestants[name] = make(url) if installed(*needs) else None
            rounds, number = asked.pick(quick=3, full=21), asked.pick(quick=50, full=300)
            race = compare(contestants, rounds=rounds, number=number, warmup=20)
    for ours in ("drop-in", "typed"):
        # CPU in place of wall time: on loopback the wall shows mostly the server, and it is CPU that threads share.
        others = {
            name: Samples(samples.cpu, samples.cpu)
            for name, samples in race.items()
            if name == ours or name not in ("drop-in", "typed")
        }
        report(f"post.cpu.{ours}", others, ours=ours, bound={"requests": 1 / 0.45})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
