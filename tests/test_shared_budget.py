"""A budget that several share: the same promises whether it is kept in memory, in SQLite or in Redis."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from limiter_world import CANCEL, ORDERS, running_redis

from topstep_sync.clock import SYSTEM_CLOCK, Clock, Deadline, ManualClock
from topstep_sync.config import Config
from topstep_sync.errors import ConfigError, RateLimitTimeout, SessionClosed
from topstep_sync.http.budget_redis import RedisBudget
from topstep_sync.http.budget_sqlite import SQLiteBudget
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.shared_budget import FILE, MemoryBudget, default_path, open_budget
from topstep_sync.http.shared_window import KNOWN
from topstep_sync.http.sharing import DONE, GAVE_UP, LONGEST, REFUSED, UNUSED, USABLE, Ask, Ended, Rules, SharedBudget

RULES = Rules("general", 8, 10.0, 0.0, 2, 5.0)

STORES = ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.interop)]

Opener = Callable[[Clock | None], SharedBudget]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same budget, again and again, in each kind of store."""
    kind, made = request.param, []
    one: dict[Clock | None, SharedBudget] = {}

    def open_it(clock: Clock | None = None) -> SharedBudget:
        if kind == "memory":
            return one.setdefault(clock, MemoryBudget(clock=clock or SYSTEM_CLOCK))
        if kind == "sqlite":
            made.append(
                SQLiteBudget(tmp_path / FILE, "k", clock=clock) if clock else SQLiteBudget(tmp_path / FILE, "k")
            )
        else:
            made.append(RedisBudget(request.getfixturevalue("redis_url"), tmp_path.name, clock=clock))
        return made[-1]

    yield open_it
    for budget in made:
        budget.close()
        for idle in getattr(budget, "_graveyard", ()):  # what a child process would leave to its parent
            idle.close()


def ask(needed: int = 0, *, want: int = 0, urgent: bool = False, ended: Sequence[Ended] = (), who: str = "a") -> Ask:
    return Ask(who, needed, max(want, needed), urgent, list(ended))


