"""The journal of intents."""

import gc
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from gateway_model import ACCOUNT, MNQ
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from topstep_sync.api.intent import State
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import Intent
from topstep_sync.messages import PlaceOrder
from topstep_sync.models import OrderSide, OrderType

UNKNOWN, ABSENT = State.UNKNOWN, State.ABSENT
REQUEST = PlaceOrder(
    account_id=ACCOUNT, contract_id=MNQ.id, type=OrderType.LIMIT, side=OrderSide.BUY, size=1, limit_price=21000.25,
)  # fmt: skip


def intent(tag: str, state: State = State.PREPARED) -> Intent:
    entry = Intent(REQUEST, tag, 1_790_000_000.0, minted=False)
    entry.state = state
    return entry


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    """A line gives back the whole intent: tag, request, and where it stood."""
    journal = Journal(tmp_path / "j")
    journal.write(intent("a"), 5.0)
    line = next(journal.lines())
    assert ("a", State.PREPARED, 5.0, REQUEST) == (line.tag, line.state, line.at, line.request)
    left = line.intent(9.0)
    assert (State.UNKNOWN, True, False, 0.0) == (left.state, left.doubtful, left.minted, left.lost)
    assert line == journal.last("a")
    assert None is journal.last("b")


def test_a_line_says_until_when_an_attempt_may_have_gone_out(tmp_path: Path) -> None:
    """Of an order about to be sent, its last moment is written; but whoever reads it earlier knows that it is over."""
    journal = Journal(tmp_path / "j")
    journal.write(intent("a"), 5.0, until=95.0)
    line = next(journal.lines())
    assert (State.SENT, 95.0) == (line.state, line.lost)
    assert [9.0, 95.0] == [line.intent(now).lost for now in (9.0, 200.0)]


def test_the_last_line_counts(tmp_path: Path) -> None:
    """Open are the intents whose last line is no outcome."""
    journal = Journal(tmp_path / "j")
    for tag, states in {
        "sent": [State.PREPARED], "lost": [State.PREPARED, State.UNKNOWN], "done": [State.PREPARED, State.ACCEPTED],
        "no": [State.PREPARED, State.REJECTED], "never": [State.PREPARED, State.NOT_EXECUTED],
        "gone": [State.PREPARED, State.UNKNOWN, State.ABSENT], "again": [State.ABSENT, State.PREPARED],
    }.items():  # fmt: skip
        for state in states:
            journal.write(intent(tag, state), 1.0)
    assert ["sent", "lost", "again"] == [line.tag for line in journal.open_intents()]


@settings(max_examples=60)
@given(cut=st.integers(0, 400), tail=st.binary(max_size=20))
def test_a_torn_line_is_survived(tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes) -> None:
    """Wherever a crash cut the last line, and whatever it left there, the lines before and after it are read."""
    path = tmp_path_factory.mktemp("j") / "j"
    journal = Journal(path)
    journal.write(intent("whole"), 1.0)
    first = path.read_bytes()
    journal.write(intent("torn"), 1.0)
    both = path.read_bytes()
    path.write_bytes(both[: len(first) + min(cut, len(both) - len(first) - 1)] + tail.replace(b"\n", b""))
    again = Journal(path)
    again.write(intent("after"), 1.0)
    tags = [line.tag for line in again.lines()]
    assert ("whole", "after") == (tags[0], tags[-1])


def test_the_file_is_its_owners(tmp_path: Path) -> None:
    """What somebody trades is nobody else's business."""
    Journal(tmp_path / "j")
    assert 0o600 == stat.S_IMODE((tmp_path / "j").stat().st_mode)


OTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
from test_api_journal import Journal, intent
journal = Journal(sys.argv[1])
for number in range(40):
    journal.write(intent(f"p-{number}"), 1.0)
"""


@pytest.mark.slow
def test_lines_of_threads_and_processes_never_mix(tmp_path: Path) -> None:
    """Eight threads here and a process beside write a file of whole lines."""
    path = str(tmp_path / "j")
    journal = Journal(path)
    other = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, path, str(Path(__file__).parent)])
    threads = [
        threading.Thread(target=lambda n=n: [journal.write(intent(f"t{n}-{i}"), 1.0) for i in range(20)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 0 == other.wait(60)
    assert 200 == len({line.tag for line in journal.lines()})
    assert 200 == len([text for text in Path(path).read_bytes().splitlines() if text])


def test_a_write_that_fell_short_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes half a line has not taken it."""
    journal = Journal(tmp_path / "j")
    monkeypatch.setattr(os, "write", lambda file, data: len(data) - 1)
    with pytest.raises(OSError, match="only a part of the line"):
        journal.write(intent("a"), 1.0)


