"""Recording a session's hubs, and playing recordings into an event queue."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.hub_wire import wait_until
from topstep_sync import Session
from topstep_sync.clock import ManualClock
from topstep_sync.events import OrderEvent, QuoteEvent
from topstep_sync.realtime.queue import EventQueue
from topstep_sync.recordings import record, replay
from topstep_sync.simulator.recording import Recorder, read

MNQ = "CON.F.US.MNQ.Z26"


class Recording:
    """`record` on a thread, until told to stop."""

    def __init__(self, gateway: Any, path: Path, **named: Any) -> None:
        self.stop = threading.Event()
        self.session = Session(config=gateway.config)
        self.counts: list[int] = []
        run = lambda: self.counts.append(record(self.session, path, stop=self.stop, **named))  # noqa: E731
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(10)
        self.session.close()


def topics(gateway: Any) -> set[str]:
    return {topic for link in gateway.hubs.connections for topic in link.topics}


def buy(session: Session) -> None:
    session.orders.place(536, MNQ, side="buy", size=1)


def test_recorded_and_replayed(gateway: Any, tmp_path: Path) -> None:
    """What a session's hubs said comes out of a queue as the events it was."""
    path = tmp_path / "a.jsonl.gz"
    gateway.set_price(MNQ, 21000.0)
    with Recording(gateway, path, accounts=[536], contracts=[MNQ]) as recording:
        wait_until(lambda: {"trades:536", f"depth:{MNQ}"} <= topics(gateway))
        buy(recording.session)
        gateway.set_price(MNQ, 21001.0)
        sent = {link.hub: link.sent for link in gateway.hubs.connections}
        wait_until(lambda: len(sent) == 2)
        gateway.hubs.send("all", "GatewayLogout")
        gateway.drop_hubs("all", "fin")
    entries = list(read(path))
    assert [len(entries)] == recording.counts
    queue = EventQueue(conflate=False)
    count = replay(path, queue)
    events = queue.drain()
    assert count == len(events)
    assert [6, 2] == [event.data.status for event in events if isinstance(event, OrderEvent)]
    assert 21001.0 == [event.data for event in events if isinstance(event, QuoteEvent)][-1].last_price


def test_a_lost_connection_is_made_again(gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a drop the recording goes on."""
    monkeypatch.setattr("topstep_sync.recordings._RETRY", 0.01)
    path = tmp_path / "a.jsonl"
    with Recording(gateway, path, contracts=[MNQ]):
        wait_until(lambda: f"depth:{MNQ}" in topics(gateway))
        gateway.faults.add("hubs/market", "refuse")
        gateway.drop_hubs("market", "fin")  # a reset would take what was not read yet with it
        wait_until(lambda: sum(event.kind == "open" for event in gateway.hubs.history) == 2)
        wait_until(lambda: f"depth:{MNQ}" in topics(gateway))
    assert 2 == sum(b"GatewayQuote" in entry.record for entry in read(path))


def test_nothing_to_record_is_refused(gateway: Any, tmp_path: Path) -> None:
    """A recording of nothing is a mistake."""
    with Session(config=gateway.config) as session, pytest.raises(ValueError, match="accounts"):
        record(session, tmp_path / "a.jsonl")


def test_replay_at_speed_waits(tmp_path: Path) -> None:
    """A timed replay sleeps as the recording says, by its speed."""
    made, played = ManualClock(), ManualClock(auto=True)
    with Recorder(tmp_path / "a.jsonl", made) as recorder:
        for _ in range(3):
            recorder.write("user", b'{"type":1,"target":"GatewayLogout","arguments":[]}')
            made.advance(10.0)
    queue = EventQueue(clock=played)
    before = played.monotonic()
    assert 3 == replay(tmp_path / "a.jsonl", queue, speed=2.0, clock=played)
    assert before + 10.0 == played.monotonic()


def test_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    """Pings, unknown targets and unknown hubs bring no event."""
    with Recorder(tmp_path / "a.jsonl") as recorder:
        recorder.write("market", b'{"type":6}')
        recorder.write("market", b'{"type":1,"target":"Nobody","arguments":[]}')
        recorder.write("echo", b'{"type":1,"target":"GatewayQuote","arguments":[]}')
    assert 0 == replay(tmp_path / "a.jsonl", EventQueue())


def test_an_odd_record_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Live it is survived, so a recording of it is too: what else it says, and what follows, is played."""
    with Recorder(tmp_path / "a.jsonl") as recorder:
        recorder.write(
            "market", b'{"type":1,"target":"GatewayQuote","arguments":["A",[{"lastPrice":"x"},{"lastPrice":1}]]}'
        )
        recorder.write("user", b'{"type":1,"target":"GatewayUserOrder","arguments":[{"id":[]}]}')
        recorder.write("user", b"no JSON")
        recorder.write("market", b'{"type":1,"target":"GatewayQuote","arguments":["A",{"lastPrice":2}]}')
    queue = EventQueue(conflate=False)
    assert 2 == replay(tmp_path / "a.jsonl", queue)
    assert [1.0, 2.0] == [event.data.last_price for event in queue.drain()]
    told = [str(record.args[1]) for record in caplog.records if isinstance(record.args, tuple)]
    assert ["GatewayQuote", "GatewayUserOrder", "a record is not JSON"] == [words.split(":")[0] for words in told]