class TestStore:
    def test_holders_share_one_window(self, opened: Opener) -> None:
        """What one holder leased, the other does not get."""
        clock = ManualClock()
        answers = [opened(clock).exchange(RULES, ask(4, who=who)) for who in "abc"]
        assert [4, 2, 0] == [answer.granted for answer in answers]
        assert [1, 2, 2] == [answer.lease for answer in answers]

    def test_the_reserve(self, opened: Opener) -> None:
        """Urgent calls find two permits that nobody else gets."""
        budget = opened(ManualClock())
        assert [6, 0, 2] == [budget.exchange(RULES, ask(8, urgent=urgent)).granted for urgent in (False, False, True)]

    def test_waits_are_exact(self, opened: Opener) -> None:
        """The wait is until the oldest slot is free, to the microsecond."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(6))
        clock.advance(3.0)
        answer = budget.exchange(RULES, ask(1, ended=[Ended(1, DONE, 1.0), Ended(1, DONE, 0.5)]))
        assert (0, pytest.approx(9.0, abs=1e-5), 6) == (answer.granted, answer.wait, answer.used)
        clock.advance(9.0)
        assert 1 == budget.exchange(RULES, ask(1)).granted

    def test_in_flight_everywhere(self, opened: Opener) -> None:
        """Where every slot is in flight, only a report helps."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(8, urgent=True))
        assert float("inf") == budget.exchange(RULES, ask(1)).wait

    @pytest.mark.parametrize(("how", "used"), [(DONE, 6), (UNUSED, 5), (GAVE_UP, 6), (REFUSED, 5)])
    def test_ends(self, opened: Opener, how: str, used: int) -> None:
        """Each end of a call keeps or frees its slot."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(6))
        assert used == budget.exchange(RULES, ask(ended=[Ended(1, how, 0.0)])).used

    def test_given_up_calls_delay_the_others(self, opened: Opener) -> None:
        """Grace and window pass before the slot of a lost call is free."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(6))
        wait = budget.exchange(RULES, ask(1, ended=[Ended(1, GAVE_UP, 0.0)] * 6)).wait
        assert pytest.approx(15.0) == wait
        clock.advance(15.1)
        assert 1 == budget.exchange(RULES, ask(1)).granted

    def test_speculation_is_bounded(self, opened: Opener) -> None:
        """One that expects to need many gets a quarter of what is left beyond its need."""
        budget = opened(ManualClock())
        assert [2, 1, 1] == [budget.exchange(RULES, ask(1, want=8)).granted for _ in range(3)]

    def test_the_first_reuse_goes_alone(self, opened: Opener) -> None:
        """When the whole budget was used, one call tries the window's length for everybody."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(8, urgent=True))
        budget.exchange(RULES, ask(ended=[Ended(1, DONE, 0.0)] * 8))
        clock.advance(10.001)
        probe = budget.exchange(RULES, ask(4))
        assert (1, True, "probing", 0) == (
            probe.granted, probe.probe, probe.gate, budget.exchange(RULES, ask(4, who="b")).granted
        )  # fmt: skip
        budget.exchange(RULES, ask(ended=[Ended(probe.lease, DONE, 0.0)]))
        answer = budget.exchange(RULES, ask(4, who="b"))
        assert (4, False, "flowing") == (answer.granted, answer.probe, answer.gate)

    def test_a_refusal_freezes_everybody(self, opened: Opener) -> None:
        """A 429 that one process gets holds all of them, and one of them probes."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(8, urgent=True))
        budget.exchange(RULES, ask(ended=[Ended(1, DONE, 0.0)] * 8))
        clock.advance(10.001)
        probe = budget.exchange(RULES, ask(1))
        budget.exchange(RULES, ask(ended=[Ended(probe.lease, REFUSED, 0.0, 0.0, 1.5)]))
        answer = budget.exchange(RULES, ask(1, who="b"))
        assert (0, "frozen", pytest.approx(1.5)) == (answer.granted, answer.gate, answer.wait)
        clock.advance(1.5)
        probe = opened(clock).exchange(RULES, ask(3, who="c"))
        assert (1, True, True) == (probe.granted, probe.probe, "window is" in probe.why)

    def test_a_lost_lease_comes_back(self, opened: Opener) -> None:
        """A holder that vanishes costs its slots for a while only."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(6))
        used = []
        for pause in (USABLE + LONGEST - 1, 2.0, 10.0):
            clock.advance(pause)
            used.append(budget.exchange(RULES, ask()).used)
        assert [6, 6, 0] == used

    def test_forget(self, opened: Opener) -> None:
        """The class is as new."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(6))
        budget.forget(RULES)
        assert 6 == budget.exchange(RULES, ask(8)).granted

    def test_classes_do_not_touch(self, opened: Opener) -> None:
        """Each class has a window of its own."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(8))
        assert 3 == budget.exchange(Rules("history", 3, 5.0, 0.0, 0, 5.0), ask(8)).granted

    def test_it_may_be_closed_and_used_again(self, opened: Opener) -> None:
        """Closing lets go of files and connections, not of what is counted."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(5))
        budget.close()
        budget.close()
        assert 1 == budget.exchange(RULES, ask(8)).granted

    def test_a_child_process_does_not_use_the_parents_connection(self, opened: Opener) -> None:
        """After a fork the budget goes on with something new."""
        budget = opened(ManualClock())
        budget.exchange(RULES, ask(5))
        budget.forked()
        assert 1 == budget.exchange(RULES, ask(8)).granted

    def test_a_repeated_exchange_counts_once(self, opened: Opener) -> None:
        """Who did not get the answer asks again, and gets the same one; nothing is told twice."""
        budget = opened(ManualClock())
        first = Ask("a", 3, 3, serial=1)
        assert [(1, 3, 3)] * 2 == [(a.lease, a.granted, a.used) for a in (budget.exchange(RULES, first) for _ in "12")]
        told = Ask("a", 0, ended=[Ended(1, UNUSED, 0.0)], serial=2, last=1)
        assert [2, 2] == [budget.exchange(RULES, told).used for _ in "12"]
        retold = Ask("a", 0, ended=[Ended(1, UNUSED, 0.0, first=2), Ended(1, DONE, 0.0, first=3)], serial=3, last=1)
        assert 2 == budget.exchange(RULES, retold).used
        assert (0, 2) == ((late := budget.exchange(RULES, told)).granted, late.used)

    def test_a_lease_that_never_arrived_is_free_again(self, opened: Opener) -> None:
        """The next exchange of its holder shows that it does not know it."""
        budget = opened(ManualClock())
        budget.exchange(RULES, Ask("a", 3, 3, serial=1))
        assert (1, 1) == ((second := budget.exchange(RULES, Ask("a", 1, 1, serial=2))).granted, second.used)
        overtaken = budget.exchange(RULES, Ask("a", 3, 3, serial=1))
        assert (0, 1) == (overtaken.granted, overtaken.used)

    def test_a_probe_that_never_arrived_is_made_again(self, opened: Opener) -> None:
        """A class does not wait for the outcome of a call that nobody makes."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, ask(8, urgent=True, who="b"))
        budget.exchange(RULES, ask(who="b", ended=[Ended(1, DONE, 0.0)] * 8))
        clock.advance(10.001)
        assert [(True, 1), (True, 1)] == [
            (a.probe, a.granted) for a in (budget.exchange(RULES, Ask("a", 2, 2, serial=n)) for n in (1, 2))
        ]

    def test_numbers_are_not_used_twice(self, opened: Opener) -> None:
        """A store that lost its memory ends no lease for another that had the same number."""
        budget = opened(ManualClock())
        budget.forget(RULES)
        assert 1 == budget.exchange(RULES, Ask("b", 1, 1, serial=1)).lease
        assert 8 == budget.exchange(RULES, Ask("a", 1, 1, ended=[Ended(1, UNUSED, 0.0)], serial=9, last=7)).lease
        assert 2 == budget.exchange(RULES, ask()).used

    def test_a_holder_is_forgotten_in_the_end(self, opened: Opener) -> None:
        """Processes that come and go fill no memory."""
        clock = ManualClock()
        budget = opened(clock)
        budget.exchange(RULES, Ask("a", serial=5))
        clock.advance(KNOWN + 1)
        budget.exchange(RULES, Ask("b", serial=1))
        assert 1 == budget.exchange(RULES, Ask("a", 1, 1, serial=1)).granted

    def test_a_clock_that_went_back(self, opened: Opener) -> None:
        """After a restart of the machine, or a step of the server's clock, nothing is busy longer than it could be."""
        late, early = ManualClock(5000.0), ManualClock(10.0)
        budget = opened(late)
        budget.exchange(RULES, Ask("a", 6, 6, serial=1))
        budget.exchange(RULES, Ask("a", ended=[Ended(1, DONE, 0.0), Ended(1, GAVE_UP, 0.0)], serial=2, last=1))
        if budget.kind == "memory":
            pytest.skip("memory has no other clock")
        budget = opened(early)
        assert 6 == budget.exchange(RULES, Ask("b", serial=1)).used
        early.advance(15.1)
        assert 4 == budget.exchange(RULES, Ask("b", serial=2)).used
        early.advance(USABLE + LONGEST + 1)
        assert 0 == budget.exchange(RULES, Ask("b", serial=3)).used

    def test_32_threads(self, opened: Opener) -> None:
        """However many ask at once, nobody gets what another has."""
        budget, rules = opened(ManualClock()), Rules("general", 100, 10.0, 0.0, 0, 5.0)
        with ThreadPoolExecutor(32) as pool:
            granted = sum(pool.map(lambda n: budget.exchange(rules, ask(1, who=str(n))).granted, range(150)))
        assert 100 == granted


