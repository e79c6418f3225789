"""The first order after a quiet while, over TLS and at a distance: with connections kept warm, and without.

Idle connections are closed on the way, as Kestrel does after 130 s; here after one second, so that a round takes two.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from benchmarks._measure import Samples, installed, options, report
from benchmarks._server import running
from benchmarks.bench_post import BEARER
from topstep_sync import Config
from topstep_sync.session import Session

DISTANCE = 0.050  # seconds one way; a round trip is twice that
IDLE = 1.0
PLACE = "/api/Order/place"
ORDER = {"accountId": 536, "contractId": "CON.F.US.MNQ.Z26", "type": 2, "side": 0, "size": 1}


def timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def measure(base: str, authority: str, rounds: int) -> dict[str, Samples]:
    """Seconds of the first order after each quiet while."""
    bare = requests.Session()
    bare.headers.update(BEARER)
    config = Config(user_name="u", api_key="k", base_url=base, http={"max_idle": 0.8 * IDLE})
    race = {"keep_warm": Samples(), "without": Samples(), "requests": Samples()}
    with Session(config=config) as warm, Session(config=config) as cold:
        for session in (bare, warm, cold):
            session.verify = authority
        warm.tokens.adopt(BEARER["Authorization"].removeprefix("Bearer "))
        cold.tokens.adopt(BEARER["Authorization"].removeprefix("Bearer "))
        warm.keep_warm()
        for _ in range(rounds):
            time.sleep(2 * IDLE)
            race["keep_warm"].wall.append(timed(lambda: warm.post(PLACE, json=ORDER)))
            race["without"].wall.append(timed(lambda: cold.post(PLACE, json=ORDER)))
            race["requests"].wall.append(timed(lambda: bare.post(base + PLACE, json=ORDER)))
    for samples in race.values():
        samples.cpu = [0.0] * rounds
    return race


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    if not installed("trustme"):
        print("  no certificates without trustme; nothing measured")
        return 0
    import trustme

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)  # it would win over the certificate made here
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = Path(folder, "ca.pem"), Path(folder, "server.pem")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(authority)
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        with running(distance=DISTANCE, idle=IDLE, certificate=str(certificate)) as base:
            race = measure(base, str(authority), asked.pick(quick=1, full=9))
    report("warm", race, ours="keep_warm", unit="first order", bound={"requests": 2.0})
    for name, samples in race.items():
        print(f"  {name:<12} {samples.median / (2 * DISTANCE):.1f} round trips")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
