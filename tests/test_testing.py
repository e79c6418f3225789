"""`topstep_sync.testing`: the fixture and the class that users' own tests get."""

import subprocess
import sys

import pytest

import topstep_sync.testing
from topstep_sync.testing import Gateway

INNER = """
import pytest

def test_still(gateway):
    assert gateway.settings.market_rate == 0.0
    assert gateway.requests == []

@pytest.mark.gateway(market_rate=20, limiter="fixed")
def test_marked(gateway):
    assert (gateway.settings.market_rate, gateway.settings.limiter) == (20, "fixed")
"""


@pytest.mark.slow
def test_the_fixture_works_in_anybodys_tests(tmp_path) -> None:
    """In a project of its own the plugin gives the fixture and knows its mark, also with strict markers."""
    (tmp_path / "test_inner.py").write_text(INNER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_loads_nothing_heavy() -> None:
    """A pytest run that does not use the fixture does not pay for the server."""
    code = "import sys, topstep_sync.testing; print([m for m in ('uvicorn', 'starlette') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "[]" == done.stdout.strip()


def test_without_the_extra_the_error_names_it() -> None:
    """Where uvicorn is missing, `Gateway` says what to install; the module itself still loads."""
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "import topstep_sync.testing as t\n"
        "try: t.Gateway\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ConfigError the simulator needs its extra")
    assert "topstep-sync[simulator]" in done.stdout


def test_the_class_is_one_and_named() -> None:
    """Every look at the name gives the same class, and other names are refused."""
    assert Gateway is topstep_sync.testing.Gateway
    assert ("Gateway", "topstep_sync.testing") == (Gateway.__name__, Gateway.__module__)
    with pytest.raises(AttributeError, match="nope"):
        _ = topstep_sync.testing.nope