SMALL = {"general_limit": 10, "general_window": 0.5, "reserved": 0, "margin": 0.0}


class TestLimiter:
    def limiter(self, opened: Opener, **changes: Any) -> RateLimiter:
        return RateLimiter({**SMALL, **changes}, budget=opened(None))

    def test_two_limiters_share(self, opened: Opener) -> None:
        """What one limiter used, the other has not."""
        one, other = self.limiter(opened, general_window=60.0), self.limiter(opened, general_window=60.0)
        for _ in range(7):
            one.acquire(ORDERS).done()
        one.close()
        got = 0
        while (permit := other.try_acquire(ORDERS)) is not None:
            permit.done()
            got += 1
        assert (3, 10) == (got, other.budget()["general"].used)
        with pytest.raises(RateLimitTimeout):
            other.acquire(ORDERS, deadline=Deadline(1.0))
        other.close()

    def test_no_window_is_overfull(self, opened: Opener) -> None:
        """Two limiters with eight threads each keep the one window, and use it up."""
        limiters, end = [self.limiter(opened) for _ in range(2)], time.monotonic() + 1.8
        spans: list[tuple[float, float]] = []

        def work(limiter: RateLimiter) -> None:
            while True:
                try:
                    permit = limiter.acquire(ORDERS, deadline=end)
                except RateLimitTimeout:
                    return
                start = time.monotonic()
                time.sleep(0.002)
                spans.append((start, time.monotonic()))
                permit.done()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, limiters * 8))
        starts, stops = sorted(start for start, _ in spans), sorted(stop for _, stop in spans)
        assert all(starts[n] - stops[n - 10] >= 0.5 - 0.003 for n in range(10, len(starts)))
        assert 30 <= len(spans) <= 40
        for limiter in limiters:
            limiter.close()

    def test_a_waiter_gets_what_another_gives_back(self, opened: Opener) -> None:
        """A permit that another limiter did not need is found soon."""
        one, other = (self.limiter(opened, general_limit=1, general_window=60.0) for _ in range(2))
        permit, waited = one.acquire(ORDERS), []

        def wait() -> None:
            with other.acquire(ORDERS, deadline=Deadline(20.0)) as got:
                waited.append(got.waited)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        permit.refund()
        thread.join(10)
        assert 1 == len(waited)
        one.close()
        other.close()

    def test_urgent_calls_find_their_reserve(self, opened: Opener) -> None:
        """A cancel does not wait behind the bulk, and the bulk does not get the cancel's lease."""
        limiter = self.limiter(opened, reserved=2, general_window=60.0)
        for _ in range(8):
            limiter.acquire(ORDERS, blocking=True).done()
        assert limiter.try_acquire(ORDERS) is None
        limiter.acquire(CANCEL, deadline=Deadline(1.0)).done()
        assert limiter.try_acquire(ORDERS) is None
        assert limiter.try_acquire(CANCEL) is not None
        limiter.close()

    def test_a_refusal_here_freezes_there(self, opened: Opener) -> None:
        """What one process learns from a 429 holds for all."""
        one, other = (self.limiter(opened, general_window=60.0) for _ in range(2))
        one.acquire(ORDERS).throttled(30.0)
        one.close()
        assert other.try_acquire(ORDERS) is None
        assert "frozen" == other.budget()["general"].gate
        other.close()

    def test_every_end_is_counted(self, opened: Opener) -> None:
        """The figures of a shared lane are those of this process."""
        limiter = self.limiter(opened)
        for how in ("done", "refund", "gave_up"):
            getattr(limiter.acquire(ORDERS), how)()
        held = limiter.acquire(ORDERS)
        stats = limiter.get_stats()["general"]
        assert (4, 1, 1, 1) == (stats["granted"], stats["refunded"], stats["gave_up"], stats["in_flight"])
        held.done()
        limiter.close()
        with pytest.raises(SessionClosed):
            limiter.acquire(ORDERS)

    def test_reset_clears_the_store(self, opened: Opener) -> None:
        """The budget is as new for everybody."""
        one, other = (self.limiter(opened, general_limit=1, general_window=60.0) for _ in range(2))
        one.acquire(ORDERS).done()
        one.close()
        assert other.try_acquire(ORDERS) is None
        other.reset()
        assert other.try_acquire(ORDERS) is not None
        other.close()

    def test_pacing(self, opened: Opener) -> None:
        """The bucket stands in front of the leases, too."""
        limiter = self.limiter(opened, burst=1)
        limiter.acquire(ORDERS).done()
        assert limiter.try_acquire(ORDERS) is None
        assert 0.0 < limiter.get_wait_time(ORDERS) <= 0.05
        assert limiter.acquire(CANCEL).open
        limiter.close()


