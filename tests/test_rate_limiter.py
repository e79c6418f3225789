"""The limiter as a caller sees it."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_world import BARS, CANCEL, ORDERS, PING, Naive, WatchedClock

from topstep_sync.clock import FOREVER, Deadline, ManualClock
from topstep_sync.config import Config, RateConfig
from topstep_sync.errors import ConfigError, Fate, InvalidRequest, RateLimitTimeout, SessionClosed
from topstep_sync.http import rate_limiter
from topstep_sync.http.permit import Permit
from topstep_sync.http.rate_limiter import REMEMBERED, RateLimiter


@pytest.fixture(autouse=True)
def _nobody_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for an event gets no other chance, so a wake-up that is missing shows."""
    monkeypatch.setattr(rate_limiter, "RECHECK", FOREVER)


SMALL: dict[str, Any] = {
    "general_limit": 5, "general_window": 10.0, "history_limit": 3, "history_window": 5.0, "reserved": 0, "margin": 0.0,
}  # fmt: skip


def make(clock: ManualClock | None = None, **changes: Any) -> RateLimiter:
    return RateLimiter({**SMALL, **changes}, clock=clock or ManualClock())


def fill(limiter: RateLimiter, endpoint: str = ORDERS) -> int:
    """Take and complete permits until there is none; how many."""
    taken = 0
    while (permit := limiter.try_acquire(endpoint)) is not None:
        permit.done()
        taken += 1
    return taken


@contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """*work* runs beside the block, and has ended after it; the list gets its result or its exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield outcome
    thread.join(10)
    assert not thread.is_alive()


class TestClasses:
    def test_documented_figures(self) -> None:
        """Without a configuration the documented budgets hold, less the reserve for urgent calls."""
        limiter = RateLimiter(clock=ManualClock())
        assert (198, 50, 2) == (fill(limiter), fill(limiter, BARS), fill(limiter, CANCEL))

    @pytest.mark.parametrize("path", [BARS, BARS.lower(), f"{BARS}/", f"{BARS}?x=1", "/API/HISTORY/RETRIEVEBARS"])
    def test_history_has_its_own_window_however_it_is_spelt(self, path: str) -> None:
        """The path decides, in whatever case."""
        limiter = make()
        assert (3, 0, 5) == (fill(limiter, path), fill(limiter, BARS), fill(limiter, ORDERS))

    def test_unknown_paths_are_general(self) -> None:
        """A path nobody told us about is counted."""
        limiter = make()
        assert (5, 0) == (fill(limiter, "/api/New/thing"), fill(limiter, ORDERS))

    def test_the_ping_is_free(self) -> None:
        """The unauthenticated ping costs nothing, and its permit may end in any way."""
        limiter = make()
        for _ in range(20):
            permit = limiter.acquire(PING)
            permit.done()
            permit.refund()
            permit.gave_up()
            permit.throttled(1.0)
        assert limiter.try_acquire(PING) is permit
        assert (0.0, "Permit(closed)", 5) == (limiter.get_wait_time(PING), repr(permit), fill(limiter))

    def test_any_number_of_spellings(self) -> None:
        """A caller that makes up paths fills no memory."""
        limiter = make()
        for n in range(REMEMBERED + 50):
            limiter.get_wait_time(f"/api/{n}")
        assert REMEMBERED == len(limiter._known)

    @pytest.mark.parametrize("config", [None, {}, RateConfig(), Config()])
    def test_every_form_of_configuration(self, config: Any) -> None:
        """Nothing, a mapping, the part and the whole configuration are all taken."""
        assert 200 == RateLimiter(config).budget()["general"].limit

    @pytest.mark.parametrize(
        "bad",
        [{"general_limit": 0}, {"general_limit": -5}, {"history_window": 0}, {"history_window": float("inf")}, {"x": 1},
         {"budget": "paper"}, {"processes": 0}, {"lease": 0}],
    )  # fmt: skip
    def test_absurd_settings_are_refused(self, bad: dict[str, Any]) -> None:
        """A limit that cannot work is named when the limiter is made."""
        with pytest.raises(ConfigError, match=next(iter(bad))):
            RateLimiter(bad)

    @pytest.mark.parametrize("priority", [-1, 3, "urgent", 0.5])
    def test_unknown_priority(self, priority: Any) -> None:
        """There are three priorities."""
        for call in (make().acquire, make().try_acquire):
            with pytest.raises(InvalidRequest, match="priority is"):
                call(ORDERS, priority=priority)


class TestPermit:
    def test_busy_from_grant_until_completion_plus_window(self) -> None:
        """The window of a slot starts when its call is complete, not when it was granted."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        permit = limiter.acquire(ORDERS)
        clock.advance(7.0)
        permit.done()
        clock.advance(9.99)
        assert limiter.try_acquire(ORDERS) is None
        clock.advance(0.01)
        assert limiter.try_acquire(ORDERS) is not None

    def test_the_margin_is_added(self) -> None:
        """A quarter of a percent covers two clocks that do not run alike."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1, margin=0.0025)
        limiter.acquire(ORDERS).done()
        assert pytest.approx(10.025) == limiter.get_wait_time(ORDERS)

    @pytest.mark.parametrize(
        ("how", "wait"), [("done", 10.0), ("refund", 0.0), ("gave_up", 15.0), ("throttled", pytest.approx(1.0))]
    )
    def test_what_became_of_it(self, how: str, wait: float) -> None:
        """Each end of a call frees its slot at the right time."""
        limiter = make(general_limit=1)
        getattr(limiter.acquire(ORDERS), how)()
        assert wait == limiter.get_wait_time(ORDERS)

    def test_only_the_first_word_counts(self) -> None:
        """What is said after the end is ignored."""
        limiter = make(general_limit=2)
        permit = limiter.acquire(ORDERS)
        permit.done()
        for again in (permit.done, permit.refund, permit.gave_up, permit.throttled):
            again()
        assert (False, 1) == (permit.open, fill(limiter))

    def test_as_a_context_manager(self) -> None:
        """Leaving the block ends the call; an exception leaves its fate open."""
        limiter = make(general_limit=1)
        with limiter.acquire(ORDERS) as permit:
            assert (True, "Permit(general)") == (permit.open, repr(permit))
        assert 10.0 == limiter.get_wait_time(ORDERS)
        limiter.reset()
        with pytest.raises(ZeroDivisionError), limiter.acquire(ORDERS):
            raise ZeroDivisionError
        assert 15.0 == limiter.get_wait_time(ORDERS)

    def test_what_was_said_inside_the_block_stands(self) -> None:
        """A refund is not overwritten by leaving the block."""
        limiter = make(general_limit=1)
        with limiter.acquire(ORDERS) as permit:
            permit.refund()
        assert 1 == fill(limiter)

    def test_32_threads_end_it_once(self) -> None:
        """However many threads say that a call is over, it is over once."""
        limiter = make(general_limit=100)
        permits = [limiter.acquire(ORDERS) for _ in range(50)]
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(Permit.refund, permits * 8))
        assert (0, 50) == (limiter.budget()["general"].used, limiter.get_stats()["general"]["refunded"])


class TestWaiting:
    def test_a_wait_that_cannot_meet_the_deadline_is_refused_at_once(self) -> None:
        """The refusal says how long the wait would have been, and no time is lost."""
        clock = WatchedClock()
        limiter = make(clock)
        fill(limiter)
        with pytest.raises(RateLimitTimeout, match="nothing was sent") as caught:
            limiter.acquire(ORDERS, deadline=Deadline(9.0, clock))
        assert (10.0, 10.0, ORDERS, Fate.NOT_SENT, 1000.0) == (
            caught.value.wait_needed, caught.value.retry_after, caught.value.endpoint, caught.value.fate,
            clock.monotonic(),
        )  # fmt: skip

    def test_a_deadline_may_be_an_instant(self) -> None:
        """A number is an instant of the monotonic clock."""
        clock = WatchedClock()
        limiter = make(clock)
        fill(limiter)
        with pytest.raises(RateLimitTimeout):
            limiter.acquire(ORDERS, deadline=clock.monotonic() + 9.0)

    def test_not_blocking(self) -> None:
        """Without waiting, the refusal comes at once, too."""
        limiter = make()
        assert limiter.acquire(ORDERS, blocking=False).open
        fill(limiter)
        with pytest.raises(RateLimitTimeout):
            limiter.acquire(ORDERS, blocking=False)

    def test_a_waiter_gets_the_slot_when_it_is_free(self) -> None:
        """A blocked caller gets its permit as soon as the window allows, and knows how long it waited."""
        limiter = make(ManualClock(auto=True))
        fill(limiter)
        permit = limiter.acquire(ORDERS, deadline=Deadline(30.0))
        assert (10.0, "LatePermit(general)") == (permit.waited, repr(permit))

    def test_a_waiter_behind_calls_in_flight_is_woken_by_their_end(self) -> None:
        """Where no instant is known, the end of a call gives one."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first = limiter.acquire(ORDERS)
        with in_thread(lambda: limiter.acquire(ORDERS).waited) as waited:
            clock.wait_for(untimed=1)
            clock.advance(3.0)
            first.done()
            clock.wait_for(timed=1)
            clock.advance(10.0)
        assert [13.0] == waited

    def test_a_refund_wakes_the_next(self) -> None:
        """A slot that comes free unexpectedly is used at once."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first = limiter.acquire(ORDERS)
        with in_thread(lambda: limiter.acquire(ORDERS).waited) as waited:
            clock.wait_for(untimed=1)
            first.refund()
        assert [0.0] == waited

    def test_first_come_first_served(self) -> None:
        """32 callers go in the order in which they came."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first, gone = limiter.acquire(ORDERS), []

        def call(n: int) -> None:
            permit = limiter.acquire(ORDERS)
            gone.append(n)
            permit.refund()

        threads = [threading.Thread(target=call, args=(n,)) for n in range(32)]
        for n, thread in enumerate(threads):
            thread.start()
            clock.wait_for(untimed=n + 1)
        first.refund()
        for thread in threads:
            thread.join(10)
        assert list(range(32)) == gone

    def test_a_cancel_passes_everybody(self) -> None:
        """The next permit is for the urgent call, however many wait."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first, gone = limiter.acquire(ORDERS), []

        def call(endpoint: str) -> None:
            with limiter.acquire(endpoint) as permit:
                gone.append(endpoint)
                permit.refund()

        threads = [threading.Thread(target=call, args=(endpoint,)) for endpoint in (ORDERS, CANCEL)]
        for n, thread in enumerate(threads):
            thread.start()
            clock.wait_for(untimed=n + 1)
        first.refund()
        for thread in threads:
            thread.join(10)
        assert [CANCEL, ORDERS] == gone

    def test_the_reserve_lets_a_cancel_through_at_once(self) -> None:
        """However full the class is with ordinary calls, an urgent one does not wait."""
        limiter = make(reserved=2)
        assert (3, 2, True) == (fill(limiter), fill(limiter, CANCEL), limiter.try_acquire(ORDERS) is None)

    def test_nobody_overtakes_a_waiter(self) -> None:
        """A newcomer does not get the slot that somebody waits for."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        fill(limiter)
        with in_thread(lambda: limiter.acquire(ORDERS)):
            clock.wait_for(timed=1)
            with limiter._lanes["general"].lock:  # type: ignore[index]  # the waiter cannot look before we do
                clock.advance(10.0)
                head = limiter._lanes["general"].line.passes(1, clock.monotonic())  # type: ignore[index]
        assert not head

    def test_the_line_is_bounded(self) -> None:
        """One caller too many is refused, with the time after which to come again."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1, max_queue_depth=1)
        fill(limiter)
        with in_thread(lambda: limiter.acquire(ORDERS)):
            clock.wait_for(timed=1)
            with pytest.raises(RateLimitTimeout, match="max_queue_depth") as caught:
                limiter.acquire(ORDERS)
            clock.advance(10.0)
        assert 20.0 == caught.value.wait_needed

    def test_a_deadline_that_passes_while_waiting(self) -> None:
        """A waiter whose turn does not come leaves, and the next one gets the slot."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first = limiter.acquire(ORDERS)
        clock.advance(1.0)

        def hasty() -> Any:
            return limiter.acquire(ORDERS, deadline=Deadline(11.0, clock))

        with in_thread(hasty) as refused:
            clock.wait_for(timed=1)
            with in_thread(lambda: limiter.acquire(ORDERS).waited) as waited:
                clock.wait_for(timed=1, untimed=1)
                clock.advance(5.0)
                first.done()  # free at 16 from the start: too late for the one with the deadline
                clock.wait_for(timed=1)
                clock.advance(10.0)
        assert (RateLimitTimeout, [15.0]) == (type(refused[0]), waited)

    def test_a_deadline_without_any_event(self) -> None:
        """Nothing happens, and still the wait ends."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        held = limiter.acquire(ORDERS)
        with in_thread(lambda: limiter.acquire(ORDERS, deadline=Deadline(11.0, clock))) as refused:
            clock.wait_for(timed=1)
            clock.advance(11.0)
        assert (RateLimitTimeout, True) == (type(refused[0]), held.open)

    def test_ctrl_c_passes_the_baton(self) -> None:
        """A waiter that is interrupted leaves the line, and the next one does not wait for ever."""

        class Interrupting(WatchedClock):
            def wait(self, event: Any, timeout: float | None = None) -> bool:
                if threading.current_thread() is threading.main_thread():
                    self.wait_for(untimed=1)
                    raise KeyboardInterrupt
                return super().wait(event, timeout)

        clock = Interrupting()
        limiter = make(clock, general_limit=1)
        fill(limiter)
        joined = threading.Event()
        lane = limiter._lanes["general"]  # type: ignore[index]

        def behind() -> float:
            joined.wait(5)
            return limiter.acquire(ORDERS).waited

        original = lane.join

        def join(*args: Any) -> Any:
            waiter = original(*args)
            joined.set()
            return waiter

        lane.join = join  # type: ignore[method-assign]
        with in_thread(behind) as waited:
            with pytest.raises(KeyboardInterrupt):
                limiter.acquire(ORDERS)
            clock.advance(10.0)
        assert [10.0] == waited

    def test_an_interrupt_after_the_grant_gives_the_permit_back(self) -> None:
        """A permit that nobody will ever hold is free again."""
        clock = ManualClock(auto=True)
        limiter = make(clock, general_limit=1)
        fill(limiter)
        lane = limiter._lanes["general"]  # type: ignore[index]
        original = lane.attempt

        def attempt(waiter: Any) -> Any:
            delay, following = original(waiter)
            if waiter.permit is not None:
                raise KeyboardInterrupt
            return delay, following

        lane.attempt = attempt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            limiter.acquire(ORDERS)
        assert 1 == fill(limiter)

    def test_pacing_spreads_a_pull(self) -> None:
        """With a bucket of two, later calls come at the window's average rate; urgent ones do not wait for it."""
        clock = ManualClock(auto=True)
        limiter = make(clock, burst=2)
        waits = []
        for _ in range(5):
            with limiter.acquire(ORDERS) as permit:
                waits.append(permit.waited)
        assert [0.0, 0.0, 2.0, 2.0, 2.0] == waits

    def test_pacing_holds_nobody_urgent_back(self) -> None:
        """A cancel takes no call out of the bucket."""
        limiter = make(burst=1)
        assert (1, 2.0, 4, True) == (
            fill(limiter), limiter.get_wait_time(ORDERS), fill(limiter, CANCEL), limiter.try_acquire(CANCEL) is None
        )  # fmt: skip

    @pytest.mark.parametrize("jump", [-3600.0, 3600.0])
    def test_the_wall_clock_may_jump(self, jump: float) -> None:
        """An hour forwards or back on the wall clock changes nothing."""
        clock = WatchedClock()
        limiter = make(clock)
        fill(limiter)
        clock.jump(jump)
        assert (10.0, 0) == (limiter.get_wait_time(ORDERS), fill(limiter))

    def test_suspend_only_makes_it_stricter(self) -> None:
        """While the machine sleeps the monotonic clock stands still: slots stay busy longer, never shorter."""
        clock = WatchedClock()
        limiter = make(clock)
        fill(limiter)
        clock.jump(3600.0)  # the wall clock went on, the monotonic one did not
        assert 0 == fill(limiter)


