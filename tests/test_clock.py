"""Time: the machine's, and the one that tests move."""

import random
import threading
import time
from collections.abc import Callable

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import clock
from topstep_sync.clock import FOREVER, SYSTEM_CLOCK, Deadline, ManualClock, Signal, SystemClock

THREADS = 32

seconds = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)


def in_threads(count: int, work: Callable[[], object]) -> list[threading.Thread]:
    """*count* started threads that each do *work*."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> bool:
    """Whether all *threads* ended within ten real seconds."""
    for thread in threads:
        thread.join(10)
    return not any(thread.is_alive() for thread in threads)


class TestSystemClock:
    def test_monotonic_does_not_go_back(self) -> None:
        """Of two readings the later is not smaller."""
        assert SYSTEM_CLOCK.monotonic() <= SYSTEM_CLOCK.monotonic()

    def test_epoch_is_the_wall_clock(self) -> None:
        """The wall clock says what the machine's does."""
        with freeze_time("2026-11-24T12:00:00Z"):
            assert 1_795_521_600.0 == SYSTEM_CLOCK.epoch()

    @pytest.mark.parametrize("delay", [0.0, -1.0, -FOREVER])
    def test_no_delay_is_no_sleep(self, delay: float) -> None:
        """A delay that is zero or past returns at once."""
        SYSTEM_CLOCK.sleep(delay)

    def test_sleeps_at_least_as_long_as_asked(self) -> None:
        """A sleep is not shorter than its delay."""
        start = time.monotonic()
        SYSTEM_CLOCK.sleep(0.01)
        assert time.monotonic() - start >= 0.01

    def test_a_set_event_is_no_wait(self) -> None:
        """An event that is set already wins over a timeout that has passed already."""
        event = threading.Event()
        event.set()
        assert SYSTEM_CLOCK.wait(event, 0.0)
        assert SYSTEM_CLOCK.wait(event, None)

    @pytest.mark.parametrize("timeout", [0.0, -1.0, 0.01])
    def test_an_unset_event_times_out(self, timeout: float) -> None:
        """A wait ends with False when its time has passed."""
        assert not SYSTEM_CLOCK.wait(threading.Event(), timeout)

    def test_a_wait_without_limit_ends_with_the_event(self) -> None:
        """Without a timeout the event alone ends the wait."""
        event = threading.Event()
        waiters = in_threads(THREADS, lambda: SYSTEM_CLOCK.wait(event))
        event.set()
        assert joined(waiters)

    def test_long_waits_are_sliced(self) -> None:
        """No single wait is longer than a second, so that Ctrl-C gets through everywhere."""
        asked: list[float | None] = []

        class Watched(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                asked.append(timeout)
                if len(asked) == 3:
                    self.set()
                return self.is_set()

        assert SYSTEM_CLOCK.wait(Watched(), 3600.0)
        assert [1.0, 1.0, 1.0] == asked

    def test_chance_is_a_share(self) -> None:
        """Random numbers lie in [0, 1)."""
        assert all(0.0 <= SYSTEM_CLOCK.random() < 1.0 for _ in range(100))

    def test_chance_leaves_the_programs_own_alone(self) -> None:
        """A program that seeded `random` draws what it would have drawn without us, and does not make us repeat."""
        random.seed(7)
        expected = random.random()
        random.seed(7)
        first = SYSTEM_CLOCK.random()
        assert expected == random.random()
        random.seed(7)
        assert first != SYSTEM_CLOCK.random()

    def test_repr(self) -> None:
        """The clock shows itself as it is made."""
        assert "SystemClock()" == repr(SystemClock())


class TestSignal:
    def test_set_and_clear(self) -> None:
        """It is set until it is cleared, however often either is said."""
        signal = Signal()
        assert not signal.is_set()
        assert not signal.wait(0.0)
        for _ in range(2):
            signal.set()
            assert signal.is_set()
            assert signal.wait()
            assert signal.wait(0.0)
        for _ in range(2):
            signal.clear()
            assert not signal.is_set()
            assert not SYSTEM_CLOCK.wait(signal, 0.001)

    def test_all_who_wait_are_woken(self) -> None:
        """One `set` releases every waiter, and whoever comes later does not wait."""
        signal = Signal()
        waiters = in_threads(THREADS, lambda: SYSTEM_CLOCK.wait(signal))
        signal.set()
        assert joined(waiters)
        assert SYSTEM_CLOCK.wait(signal, 0.0)

    def test_a_waiter_that_was_interrupted_costs_the_others_a_slice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It took the lock and did not pass it on: the others see the state itself."""
        monkeypatch.setattr(clock, "SLICE", 0.01)
        signal = Signal()
        signal.set()
        assert signal._gate.acquire(timeout=1.0)  # as that waiter did
        waiters = in_threads(THREADS, lambda: SYSTEM_CLOCK.wait(signal))
        assert joined(waiters)
        signal._gate.release()

    def test_cleared_between_waking_and_passing_on(self) -> None:
        """A waiter that finds it cleared again waits on, and the next one is not let through by mistake for long."""
        signal = Signal()
        signal._gate.release()  # left open, as by a `set` that a `clear` overtook
        assert not SYSTEM_CLOCK.wait(signal, 0.001)
        assert signal._gate.locked()

    def test_threads_that_hand_over_to_each_other(self) -> None:
        """Two signals, set and cleared in turn a thousand times: no wake-up is lost."""
        ping, pong, rounds = Signal(), Signal(), 1000

        def answer() -> None:
            for _ in range(rounds):
                assert SYSTEM_CLOCK.wait(ping, 10.0)
                ping.clear()
                pong.set()

        other = in_threads(1, answer)
        for _ in range(rounds):
            ping.set()
            assert SYSTEM_CLOCK.wait(pong, 10.0)
            pong.clear()
        assert joined(other)


class TestManualClock:
    def test_stands_still(self) -> None:
        """Nothing moves it but a test."""
        clock = ManualClock(5.0, 7.0)
        assert (5.0, 7.0, 0.5) == (clock.monotonic(), clock.epoch(), clock.random())

    @given(st.lists(seconds))
    def test_advance_moves_both(self, steps: list[float]) -> None:
        """Any advances move both readings by their sum."""
        clock, expected = ManualClock(0.0, 0.0), 0.0
        for step in steps:
            clock.advance(step)
            expected += step
        assert (expected, expected) == (clock.monotonic(), clock.epoch())

    def test_jump_moves_the_wall_clock_only(self) -> None:
        """An administrator's correction does not touch durations."""
        clock = ManualClock(5.0, 7.0)
        clock.jump(-3.0)
        assert (5.0, 4.0) == (clock.monotonic(), clock.epoch())

    def test_does_not_go_back(self) -> None:
        """A negative advance is a mistake of the test."""
        with pytest.raises(ValueError, match="cannot go back"):
            ManualClock().advance(-0.1)

    def test_auto_sleeps_by_moving(self) -> None:
        """With `auto`, a sleep takes no time and moves the clock."""
        clock = ManualClock(0.0, 0.0, auto=True)
        clock.sleep(3600.0)
        clock.sleep(-1.0)
        assert (3600.0, 3600.0) == (clock.monotonic(), clock.epoch())

    def test_auto_waits_by_moving(self) -> None:
        """With `auto`, a wait for an event nobody sets moves the clock by its timeout."""
        clock = ManualClock(0.0, 0.0, auto=True)
        assert not clock.wait(threading.Event(), 60.0)
        assert not clock.wait(threading.Event(), -1.0)
        assert 60.0 == clock.monotonic()

    def test_auto_does_not_move_for_a_set_event(self) -> None:
        """With `auto`, a wait that is over before it began takes no time."""
        clock, event = ManualClock(0.0, 0.0, auto=True), threading.Event()
        event.set()
        assert clock.wait(event, 60.0)
        assert clock.wait(event)
        assert 0.0 == clock.monotonic()

    def test_thirty_two_sleepers_wake_on_time(self) -> None:
        """Each of many sleepers wakes when the clock has passed its own delay, and not before."""
        clock, woken = ManualClock(0.0, 0.0), []
        delays = iter(range(1, THREADS + 1))
        lock, awake = threading.Lock(), threading.Semaphore(0)

        def sleeper() -> None:
            with lock:
                delay = next(delays)
            clock.sleep(float(delay))
            with lock:
                woken.append(delay)
            awake.release()

        threads = in_threads(THREADS, sleeper)
        clock.wait_for_sleepers(THREADS)
        clock.advance(THREADS / 2 + 0.5)
        assert all(awake.acquire(timeout=10) for _ in range(THREADS // 2))
        assert set(range(1, THREADS // 2 + 1)) == set(woken)
        clock.advance(THREADS)
        assert joined(threads)
        assert list(range(1, THREADS + 1)) == sorted(woken)
        assert 0 == clock.sleepers

    def test_thirty_two_waiters_time_out(self) -> None:
        """Waits on an event end with False once the clock has passed their timeout."""
        clock, event, results = ManualClock(), threading.Event(), []
        threads = in_threads(THREADS, lambda: results.append(clock.wait(event, 10.0)))
        clock.wait_for_sleepers(THREADS)
        clock.advance(10.0)
        assert joined(threads)
        assert [False] * THREADS == results

    def test_thirty_two_waiters_see_the_event(self) -> None:
        """Waits on an event end with True once it is set, though the clock stands."""
        clock, event, results = ManualClock(), threading.Event(), []
        threads = in_threads(THREADS, lambda: results.append(clock.wait(event)))
        clock.wait_for_sleepers(THREADS)
        event.set()
        assert joined(threads)
        assert ([True] * THREADS, 0) == (results, clock.sleepers)

    def test_thirty_two_threads_advance_without_loss(self) -> None:
        """Advances made at the same time all count."""
        clock = ManualClock(0.0, 0.0)

        def advance() -> None:
            for _ in range(100):
                clock.advance(1.0)

        assert joined(in_threads(THREADS, advance))
        assert (3200.0, 3200.0) == (clock.monotonic(), clock.epoch())

    def test_missing_sleepers_are_told(self) -> None:
        """Waiting for sleepers that never come fails, and says how many there were."""
        with pytest.raises(TimeoutError, match="0 of 1 threads were waiting"):
            ManualClock().wait_for_sleepers(1, timeout=0.01)

    def test_repr(self) -> None:
        """The clock shows its readings."""
        assert "ManualClock(monotonic=1.0, epoch=2.0)" == repr(ManualClock(1.0, 2.0))


class TestDeadline:
    def test_never_comes(self) -> None:
        """Without a timeout there is no end."""
        never = Deadline(None, ManualClock())
        assert (FOREVER, False, True) == (never.remaining(), never.expired, never.allows(1e12))
        assert (None, 3.0) == (never.bound(None), never.bound(3.0))
        assert "Deadline(None)" == repr(never)

    @given(timeout=seconds, passed=seconds)
    def test_is_spent(self, timeout: float, passed: float) -> None:
        """What is left is what was given without what has passed, and never negative."""
        clock = ManualClock(0.0)
        deadline = Deadline(timeout, clock)
        clock.advance(passed)
        assert max(0.0, timeout - passed) == deadline.remaining()
        assert (passed >= timeout) == deadline.expired

    @given(timeout=seconds, delay=seconds)
    def test_allows_what_ends_before(self, timeout: float, delay: float) -> None:
        """A wait is allowed exactly when something of the time would be left after it."""
        assert (delay < timeout) == Deadline(timeout, ManualClock(0.0)).allows(delay)

    def test_bounds_a_timeout(self) -> None:
        """A step gets its own timeout or what is left, whichever is shorter."""
        deadline = Deadline(5.0, ManualClock(0.0))
        assert (5.0, 5.0, 2.0) == (deadline.bound(None), deadline.bound(60.0), deadline.bound(2.0))

    def test_repr(self) -> None:
        """A deadline shows what is left of it."""
        assert "Deadline(5.000)" == repr(Deadline(5.0, ManualClock(0.0)))
