"""What `import topstep_sync` costs against `import requests`, which it needs anyway.

Each sample is a fresh interpreter that times the import itself, so start-up of the interpreter is left out.
"""

import functools
import subprocess
import sys

from benchmarks._measure import Timed, compare, options, report

CODE = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def importing(module: str) -> Timed:
    """Seconds of ``import module`` in a new interpreter."""
    code = CODE.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Timed(*map(float, done.stdout.split()))


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    race = compare(
        {name: functools.partial(importing, name) for name in ("topstep_sync", "requests", "urllib3")},
        rounds=asked.pick(quick=5, full=21),
    )
    # 1 / 1.3: the library may take at most 30 % longer than requests alone.
    report("import", race, ours="topstep_sync", unit="import", bound={"requests": 1 / 1.3})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
