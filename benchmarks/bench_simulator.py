"""How many simple POSTs a simulator in its own process answers, against bare uvicorn and the real ASP.NET Core.

Two figures per server: wall time per POST with a few connections that always have a call outstanding, and the server's
own CPU time per POST, which is what one core allows (the load generator shares the machine). Expected: at least 3 000
POSTs per second of one core.
"""

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks._measure import Contestant, Timed, compare, installed, options, report

CONNECTIONS = 8
EXPECTED = 3000.0
BODY = b'{"accountId":536}'
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

BARE = """
import uvicorn
async def app(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    body = b'{"orders":[],"success":true,"errorCode":0,"errorMessage":null}'
    await send({"type": "http.response.body", "body": body})
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
sock.bind(("127.0.0.1", 0))
sock.listen()
print('{"url": "http://127.0.0.1:%d"}' % sock.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, http="httptools", ws="none", log_config=None, access_log=False)).run([sock])
"""


class Load:
    """A server process, and the connections that keep it busy."""

    def __init__(self, command: list[str], *, login: bool) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.pid = self.process.pid
        token = self._login() if login else "none"
        self.request = (
            f"POST /api/Order/searchOpen HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
        host, port = self.url.removeprefix("http://").split(":")
        self.sockets = [socket.create_connection((host, int(port)), 10) for _ in range(CONNECTIONS)]
        for sock in self.sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _login(self) -> str:
        body = b'{"userName":"trader","apiKey":"key-123"}'
        asked = urllib.request.Request(f"{self.url}/api/Auth/loginKey", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as reply:
            return str(json.load(reply)["token"])

    def cpu(self) -> float:
        """Seconds of CPU that the server has used; 0.0 where the system does not say."""
        stat = Path(f"/proc/{self.pid}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def run(self, count: int) -> Timed:
        """Seconds of *count* POSTs, each connection with one outstanding."""
        selector = selectors.DefaultSelector()
        cpu, start = self.cpu(), time.perf_counter()
        left = count - len(self.sockets)
        for sock in self.sockets:
            selector.register(sock, selectors.EVENT_READ, bytearray())
            sock.sendall(self.request)
        busy = len(self.sockets)
        while busy:
            for key, _ in selector.select(10):
                key.data.extend(key.fileobj.recv(65536))  # type: ignore[union-attr]
                if not key.data.endswith(b"0\r\n\r\n"):
                    continue
                assert key.data.startswith(b"HTTP/1.1 200"), bytes(key.data[:200])
                key.data.clear()
                if left > 0:
                    left -= 1
                    key.fileobj.sendall(self.request)  # type: ignore[union-attr]
                else:
                    busy -= 1
        selector.close()
        return Timed(time.perf_counter() - start, self.cpu() - cpu)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Load | None]]:
    """Every server that this machine can run."""
    root = Path(__file__).resolve().parents[1]
    simulator = [sys.executable, "-m", "topstep_sync.simulator", "--json", "--limiter", "none"]
    places = [root.parent / "shared" / "aspnetcore", root.parents[1] / "shared" / "aspnetcore"]
    named = os.environ.get("TOPSTEP_ASPNETCORE")
    start = next((p / "start" for p in ([Path(named)] if named else places) if (p / "start").is_file()), Path("none"))
    reference = [str(start), "gateway", "--port", "0", "--limiter", "none"]
    with contextlib.ExitStack() as stack:

        def load(command: list[str], *, login: bool) -> Load:
            return stack.enter_context(contextlib.closing(Load(command, login=login)))

        yield {
            "simulator": load(simulator, login=True),
            "bare uvicorn": load([sys.executable, "-c", BARE], login=False) if installed("uvicorn") else None,
            "ASP.NET Core": load(reference, login=True) if start.is_file() else None,
        }


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    count = asked.pick(quick=1000, full=3000)
    with servers() as loads:
        contestants: dict[str, Contestant | None] = {
            name: (lambda load=load: load.run(count)) if load else None  # type: ignore[misc]
            for name, load in loads.items()
        }
        race = compare(contestants, rounds=asked.pick(quick=5, full=9), work=count)
    ours = race["simulator"]
    per_core = 1 / ours.cpu_median if ours.cpu_median else 1 / ours.median
    print(
        f"  simulator: {1 / ours.median:,.0f} POST/s; {per_core:,.0f} per second of one core (expected {EXPECTED:,.0f})"
    )
    report("simulator.post", race, ours="simulator", unit="POST", per_core=round(per_core), expected=EXPECTED)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