class TestOpening:
    def test_the_limiter_alone_by_default(self) -> None:
        """Nothing is shared that nobody wanted to share."""
        assert open_budget(Config()) is None

    def test_sqlite(self, tmp_path: Path) -> None:
        """A path is taken; without one it is the user's state folder. Nothing is opened yet."""
        budget = open_budget(Config.of({"rate": {"budget": "sqlite", "budget_path": str(tmp_path / "b")}}))
        assert (SQLiteBudget, False) == (type(budget), (tmp_path / "b").exists())
        budget = open_budget(Config.of({"rate": {"budget": "sqlite"}}))
        assert isinstance(budget, SQLiteBudget)
        assert (default_path(), FILE) == (budget.path, budget.path.name)

    def test_redis(self) -> None:
        """An address is needed, and not yet called."""
        with pytest.raises(ConfigError, match="budget_path"):
            open_budget(Config.of({"rate": {"budget": "redis"}}))
        budget = open_budget(Config.of({"rate": {"budget": "redis", "budget_path": "redis://:hunter2@127.0.0.1:1/0"}}))
        assert isinstance(budget, RedisBudget)

    def test_an_address_that_is_none(self) -> None:
        """The error says what was expected, and not the address, which may hold a password."""
        with pytest.raises(ConfigError, match="redis://") as caught:
            open_budget(Config.of({"rate": {"budget": "redis", "budget_path": "hunter2@127.0.0.1"}}))
        assert "hunter2" not in str(caught.value)

    def test_an_address_with_a_password_is_not_shown(self) -> None:
        """The configuration's repr holds no secret."""
        assert "hunter2" not in repr(Config.of({"rate": {"budget_path": "redis://:hunter2@127.0.0.1:1/0"}}))


