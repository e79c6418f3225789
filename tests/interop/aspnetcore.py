"""The reference gateway on the real ASP.NET Core: where it is, and how it is started and ended.

Found by the environment variable TOPSTEP_ASPNETCORE, else as ``shared/aspnetcore`` beside the project.
"""

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60.0


def folder() -> Path | None:
    """The folder of the reference gateway; None when this machine has none."""
    named = os.environ.get("TOPSTEP_ASPNETCORE")
    above = Path(__file__).resolve().parents
    places = [Path(named)] if named else [parent / "shared" / "aspnetcore" for parent in above[2:5]]
    return next((place for place in places if (place / "start").is_file()), None)


# Read at import: the tests themselves run without any TOPSTEP_* variable.
FOLDER = folder()
needed = pytest.mark.skipif(FOLDER is None, reason="no reference gateway: set TOPSTEP_ASPNETCORE to its folder")


@contextlib.contextmanager
def reference(**switches: Any) -> Iterator[dict[str, Any]]:
    """A running reference gateway: what it said when it was ready (`url`, `user_name`, `api_key`, `pid`)."""
    assert FOLDER is not None
    options = [text for name, value in switches.items() for text in (f"--{name}", str(value))]
    command = [str(FOLDER / "start"), "gateway", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    overdue = threading.Timer(PATIENCE, process.kill)
    overdue.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        overdue.cancel()
        assert line, "the reference gateway did not start"
        yield json.loads(line)
    finally:
        overdue.cancel()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        if process.stdout:
            process.stdout.close()
