"""Simulation time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.clock import ManualClock
from topstep_sync.simulator.simclock import SimClock


def test_stepped_time_moves_only_by_hand() -> None:
    """At speed 0 the clock stands until it is advanced, and both readings move together."""
    source = ManualClock()
    clock = SimClock(0.0, 1000.0, source)
    source.advance(5.0)
    assert (0.0, 1000.0) == (clock.monotonic(), clock.epoch())
    clock.advance(3.5)
    assert (3.5, 1003.5) == (clock.monotonic(), clock.epoch())


def test_time_runs_at_its_speed_and_can_change_it() -> None:
    """Ten seconds of simulation pass in one; after a change of speed nothing jumps."""
    source = ManualClock()
    clock = SimClock(10.0, 0.0, source)
    source.advance(1.0)
    assert pytest.approx(10.0) == clock.monotonic()
    clock.set_speed(1.0)
    source.advance(1.0)
    assert (pytest.approx(11.0), 1.0) == (clock.monotonic(), clock.speed)


def test_without_a_start_it_is_now() -> None:
    """The simulation's first instant is the real one unless told otherwise."""
    source = ManualClock()
    assert source.epoch() == SimClock(1.0, None, source).epoch()


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 50), max_size=10))
def test_timers_fire_in_order_each_at_its_own_instant(delays: list[float], steps: list[float]) -> None:
    """However time is advanced, what is due has happened, in order, and the clock read its time when it did."""
    clock = SimClock(0.0, 0.0)
    fired: list[tuple[float, float]] = []
    for delay in delays:
        clock.call_later(delay, lambda due=delay: fired.append((due, clock.monotonic())))
    for step in (*steps, 0.0):
        clock.advance(step)
    now = clock.monotonic()
    assert sorted(d for d in delays if d <= now) == [due for due, _ in fired]
    assert all(due == at for due, at in fired)


def test_a_timer_may_set_another_and_a_cancelled_one_never_fires() -> None:
    """Chains of timers within one advance all happen; a cancelled timer does not."""
    clock = SimClock(0.0, 0.0)
    fired: list[float] = []

    def again() -> None:
        fired.append(clock.monotonic())
        clock.call_later(1.0, again)

    clock.call_later(1.0, again)
    clock.call_later(2.5, lambda: fired.append(-1.0)).cancel()
    clock.advance(3.0)
    assert [1.0, 2.0, 3.0] == fired


def test_time_cannot_go_back() -> None:
    """A negative advance is refused."""
    with pytest.raises(ValueError, match="cannot go back"):
        SimClock(0.0).advance(-1.0)


def test_timers_fire_on_the_loop_in_real_time() -> None:
    """Attached to a loop the clock fires by itself, also timers that were set before, and not after it was detached."""

    async def run() -> list[str]:
        clock, fired, done = SimClock(1000.0), [], asyncio.Event()
        clock.call_later(5.0, lambda: fired.append("before"))
        clock.attach(asyncio.get_running_loop())
        clock.call_later(20.0, lambda: (fired.append("after"), done.set()))
        clock.call_later(10.0, lambda: fired.append("between"))
        await asyncio.wait_for(done.wait(), 10)
        clock.call_later(0.0, lambda: fired.append("never"))
        clock.detach()
        await asyncio.sleep(0.01)
        return fired

    assert ["before", "between", "after"] == asyncio.run(run())


def test_a_loop_that_was_blocked_catches_up_in_slices() -> None:
    """Timers that were missed fire, with the loop free in between."""

    async def run() -> int:
        source = ManualClock()
        clock, fired = SimClock(1.0, 0.0, source), []

        def work() -> None:
            fired.append(1)
            source.advance(0.03)  # each takes a while, so that a slice of catching up ends before all are done

        for _ in range(5):
            clock.call_later(0.5, work)
        clock.attach(asyncio.get_running_loop())
        source.advance(1.0)
        clock.set_speed(1.0)
        for _ in range(20):
            await asyncio.sleep(0)
        return len(fired)

    assert 5 == asyncio.run(run())
