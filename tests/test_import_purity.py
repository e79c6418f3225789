"""Importing the library does nothing but import: no file is written, no socket, thread or process is started."""

import subprocess
import sys

import pytest

EXTRAS = (
    "IPython", "click", "keyring", "opentelemetry", "pandas", "pytest", "redis", "rich", "signalrcore", "starlette",
    "tqdm", "uvicorn", "websockets",
)  # fmt: skip

# requests is imported first: urllib3 opens a socket on import, to learn whether the machine speaks IPv6.
WATCH = """
import requests
import os, sys, threading
deeds = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        deeds.append(f"{event} {arguments[0]}")
    elif event in ("socket.__new__", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.mkdir"):
        deeds.append(f"{event} {arguments}")
sys.addaudithook(watch)
start = threading.Thread.start
threading.Thread.start = lambda thread: (deeds.append("thread"), start(thread))[1]
"""

REPORT = """
assert [] == deeds, deeds
assert [threading.main_thread()] == threading.enumerate()
"""

BLOCK = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""

DOOR = """
import topstep_sync
for name in topstep_sync.__all__:
    getattr(topstep_sync, name)
"""


def run(code: str) -> None:
    """*code* ends without an error in a fresh interpreter that writes no bytecode."""
    done = subprocess.run([sys.executable, "-B", "-W", "error", "-c", code], capture_output=True, text=True)
    assert (0, "") == (done.returncode, done.stderr)


def test_the_watcher_sees_deeds() -> None:
    """The check below would notice a file that is written, a socket and a thread."""
    run(
        WATCH
        + "import socket, tempfile; socket.socket().close(); tempfile.TemporaryFile().close();"
        + "threading.Thread(target=print, args=('',)).start()\n"
        + "assert {'open', 'socket.__new__', 'thread'} <= {deed.partition(' ')[0] for deed in deeds}, deeds\n"
    )


@pytest.mark.parametrize("code", ["import topstep_sync\n", DOOR, "import topstep_sync.testing\n"])
def test_importing_only_imports(code: str) -> None:
    """Neither the import, nor using every public name, nor the pytest plugin writes, connects or starts anything."""
    run(WATCH + code + REPORT)


@pytest.mark.parametrize("code", ["import topstep_sync\n", DOOR])
def test_optional_parts_are_not_imported(code: str) -> None:
    """The public names come without any optional extra, and without an event loop."""
    run(code + f"import sys; assert set() == {{'asyncio', *{EXTRAS!r}}} & set(sys.modules)\n")


def test_it_works_without_any_extra() -> None:
    """With no extra installed, every public name is there."""
    run(BLOCK + DOOR)


def test_the_door_is_light() -> None:
    """`import topstep_sync` alone does not even load requests."""
    run("import topstep_sync, sys; assert 'requests' not in sys.modules\n")