class TestThrottled:
    def test_a_429_freezes_its_class_only(self) -> None:
        """The other class goes on."""
        limiter = make()
        limiter.acquire(ORDERS).throttled(4.0)
        assert (True, 3) == (limiter.try_acquire(ORDERS) is None, fill(limiter, BARS))

    def test_one_probe_goes_first(self) -> None:
        """After the freeze one call tries, and its success opens the class."""
        clock = WatchedClock()
        limiter = make(clock)
        limiter.acquire(ORDERS).throttled(4.0)
        clock.advance(4.0)
        probe = limiter.acquire(ORDERS)
        assert (True, True) == (probe.probe, limiter.try_acquire(ORDERS) is None)
        probe.done()
        assert "flowing" == limiter.budget()["general"].gate

    def test_the_head_of_the_line_probes(self) -> None:
        """31 callers wait behind the one that tries."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=40)
        fill(limiter)
        clock.advance(10.0)
        limiter.acquire(ORDERS).throttled(1.0)
        with ThreadPoolExecutor(32) as pool:
            permits = {pool.submit(limiter.acquire, ORDERS) for _ in range(32)}
            clock.wait_for(timed=1, untimed=31)
            clock.advance(1.0)
            for count, permit in enumerate(as_completed(permits, 10)):
                assert (count == 0) <= permit.result().probe
                assert count or 31 == len(limiter._lanes["general"].line)  # type: ignore[index]
                permit.result().done()

    def test_what_was_learned_is_told(self) -> None:
        """The budget names documented and learned figures, and why they differ."""
        clock = WatchedClock()
        limiter = make(clock)
        fill(limiter)
        clock.advance(10.0)
        limiter.acquire(ORDERS).throttled()
        budget = limiter.budget()["general"]
        assert ("frozen", 10.0, True) == (budget.gate, budget.window, budget.learned_window > 10.0)
        assert "the gateway's window is 10.07 s, not 10 s" in budget.why

    def test_a_waiter_whose_deadline_the_freeze_passes_is_refused(self) -> None:
        """The head of the line learns at once that its time is over."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        first = limiter.acquire(ORDERS)
        with in_thread(lambda: limiter.acquire(ORDERS, deadline=Deadline(11.0, clock))) as refused:
            clock.wait_for(timed=1)
            first.throttled(12.4)
        assert (RateLimitTimeout, 1000.0) == (type(refused[0]), clock.monotonic())


