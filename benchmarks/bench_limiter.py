"""What a permit costs: alone, among 32 threads, and from a budget that processes or machines share.

Every contestant has the same quota, far above what is called, and takes `CALLS` permits a round from a fresh limiter.
Ours gives them back, too (`done`), which the peers do not know: they count a call when it begins.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks._measure import Contestant, Timed, compare, installed, measure, options, report
from topstep_sync.http.budget_redis import RedisBudget
from topstep_sync.http.budget_sqlite import SQLiteBudget
from topstep_sync.http.rate_limiter import RateLimiter

LIMIT: Final = 1_000_000
ENDPOINT: Final = "/api/Order/search"
THREADS: Final = 32

Call = Callable[[], Any]


def ours(budget: Any = None) -> Call:
    acquire = RateLimiter({"general_limit": LIMIT}, budget=budget).acquire

    def call() -> None:
        acquire(ENDPOINT).done()

    return call


def naive() -> Call:
    """A deque of instants under a lock: the least that could be called a limiter, and no server's clock in it."""
    lock, sent = threading.Lock(), deque[float]()

    def call() -> None:
        with lock:
            now = time.monotonic()
            while sent and sent[0] <= now - 60.0:
                sent.popleft()
            assert len(sent) < LIMIT
            sent.append(now)

    return call


def pyrate() -> Call:
    from pyrate_limiter import Limiter, Rate

    limiter = Limiter(Rate(LIMIT, 60_000))
    return lambda: limiter.try_acquire("general")


def pyrate_sqlite() -> Call:
    from pyrate_limiter import Limiter, Rate, SQLiteBucket

    path = Path(tempfile.mkdtemp(), "pyrate.sqlite3")
    limiter = Limiter(SQLiteBucket.init_from_file([Rate(LIMIT, 60_000)], db_path=str(path)))
    return lambda: limiter.try_acquire("general")


def moving_window() -> Call:
    from limits import RateLimitItemPerMinute
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter, item = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(LIMIT)
    return lambda: limiter.hit(item, "general")


def alone(make: Callable[[], Call], calls: int) -> Contestant:
    """*calls* permits on one thread, from a fresh limiter."""

    def run() -> Timed:
        call = make()
        return measure(call, calls)

    return run


def together(make: Callable[[], Call], calls: int) -> Contestant:
    """*calls* permits on 32 threads, from a fresh limiter."""

    def run() -> Timed:
        call, start = make(), threading.Barrier(THREADS + 1)

        def work() -> None:
            start.wait()
            for _ in range(calls // THREADS):
                call()

        with ThreadPoolExecutor(THREADS) as pool:
            done = [pool.submit(work) for _ in range(THREADS)]
            start.wait()
            cpu, begin = time.process_time(), time.perf_counter()
            for future in done:
                future.result()
            return Timed(time.perf_counter() - begin, time.process_time() - cpu)

    return run


@contextlib.contextmanager
def redis() -> Iterator[str | None]:
    """The address of a Redis of our own; `None` where there is no program for it."""
    program = shutil.which("redis-server")
    if program is None or not installed("redis"):
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--save", "", "--appendonly", "no"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process,
    ):
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"
        process.kill()


def shared(quick: bool) -> None:
    """Permits from a budget in SQLite and in Redis, sixteen to a lease."""
    calls = 320 if quick else 3200
    with tempfile.TemporaryDirectory() as folder, redis() as url:
        count = iter(range(10**6))
        contestants: dict[str, Contestant | None] = {
            "topstep_sync sqlite": alone(lambda: ours(SQLiteBudget(Path(folder, f"{next(count)}"), "k")), calls),
            "topstep_sync redis": alone(lambda: ours(RedisBudget(url, f"{next(count)}")), calls) if url else None,
            "pyrate-limiter sqlite": alone(pyrate_sqlite, calls // 10) if installed("pyrate_limiter") else None,
        }
        if contestants["pyrate-limiter sqlite"] is not None:
            peer = contestants["pyrate-limiter sqlite"]

            def ten_times() -> Timed:
                timed = peer()
                return Timed(timed.wall * 10, timed.cpu * 10)

            contestants["pyrate-limiter sqlite"] = ten_times
        race = compare(contestants, rounds=3 if quick else 7, work=calls, warmup=1)
    report("limiter.shared", race, ours="topstep_sync sqlite", unit="permit", target_us={"topstep_sync sqlite": 60})


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    makers = {
        "topstep_sync": ours,
        "naive deque": naive,
        "pyrate-limiter": pyrate if installed("pyrate_limiter") else None,
        "limits moving window": moving_window if installed("limits") else None,
    }
    rounds, calls = asked.pick(quick=5, full=31), asked.pick(quick=2_000, full=10_000)
    for name, how, bounds in (
        ("limiter.alone", alone, {"pyrate-limiter": 4.0, "limits moving window": 2.0}),
        ("limiter.32 threads", together, {"pyrate-limiter": 4.0, "limits moving window": 2.0}),
    ):
        contestants = {peer: how(make, calls) if make else None for peer, make in makers.items()}
        race = compare(contestants, rounds=rounds, work=calls)
        report(name, race, ours="topstep_sync", unit="permit", bound=bounds, target_us={"topstep_sync": 1.0})
    shared(asked.quick)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
