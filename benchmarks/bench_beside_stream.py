"""A REST call while the stream takes in 5 000 events a second in the same process, against the same call in silence.

The call and the events come from two servers, so that what is measured is this process, not a busy gateway.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from benchmarks._measure import Samples, options, report
from benchmarks._server import running
from benchmarks.bench_post import PATH, QUESTION
from topstep_sync import Config
from topstep_sync.session import Session

RATE = 5_000
CONTRACT = "CON.F.US.MNQ.Z26"


@contextmanager
def simulator() -> Iterator[dict[str, Any]]:
    """What a simulator in a process of its own says of itself."""
    command = [sys.executable, "-m", "topstep_sync.simulator", "--json", "--limiter", "none", "--market-rate", "0"]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


class Consumer(threading.Thread):
    """Takes events out of the queue as a strategy would."""

    def __init__(self, events: Any) -> None:
        super().__init__(daemon=True)
        self.events, self.count, self.over = events, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.count += len(self.events.drain())


def calls(session: Session, number: int) -> list[float]:
    found = []
    for _ in range(number):
        begun = time.perf_counter()
        session.post(PATH, json=QUESTION).json()
        found.append(time.perf_counter() - begun)
        time.sleep(0.002)
    return found


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    rounds, number = asked.pick(quick=1, full=5), asked.pick(quick=100, full=300)
    race = {"beside the stream": Samples(), "silence": Samples()}
    tails = {"beside the stream": Samples(), "silence": Samples()}
    with running() as base, simulator() as told:
        limits = {"general_limit": 10**7, "burst": None}
        config = Config(user_name="u", api_key="k", base_url=base, rate=limits)
        streaming = Config(
            user_name=told["user_name"], api_key=told["api_key"], base_url=told["url"],
            market_hub_url=told["url"] + "/hubs/market", user_hub_url=told["url"] + "/hubs/user",
        )  # fmt: skip
        with (
            Session(config=config) as session,
            Session(config=streaming) as stream,
            stream.subscribe(quotes=[CONTRACT], conflate=False) as events,
        ):
            consumer = Consumer(events)
            consumer.start()
            calls(session, 50)
            for _ in range(rounds):
                silent = calls(session, number)
                seconds = max(1, round(number * 0.006))
                blast = f"{told['url']}/control/hubs/market/blast?count={RATE * seconds}&rate={RATE}"
                poster = threading.Thread(target=requests.post, args=(blast,), daemon=True)
                poster.start()
                time.sleep(0.3)
                busy = calls(session, number)
                for samples, tail, taken in (
                    (race["silence"], tails["silence"], silent),
                    (race["beside the stream"], tails["beside the stream"], busy),
                ):
                    ordered = sorted(taken)
                    samples.wall.append(ordered[len(ordered) // 2])
                    tail.wall.append(ordered[int(0.99 * len(ordered))])
                poster.join()
            consumer.over.set()
            consumer.join()
    for samples in (*race.values(), *tails.values()):
        samples.cpu = [0.0] * rounds
    print(f"  {consumer.count} events came in")
    report("beside_stream.p50", race, ours="beside the stream", bound={"silence": 1 / 1.3})
    report("beside_stream.p99", tails, ours="beside the stream", bound={"silence": 1 / 2.0})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
