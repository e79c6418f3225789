"""Market events to a consumer: quotes of 275 bytes, as fast as the reference gateway sends them, and paced.

Server: the ASP.NET Core gateway (TOPSTEP_ASPNETCORE, or beside the project). Every client connects to the market hub,
is blasted with the same quotes, and hands each to a consumer in the main thread through a queue; what is timed runs
from the first event to the last. Ours gives typed events, the others dictionaries. Peers: signalrcore, pysignalr,
websockets.sync with orjson, aiohttp with orjson (no queue: the untyped limit), the official .NET client (its own
process). The claims are checked: 4.2 times signalrcore at one record a frame, 6.0 at twenty with `drain`.
"""

import asyncio
import contextlib
import functools
import json
import os
import queue
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._measure import Options, Timed, compare, installed, options, report
from topstep_sync.config import Config, StreamConfig
from topstep_sync.realtime.stream import Stream
from topstep_sync.redact import Secret
from topstep_sync.session import Session

CONTRACT = "CON.F.US.MNQ.Z26"
SEPARATOR = "\x1e"
CERTIFICATE = Path(tempfile.gettempdir()) / "topstep-bench.pem"


def home() -> Path:
    """The folder of the reference gateway."""
    named = os.environ.get("TOPSTEP_ASPNETCORE")
    places = [Path(named)] if named else [above / "shared" / "aspnetcore" for above in Path(__file__).parents]
    return next((place for place in places if (place / "start").is_file()), places[0])