class TestRest:
    def test_get_wait_time_is_the_wait(self) -> None:
        """What is predicted is what happens."""
        clock = ManualClock(auto=True)
        limiter = make(clock)
        fill(limiter)
        clock.advance(2.5)
        assert 7.5 == limiter.get_wait_time(ORDERS) == limiter.acquire(ORDERS).waited

    def test_reset(self) -> None:
        """Everything is forgotten, and whoever waits goes."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        fill(limiter)
        with in_thread(lambda: limiter.acquire(ORDERS).waited) as waited:
            clock.wait_for(timed=1)
            limiter.reset()
        assert [0.0] == waited

    def test_close_releases_every_waiter(self) -> None:
        """Whoever waits, or comes later, learns that it is over; closing twice is fine."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=1)
        fill(limiter)
        with in_thread(lambda: limiter.acquire(ORDERS)) as one, in_thread(lambda: limiter.acquire(ORDERS)) as other:
            clock.wait_for(timed=1, untimed=1)
            limiter.close()
        assert [SessionClosed] * 2 == [type(one[0]), type(other[0])]
        limiter.close()
        for call in (limiter.acquire, limiter.try_acquire):
            with pytest.raises(SessionClosed):
                call(BARS)
        assert limiter.acquire(PING) is limiter.acquire(PING)

    def test_permits_may_end_after_close(self) -> None:
        """A call that is in flight when the session closes ends like any other."""
        limiter = make()
        permit = limiter.acquire(ORDERS)
        limiter.close()
        permit.done()
        assert not permit.open

    def test_stats(self) -> None:
        """Everything that happens is counted, by class."""
        clock = ManualClock(auto=True)
        limiter = make(clock)
        fill(limiter)
        limiter.acquire(ORDERS).refund()
        limiter.acquire(ORDERS).gave_up()
        clock.advance(100.0)
        limiter.acquire(ORDERS).throttled(1.0)
        with pytest.raises(RateLimitTimeout):
            limiter.acquire(ORDERS, blocking=False)
        expected = {
            "granted": 8, "waited": 1, "wait_total": 10.0, "wait_worst": 10.0, "refused": 1, "throttled": 1,
            "refunded": 1, "gave_up": 1, "in_flight": 0, "waiting": 0,
        }  # fmt: skip
        assert expected == limiter.get_stats()["general"]
        assert 0 == limiter.get_stats()["history"]["granted"]

    def test_budget_shows_the_present(self) -> None:
        """Used, free, waiting and the longest wait so far are there, and reading changes nothing."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=2)
        fill(limiter)
        with in_thread(lambda: limiter.acquire(ORDERS)):
            clock.wait_for(timed=1)
            clock.advance(4.0)
            for _ in range(2):
                general = limiter.budget()["general"]
                assert (2, 0, (0, 1, 0), 6.0, 4.0) == (
                    general.used, general.free, general.waiting, general.next_free, general.worst_wait
                )  # fmt: skip
            clock.advance(6.0)
        assert repr(limiter).startswith("RateLimiter(Budgets(<general:")

    def test_health_of_a_limiter_alone(self) -> None:
        """A limiter that counts by itself depends on nobody."""
        assert {"kind": "memory", "ok": True, "why": ""} == make().health()

    def test_a_limiter_can_go(self) -> None:
        """Nothing keeps a limiter alive that nobody uses."""
        import weakref

        limiter = make()
        gone = weakref.ref(limiter)
        del limiter
        gc.collect()
        assert gone() is None


class TestRace:
    @pytest.mark.parametrize("how", ["done", "refund"])
    def test_two_ends_at_once(self, how: str) -> None:
        """Of two threads that end a call at the same moment, the second changes nothing."""
        limiter = make(general_limit=1)
        permit = limiter.acquire(ORDERS)
        lane = limiter._lanes["general"]  # type: ignore[index]
        with lane.lock:
            thread = threading.Thread(target=getattr(permit, how))
            thread.start()
            while thread.ident is None:
                time.sleep(0.001)
            time.sleep(0.02)  # it has read the lane and waits for the lock; if not yet, it finds the permit ended
            permit.forget()
            lane.refunded(permit)
        thread.join(10)
        assert (0, 1) == (limiter.budget()["general"].used, fill(limiter))


def test_what_a_child_process_does_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's calls in flight count as complete after the time of grace, and nobody waits."""
    clock = WatchedClock()
    limiter = make(clock, general_limit=2)
    monkeypatch.setattr(rate_limiter, "_LIMITERS", {limiter})
    permit = limiter.acquire(ORDERS)
    limiter.acquire(ORDERS).done()
    rate_limiter._after_fork()
    assert (10.0, 2, 0) == (
        limiter.get_wait_time(ORDERS), limiter.budget()["general"].used, limiter.get_stats()["general"]["in_flight"]
    )  # fmt: skip
    permit.done()
    assert 2 == limiter.budget()["general"].used
    clock.advance(15.0)
    assert 2 == fill(limiter)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    def child(self, work: Callable[[], bool]) -> bool:
        """Whether *work* is true in a child process; one that hangs is false."""
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if work() else 1)
            finally:
                os._exit(2)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status == 0
            time.sleep(0.005)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return False

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_a_held_lock_does_not_stay_held(self) -> None:
        """A child that is made while another thread is inside the limiter can use it."""
        limiter = make()
        permit = limiter.acquire(ORDERS)
        lane = limiter._lanes["general"]  # type: ignore[index]

        def work() -> bool:
            permit.done()  # the parent's, copied: changes nothing here
            return 4 == fill(limiter)

        with lane.lock:
            assert self.child(work)
        assert (True, 4) == (permit.open, fill(limiter))

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_the_parents_calls_and_waiters(self) -> None:
        """The gateway counts what the parent sent; its waiters are not the child's."""
        clock = WatchedClock()
        limiter = make(clock, general_limit=2)
        limiter.acquire(ORDERS).done()
        limiter.acquire(ORDERS)
        with in_thread(lambda: limiter.acquire(ORDERS)):
            clock.wait_for(timed=1)
            general = "general"

            def work() -> bool:
                budget = limiter.budget()[general]
                return (2, 10.0, (0, 0, 0)) == (budget.used, budget.next_free, budget.waiting)

            assert self.child(work)
            limiter.reset()

    def test_a_closed_limiter_stays_closed(self) -> None:
        """What was closed in the parent is closed in the child."""
        limiter = make()
        limiter.close()

        def work() -> bool:
            try:
                limiter.acquire(ORDERS)
            except SessionClosed:
                return True
            return False

        assert self.child(work)


