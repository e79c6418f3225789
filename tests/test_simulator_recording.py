"""Recordings: what goes in comes out byte for byte, packed or not; what is broken says where."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hub_wire import opened, wait_until
from topstep_sync.clock import ManualClock
from topstep_sync.simulator.recording import Entry, Recorder, RecordingError, read
from topstep_sync.testing import Gateway

MNQ = "CON.F.US.MNQ.Z26"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_what_goes_in_comes_out(tmp_path: Path, name: str) -> None:
    """Times, hubs and bytes are those that were written, in every packing."""
    clock = ManualClock()
    with Recorder(tmp_path / name, clock) as recorder:
        recorder.write("user", '{"type":1,"x":"é\U0001f600\\u0000"}'.encode())
        clock.advance(1.25)
        recorder.write("market", b"\xff\xfe no UTF-8")
    assert 2 == recorder.count
    assert [
        Entry(0.0, "user", '{"type":1,"x":"é\U0001f600\\u0000"}'.encode()),
        Entry(1.25, "market", b"\xff\xfe no UTF-8"),
    ] == list(read(tmp_path / name))


@given(records=st.lists(st.binary()))
def test_any_bytes_survive(tmp_path_factory: pytest.TempPathFactory, records: list[bytes]) -> None:
    """Whatever a hub sent is in the recording as it was."""
    path = tmp_path_factory.mktemp("recording") / "a.jsonl"
    with Recorder(path) as recorder:
        for record in records:
            recorder.write("user", record)
    assert records == [entry.record for entry in read(path)]


def test_packing_is_real(tmp_path: Path) -> None:
    """A name that ends in .gz is gzip, one in .zst is Zstandard."""
    for name, magic in (("a.gz", b"\x1f\x8b"), ("a.zst", b"\x28\xb5\x2f\xfd"), ("a.jsonl", b'{"format"')):
        Recorder(tmp_path / name).close()
        assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_closed_recorder_takes_nothing(tmp_path: Path) -> None:
    """After close nothing is written, and closing again does nothing."""
    recorder = Recorder(tmp_path / "a.jsonl")
    recorder.close()
    recorder.write("user", b"late")
    recorder.close()
    assert [] == list(read(tmp_path / "a.jsonl"))


HEAD = b'{"format":"topstep hub recording","version":1,"started":1.0}\n'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"hello\n", 1),
        (b"\xff\xfe\n", 1),
        (HEAD + b'{"at":0.5,"hub":"user","record":"x"}\n{"at":0.6,"hub":"us', 3),
        (HEAD + b'{"at":"soon","hub":"user","record":"x"}\n', 2),
        (HEAD + b'{"at":0.5,"hub":"user","bytes":"***"}\n', 2),
    ],
)
def test_broken_files_say_where(tmp_path: Path, content: bytes, line: int) -> None:
    """A file that is no recording, or breaks off, is refused with the line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=f"line {line} "):
        list(read(path))


def test_another_format_is_refused(tmp_path: Path) -> None:
    """Another version, or another program's file, is refused with what was expected."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(HEAD.replace(b'"version":1', b'"version":2'))
    with pytest.raises(RecordingError, match="expected 'topstep hub recording'"):
        list(read(path))


def test_a_packed_file_that_breaks_off(tmp_path: Path) -> None:
    """Half a packed file is an error, not a short recording."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(HEAD + b'{"at":0.5,"hub":"user","record":"x"}\n' * 100)[:-20])
    with pytest.raises(RecordingError):
        list(read(path))


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    """A file that does not exist is the usual error."""
    with pytest.raises(FileNotFoundError):
        list(read(tmp_path / "none"))


def test_missing_zstandard_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package a .zst says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RecordingError, match="pip install"):
        Recorder(tmp_path / "a.zst")


################################################ the hubs ################################################


@pytest.fixture
def token(gateway: Any) -> str:
    return str(gateway.run(lambda world: world.tokens.issue()))


def buy(gateway: Any) -> None:
    """One contract is bought at the market."""
    from topstep_sync.messages import PlaceOrder
    from topstep_sync.models import OrderSide, OrderType

    order = PlaceOrder(account_id=536, contract_id=MNQ, type=OrderType.MARKET, side=OrderSide.BUY, size=1)
    gateway.run(lambda world: world.exchange.place(order))


def record_some(gateway: Any, path: Path) -> list[Entry]:
    with gateway.hubs.record(path) as recorder:
        gateway.set_price(MNQ, 21000.0)
        buy(gateway)
    gateway.set_price(MNQ, 22000.0)
    assert recorder.count == len(list(read(path)))
    return list(read(path))


def test_the_simulator_records_itself(gateway: Any, tmp_path: Path) -> None:
    """What the exchange and the market published within the block is recorded, though nobody listened."""
    entries = record_some(gateway, tmp_path / "a.jsonl")
    targets = [(entry.hub, entry.record.split(b'"target":"')[1].split(b'"')[0].decode()) for entry in entries]
    assert ("market", "GatewayQuote") in targets
    assert ("user", "GatewayUserOrder") in targets