WORKER = textwrap.dedent(
    """
    import json, sys, time
    from concurrent.futures import ThreadPoolExecutor
    from topstep_sync.errors import RateLimitTimeout
    from topstep_sync.http.budget_redis import RedisBudget
    from topstep_sync.http.budget_sqlite import SQLiteBudget
    from topstep_sync.http.rate_limiter import RateLimiter

    kind, where, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    budget = SQLiteBudget(where, "k") if kind == "sqlite" else RedisBudget(where, "processes")
    limiter = RateLimiter({"general_limit": 40, "general_window": 1.0, "reserved": 0}, budget=budget)
    print("ready", flush=True)
    sys.stdin.readline()
    end, spans = time.monotonic() + seconds, []

    def work(n):
        while True:
            try:
                permit = limiter.acquire("/api/Order/search", deadline=end)
            except RateLimitTimeout:
                return
            start = time.monotonic()
            time.sleep(0.003)
            spans.append((start, time.monotonic()))
            permit.done()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    limiter.close()
    print(json.dumps(spans))
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.interop)])
def test_four_processes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Four processes with four threads each keep one window, and use it up."""
    where = str(tmp_path / FILE) if kind == "sqlite" else request.getfixturevalue("redis_url")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, kind, where, "3.0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    spans = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        spans += json.loads(worker.communicate(timeout=30)[0])
    starts, stops = sorted(start for start, _ in spans), sorted(stop for _, stop in spans)
    assert all(starts[n] - stops[n - 40] >= 1.0 for n in range(40, len(starts)))
    assert len(spans) >= 80


HOLDER = textwrap.dedent(
    """
    import sys, time
    from topstep_sync.http.budget_sqlite import SQLiteBudget
    from topstep_sync.http.rate_limiter import RateLimiter

    budget = SQLiteBudget(sys.argv[1], "k")
    limiter = RateLimiter({"general_limit": 6, "general_window": 0.5, "reserved": 0, "grace": 0.5}, budget=budget)
    held = [limiter.acquire("/api/Order/search") for _ in range(6)]
    print("held", flush=True)
    time.sleep(60)
    """
)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_kill_9_of_a_process_that_holds_slots(tmp_path: Path) -> None:
    """The slots of a killed process come free after grace and window, and not before."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / FILE)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    limiter = RateLimiter(
        {"general_limit": 6, "general_window": 0.5, "reserved": 0, "grace": 0.5},
        budget=SQLiteBudget(tmp_path / FILE, "k"),
    )
    permits = [limiter.acquire(ORDERS, deadline=Deadline(20.0)) for _ in range(1)]
    waited = time.monotonic() - killed
    for permit in permits:
        permit.done()
    limiter.close()
    assert 0.9 <= waited <= 5.0
