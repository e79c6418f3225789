"""The budget in a SQLite file: what files can do to it."""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from topstep_sync.clock import ManualClock
from topstep_sync.http import budget_sqlite
from topstep_sync.http.budget_sqlite import SQLiteBudget
from topstep_sync.http.sharing import PATIENCE, Ask, BudgetBusy, BudgetLost, Rules

RULES = Rules("general", 8, 10.0, 0.0, 0, 5.0)


made: list[SQLiteBudget] = []


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    """No connection is left open."""
    yield
    while made:
        made.pop().close()


def opened(path: Path, key: str = "k") -> SQLiteBudget:
    made.append(SQLiteBudget(path / "state" / "budget.sqlite3", key, clock=ManualClock()))
    return made[-1]


def lease(budget: SQLiteBudget, count: int, who: str = "a") -> int:
    return budget.exchange(RULES, Ask(who, count, count)).granted


def test_the_folder_is_made_and_private(tmp_path: Path) -> None:
    """Nobody else looks into the state folder."""
    budget = opened(tmp_path)
    assert 3 == lease(budget, 3)
    assert 0o700 == (tmp_path / "state").stat().st_mode & 0o777
    budget.close()


def test_keys_are_kept_apart(tmp_path: Path) -> None:
    """Two users on one machine have a budget each."""
    one, other = opened(tmp_path), opened(tmp_path, "other")
    assert (8, 8) == (lease(one, 8), lease(other, 8))
    one.close()
    other.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_file_is_moved_aside_once(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept for inspection, told once, and a new one is begun."""
    budget = opened(tmp_path)
    budget.path.parent.mkdir()
    budget.path.write_bytes(damage)
    assert (5, 3) == (lease(budget, 5), lease(budget, 5))
    aside = [path for path in budget.path.parent.iterdir() if ".damaged-" in path.name]
    assert ([damage], 1) == ([path.read_bytes() for path in aside], len(caplog.records))
    assert "damaged" in caplog.text
    budget.close()


def test_damage_under_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is overwritten while it is open is noticed, too."""
    budget = opened(tmp_path)
    lease(budget, 5)
    budget.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{budget.path}{suffix}").unlink(missing_ok=True)
    lease(budget, 1)
    with sqlite3.connect(budget.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    budget.close()
    budget.path.write_bytes(b"\0" * 5000)
    assert 8 == lease(budget, 8)
    budget.close()


def test_another_process_repaired_it_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes that see the damage, one moves the file, and nobody moves the new one."""
    budget = opened(tmp_path)
    budget.path.parent.mkdir()
    budget.path.write_bytes(b"no database" * 100)
    original = budget._set_aside

    def late() -> None:
        budget.path.unlink()
        assert 2 == lease(opened(tmp_path), 2)
        original()

    monkeypatch.setattr(budget, "_set_aside", late)
    assert 6 == lease(budget, 8)
    assert [] == [path for path in budget.path.parent.iterdir() if ".damaged-" in path.name]
    budget.close()


def test_trouble_other_than_damage_moves_nothing(tmp_path: Path) -> None:
    """A file that another uses for longer than one has patience is not damaged."""
    budget = opened(tmp_path)
    lease(budget, 1)
    other = sqlite3.connect(budget.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(BudgetBusy, match="locked by other processes"):
        budget.exchange(RULES, Ask("a", 1, 1), 0.1)
    assert 0.1 <= time.monotonic() - start < 2.0
    other.close()
    assert 7 == lease(budget, 8)
    budget.close()


def test_nothing_waits_for_the_disk(tmp_path: Path) -> None:
    """No transaction holds others up while a slow disk writes what nobody needs after a crash of the machine."""
    budget = opened(tmp_path)
    lease(budget, 1)
    assert budget._connection is not None
    assert [(0,), ("wal",)] == [
        budget._connection.execute(f"PRAGMA {name}").fetchone() for name in ("synchronous", "journal_mode")
    ]
    budget.close()


@pytest.mark.slow
def test_nobody_starves(tmp_path: Path) -> None:
    """However busy another process keeps the file, each of 32 threads gets its turn long before its patience ends."""
    budget, end = opened(tmp_path), threading.Event()
    lease(budget, 1)

    def crowd() -> None:
        other = sqlite3.connect(budget.path, isolation_level=None, timeout=5.0)
        while not end.is_set():
            other.execute("BEGIN IMMEDIATE")
            time.sleep(0.02)
            other.execute("COMMIT")
            time.sleep(0.001)
        other.close()

    def ask(number: int) -> tuple[int, bool]:
        start = time.monotonic()
        used = budget.exchange(RULES, Ask(f"x{number}", 0)).used
        return used, time.monotonic() - start < PATIENCE / 2

    crowding = threading.Thread(target=crowd)
    crowding.start()
    try:
        with ThreadPoolExecutor(32) as pool:
            outcome = list(pool.map(ask, range(96)))
    finally:
        end.set()
        crowding.join()
    assert [(1, True)] * 96 == outcome
    budget.close()


def test_an_interrupted_exchange_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within the transaction leaves the file as it was, and the next exchange works."""
    budget = opened(tmp_path)
    lease(budget, 2)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(budget_sqlite, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lease(budget, 3)
    assert 6 == lease(budget, 8)
    budget._turn.acquire()
    budget._connection and budget._connection.execute("BEGIN IMMEDIATE")  # as if interrupted a moment earlier
    budget._turn.release()
    assert 0 == lease(budget, 1)
    budget.close()


def test_a_document_that_contradicts_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A page that a crash of the machine left half written is not believed."""
    budget = opened(tmp_path)
    lease(budget, 5)
    window = budget_sqlite.load(RULES, None, 0.0)
    window.taken = 4
    with sqlite3.connect(budget.path) as connection:
        connection.execute("UPDATE budget SET state = ?", (window.dump(),))
    connection.close()
    assert (8, True) == (lease(budget, 8), "4 calls are in flight, and 0 leased" in caplog.text)
    budget.close()


def test_a_folder_in_its_place_is_not_damage(tmp_path: Path) -> None:
    """What is no file is left alone."""
    budget = opened(tmp_path)
    budget.path.mkdir(parents=True)
    with pytest.raises(sqlite3.OperationalError):
        budget._set_aside()
    assert budget.path.is_dir()


def test_damage_deep_in_the_file(tmp_path: Path) -> None:
    """A file whose first page is sound, and whose others are not, is moved aside, too."""
    budget = opened(tmp_path)
    with sqlite3.connect(tmp_path / "made") as connection:
        connection.execute(budget_sqlite._SCHEMA)
        connection.executemany("INSERT INTO budget VALUES (?, ?)", [(f"{n}", b"x" * 500) for n in range(100)])
    connection.close()
    whole = (tmp_path / "made").read_bytes()
    budget.path.parent.mkdir()
    budget.path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    assert 8 == lease(budget, 8)
    assert [1] == [1 for path in budget.path.parent.iterdir() if ".damaged-" in path.name]
    budget.close()


def test_an_impossible_path(tmp_path: Path) -> None:
    """A folder that cannot be made is a store out of reach."""
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(BudgetLost, match="SQLite"):
        lease(opened(tmp_path), 1)


def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    """Nobody counts in a file that others do not see."""
    budget = opened(tmp_path)
    lease(budget, 5)
    shutil.rmtree(budget.path.parent)
    assert (5, 3) == (lease(opened(tmp_path), 5), lease(budget, 8))
    budget.close()


def test_a_file_that_vanished_is_made_anew(tmp_path: Path) -> None:
    """Whoever deletes the file resets the budget, and breaks nothing."""
    budget = opened(tmp_path)
    lease(budget, 5)
    shutil.rmtree(budget.path.parent)
    assert 8 == lease(budget, 8)
    budget.close()


def test_a_damaged_row_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One unreadable class does not stop the others."""
    budget = opened(tmp_path)
    lease(budget, 5)
    with sqlite3.connect(budget.path) as connection:
        connection.execute("UPDATE budget SET state = x'00'")
    connection.close()
    assert 8 == lease(budget, 8)
    assert "cannot be read" in caplog.text
    budget.close()


def test_a_failure_within_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that breaks off leaves the file as it was."""
    budget = opened(tmp_path)
    lease(budget, 2)
    with monkeypatch.context() as patch:
        patch.setattr(budget_sqlite, "_WRITE", "no such statement")
        with pytest.raises(BudgetLost):
            lease(budget, 3)
    assert 6 == lease(budget, 8)
    budget.close()


@pytest.mark.skipif(os.name != "posix", reason="signal 0 asks only there")
class TestDead:
    def test_who_lives(self) -> None:
        """This process lives, and so does one that we may not signal."""
        assert [False, False] == [budget_sqlite._dead(holder) for holder in (f"{os.getpid()}-ab", "1-ab")]

    def test_who_is_dead(self) -> None:
        """A process that has ended is dead."""
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert budget_sqlite._dead(f"{pid}-ab")

    @pytest.mark.parametrize("holder", ["", "x-ab", "99999999999999999999-ab"])
    def test_names_that_say_nothing(self, holder: str) -> None:
        """A holder whose name is no process is left to its lease."""
        assert not budget_sqlite._dead(holder)

    def test_elsewhere_nobody_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On Windows signal 0 is Ctrl-C."""
        monkeypatch.setattr(budget_sqlite.os, "name", "nt")
        assert not budget_sqlite._dead("99999999-ab")

    def test_the_dead_make_room(self, tmp_path: Path) -> None:
        """The slots of a dead holder come free after grace and window."""
        clock = ManualClock()
        budget = SQLiteBudget(tmp_path / "b", "k", clock=clock)
        assert 8 == lease(budget, 8, "99999999-ab")
        assert 15.0 == budget.exchange(RULES, Ask("a", 1, 1)).wait
        clock.advance(15.0)
        assert 1 == budget.exchange(RULES, Ask("a", 1, 1)).granted
        budget.close()


def test_threads_take_turns(tmp_path: Path) -> None:
    """The one connection is used by one thread at a time."""
    budget, errors = opened(tmp_path), []

    def work() -> None:
        try:
            for _ in range(20):
                budget.exchange(RULES, Ask("a"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == errors
    budget.close()