@given(
    limit=st.integers(1, 6),
    reserved=st.integers(0, 2),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["call", "cancel", "done", "refund", "gave_up", "throttled", "reset"]),
            st.floats(0, 15) | st.sampled_from([0.0, 10.0, 15.0]),
            st.integers(0, 5),
        ),
        max_size=80,
    ),
)
def test_no_window_is_ever_overfull(limit: int, reserved: int, steps: list[tuple[str, float, int]]) -> None:
    """Any interleaving of calls and ends keeps every window of the gateway within the limit, and loses no permit."""
    clock = ManualClock()
    limiter = make(clock, general_limit=limit, reserved=reserved)
    naive, flying = Naive(limit, 10.0), []
    for what, pause, which in steps:
        clock.advance(pause)
        now = clock.monotonic()
        if what in ("call", "cancel"):
            permit = limiter.try_acquire(CANCEL if what == "cancel" else ORDERS)
            if permit is not None:
                flying.append((permit, naive.grant(now)))
                if what == "call" and limit > 1:
                    assert naive.used(now) <= limit - min(reserved, limit - 1)
        elif what == "reset":
            limiter.reset()
            naive.calls = [call for _, call in flying]
        elif flying:
            permit, call = flying.pop(which % len(flying))
            getattr(permit, what)()
            if what in ("done", "gave_up"):
                call.last_arrival = now + (5.0 if what == "gave_up" else 0.0)
            else:
                naive.calls.remove(call)
    for permit, _ in flying:
        permit.done()
    clock.advance(7200.0)
    assert limit == fill(limiter, CANCEL)