class Reference:
    """The reference gateway, running."""

    def __init__(self, *arguments: str) -> None:
        command = [home() / "start", "gateway", "--port", "0", "--limiter", "none", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.url: str = told["url"]
        self.tls_url: str | None = told["tls_url"]
        login = {"userName": told["user_name"], "apiKey": told["api_key"]}
        self.token: str = self.post("/api/Auth/loginKey", login)["token"]

    def hub(self, tls: bool = False) -> str:
        return f"{self.tls_url if tls else self.url}/hubs/market"

    def socket(self) -> str:
        return f"{self.hub().replace('http', 'ws', 1)}?access_token={self.token}"

    def post(self, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else b""
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            answer = reply.read()
        return json.loads(answer) if answer else None

    def blast(self, count: int, burst: int, rate: float = 0) -> threading.Thread:
        path = f"/control/hubs/market/blast?count={count}&burst={burst}&size=275&rate={rate}"
        thread = threading.Thread(target=self.post, args=(path,), daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Stopwatch:
    """From the first event to the last."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def first(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> Timed:
        return Timed(time.perf_counter() - self.wall, time.process_time() - self.cpu)


def consumed(get: Callable[[], Any], count: int, start: Callable[[], None]) -> Timed:
    """Take *count* events one by one."""
    watch = Stopwatch()
    start()
    get()
    watch.first()
    for _ in range(count - 1):
        get()
    return watch.read()


def ours(server: Reference, count: int, burst: int, *, draining: bool = False, tls: bool = False) -> Timed:
    config = Config(user_hub_url=f"{server.url}/hubs/user", market_hub_url=server.hub(tls))
    tls_context = ssl.create_default_context(cafile=str(CERTIFICATE)) if tls else None
    with Stream(config, lambda: server.token, tls=tls_context) as stream:
        events = stream.subscribe(quotes=[CONTRACT], conflate=False)
        events.wait_for(lambda event: event.kind == "quote", 5)
        events.drain()
        if not draining:
            return consumed(events.get, count, lambda: server.blast(count, burst))
        watch, taken = Stopwatch(), 0
        server.blast(count, burst)
        while taken < count:
            batch = events.drain(timeout=5)
            if not taken:
                watch.first()
            taken += len(batch)
        return watch.read()


def signalrcore(server: Reference, count: int, burst: int, *, tls: bool = False) -> Timed:
    from signalrcore.hub_connection_builder import HubConnectionBuilder

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    opened = threading.Event()
    options = {"access_token_factory": lambda: server.token, "skip_negotiation": True, "verify_ssl": False}
    hub = HubConnectionBuilder().with_url(server.hub(tls), options=options).build()
    hub.on_open(opened.set)
    hub.on("GatewayQuote", waiting.put)
    hub.start()
    opened.wait(5)
    try:
        return consumed(waiting.get, count, lambda: server.blast(count, burst))
    finally:
        hub.stop()


def pysignalr(server: Reference, count: int, burst: int) -> Timed:
    from pysignalr.client import SignalRClient

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    opened = threading.Event()

    async def take(arguments: Any) -> None:
        waiting.put(arguments)

    async def ready() -> None:
        opened.set()

    async def run() -> None:
        client = SignalRClient(server.socket(), headers={"Authorization": f"Bearer {server.token}"})
        client.on("GatewayQuote", take)
        client.on_open(ready)
        await client.run()

    with looping(run()):
        opened.wait(10)
        return consumed(waiting.get, count, lambda: server.blast(count, burst))


def websockets_orjson(server: Reference, count: int, burst: int) -> Timed:
    import orjson
    from websockets.sync.client import connect

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with connect(server.socket(), max_size=None, compression=None, ping_interval=None) as socket:
        socket.send('{"protocol":"json","version":1}' + SEPARATOR)
        socket.recv()

        def read() -> None:
            seen = 0
            while seen < count:
                for record in socket.recv(decode=False).split(b"\x1e")[:-1]:
                    decoded = orjson.loads(record)
                    if decoded.get("target"):
                        seen += 1
                        waiting.put(decoded["arguments"])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        return consumed(waiting.get, count, lambda: server.blast(count, burst))


def aiohttp_orjson(server: Reference, count: int, burst: int) -> Timed:
    """No queue and no second thread: what an event loop that does nothing else can decode."""
    import aiohttp
    import orjson

    async def run() -> Timed:
        async with aiohttp.ClientSession() as session, session.ws_connect(server.socket(), max_msg_size=0) as socket:
            await socket.send_str('{"protocol":"json","version":1}' + SEPARATOR)
            await socket.receive()
            server.blast(count, burst)
            watch, seen = Stopwatch(), 0
            while seen < count:
                for record in (await socket.receive()).data.encode().split(b"\x1e")[:-1]:
                    if orjson.loads(record).get("target"):
                        if not seen:
                            watch.first()
                        seen += 1
            return watch.read()

    return asyncio.run(run())


def dotnet(server: Reference, count: int, burst: int) -> Timed:
    """The official .NET client, in a process of its own; its CPU is not seen here."""
    command = [home() / "start", "probe", server.hub(), server.token]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        assert probe.stdin is not None
        assert probe.stdout is not None

        def ask(**order: Any) -> Any:
            probe.stdin.write(json.dumps(order) + "\n")  # type: ignore[union-attr]
            probe.stdin.flush()  # type: ignore[union-attr]
            return json.loads(probe.stdout.readline())  # type: ignore[union-attr]

        ask(do="count", target="GatewayQuote")
        ask(do="start")
        server.blast(count, burst)
        while True:
            time.sleep(0.05)
            counts = ask(do="counts")["counts"].get("GatewayQuote", {"Count": 0})
            if counts["Count"] >= count:
                break
        ask(do="stop")
        probe.stdin.write('{"do":"quit"}\n')
        probe.stdin.close()
    return Timed(counts["Seconds"])


@contextlib.contextmanager
def looping(work: Any) -> Iterator[None]:
    """*work* runs on an event loop in another thread."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        time.sleep(0.1)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(2)


@contextlib.contextmanager
def paced_hub() -> Iterator[str]:
    """The address of a hub that sends stamped quotes at 1 000 a second."""
    command = [sys.executable, "-m", "benchmarks._paced_hub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/hub"
        finally:
            process.terminate()


def delays_ours(url: str, count: int) -> list[float]:
    """Seconds from the sending of each of *count* quotes to the consumer."""
    with (
        Stream(Config(market_hub_url=url), None) as stream,
        stream.subscribe(quotes=[CONTRACT], conflate=False) as events,
    ):
        taken = []
        while len(taken) < count:
            event = events.get(timeout=10)
            if event.kind == "quote":
                taken.append(time.monotonic() - event.data.change)
    return taken


def delays_signalrcore(url: str, count: int) -> list[float]:
    from signalrcore.hub_connection_builder import HubConnectionBuilder

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    hub = HubConnectionBuilder().with_url(url, options={"skip_negotiation": True}).build()
    hub.on("GatewayQuote", waiting.put)
    hub.start()
    try:
        return [-waiting.get(timeout=10)[1]["change"] + time.monotonic() for _ in range(count)]
    finally:
        hub.stop()


def latency(asked: Options) -> None:
    """Delay at 1 000 quotes a second."""
    count, rounds = asked.pick(quick=500, full=1000), asked.pick(quick=1, full=21)
    contestants: dict[str, Callable[[str, int], list[float]]] = {"topstep_sync": delays_ours}
    if installed("signalrcore"):
        contestants["signalrcore"] = delays_signalrcore
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    with paced_hub() as url:
        for _ in range(rounds):
            for name, measure in contestants.items():
                ordered = sorted(measure(url, count))
                found[name].append((ordered[count // 2], ordered[int(count * 0.99)]))
    line: dict[str, Any] = {"bench": "stream.paced1000", "unit": "event", "n": rounds, "missed": []}
    for place, (name, most) in enumerate((("p50", 0.8), ("p99", 0.9))):
        line[name] = {who: statistics.median(pair[place] for pair in pairs) for who, pairs in found.items()}
        if "signalrcore" in found:
            pairs = zip(found["topstep_sync"], found["signalrcore"], strict=True)
            ratio = line[f"{name}_ratio"] = round(statistics.median(a[place] / b[place] for a, b in pairs), 3)
            print(f"{'  !' if ratio > most else '   '} {name} is {ratio} of signalrcore's; expected at most {most}")
            if ratio > most:
                line["missed"].append(name)
        print(f"  {name} at 1 000/s: {', '.join(f'{who} {value * 1e6:.0f} µs' for who, value in line[name].items())}")
    print(json.dumps({**line, "median": line["p50"]}))


def memory(server: Reference, asked: Options) -> None:
    """Growth of this process while a consumer does not take a single quote."""
    import psutil

    count, process = asked.pick(quick=200_000, full=10_000_000), psutil.Process()
    config = Config(user_hub_url=f"{server.url}/hubs/user", market_hub_url=server.hub())
    with Stream(config, lambda: server.token) as stream, stream.subscribe(quotes=[CONTRACT]) as events:
        server.blast(20_000, 20).join()
        before = process.memory_info().rss
        server.blast(count, 20).join()
        grown = process.memory_info().rss - before
        left = len(events)
    print(f"  {count:,} quotes nobody took: {grown / 1e6:.1f} MB, {left} events wait")
    found = {"grown_mb": round(grown / 1e6, 2), "waiting": left, "missed": ["grown_mb"] if grown > 8e6 else []}
    if found["missed"]:
        print("  ! expected at most 8 MB")
    print(json.dumps({"bench": "stream.stalled", "unit": "MB", "n": count, "median": found, **found}))


def recovery(server: Reference, asked: Options) -> None:
    """From a drop to Reconnected: a new connection, its subscriptions, a snapshot over REST."""
    config = Config(
        user_name="trader", api_key=Secret("key-123"), base_url=server.url,
        user_hub_url=f"{server.url}/hubs/user", market_hub_url=server.hub(),
        stream=StreamConfig(backoff_seconds=(0.0,)),  # or the third drop within seconds would wait for 10 s
    )  # fmt: skip
    taken = []
    with Session(config=config) as session, session.subscribe(accounts=[536]) as events:
        for _ in range(asked.pick(quick=3, full=20)):
            events.drain()
            server.post("/control/hubs/user/drop?how=fin")
            lost = events.wait_for(lambda event: event.kind == "connection", 10)
            back = events.wait_for(lambda event: event.kind == "reconnected", 10)
            taken.append(back.received_at - lost.received_at)
        state = min(timeit.repeat(lambda: session.state, number=100_000, repeat=3)) / 100_000
    median = statistics.median(taken)
    print(f"  drop to reconciled: {median * 1e3:.1f} ms; reading the state: {state * 1e9:.0f} ns")
    found, most = {"median": median, "state_read": state}, {"median": 0.05, "state_read": 1e-6}
    missed = [name for name, seconds in found.items() if seconds > most[name]]
    for name in missed:
        print(f"  ! {name}: more than {most[name] * 1e6:g} µs")
    print(json.dumps({"bench": "stream.recovery", "n": len(taken), **found, "missed": missed}))


def main(argv: list[str] | None = None) -> int:
    asked = options(argv, __doc__)
    latency(asked)
    if not (home() / "start").exists():
        print("stream: no reference gateway (set TOPSTEP_ASPNETCORE); the rest is skipped")
        return 0
    count, rounds = asked.pick(quick=20_000, full=100_000), asked.pick(quick=1, full=9)
    server = Reference("--tls", "true", "--certificate", str(CERTIFICATE))
    try:
        for burst, bound in ((1, {"signalrcore": 4.2, ".NET": 3.5}), (20, {"signalrcore": 6.0, ".NET": 3.5})):
            race = compare(blasted(server, count, burst), rounds=rounds, work=count, warmup=0)
            name = "topstep_sync" if burst == 1 else "topstep_sync drain"
            report(f"stream.blast{burst}", race, ours=name, unit="event", bound=bound)
        race = compare(blasted(server, count, 1, tls=True), rounds=rounds, work=count, warmup=0)
        report("stream.blast1.tls", race, ours="topstep_sync", unit="event", bound={"signalrcore": 3.2})
        recovery(server, asked)
        memory(server, asked)
    finally:
        server.stop()
    return 0


def blasted(server: Reference, count: int, burst: int, *, tls: bool = False) -> dict[str, Callable[[], Any] | None]:
    run: dict[str, Callable[..., Timed] | None] = {
        "topstep_sync": functools.partial(ours, tls=tls),
        "topstep_sync drain": functools.partial(ours, draining=True, tls=tls),
        "signalrcore": functools.partial(signalrcore, tls=tls) if installed("signalrcore") else None,
    }
    if not tls:
        run |= {
            "pysignalr": pysignalr if installed("pysignalr") else None,
            "websockets.sync": websockets_orjson if installed("websockets", "orjson") else None,
            "aiohttp, no queue": aiohttp_orjson if installed("aiohttp", "orjson") else None,
            ".NET": dotnet,
        }
    return {name: functools.partial(f, server, count, burst) if f else None for name, f in run.items()}


if __name__ == "__main__":
    raise SystemExit(main())
