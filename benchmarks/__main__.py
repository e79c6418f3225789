"""`python -m benchmarks [--quick] [name …]`: every bench in a process of its own, then one table of ratios."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def names() -> list[str]:
    """What can be run: `bench_<room>.py` → room."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(name: str, *, quick: bool) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and JSON lines of one bench; what it prints is passed on as it comes."""
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *(["--quick"] if quick else [])]
    lines = []
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        for text in process.stdout or ():
            if text.startswith("{"):
                lines.append(json.loads(text))
            else:
                print(text, end="", flush=True)
    return process.returncode, lines


def main(argv: list[str] | None = None) -> int:
    """0 when every bench ran; the ratios are figures to read, not a test."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="about five seconds each")
    asked = parser.parse_args(argv)
    unknown = sorted(set(asked.names) - set(names()))
    if unknown:
        parser.error(f"no bench named {unknown[0]!r}; there are {', '.join(names())}")
    lines, failed = [], []
    for name in asked.names or names():
        code, found = run(name, quick=asked.quick)
        lines += found
        if code:
            failed.append(name)
    print(f"\n{'bench':<24} {'peer':<28} {'peer : ours':>12}")
    for line in lines:
        for peer, ratio in line["ratio"].items():
            print(f"{line['bench']:<24} {peer:<28} {ratio:>11.2f}{' !' if peer in line['missed'] else ''}")
    for line in lines:
        print(json.dumps(line))
    for name in failed:
        print(f"! {name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
