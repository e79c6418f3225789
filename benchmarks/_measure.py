"""How every bench measures: contestants interleaved round by round, medians, ratios of pairs, one JSON line.

A bench is a module with `main(argv=None)`::

    from benchmarks._measure import compare, options, report

    def main(argv: list[str] | None = None) -> int:
        asked = options(argv)                                 # --quick: about five seconds in all
        race = compare(
            {"topstep_sync": ours, "requests": theirs, "absent peer": None},   # callables without arguments
            rounds=asked.pick(quick=5, full=30),              # odd numbers have an honest median
            number=asked.pick(quick=100, full=1000),          # calls of each callable per round
            work=1,                                           # units (calls, events …) that one call does
        )
        report("http.post", race, ours="topstep_sync", unit="call")
        return 0

    if __name__ == "__main__":
        raise SystemExit(main())

Within a round every contestant runs once, each round starting with another one, so whatever the machine does meanwhile
falls on all of them alike. Ratios are made pair by pair within a round and only then reduced to a median: a slow
round slows both sides of its pairs. CPU is that of the whole process, all threads included; put servers into another
process. A callable that must time itself (set-up within the call, events that arrive later) returns `Timed(wall, cpu)`.
"""

import argparse
import gc
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Timed(NamedTuple):
    """What a contestant measured of one call of itself, in seconds."""

    wall: float
    cpu: float = 0.0


Contestant = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    quick: bool = False

    def pick(self, *, quick: T, full: T) -> T:
        """The value for the kind of run that was asked for."""
        return quick if self.quick else full


@dataclass
class Samples:
    """Seconds per unit of work, one entry per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    def quantile(self, share: float) -> float:
        """The smallest sample that at least *share* of all do not exceed."""
        ordered = sorted(self.wall)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


Race = dict[str, Samples]


def options(argv: list[str] | None = None, description: str | None = None) -> Options:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="about five seconds: whether it runs, not how fast")
    return Options(quick=parser.parse_args(argv).quick)


def installed(*modules: str) -> bool:
    """Whether every one of *modules* can be imported; a peer that cannot is `None` in the race."""
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # the package around a dotted name
        return False


def compare(
    contestants: Mapping[str, Contestant | None], *, rounds: int, number: int = 1, work: int = 1, warmup: int = 1
) -> Race:
    """Seconds per unit of work of each contestant, measured in interleaved rounds.

    Args:
        contestants: name → callable without arguments; `None` for a peer that is not installed.
        rounds: how often each contestant is measured.
        number: calls per measurement.
        work: units of work that one call does.
        warmup: calls of each before anything is measured.
    """
    present = {name: call for name, call in contestants.items() if call is not None}
    for call in present.values():
        for _ in range(warmup):
            call()
    race: Race = {name: Samples() for name in present}
    names = list(present)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = measure(present[name], number)
            race[name].wall.append(wall / (number * work))
            race[name].cpu.append(cpu / (number * work))
    return race


def measure(call: Contestant, number: int = 1) -> Timed:
    """Seconds of *number* calls, with the garbage of whoever ran before already collected."""
    gc.collect()
    own_wall = own_cpu = 0.0
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(number):
        result = call()
        if isinstance(result, Timed):
            own_wall, own_cpu = own_wall + result.wall, own_cpu + result.cpu
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Timed(own_wall, own_cpu or cpu) if own_wall else Timed(wall, cpu)


def ratios(race: Race, ours: str) -> dict[str, float]:
    """Peer → how many times as long as *ours* it takes (above 1: we are quicker); the median over the rounds' pairs."""
    mine = race[ours].wall
    return {
        name: statistics.median(peer / own for peer, own in zip(samples.wall, mine, strict=True))
        for name, samples in race.items()
        if name != ours
    }


def report(
    name: str, race: Race, *, ours: str, unit: str = "call", bound: Mapping[str, float] | None = None, **facts: Any
) -> dict[str, Any]:
    """A table for humans and one JSON line for machines are printed; the line's content is returned.

    Args:
        name: of the bench, such as ``http.post``.
        race: what `compare` returned, or `Samples` by name that were filled by hand.
        ours: the contestant the others are compared with.
        unit: what one sample is a time of.
        bound: peer → smallest ratio that is acceptable; a lower one is marked in the table and in the line.
        facts: whatever else belongs into the line.
    """
    against = ratios(race, ours)
    print(f"\n{name}: time per {unit}, {len(race[ours].wall)} rounds, {python()}")
    for contestant, samples in race.items():
        share = "" if contestant == ours else f"  {against[contestant]:6.2f} x ours"
        print(
            f"  {contestant:<28} median {human(samples.median):>9}  p99 {human(samples.quantile(0.99)):>9}"
            f"  cpu {human(samples.cpu_median):>9}{share}"
        )
    missed = {peer: least for peer, least in (bound or {}).items() if peer in against and against[peer] < least}
    for peer, least in missed.items():
        print(f"  ! {against[peer]:.2f} x ours for {peer}; expected at least {least}")
    line = {
        "bench": name,
        "unit": unit,
        "n": len(race[ours].wall),
        "median": {k: v.median for k, v in race.items()},
        "p99": {k: v.quantile(0.99) for k, v in race.items()},
        "cpu": {k: v.cpu_median for k, v in race.items()},
        "ours": ours,
        "ratio": {k: round(v, 3) for k, v in against.items()},
        "missed": sorted(missed),
        "python": python(),
        "machine": f"{platform.machine()} {platform.system()}",
        **facts,
    }
    print(json.dumps(line))
    return line


def python() -> str:
    """The interpreter, as in a bug report."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def human(seconds: float) -> str:
    """*seconds* with a unit that leaves one to three digits before the point."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e9:.1f} ns"
