"""What guarding a call costs while all is well: a call of a function that does nothing, from 1 and from 16 threads."""

import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks._measure import Timed, compare, installed, options, report
from topstep_sync.http.circuit_breaker import CircuitBreaker


def nothing() -> None:
    """The guarded call."""


def ours() -> Callable[[], Any]:
    breaker = CircuitBreaker("bench")
    return functools.partial(breaker.call, nothing)


def pybreaker() -> Callable[[], Any]:
    import pybreaker

    return functools.partial(pybreaker.CircuitBreaker().call, nothing)


def circuitbreaker() -> Callable[[], Any]:
    from circuitbreaker import circuit

    guarded: Callable[[], Any] = circuit(nothing)
    return guarded


MAKERS: dict[str, tuple[Callable[[], Callable[[], Any]], tuple[str, ...]]] = {
    "topstep_sync": (ours, ()),
    "bare": (lambda: nothing, ()),
    "pybreaker": (pybreaker, ("pybreaker",)),
    "circuitbreaker": (circuitbreaker, ("circuitbreaker",)),
}


def many(call: Callable[[], Any], threads: int, number: int) -> Timed:
    """Seconds of *number* calls, shared by *threads*."""

    def work() -> None:
        for _ in range(number // threads):
            call()

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(time.sleep, 0.001)  # the threads are there before anything is measured
        wall, cpu = time.perf_counter(), time.process_time()
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
        return Timed(time.perf_counter() - wall, time.process_time() - cpu)


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    rounds, number = asked.pick(quick=5, full=31), asked.pick(quick=16_000, full=96_000)
    guards = {name: make() if installed(*needs) else None for name, (make, needs) in MAKERS.items()}
    for threads in (1, 16):
        race = compare(
            {name: functools.partial(many, call, threads, number) if call else None for name, call in guards.items()},
            rounds=rounds,
            work=number,
        )
        line = report(f"breaker.{threads}", race, ours="topstep_sync", bound={"pybreaker": 2.0})
        each = line["median"]["topstep_sync"] * 1e9
        print(f"  target: at most 500 ns a call, the loop around it included; here {each:.0f} ns")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
