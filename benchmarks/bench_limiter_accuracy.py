"""Whether limits hold on the server's clock, and how much of the permitted rate is used.

Two parts. A modelled wide-area network (one way 15-45 ms, 3 % spikes to 0.8 s, +120 ms on a connection's first call,
20 ms a reply): the most arrivals in any window, and what a strict server would have refused. And, where the reference
gateway is (`TOPSTEP_ASPNETCORE`, or ``shared/aspnetcore`` beside the project), ASP.NET Core's own limiters at their
documented figures: refusals while the window is learned and after, and the rate against one that asks all the time.
"""

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks._measure import installed, options, python
from benchmarks._reference import Gateway, hammer, reference, spend
from benchmarks.bench_limiter import redis
from topstep_sync.errors import RateLimitTimeout
from topstep_sync.http.budget_redis import RedisBudget
from topstep_sync.http.budget_sqlite import SQLiteBudget
from topstep_sync.http.rate_limiter import RateLimiter

ENDPOINT: Final = "/api/Order/search"

Ask = Callable[[float], Callable[[], None] | None]
"""Deadline → what to call when the reply is complete; `None` when no permit came in time."""


########################################### the modelled network ###########################################


def ours(limit: int, window: float, budget: Any = None) -> Ask:
    # The reserve for cancels is the one share of the rate that we leave unused on purpose; here it is rate that counts.
    limiter = RateLimiter({"general_limit": limit, "general_window": window, "reserved": 0}, budget=budget)

    def ask(deadline: float) -> Callable[[], None] | None:
        try:
            return limiter.acquire(ENDPOINT, deadline=deadline).done
        except RateLimitTimeout:
            return None

    return ask


def naive(limit: int, window: float) -> Ask:
    lock, sent = threading.Lock(), list[float]()

    def ask(deadline: float) -> Callable[[], None] | None:
        while True:
            with lock:
                now = time.monotonic()
                while sent and sent[0] <= now - window:
                    sent.pop(0)
                if len(sent) < limit:
                    sent.append(now)
                    return lambda: None
                delay = sent[0] + window - now
            if now + delay > deadline:
                return None
            time.sleep(delay)

    return ask


def pyrate(limit: int, window: float, buffer_ms: int = 50) -> Ask:
    from pyrate_limiter import Limiter, Rate

    limiter = Limiter(Rate(limit, int(window * 1000)), buffer_ms=buffer_ms)

    def ask(deadline: float) -> Callable[[], None] | None:
        got = limiter.try_acquire("general", timeout=max(0.001, deadline - time.monotonic()))
        return (lambda: None) if got else None

    return ask


def moving_window(limit: int, window: float) -> Ask:
    from limits import RateLimitItemPerSecond
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter, item = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(limit, round(window))

    def ask(deadline: float) -> Callable[[], None] | None:
        while not limiter.hit(item, "general"):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        return lambda: None

    return ask


def call_on(ask: Ask, end: float, arrivals: list[float], seed: int) -> None:
    """One thread on one connection calls until *end*; when its calls arrive is noted."""
    chance, first = random.Random(seed), 0.12
    while time.monotonic() < end and (done := ask(end)) is not None:
        there, back = (
            chance.uniform(0.015, 0.045) + (chance.uniform(0.0, 0.8) if chance.random() < 0.03 else 0.0)
            for _ in range(2)
        )
        time.sleep(there + first)
        arrivals.append(time.monotonic())
        time.sleep(0.02 + back)
        first = 0.0
        done()


@dataclass
class Run:
    """One contestant on one network."""

    name: str
    limit: int
    window: float
    threads: int
    arrivals: list[float] = field(default_factory=list)

    def start(self, ask: Ask, end: float) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=call_on, args=(ask, end, self.arrivals, seed), daemon=True)
            for seed in range(self.threads)
        ]
        for thread in threads:
            thread.start()
        return threads

    def figures(self, windows: float) -> dict[str, Any]:
        """Worst window, refusals of a strict server, and the share of the permitted rate."""
        times = sorted(self.arrivals)
        worst = first = refused = 0
        kept: list[float] = []
        for last, at in enumerate(times):
            while at - times[first] >= self.window:
                first += 1
            worst = max(worst, last - first + 1)
            kept = [earlier for earlier in kept if at - earlier < self.window]
            if len(kept) < self.limit:
                kept.append(at)
            else:
                refused += 1
        return {
            "name": self.name, "limit": self.limit, "window": self.window, "threads": self.threads, "worst": worst,
            "refused": refused, "rate": round((len(times) - refused) / (self.limit * windows), 4),
        }  # fmt: skip


def network(limit: int, window: float, windows: float) -> list[dict[str, Any]]:
    """Everybody at once, each on a network of its own."""
    entries: list[tuple[Run, Ask]] = [
        (Run("topstep_sync", limit, window, threads), ours(limit, window)) for threads in (1, 8, 32)
    ]
    entries += [(Run("naive deque", limit, window, threads), naive(limit, window)) for threads in (8, 32)]
    if installed("pyrate_limiter"):
        entries += [(Run("pyrate-limiter", limit, window, threads), pyrate(limit, window)) for threads in (8, 32)]
        entries += [(Run("pyrate, 1 s of margin", limit, window, 8), pyrate(limit, window, 1000))]
    if installed("limits"):
        entries += [(Run("limits moving window", limit, window, 8), moving_window(limit, window))]
    end = time.monotonic() + windows * window
    for run, ask in entries:
        run.start(ask, end)
    time.sleep(max(0.0, end + 1.5 - time.monotonic()))  # the last calls are under way
    return [run.figures(windows) for run, _ in entries]


