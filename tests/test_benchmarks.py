"""How benches measure: interleaved, by pairs, in one JSON line."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest

from benchmarks import __main__ as runner
from benchmarks._measure import Race, Samples, Timed, compare, human, installed, measure, options, ratios, report


def test_rounds_are_interleaved() -> None:
    """Each round measures every contestant once, and begins with another one."""
    order: list[str] = []

    def contestant(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    compare({name: contestant(name) for name in "abc"}, rounds=3, warmup=0)
    assert "abc bca cab".replace(" ", "") == "".join(order)


def test_samples_are_per_unit_of_work() -> None:
    """Seconds are divided by the calls of a measurement and by the work of a call."""
    race = compare({"a": lambda: Timed(6.0, 3.0)}, rounds=2, number=3, work=2)
    assert ([3.0, 3.0], [1.5, 1.5]) == (race["a"].wall, race["a"].cpu)


def test_an_absent_peer_is_left_out() -> None:
    """A peer that is not installed takes no part."""
    assert ["a"] == list(compare({"a": lambda: None, "b": None}, rounds=1))


def test_measures_what_it_calls() -> None:
    """Without times of its own, a call is timed from outside."""
    timed = measure(lambda: sum(range(1000)), number=10)
    assert timed.wall > 0


def test_ratios_are_of_pairs() -> None:
    """A slow round slows both sides of its pair, and so does not change the ratio."""
    race: Race = {"ours": Samples([1.0, 10.0, 2.0]), "theirs": Samples([2.0, 20.0, 4.0])}
    assert {"theirs": 2.0} == ratios(race, "ours")


def test_one_line_for_machines() -> None:
    """The report ends with one JSON line, which names a ratio that fell short."""
    race: Race = {"ours": Samples([1.0], [0.5]), "theirs": Samples([0.5], [0.25])}
    with redirect_stdout(io.StringIO()) as text:
        line = report("x", race, ours="ours", bound={"theirs": 1.0, "absent": 1.0}, extra=5)
    printed = json.loads(text.getvalue().splitlines()[-1])
    assert line == printed
    assert ({"theirs": 0.5}, ["theirs"], 5) == (printed["ratio"], printed["missed"], printed["extra"])


def test_quantiles_are_samples() -> None:
    """A quantile is one of the samples, and never beyond the last."""
    samples = Samples([5.0, 1.0, 3.0])
    assert (1.0, 3.0, 5.0, 5.0) == (
        samples.quantile(0.0),
        samples.median,
        samples.quantile(0.99),
        samples.quantile(1.0),
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.50 s"), (2.5e-3, "2.50 ms"), (2.5e-6, "2.50 µs"), (2.5e-9, "2.5 ns")]
)
def test_human_units(seconds: float, text: str) -> None:
    """Times have the unit that suits them."""
    assert text == human(seconds)


def test_quick_picks() -> None:
    """`--quick` chooses the short form of every figure."""
    assert (1, 2) == (options(["--quick"]).pick(quick=1, full=2), options([]).pick(quick=1, full=2))


def test_installed() -> None:
    """A peer is there when all of its modules are, also where a package around one is missing."""
    assert [True, True, False, False] == [
        installed("json"), installed("json.decoder", "io"), installed("json", "nope"), installed("nope.nope")
    ]  # fmt: skip


def test_an_unknown_bench_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name is told, with what there is."""
    with pytest.raises(SystemExit):
        runner.main(["nope"])
    assert "no bench named 'nope'; there are" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", runner.names())
def test_every_bench_runs(name: str) -> None:
    """Each bench runs bare in its quick form, and says its figures."""
    code, lines = runner.run(name, quick=True)
    assert 0 == code
    assert all(line["median"] for line in lines)
    assert lines
