"""What holds for every test: no settings from outside, loopback only, no thread left behind."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# One profile for every run, one for nights; `HYPOTHESIS_PROFILE=nightly` picks. No deadline: the machine may be busy.
settings.register_profile(
    "ci", max_examples=100, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", parent=settings.get_profile("ci"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")

# The test that left threads behind.
_leaks: list[str] = []

# A shell starts background jobs with Ctrl-C ignored, and so would we and every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads of the library that may still be on their way out when a test ends have this long, in real seconds.
GRACE = 5.0


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The TOPSTEP_* variables and proxies of whoever runs the tests do not reach them."""
    for name in list(os.environ):
        if name.startswith("TOPSTEP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine fails, and says so."""

    def guarded(method: Any) -> Any:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
                raise RuntimeError(f"a test tried to connect to {address!r}; only loopback is allowed")
            return method(self, address)

        return call

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


@pytest.fixture(autouse=True)
def _signals_restored() -> Iterator[None]:
    """A test that runs a program within its own process leaves Ctrl-C as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_thread_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every thread of the library that a test started has ended with it.

    Set up before the test's own fixtures and torn down after them; threads of wider fixtures are there before.
    """
    before = set(threading.enumerate())
    yield
    if _leaks:
        return  # a thread that stayed goes on starting others, which are no fault of this test
    left = [t for t in threading.enumerate() if t.name.startswith("topstep-") and t not in before]
    end = time.monotonic() + GRACE
    while alive := sorted(thread.name for thread in left if thread in threading.enumerate()):
        if time.monotonic() > end:
            _leaks.append(request.node.nodeid)
            raise AssertionError(f"{request.node.nodeid} left threads behind: {alive}; later tests are not looked at")
        time.sleep(0.002)
