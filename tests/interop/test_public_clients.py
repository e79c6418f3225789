"""Public Python clients of this API, unchanged but for the URLs: login, contracts, bars, order, cancel, stream."""

import subprocess
from pathlib import Path
from typing import Any

import outsiders
import pytest

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

HERE = Path(__file__).parent
MNQ = "CON.F.US.MNQ.Z26"
EXPECTED = {
    "accounts 536 704",
    f"contracts {MNQ}",
    "bars True True",
    "order True",
    "cancelled True",
    "stream True True",
}


@pytest.mark.gateway(market_rate=50.0)
@pytest.mark.parametrize(
    ("package", "minimum", "script"),
    [
        ("topstep-client-py", (3, 11), "client_topstep.py"),
        ("projectx-sdk", (3, 11), "client_projectx_sdk.py"),
        ("project-x-py", (3, 12), "client_project_x.py"),
    ],
)
def test_client(gateway: Any, package: str, minimum: tuple[int, int], script: str) -> None:
    """The client's whole round works, and the gateway saw its order come and go."""
    python = outsiders.python_with(package, minimum)
    command = [python, str(HERE / script), gateway.url, gateway.user_name, gateway.api_key, MNQ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert EXPECTED <= set(done.stdout.splitlines()), f"{done.stdout}\n{done.stderr[-3000:]}"
    assert 0 == done.returncode
    assert [3] == [order.status for order in gateway.executed_orders]