def test_what_follows_half_a_line_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full for one line has not spoilt the next ones."""
    journal = Journal(tmp_path / "j")
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[:50]))
        with pytest.raises(OSError, match="only a part of the line"):
            journal.write(intent("half"), 1.0)
    journal.write(intent("a"), 2.0)
    journal.write(intent("b"), 3.0)
    assert ["a", "b"] == [line.tag for line in journal.lines()]


@given(cut=st.integers(0, 400))
def test_half_a_line_spoils_none_of_another_process(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """However little of a line the disk took, what the next process writes behind it is whole, and so is the next."""
    path = tmp_path_factory.mktemp("j") / "j"
    first, second = Journal(path), Journal(path)
    write = os.write
    with pytest.MonkeyPatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[: min(cut, len(data) - 1)]))
        with pytest.raises(OSError, match="only a part of the line"):
            first.write(intent("half"), 1.0)
    second.write(intent("other"), 2.0)
    first.write(intent("own"), 3.0)
    assert ["other", "own"] == [line.tag for line in second.lines() if line.tag != "half"]


def after(*lines: tuple[str, float, State, float, float]) -> tuple[list[tuple[str, float]], State | None]:
    """What is open, and how tag ``a`` stands, after lines of tag, `since`, state, time, and `until` or `lost`."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "j")
        for tag, since, state, at, end in lines:
            entry = Intent(REQUEST, tag, since)
            entry.state, entry.lost = state, end
            journal.write(entry, at, until=end if state is State.SENT else None)
        last = journal.last("a")
        return [(line.tag, line.since) for line in journal.open_intents()], None if last is None else last.state


A_SENT, A_LOST, A_GONE = ("a", 1.0, State.SENT, 1.0, 91.0), ("a", 1.0, UNKNOWN, 5.0, 5.0), ("a", 1.0, ABSENT, 20.0, 5.0)
A_AGAIN, A_LOST_AGAIN = ("a", 1.0, State.SENT, 6.0, 96.0), ("a", 1.0, UNKNOWN, 9.0, 9.0)
A_THERE = ("a", 1.0, State.ACCEPTED, 6.0, 5.0)
B_SENT = ("a", 2.0, State.SENT, 2.0, 92.0)  # the same tag, sent by somebody who had not heard of the other


@pytest.mark.parametrize(
    ("lines", "left", "state"),
    [
        ([A_SENT, A_LOST, A_GONE], [], ABSENT),
        ([A_SENT, A_LOST, A_AGAIN, A_GONE], [("a", 1.0)], State.SENT),  # sent again
        ([A_SENT, A_LOST, A_AGAIN, A_LOST_AGAIN, A_GONE], [("a", 1.0)], UNKNOWN),
        ([A_SENT, A_LOST, A_THERE, A_GONE], [], State.ACCEPTED),
        ([A_SENT, A_LOST, A_THERE, ("a", 3.0, State.REJECTED, 9.0, 9.0)], [], State.ACCEPTED),
        ([A_SENT, ("a", 1.0, ABSENT, 20.0, 5.0)], [("a", 1.0)], State.SENT),  # said by somebody else
        ([A_SENT, ("a", 1.0, ABSENT, 91.0, 5.0)], [], ABSENT),
        ([A_SENT, B_SENT, ("a", 2.0, State.REJECTED, 3.0, 3.0)], [("a", 1.0)], State.SENT),
        ([A_SENT, B_SENT, A_LOST, A_GONE], [("a", 2.0)], State.SENT),
        ([A_SENT, B_SENT, A_LOST, ("a", 1.0, ABSENT, 92.0, 5.0)], [], ABSENT),
        ([A_SENT, B_SENT, ("a", 1.0, State.NOT_EXECUTED, 5.0, 5.0)], [("a", 2.0)], State.SENT),
    ],
)  # fmt: skip
def test_a_line_counts_against_what_its_writer_knew(lines: list[Any], left: list[Any], state: State) -> None:
    """Nobody's absence or refusal ends the attempt of somebody else; an order, once there, is there."""
    assert (left, state) == after(*lines)


def test_a_tag_is_that_of_its_account(tmp_path: Path) -> None:
    """The order of one account says nothing about the same tag in another."""
    journal = Journal(tmp_path / "j")
    other = Intent(replace(REQUEST, account_id=704), "a", 2.0)
    other.state = State.ACCEPTED
    journal.write(intent("a"), 1.0, until=91.0)
    journal.write(other, 2.0)
    assert [ACCOUNT] == [line.request.account_id for line in journal.open_intents()]


def test_the_file_is_closed_with_its_last_holder(tmp_path: Path) -> None:
    """A journal that nobody holds any more has no open file."""
    journal = Journal(tmp_path / "j")
    file = journal._file
    os.fstat(file)
    del journal
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
