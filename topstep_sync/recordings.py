"""Record what the hubs say, and play it back: into an event queue, or through the simulator's hubs.

    record(session, "monday.jsonl.zst", accounts=[536], contracts=["CON.F.US.MNQ.Z26"], seconds=3600)

    queue = EventQueue()
    replay("monday.jsonl.zst", queue)               # as fast as it goes; speed=1.0 keeps the recorded times

The file's format is in `topstep_sync.simulator.recording`. Through the simulator: `gateway.hubs.replay(path)`.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.events import Event
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.realtime.signalr import RECORD_SEPARATOR, Batch, Fault, HubProtocol, Invocation, invocation
from topstep_sync.realtime.waker import Interrupted, Waker
from topstep_sync.realtime.websocket import BrokenFrame, BufferedWebSocket, PeerClosed, UpgradeRefused, open_websocket
from topstep_sync.realtime.wire import Partly, interpret, market_decoder
from topstep_sync.session import Session
from topstep_sync.simulator.recording import Entry, Recorder, read

_log = logging.getLogger("topstep_sync.recordings")

HANDSHAKE: Final = '{"protocol":"json","version":1}\x1e'
PING: Final = '{"type":6}\x1e'
# What the connection is about, not the account or the market: handshake, completions, pings, Close.
_NO_EVENT: Final = (b"{}", b'{"type":3', b'{"type":6', b'{"type":7')
_RETRY: Final = 2.0  # seconds before a lost connection is tried again
_LOST: Final = (OSError, PeerClosed, BrokenFrame, UpgradeRefused)

_MARKET: Final = ("SubscribeContractQuotes", "SubscribeContractTrades", "SubscribeContractMarketDepth")
_USER: Final = ("SubscribeOrders", "SubscribePositions", "SubscribeTrades")

################################################ record ################################################


def record(
    session: Session,
    path: str | Path,
    *,
    accounts: Sequence[int] = (),
    contracts: Sequence[str] = (),
    seconds: float | None = None,
    stop: threading.Event | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Everything the hubs said of *accounts* and *contracts* is in the file; how many records that were.

    Returns after *seconds*, or once *stop* is set; with neither, on Ctrl-C. A connection that is lost is made again,
    with what was said meanwhile missing.

    Raises:
        ValueError: nothing to record was named.
    """
    config, tapped = session.config, []
    if accounts:
        tapped.append(_Tap("user", config.user_hub_url, [("SubscribeAccounts",), *_calls(_USER, accounts)]))
    if contracts:
        tapped.append(_Tap("market", config.market_hub_url, _calls(_MARKET, contracts)))
    if not tapped:
        raise ValueError("record() needs accounts=[…] or contracts=[…]; neither was given")
    with Recorder(path, clock) as recorder:
        taps = [_Thread(tap, session, recorder, clock) for tap in tapped]
        for tap in taps:
            tap.start()
        try:
            clock.wait(stop or threading.Event(), seconds)
        finally:
            for tap in taps:
                tap.close()
        return recorder.count


class _Tap(NamedTuple):
    hub: str
    url: str
    calls: list[tuple[object, ...]]


def _calls(methods: Iterable[str], subjects: Sequence[int | str]) -> list[tuple[object, ...]]:
    return [(method, subject) for method in methods for subject in subjects]


class _Thread:
    """One hub's connection, on a thread of its own, writing what it hears."""

    def __init__(self, tap: _Tap, session: Session, recorder: Recorder, clock: Clock) -> None:
        self._tap, self._session, self._recorder, self._clock = tap, session, recorder, clock
        self._waker = Waker(clock)
        self._thread = threading.Thread(target=self._run, name=f"topstep-record-{tap.hub}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The connection is closed and the thread has ended."""
        self._waker.stop()
        self._thread.join(5.0)
        self._waker.close()

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._listen()
                except _LOST as error:
                    _log.warning("~ %s: recording interrupted: %s", self._tap.hub, error or type(error).__name__)
                self._waker.sleep(self._clock.monotonic() + _RETRY)
        except Interrupted:
            pass

    def _listen(self) -> None:
        config = self._session.config.stream
        token = self._session.tokens.token().value.reveal()
        at = self._clock.monotonic() + config.connect_timeout
        ws = open_websocket(self._tap.url, token, self._waker, at, self._clock, limit=config.max_message_bytes)
        try:
            ws.send(HANDSHAKE)
            for number, (target, *arguments) in enumerate(self._tap.calls, 1):
                ws.send(invocation(str(target), arguments, str(number)))
            self._write(ws, config.ping_interval)
        finally:
            ws.drop()

    def _write(self, ws: BufferedWebSocket, interval: float) -> None:
        rest, ping_at = b"", 0.0
        while True:
            now = self._clock.monotonic()
            if now >= ping_at:
                ws.send(PING)
                ping_at = now + interval
            rest = self._take(ws, rest)
            try:
                self._waker.wait(ws.sock.sock, ping_at - self._clock.monotonic())
            except Interrupted:
                self._take(ws, rest)  # what had arrived before the end belongs to the recording
                raise

    def _take(self, ws: BufferedWebSocket, rest: bytes) -> bytes:
        for message in ws.messages():
            *records, rest = (rest + message).split(RECORD_SEPARATOR)
            for record in records:
                if not record.startswith(_NO_EVENT):
                    self._recorder.write(self._tap.hub, record)
        return rest


################################################ replay ################################################


def replay(path: str | Path, queue: EventQueue, *, speed: float = 0.0, clock: Clock = SYSTEM_CLOCK) -> int:
    """Every event of the recording is in *queue*; how many there were.

    A record that makes no sense is left out, with a warning.

    Args:
        speed: how many times as fast as recorded; 0: as fast as it goes.

    Raises:
        simulator.recording.RecordingError: the file is no recording, or breaks off.
    """
    readers = {hub: _Reader(hub) for hub in ("user", "market")}
    start, first, count = clock.monotonic(), None, 0
    for entry in read(path):
        first = entry.at if first is None else first
        if speed > 0:
            clock.sleep((entry.at - first) / speed - (clock.monotonic() - start))
        reader = readers.get(entry.hub)
        events = reader.events(entry) if reader else []
        for event in events:
            event.received_at, event.received_epoch = clock.monotonic(), clock.epoch()
        count += len(events)
        queue.put(events)
    return count


class _Reader:
    """Reads one hub's records the way its connection does."""

    def __init__(self, hub: str) -> None:
        self._hub = hub
        self._protocol = HubProtocol(market_decoder() if hub == "market" else None)
        self._protocol.receive(b"{}" + RECORD_SEPARATOR)

    def events(self, entry: Entry) -> list[Event]:
        found: list[Event] = []
        for message in self._protocol.receive(entry.record + RECORD_SEPARATOR):
            if isinstance(message, Batch):
                found += message
            elif isinstance(message, Invocation):
                found += self._read(message)
            elif isinstance(message, Fault):
                _log.warning("! %s: a record was left out: %s", self._hub, message.reason)
        return found

    def _read(self, call: Invocation) -> list[Event]:
        try:
            return interpret(call.target, call.arguments) or []
        except Partly as error:
            _log.warning("! %s: a %s that makes no sense was left out: %s", self._hub, call.target, error)
            return error.events
