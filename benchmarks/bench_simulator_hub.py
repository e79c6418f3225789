"""How many hub events a second the simulator gives to one connection, at 1 and at 20 records a message.

Each gateway runs in a process of its own; the client here only counts record ends in what it reads, so that it is not
what is measured. Both gateways are asked for the same blast of 275-byte quotes over their control API. The reference
gateway (the real ASP.NET Core) takes part where TOPSTEP_ASPNETCORE, or shared/aspnetcore beside the project, has it.
"""

import base64
import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection, socket
from typing import Any

from benchmarks._measure import Timed, compare, options, report

SIZE = 275
FLOOR = 700_000  # events a second that the client's own benchmarks need
HANDSHAKE = b'{"protocol":"json","version":1}\x1e'


def reference() -> list[str] | None:
    """The command that starts the reference gateway; None where it is missing."""
    named = os.environ.get("TOPSTEP_ASPNETCORE")
    places = [Path(named)] if named else [p / "shared" / "aspnetcore" for p in Path(__file__).resolve().parents[1:4]]
    found = next((place / "start" for place in places if (place / "start").is_file()), None)
    return [str(found), "gateway", "--port", "0"] if found else None


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[tuple[str, int]]:
    """The base URL and process of a gateway that runs while the block does."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.terminate()


def cpu_of(pid: int) -> float:
    """Seconds of CPU the process has used; 0 where there is no /proc to tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def post(url: str) -> Any:
    request = urllib.request.Request(url, data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read() or b"null")


def connect(url: str) -> socket:
    """A connection to the echo hub, which needs no token, with its handshake done."""
    parts = urllib.parse.urlsplit(url)
    sock = create_connection((parts.hostname or "", parts.port or 0), timeout=60)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /hubs/echo HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    sock.recv(4096)
    sock.sendall(bytes([0x81, 0x80 | len(HANDSHAKE), 0, 0, 0, 0]) + HANDSHAKE)
    while b"{}\x1e" not in sock.recv(4096):
        pass
    return sock


def receive(sock: socket, count: int) -> float:
    """Seconds from the first byte until *count* records have ended."""
    start, seen, brace = 0.0, 0, False
    while seen < count:
        data = sock.recv(1 << 20)
        start = start or time.perf_counter()
        if not data:
            raise ConnectionError(f"the gateway left after {seen} of {count} records")
        # With the brace before it, for a frame's head may hold the same byte: 286 is 0x011E.
        seen += data.count(b"}\x1e") + (brace and data.startswith(b"\x1e"))
        brace = data.endswith(b"}")
    return time.perf_counter() - start


def blast(url: str, sock: socket, count: int, burst: int) -> Timed:
    """One blast, as the client sees it."""
    path = f"{url}/control/hubs/echo/blast?count={count}&burst={burst}&size={SIZE}"
    asking = threading.Thread(target=post, args=(path,))
    asking.start()
    wall = receive(sock, count)
    asking.join()
    return Timed(wall)


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    count = asked.pick(quick=100_000, full=400_000)
    theirs = reference()
    with contextlib.ExitStack() as stack:
        ours, pid = stack.enter_context(running([sys.executable, "-m", "topstep_sync.simulator", "--json"]))
        urls = {"topstep_sync.simulator": ours}
        if theirs:
            urls["ASP.NET Core"], _ = stack.enter_context(running(theirs))
        socks = {name: stack.enter_context(connect(url)) for name, url in urls.items()}
        rounds = asked.pick(quick=3, full=7)
        for burst in (1, 20):
            before = cpu_of(pid)
            race = compare(
                {name: functools.partial(blast, url, socks[name], count, burst) for name, url in urls.items()},
                rounds=rounds,
                work=count,
            )
            rate = round(1 / race["topstep_sync.simulator"].median)
            cpu = (cpu_of(pid) - before) / (count * (rounds + 1))
            print(f"\n{rate:,} events a second at {burst} a message; needed: {FLOOR:,}{'' if rate >= FLOOR else '  !'}")
            print(f"the simulator's own CPU: {1e9 * cpu:.0f} ns an event")
            name = f"simulator.hub.{burst}"
            report(name, race, ours="topstep_sync.simulator", unit="event", rate=rate, floor=FLOOR, gateway_cpu=cpu)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
