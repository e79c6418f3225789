"""Python packages of others, each in a virtual environment of its own, made once a machine."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HOME = Path(tempfile.gettempdir()) / "topstep-interop-python"


def interpreter(minimum: tuple[int, int]) -> str:
    """A Python of at least that version; the test is skipped where there is none."""
    if sys.version_info >= minimum:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(minimum[1], minimum[1] + 4)]
    homes = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    for candidate in [*filter(None, map(shutil.which, names)), *map(str, homes)]:
        code = "import sys; print(sys.version_info[0], sys.version_info[1])"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False, timeout=20)
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= minimum:
            return candidate
    pytest.skip(f"no Python {minimum[0]}.{minimum[1]} on this machine")


@functools.cache
def python_with(package: str, minimum: tuple[int, int] = (3, 11)) -> str:
    """The interpreter of an environment that has *package*; the test is skipped where it cannot be installed."""
    home = HOME / package
    python = home / "bin" / "python"
    mark = home / "ready"
    if not mark.exists():
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for command in (
            [interpreter(minimum), "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=clean)
            if done.returncode:
                pytest.skip(f"{package} could not be installed: {done.stderr.strip()[-300:]}")
        mark.touch()
    return str(python)
