"""What the import costs against `import requests`, which is needed anyway.

`import topstep_sync` loads nothing yet; `from topstep_sync import Session` loads the rooms of the REST side.
Each sample is a fresh interpreter that times the import itself, so the interpreter's own start is left out.
"""

import functools
import subprocess
import sys

from benchmarks._measure import Timed, compare, options, report

OURS = "import topstep_sync"
SESSION = "from topstep_sync import Session"

CODE = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def importing(statement: str) -> Timed:
    """Seconds of an import in a new interpreter."""
    code = CODE.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Timed(*map(float, done.stdout.split()))


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    race = compare(
        {statement: functools.partial(importing, statement) for statement in (OURS, SESSION, "import requests")},
        rounds=asked.pick(quick=5, full=21),
    )
    # 1 / 1.3: the library may take at most 30 % longer than requests alone.
    report("import", race, ours=OURS, unit="import", bound={"import requests": 1 / 1.3})
    report("import.session", race, ours=SESSION, unit="import")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