########################################### several processes ###########################################


def worker(kind: str, where: str, limit: str, window: str, seconds: str) -> None:
    """One of several processes; what arrived when is its output."""
    budget = SQLiteBudget(where, "bench") if kind == "sqlite" else RedisBudget(where, "bench")
    run = Run(kind, int(limit), float(window), 8)
    print("ready", flush=True)
    sys.stdin.readline()
    for thread in run.start(ours(int(limit), float(window), budget), time.monotonic() + float(seconds)):
        thread.join()
    print(json.dumps(run.arrivals))


def processes(kind: str, where: str, limit: int, window: float, windows: float) -> dict[str, Any]:
    """Four processes with eight threads each share one budget."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "benchmarks.bench_limiter_accuracy", "--worker"]
    arguments = [kind, where, str(limit), str(window), str(windows * window)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[1]}
    workers = [subprocess.Popen([*command, *arguments], **pipes) for _ in range(4)]
    for process in workers:
        process.stdout.readline()  # it has its imports behind it
    for process in workers:
        process.stdin.write("go\n")
        process.stdin.flush()
    run = Run(f"topstep_sync, 4 processes, {kind}", limit, window, 32)
    for process in workers:
        run.arrivals += json.loads(process.communicate()[0])
    return run.figures(windows)


########################################### ASP.NET's own limiters ###########################################


def learning(kind: str, windows: float, outcome: list[dict[str, Any]]) -> None:
    """Refusals and rate on one of the framework's limiters, from a cold start; beside one that asks all the time."""
    with Gateway("--limiter", kind) as gateway, Gateway("--limiter", kind) as other:
        span = {"general": windows * 60.0, "history": windows * 30.0}
        limiter = RateLimiter()
        asked = [threading.Thread(target=hammer, args=(other, name, span[name])) for name in span]
        for thread in asked:
            thread.start()
        spend(gateway, limiter, span, threads=8)
        for thread in asked:
            thread.join()
        for name, window in (("general", 60.0), ("history", 30.0)):
            refused = gateway.refusals(name)
            settled = 2.2 * window * 1.05
            mine, most = (each.rate(name, window, settled) for each in (gateway, other))
            outcome.append({
                "limiter": kind, "class": name, "windows": windows, "refused": len(refused),
                "refused later": sum(1 for at in refused if at > settled), "rate": round(mine / most, 4),
                "learned": round(limiter.budget()[name].learned_window, 2),
            })  # fmt: skip


def handed_on(outcome: list[dict[str, Any]]) -> None:
    """A second process that starts with what the first has learned."""
    with Gateway("--limiter", "sliding") as gateway, tempfile.TemporaryDirectory() as folder:
        for turn in ("first", "second"):
            before = {name: len(gateway.refusals(name)) for name in ("general", "history")}
            limiter = RateLimiter(budget=SQLiteBudget(Path(folder, "b"), "k"))
            spend(gateway, limiter, {"general": 200.0, "history": 200.0}, threads=8)
            limiter.close()
            outcome.append({
                "limiter": f"sliding, {turn} process",
                **{name: len(gateway.refusals(name)) - count for name, count in before.items()},
            })  # fmt: skip


def framework() -> list[dict[str, Any]]:
    """Every limiter of the framework, at once."""
    outcome: list[dict[str, Any]] = []
    threads = [threading.Thread(target=learning, args=(kind, 12.5, outcome)) for kind in ("sliding", "fixed", "token")]
    threads.append(threading.Thread(target=handed_on, args=(outcome,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--worker"]:
        worker(*argv[1:])
        return 0
    asked = options(argv, __doc__)
    limit, window = asked.pick(quick=(20, 1.0), full=(200, 6.0))
    found = network(limit, window, 3)
    if not asked.quick:
        found += network(50, 3.0, 3)
        with tempfile.TemporaryDirectory() as folder, redis() as url:
            found.append(processes("sqlite", str(Path(folder, "b")), limit, window, 3))
            if url:
                found.append(processes("redis", url, limit, window, 3))
    print(f"\nlimiter.accuracy: three windows on a modelled network, {python()}")
    for line in found:
        print(
            f"  {line['name']:<32} {line['limit']:>4}/{line['window']:g} s  {line['threads']:>2} threads  worst window "
            f"{line['worst']:>4}  strict server refuses {line['refused']:>4}  rate {line['rate']:.3f}"
        )
    outcome = framework() if reference() and not asked.quick else []
    for line in outcome:
        print("  " + ", ".join(f"{name} {value}" for name, value in line.items()))
    own = [line for line in found if line["name"].startswith("topstep")]
    missed = sorted({line["name"] for line in own if line["worst"] > line["limit"]})
    rates = {}
    for each in found:
        rates[f"{each['name']}, {each['threads']} threads, {each['limit']}/{each['window']:g} s"] = each["rate"]
    line = {"bench": "limiter.accuracy", "unit": "share of the permitted rate", "median": rates, "ratio": {}}
    print(json.dumps({**line, "missed": missed, "network": found, "aspnetcore": outcome, "python": python()}))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
