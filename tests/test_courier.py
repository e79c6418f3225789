"""A limiter in front of a shared budget: who goes to the store, and what happens when it is out of reach."""

import dataclasses
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from limiter_world import CANCEL, ORDERS, WatchedClock, running_redis

from topstep_sync.clock import FOREVER, Deadline, ManualClock
from topstep_sync.errors import BudgetUnavailable, Fate, RateLimitTimeout
from topstep_sync.http import rate_limiter, shared_lane
from topstep_sync.http.budget_redis import RedisBudget
from topstep_sync.http.budget_sqlite import SQLiteBudget
from topstep_sync.http.rate_limiter import RateLimiter
from topstep_sync.http.shared_budget import MemoryBudget
from topstep_sync.http.shared_lane import AGAIN, AWAY, SharedLane
from topstep_sync.http.sharing import PATIENCE, USABLE, Answer, Ask, BudgetBusy, BudgetLost, Rules


@pytest.fixture(autouse=True)
def _nobody_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for an event gets no other chance, so a wake-up that is missing shows."""
    monkeypatch.setattr(rate_limiter, "RECHECK", FOREVER)


SMALL: dict[str, Any] = {"general_limit": 10, "general_window": 10.0, "reserved": 2, "margin": 0.0}


class Store(MemoryBudget):
    """A budget in memory that can be out of reach, slow or broken, and knows what it was asked."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked: list[Ask] = []
        self.trouble: BaseException | None = None
        self.after: BaseException | None = None
        """Trouble after everything is done."""
        self.gate = threading.Event()
        self.gate.set()

    def exchange(self, rules: Rules, ask: Ask, patience: float = PATIENCE) -> Answer:
        self.gate.wait(10)
        if self.trouble is not None:
            raise self.trouble
        self.asked.append(ask)
        answer = super().exchange(rules, ask, patience)
        if self.after is not None:
            raise self.after
        return answer

    @property
    def asks(self) -> list[Ask]:
        """The questions for permits."""
        return [ask for ask in self.asked if ask.needed]


@pytest.fixture
def clock() -> WatchedClock:
    return WatchedClock()


@pytest.fixture
def store(clock: WatchedClock) -> Store:
    return Store(clock)


def make(clock: ManualClock, store: Store, **changes: Any) -> RateLimiter:
    return RateLimiter({**SMALL, **changes}, clock=clock, budget=store)


def lane_of(limiter: RateLimiter) -> SharedLane:
    return limiter._lanes["general"]  # type: ignore[index, return-value]


