"""The journal of intents."""

import gc
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gateway_model import ACCOUNT, MNQ
from hypothesis import given, settings
from hypothesis import strategies as st

from topstep_sync.api.intent import State
from topstep_sync.api.journal import Journal
from topstep_sync.api.ledger import Intent
from topstep_sync.messages import PlaceOrder
from topstep_sync.models import OrderSide, OrderType

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
    assert 200 == len({line.tag for line in journal.lines()}) == Path(path).read_bytes().count(b"\n")


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


def test_the_file_is_closed_with_its_last_holder(tmp_path: Path) -> None:
    """A journal that nobody holds any more has no open file."""
    journal = Journal(tmp_path / "j")
    file = journal._file
    os.fstat(file)
    del journal
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
