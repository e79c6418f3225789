"""Many connections and many events: nothing grows, nothing is lost. The simulator runs in a process of its own."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.hub_wire import opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Gateway:
    """A simulator in another process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        self.pid = process.pid
        self.url = json.loads(process.stdout.readline())["url"]

    def control(self, method: str, path: str) -> Any:
        answer = requests.request(method, f"{self.url}/control{path}", timeout=200)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    @property
    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    command = [sys.executable, "-m", "topstep_sync.simulator", "--json", *getattr(request, "param", ())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield Gateway(process)
        process.terminate()


@pytest.mark.parametrize("other", [("--keep-alive", "2")], indirect=True)
def test_a_thousand_idle_connections(other: Gateway) -> None:
    """A thousand connections stand, each gets its pings, and the gateway goes on answering at once."""
    before = other.memory
    wires = [opened(f"{other.url}/hubs/echo") for _ in range(1000)]
    try:
        assert 1000 == len(other.control("GET", "/hubs")["open"])
        for wire in wires:
            assert {"type": 6} == wire.record()
        start = time.monotonic()
        assert 1000 == other.control("POST", "/hubs/echo/drop?how=abort")["dropped"]
        assert time.monotonic() - start < 5
        for wire in wires:
            assert {"type": 7} == wire.record_of(7)
    finally:
        for wire in wires:
            wire.close()
    assert other.memory - before < 60_000_000


@pytest.mark.parametrize("millions", [1, pytest.param(10, marks=pytest.mark.nightly)], ids=["1 million", "10 million"])
def test_memory_is_steady_under_a_flood(other: Gateway, millions: int) -> None:
    """After the first hundred thousand events memory does not grow any more."""
    with opened(f"{other.url}/hubs/echo") as wire:
        wire.sock.settimeout(30)
        seen = []
        for count in (100_000, millions * 1_000_000):
            reader = threading.Thread(target=wire.swallow, args=(count,))
            reader.start()
            assert count == other.control("POST", f"/hubs/echo/blast?count={count}&burst=20")["sent"]
            reader.join(60)
            seen.append(other.memory)
    assert seen[1] - seen[0] < 10_000_000


def test_a_client_that_does_not_read_is_given_up(other: Gateway) -> None:
    """Events for a client that never reads pile up to a limit, then it is cut; others are not touched."""
    idle, working = opened(f"{other.url}/hubs/echo"), opened(f"{other.url}/hubs/echo")
    with idle, working:
        for _ in range(20):
            idle.invoke("Flood", 1000, 10_000, id_=None)
        deadline = time.monotonic() + 60
        while len(other.control("GET", "/hubs")["open"]) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert 3 == working.result("Add", 1, 2)["result"]
    assert other.memory < 400_000_000