class TestLeases:
    def test_one_question_for_many_permits(self, clock: WatchedClock, store: Store) -> None:
        """The quicker permits go, the more are leased at once."""
        limiter = make(clock, store, general_limit=1000)
        for _ in range(60):
            limiter.acquire(ORDERS).done()
        assert ([1, 2, 4, 8, 16, 16, 16], 7) == ([ask.want for ask in store.asks], len(store.asks))
        limiter.close()

    def test_who_calls_seldom_leases_one(self, clock: WatchedClock, store: Store) -> None:
        """Nothing is taken from others that is not used."""
        limiter = make(clock, store, general_limit=1000)
        for _ in range(3):
            limiter.acquire(ORDERS).done()
            clock.advance(1.0)
        assert [1, 1, 1] == [ask.want for ask in store.asks]
        limiter.close()

    def test_everybody_that_waits_is_counted(self, clock: WatchedClock, store: Store) -> None:
        """The first in line asks for those behind it, too."""
        limiter = make(clock, store)
        store.gate.clear()
        threads = [threading.Thread(target=lambda: limiter.acquire(ORDERS).done()) for _ in range(5)]
        threads[0].start()
        time.sleep(0.05)
        for thread in threads[1:]:
            thread.start()
        clock.wait_for(untimed=4)
        store.gate.set()
        for thread in threads:
            thread.join(10)
        assert [1, 4] == [ask.needed for ask in store.asks]
        limiter.close()

    def test_leases_that_are_not_used_go_back(self, clock: WatchedClock, store: Store) -> None:
        """A lease is good for two seconds; then others can have it."""
        limiter = make(clock, store, general_limit=1000)
        for _ in range(4):
            limiter.acquire(ORDERS).done()
        assert 7 == store.exchange(Rules("general", 1000, 10.0, 0.0, 2, 5.0), Ask("x")).used
        clock.advance(USABLE)
        assert limiter._courier is not None
        limiter._courier.flush()
        assert 4 == store.exchange(Rules("general", 1000, 10.0, 0.0, 2, 5.0), Ask("x")).used
        limiter.close()

    def test_reports_go_out_by_themselves(self, store: Store, clock: WatchedClock) -> None:
        """Nobody must call again for the store to learn that a call has ended."""
        limiter = RateLimiter(SMALL, budget=store)
        limiter.acquire(ORDERS).done()
        end = time.monotonic() + 5
        while not any(ask.ended for ask in store.asked) and time.monotonic() < end:
            time.sleep(0.005)
        assert [["done"]] == [[ended.how for ended in ask.ended] for ask in store.asked if ask.ended]
        limiter.close()

    def test_an_urgent_lease_is_for_urgent_calls(self, clock: WatchedClock, store: Store) -> None:
        """A permit from the reserve that nobody took stays in the reserve."""
        limiter = make(clock, store)
        lane = lane_of(limiter)
        with lane.lock:
            errand = lane.ask(clock.monotonic(), True)
            assert errand is not None
            lane.answered(errand, Answer(1, 1, False, 0.0, 1, "flowing", 10.0, 10, ""), clock.monotonic())
            lane.ask_at[False] = clock.monotonic() + 5
        assert (None, 5.0, 0.0) == (
            limiter.try_acquire(ORDERS), limiter.get_wait_time(ORDERS), limiter.get_wait_time(CANCEL)
        )  # fmt: skip
        assert limiter.try_acquire(CANCEL) is not None
        limiter.close()

    def test_nothing_for_the_urgent_is_nothing_for_anybody(self, clock: WatchedClock, store: Store) -> None:
        """When even a cancel finds no permit, an ordinary call need not ask."""
        limiter = make(clock, store, general_limit=1)
        limiter.acquire(ORDERS).done()
        assert (None, None) == (limiter.try_acquire(CANCEL), limiter.try_acquire(ORDERS))
        assert ([False, True], 0.25) == ([ask.urgent for ask in store.asks], limiter.get_wait_time(ORDERS))
        limiter.close()

    def test_a_refusal_ends_the_leases_at_hand(self, clock: WatchedClock, store: Store) -> None:
        """What was leased before the gateway said no is given back unused."""
        limiter = make(clock, store, general_limit=1000)
        for _ in range(3):
            limiter.acquire(ORDERS).done()
        limiter.acquire(ORDERS).throttled(3.0)
        assert limiter.try_acquire(ORDERS) is None
        ended = [ended.how for ask in store.asked for ended in ask.ended]
        assert (3, 3, 1) == (ended.count("done"), ended.count("unused"), ended.count("refused"))
        assert ("frozen", "3.0") == (limiter.budget()["general"].gate, f"{limiter.get_wait_time(ORDERS) and 3.0}")
        limiter.close()

    def test_a_wait_that_is_too_long_is_refused_after_one_question(self, clock: WatchedClock, store: Store) -> None:
        """Where the store says that nothing comes before the deadline, nobody waits for it."""
        limiter = make(clock, store, general_limit=1, reserved=0)
        limiter.acquire(ORDERS).done()
        with pytest.raises(RateLimitTimeout):
            limiter.acquire(ORDERS, deadline=Deadline(0.2, clock))
        assert 0.25 == limiter.get_wait_time(ORDERS)
        limiter.close()

    def test_an_interrupted_question_is_no_dead_end(self, clock: WatchedClock, store: Store) -> None:
        """Ctrl-C while the store is asked leaves the lane usable."""
        limiter = make(clock, store)
        store.trouble = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            limiter.acquire(ORDERS)
        store.trouble = None
        assert limiter.health()["ok"]
        assert limiter.acquire(ORDERS).open
        limiter.close()

    def test_without_waiting_the_store_is_asked_too(self, clock: WatchedClock, store: Store) -> None:
        """Who does not want to wait gets what the store has, and is refused only where it has nothing."""
        limiter = make(clock, store, general_limit=1, reserved=0)
        limiter.acquire(ORDERS, blocking=False).done()
        with pytest.raises(RateLimitTimeout):
            limiter.acquire(ORDERS, blocking=False)
        limiter.close()

    def test_none_is_the_stores_word(self, clock: WatchedClock, store: Store) -> None:
        """Who finds another thread at the store waits for it, instead of being told that there is no permit."""
        limiter = make(clock, store, general_limit=1000)
        store.gate.clear()
        threads = [threading.Thread(target=lambda: permits.append(limiter.try_acquire(ORDERS))) for _ in range(4)]
        permits: list[Any] = []
        for thread in threads:
            thread.start()
        while len(lane_of(limiter).onlookers) < 3:
            time.sleep(0.001)
        store.gate.set()
        for thread in threads:
            thread.join(10)
        assert 4 == sum(permit is not None for permit in permits)
        limiter.close()

    def test_one_that_is_lost_at_the_store(
        self, clock: WatchedClock, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for ever for one that will not come back, and what it may bring is not used."""
        limiter = make(clock, store)
        lane = lane_of(limiter)
        with lane.lock:
            errand = lane.ask(clock.monotonic(), False)
        assert errand is not None
        answer = store.exchange(lane.rules, errand.ask)
        lane.errand = dataclasses.replace(errand, thread=0)
        with lane.lock:
            assert lane.ask(clock.monotonic(), False) is None
        clock.advance(AWAY)
        permit = limiter.try_acquire(ORDERS)
        assert permit is not None
        with lane.lock:
            assert lane.answered(errand, answer, clock.monotonic()) is None
            assert lane.unanswered(errand, "", clock.monotonic()) is None
        assert (0, 1) == (len(lane.pool), store.exchange(lane.rules, Ask("x")).used)
        permit.refund()
        limiter.close()

    @pytest.mark.parametrize("how", ["done", "refund", "throttled"])
    def test_an_answer_that_is_lost(self, clock: WatchedClock, store: Store, how: str) -> None:
        """What the store did before the connection broke is done once, and a lease in the lost answer is not lost."""
        limiter = make(clock, store, general_limit=100, reserved=0)
        for _ in range(2):
            limiter.acquire(ORDERS).refund()
        kept = [limiter.acquire(ORDERS), limiter.acquire(ORDERS)]
        getattr(kept.pop(), how)()
        store.after = BudgetLost("broken")
        assert limiter._courier is not None
        limiter._courier.flush(everything=True)
        store.after = None
        clock.advance(AGAIN)
        limiter._courier.flush(everything=True)
        expected = 2 if how == "done" else 1
        assert expected == store.exchange(lane_of(limiter).rules, Ask("x")).used
        kept.pop().done()
        limiter.close()
        assert expected == store.exchange(lane_of(limiter).rules, Ask("x")).used

    def test_close_gives_everything_back(self, clock: WatchedClock, store: Store) -> None:
        """After a clean end nothing is held but what the gateway counts."""
        limiter = make(clock, store, general_limit=1000)
        for _ in range(5):
            limiter.acquire(ORDERS).done()
        limiter.close()
        limiter.close()
        assert 5 == store.exchange(Rules("general", 1000, 10.0, 0.0, 2, 5.0), Ask("x")).used

    def test_a_bug_in_the_store_does_not_end_the_reports(
        self, store: Store, clock: WatchedClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The thread that reports survives whatever a store raises."""
        limiter = RateLimiter(SMALL, budget=store)
        permit = limiter.acquire(ORDERS)
        store.trouble = ZeroDivisionError("bug")
        permit.done()
        end = time.monotonic() + 5
        while "reports to the shared" not in caplog.text and time.monotonic() < end:
            time.sleep(0.005)
        store.trouble = None
        limiter.close()
        assert (True, 1) == (
            "ZeroDivisionError" in caplog.text,
            sum(1 for ask in store.asked for ended in ask.ended if ended.how == "done"),
        )


class TestOutOfReach:
    def test_refusal_is_the_default(self, clock: WatchedClock, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        """What nobody can count is not sent, and the error says what to do; it is told once."""
        caplog.set_level(logging.INFO)
        limiter = make(clock, store)
        store.trouble = BudgetLost("no route")
        for call in (limiter.acquire, limiter.acquire, limiter.try_acquire):
            with pytest.raises(BudgetUnavailable, match=r"out of reach \(no route\).*on_budget_loss") as caught:
                call(ORDERS)
        assert (AGAIN, Fate.NOT_SENT) == (caught.value.retry_after, caught.value.fate)
        assert {"kind": "memory", "ok": False, "why": "no route"} == limiter.health()
        assert "out of reach: no route" in limiter.budget()["general"].why
        store.trouble = None
        clock.advance(AGAIN)
        assert limiter.acquire(ORDERS).open
        assert (True, 2) == (limiter.health()["ok"], len(caplog.records))
        limiter.close()

    def test_a_store_that_others_use_is_not_lost(
        self, clock: WatchedClock, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has little time is refused; the others go on."""
        limiter = make(clock, store)
        store.trouble = BudgetBusy("locked")
        assert limiter.try_acquire(ORDERS) is None
        with pytest.raises(RateLimitTimeout) as caught:
            limiter.acquire(ORDERS, blocking=False)
        assert (RateLimitTimeout, True) == (type(caught.value), limiter.health()["ok"])
        with pytest.raises(BudgetUnavailable, match="locked"):
            limiter.acquire(ORDERS)
        clock.advance(AGAIN)
        monkeypatch.setattr(rate_limiter, "GLANCE", 0.0)
        assert limiter.try_acquire(ORDERS) is None
        store.trouble = None
        limiter.close()

    def test_a_reset_out_of_reach(self, clock: WatchedClock, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever resets learns that it was not possible."""

        def gone(rules: Rules) -> None:
            raise BudgetLost("gone")

        limiter = make(clock, store)
        monkeypatch.setattr(store, "forget", gone)
        with pytest.raises(BudgetUnavailable, match="is not reset"):
            limiter.reset()
        limiter.close()

    def test_every_waiter_learns_it(self, clock: WatchedClock, store: Store) -> None:
        """Nobody waits for a store that is gone."""
        limiter = make(clock, store)
        store.gate.clear()
        store.trouble = BudgetLost("gone")
        errors: list[BaseException] = []

        def call() -> None:
            try:
                limiter.acquire(ORDERS)
            except BudgetUnavailable as error:
                errors.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        clock.wait_for(untimed=7)
        store.gate.set()
        for thread in threads:
            thread.join(10)
        assert 8 == len(errors)
        limiter.close()

    def test_a_share_of_the_limit(self, clock: WatchedClock, store: Store) -> None:
        """One of four goes on with a quarter of the limit, counted here, and told when the store is back."""
        limiter = make(clock, store, on_budget_loss="share", processes=4, general_limit=40, reserved=0)
        store.trouble = BudgetLost("gone")
        permits = [limiter.acquire(ORDERS) for _ in range(10)]
        assert (None, float("inf")) == (
            limiter.try_acquire(ORDERS),
            lane_of(limiter).spare.take(clock.monotonic(), False),
        )
        for permit, how in zip(permits, ["done"] * 7 + ["refund", "gave_up", "throttled"], strict=True):
            getattr(permit, how)()
        more = list(iter(lambda: limiter.try_acquire(ORDERS), None))
        assert 2 == len(more)
        assert 10.0 == limiter.get_wait_time(ORDERS)
        store.trouble = None
        clock.advance(AGAIN)
        limiter.close()
        assert 8 == store.exchange(Rules("general", 40, 10.0, 0.0, 0, 5.0), Ask("x")).used
        for permit in more:
            permit.done()

    def test_the_store_is_tried_again(self, clock: WatchedClock, store: Store) -> None:
        """With a share at hand, too, the shared budget is taken up again when it is back."""
        limiter = make(clock, store, on_budget_loss="share", processes=10, reserved=0)
        store.trouble = BudgetLost("gone")
        limiter.acquire(ORDERS).done()
        assert limiter.try_acquire(ORDERS) is None
        store.trouble = None
        clock.advance(AGAIN)
        assert limiter.try_acquire(ORDERS) is not None
        assert limiter.health()["ok"]
        limiter.close()

    def test_reports_wait_for_the_store(self, clock: WatchedClock, store: Store) -> None:
        """What ended meanwhile is told later, as old as it then is."""
        limiter = make(clock, store)
        permit = limiter.acquire(ORDERS)
        store.trouble = BudgetLost("gone")
        permit.done()
        assert limiter._courier is not None
        limiter._courier.flush()
        clock.advance(0.5)
        limiter._courier.flush()  # not tried again so soon
        clock.advance(2.5)
        store.trouble = None
        limiter._courier.flush()
        assert [("done", 3.0)] == [(ended.how, ended.age) for ask in store.asked for ended in ask.ended]
        limiter.close()

    @pytest.mark.interop
    def test_a_real_redis_that_dies(self, tmp_path: Path) -> None:
        """The limiter refuses while Redis is gone, and says so."""
        with running_redis(tmp_path) as url:
            limiter = RateLimiter(SMALL, budget=RedisBudget(url, "dies"))
            limiter.acquire(ORDERS).done()
        end = time.monotonic() + 10

        def call_on() -> None:
            while time.monotonic() < end:
                limiter.acquire(ORDERS).done()

        with pytest.raises(BudgetUnavailable):
            call_on()
        assert not limiter.health()["ok"]
        limiter.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork(tmp_path: Path) -> None:
    """A child has a name of its own at the store, none of the parent's leases, and shares the budget."""
    limiter = RateLimiter({**SMALL, "reserved": 0}, budget=SQLiteBudget(tmp_path / "b", "k"))
    for _ in range(4):
        limiter.acquire(ORDERS).done()
    holder = lane_of(limiter).holder
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            taken = 0
            while (permit := limiter.try_acquire(ORDERS)) is not None:
                permit.done()
                taken += 1
            os.write(write, bytes([taken, lane_of(limiter).holder != holder]))
            limiter.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    taken, renamed = os.read(read, 2)
    os.close(read)
    os.close(write)
    assert (True, True) == (bool(renamed), 3 <= taken <= 6)
    limiter.close()
    budget = SQLiteBudget(tmp_path / "b", "k")
    assert 4 + taken == budget.exchange(Rules("general", 10, 10.0, 0.0, 0, 5.0), Ask("x")).used
    budget.close()


def test_what_a_child_process_does_first(clock: WatchedClock, store: Store) -> None:
    """It asks for leases of its own."""
    limiter = make(clock, store, general_limit=1000)
    for _ in range(4):
        limiter.acquire(ORDERS).done()
    holder, old = lane_of(limiter).holder, limiter._courier
    limiter._forked()
    limiter.acquire(ORDERS).done()
    assert (True, 1) == (holder != lane_of(limiter).holder, store.asks[-1].needed)
    assert old is not None
    old.close()
    limiter.close()


def test_reports_are_bounded(clock: WatchedClock, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is gone for days fills no memory."""
    monkeypatch.setattr(shared_lane, "KEPT", 5)
    limiter = make(clock, store, on_budget_loss="share", processes=1, general_limit=100, reserved=0)
    store.trouble = BudgetLost("gone")
    for _ in range(20):
        limiter.acquire(ORDERS).refund()
    assert 5 == len(lane_of(limiter).outbox)
    limiter.close()