@pytest.mark.slow
def test_fairness() -> None:
    """Behind 31 bulk threads that want everything a cancel waits 50 ms at most, and the threads get equal shares."""
    limiter, end = RateLimiter({"general_limit": 20, "general_window": 1.0}), time.monotonic() + 6.0
    grants, waits = [0] * 31, []
    assert 18 == fill(limiter)  # so that nobody is served before all have come

    def bulk(n: int) -> None:
        while True:
            try:
                permit = limiter.acquire(ORDERS, priority=2, deadline=end)
            except RateLimitTimeout:
                return
            grants[n] += 1
            time.sleep(0.005)
            permit.done()

    threads = [threading.Thread(target=bulk, args=(n,)) for n in range(31)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end - 1.0:
        time.sleep(0.5)
        with limiter.acquire(CANCEL) as permit:
            waits.append(permit.waited)
    for thread in threads:
        thread.join(10)
    assert (True, True) == (max(waits) <= 0.05, max(grants) - min(grants) <= 2), (max(waits), grants)
    assert sum(grants) >= 80


@pytest.mark.slow
@pytest.mark.parametrize("reserved", [0, 3])
def test_32_threads(reserved: int) -> None:
    """Under real threads no window is overfull, nobody is lost, and the rate is used up."""
    limit, window, end = 40, 0.25, time.monotonic() + 2.0
    limiter = RateLimiter({"general_limit": limit, "general_window": window, "reserved": reserved, "margin": 0.0})
    spans: list[tuple[float, float]] = []

    def work(n: int) -> int:
        calls = 0
        while True:
            try:
                permit = limiter.acquire(CANCEL if n % 8 == 0 else ORDERS, priority=None if n % 8 == 0 else n % 2 + 1,
                                         deadline=end)  # fmt: skip
            except RateLimitTimeout:
                return calls
            start = time.monotonic()
            calls += 1
            if calls % 11 == 0:
                permit.refund()
                continue
            if calls % 7 == 0:
                time.sleep(0.002)
            stop = time.monotonic()
            permit.done()
            spans.append((start, stop))

    with ThreadPoolExecutor(32) as pool:
        calls = list(pool.map(work, range(32)))
    starts, stops = sorted(start for start, _ in spans), sorted(stop for _, stop in spans)
    for n in range(limit, len(starts)):
        # When the n-th call starts, fewer than *limit* others may have arrived within the last window.
        assert starts[n] - stops[n - limit] >= window - 0.005
    assert 0 == limiter.get_stats()["general"]["in_flight"] == limiter.get_stats()["general"]["waiting"]
    assert sum(calls) >= 0.8 * limit * 2.0 / window
