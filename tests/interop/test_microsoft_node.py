"""Microsoft's SignalR client for JavaScript, in Node, against the simulator. Its cases: `microsoft_client.mjs`."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop

SCRIPT = Path(__file__).parent / "microsoft_client.mjs"
CASES = re.findall(r"^  async (\w+)\(\) \{$", SCRIPT.read_text(), re.MULTILINE)
MODULES = Path(tempfile.gettempdir()) / "topstep-interop-node"


@pytest.fixture(scope="session")
def node() -> dict[str, str]:
    """The environment in which Node finds @microsoft/signalr; installed once a machine."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    if not (MODULES / "node_modules" / "@microsoft" / "signalr").is_dir():
        MODULES.mkdir(exist_ok=True)
        (MODULES / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "@microsoft/signalr"]
        done = subprocess.run(command, cwd=MODULES, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install @microsoft/signalr: {done.stderr[-300:]}")
    return {**os.environ, "TOPSTEP_NODE": str(MODULES)}


@pytest.mark.parametrize("case", CASES)
def test_case(gateway: Any, node: dict[str, str], case: str) -> None:
    """The client does in this case what its documentation says it does with the real server."""
    token = gateway.run(lambda world: world.tokens.issue())
    command = ["node", str(SCRIPT), case, gateway.url, token]
    done = subprocess.run(command, env=node, capture_output=True, text=True, timeout=60, check=False)
    assert (0, f"ok {case}") == (done.returncode, done.stdout.strip()), done.stderr[-3000:]


def test_the_cases_are_found() -> None:
    """No case is left out because it was not recognised."""
    assert 12 == len(CASES)
