"""The command line: what a newcomer types first."""

import os
import pty
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

import topstep_sync
from topstep_sync.cli import commands

COMMAND = [sys.executable, "-m", "topstep_sync"]


def test_version_is_the_package_s():
    """`--version` prints what the package says."""
    result = CliRunner().invoke(commands, ["--version"])

    assert 0 == result.exit_code
    assert topstep_sync.__version__ in result.output


def test_help_names_every_command():
    """The help lists the commands, each with a line about it."""
    result = CliRunner().invoke(commands, ["--help"])

    assert 0 == result.exit_code
    for command in ("demo", "simulator"):
        assert command in result.output


@pytest.mark.parametrize("missing", ["click", "rich", "uvicorn"])
def test_missing_extra_is_named(missing):
    """Without the extra there is one line that says what to install, and no traceback."""
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['demo']; "
    code += "from topstep_sync.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert 1 == done.returncode
    assert "pip install 'topstep-sync[" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_does_the_main_job():
    """The plain demo trades, survives both accidents, and everything it promised held."""
    done = subprocess.run(
        [*COMMAND, "demo", "--plain", "--seconds", "4"], capture_output=True, text=True, timeout=90, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "" == done.stderr
    for line in ("accident 1", "accident 2", "3 / 3", "hub connections lost and recovered: 2", "1 / 1", "logins: 1"):
        assert line in done.stdout


@pytest.mark.slow
def test_demo_shows_itself_in_a_terminal():
    """On a terminal the demo is a live display with the same ending."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "50"}
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "3"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other side of a terminal is closed
        pass
    finally:
        os.close(ours)

    assert 0 == demo.wait(timeout=60)
    for word in (b"account", b"order", b"events/s", b"lag", b"What the gateway says happened"):
        assert word in shown


@pytest.mark.slow
def test_demo_ends_cleanly_on_ctrl_c():
    """Ctrl-C ends the demo with a line and code 130, without a traceback."""
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--plain", "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "fill" in line:
            break
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=20)

    assert 130 == demo.returncode
    assert "stopped" in out
    assert "Traceback" not in err