@pytest.mark.parametrize("speed", [0, 1000.0])
def test_replay_is_byte_exact(gateway: Any, token: str, tmp_path: Path, speed: float) -> None:
    """Subscribers get the recorded bytes of what they subscribed to, and nothing else."""
    entries = record_some(gateway, tmp_path / "a.jsonl.gz")
    with opened(gateway.user_hub_url, token) as user, opened(gateway.market_hub_url, token) as market:
        user.result("SubscribeOrders", 536)
        market.result("SubscribeContractTrades", MNQ)
        assert len(entries) == gateway.hubs.replay(tmp_path / "a.jsonl.gz", speed)
        for wire, target in ((user, b"GatewayUserOrder"), (market, b"GatewayTrade")):
            gateway.hubs.send("all", "End")
            heard = b""
            while b'"target":"End"' not in heard:
                heard += wire.message()
            expected = b"".join(entry.record + b"\x1e" for entry in entries if target in entry.record)
            assert expected == heard[: heard.index(b'{"type":1,"target":"End"')]


def test_a_gateway_plays_a_recording_to_its_first_subscriber(gateway: Any, tmp_path: Path) -> None:
    """With the switch `replay` the recording plays from the first subscription on, once."""
    path = tmp_path / "a.jsonl"
    with Recorder(path) as recorder:
        recorder.write("user", b'{"type":1,"target":"GatewayLogout","arguments":["recorded"]}')
    with Gateway(market_rate=0.0, replay=str(path), replay_speed=0.0) as other:
        wire = opened(other.user_hub_url, other.run(lambda world: world.tokens.issue()))
        with wire:
            assert wire.quiet(0.03)
            wire.invoke("SubscribeAccounts", id_=None)
            assert ["recorded"] == wire.record()["arguments"]
            wire.invoke("SubscribeOrders", 536, id_=None)
            assert wire.quiet(0.03)


def test_a_recording_that_breaks_off_ends_its_replay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is whole is played; the rest is a line in the log."""
    path = tmp_path / "a.jsonl"
    record = b'{"at":0.5,"hub":"user","record":"{\\"type\\":1,\\"target\\":\\"X\\",\\"arguments\\":[]}"}\n'
    path.write_bytes(HEAD + record + b'{"at":0.6,"hub":"us')
    with Gateway(market_rate=0.0, replay=str(path)) as other:
        wire = opened(other.user_hub_url, other.run(lambda world: world.tokens.issue()))
        with wire:
            wire.invoke("SubscribeAccounts", id_=None)
            assert "X" == wire.record()["target"]
            wait_until(lambda: "broke off" in caplog.text)


@pytest.mark.parametrize("content", [None, b"hello"])
def test_a_gateway_without_its_recording_does_not_start(tmp_path: Path, content: bytes | None) -> None:
    """A recording that is not there, or none, is told at the start."""
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((RecordingError, FileNotFoundError)):
        Gateway(replay=str(path)).start()


def test_replay_keeps_the_times(gateway: Any, tmp_path: Path) -> None:
    """A timed replay takes as long as the recording, by its speed."""
    import time

    clock = ManualClock()
    with Recorder(tmp_path / "a.jsonl", clock) as recorder:
        for _ in range(3):
            recorder.write("user", b"{}")
            clock.advance(0.5)
    start = time.monotonic()
    assert 3 == gateway.hubs.replay(tmp_path / "a.jsonl", 10.0)
    assert 0.1 <= time.monotonic() - start < 2


def test_records_without_a_topic_reach_everybody(gateway: Any, token: str, tmp_path: Path) -> None:
    """GatewayLogout, pings and what is no JSON go to every connection of the hub, as they are."""
    records = [b'{"type":1,"target":"GatewayLogout","arguments":[]}', b'{"type":6}', b"no JSON"]
    records += [b'{"type":1,"target":"GatewayUserOrder","arguments":[[1]]}']
    with Recorder(tmp_path / "a.jsonl") as recorder:
        for record in records:
            recorder.write("user", record)
    with opened(gateway.user_hub_url, token) as wire:
        gateway.hubs.replay(tmp_path / "a.jsonl", 0)
        assert b"\x1e".join(records[:3]) + b"\x1e" == wire.message()


def test_a_long_replay_waits_for_its_reader(gateway: Any, token: str, tmp_path: Path) -> None:
    """A fast replay does not pile up what a slow connection has not read."""
    record = b'{"type":1,"target":"GatewayLogout","arguments":["' + b"x" * 50_000 + b'"]}'
    with Recorder(tmp_path / "a.jsonl") as recorder:
        for _ in range(2000):
            recorder.write("user", record)
    with opened(gateway.user_hub_url, token) as wire:
        import threading

        player = threading.Thread(target=gateway.hubs.replay, args=(tmp_path / "a.jsonl", 0))
        player.start()
        wire.swallow(2000)
        player.join(20)
    assert not player.is_alive()
