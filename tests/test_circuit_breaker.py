"""CIRC-001: when it opens, who may probe, and what never counts."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.clock import ManualClock
from topstep_sync.config import BreakerConfig, Config
from topstep_sync.errors import CircuitOpen, Fate
from topstep_sync.http.circuit_breaker import BYPASS, TRANSITIONS, Change, CircuitBreaker, Event, Phase, State


def make(**config: object) -> tuple[CircuitBreaker, ManualClock]:
    clock = ManualClock()
    clock.chance = 0.0
    return CircuitBreaker("orders", config, clock=clock), clock


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failure(breaker.before_call(), "HTTP 503")


def opened(**config: object) -> tuple[CircuitBreaker, ManualClock]:
    breaker, clock = make(**config)
    fail(breaker, 5)
    assert breaker.state is State.OPEN
    return breaker, clock


def test_five_failures_in_a_row_open_it() -> None:
    """The fifth failure in a row opens the breaker, the fourth does not."""
    breaker, _ = make()
    fail(breaker, 4)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert breaker.state is State.OPEN


def test_a_success_ends_the_row() -> None:
    """Four failures, a success and four failures leave it closed, as long as the share allows."""
    breaker, _ = make(min_calls=100)
    fail(breaker, 4)
    breaker.success(breaker.before_call())
    fail(breaker, 4)
    assert breaker.state is State.CLOSED


def test_half_of_ten_calls_open_it() -> None:
    """Every second call failing opens it with the tenth call in the window, and not before."""
    breaker, _ = make()
    for number in range(1, 10):
        if number % 2:
            breaker.success(breaker.before_call())
        else:
            fail(breaker)
        assert breaker.state is State.CLOSED, number
    fail(breaker)
    assert breaker.state is State.OPEN


def test_old_calls_do_not_count() -> None:
    """Failures older than the window are forgotten by the share."""
    breaker, clock = make(consecutive_failures=100)
    fail(breaker, 9)
    clock.advance(30.0)
    fail(breaker)
    assert breaker.state is State.CLOSED


def test_the_refusal_says_when_and_why() -> None:
    """A refused call was not sent, and the error tells the wait and the last failure."""
    breaker, clock = opened()
    clock.advance(2.0)
    with pytest.raises(CircuitOpen) as caught:
        breaker.before_call()
    assert (3.0, "HTTP 503", Fate.NOT_SENT) == (caught.value.retry_after, caught.value.last_error, caught.value.fate)
    assert "orders" in str(caught.value)
    assert "3.0 s" in str(caught.value)


def test_openings_grow_up_to_the_longest_and_start_anew_after_a_success() -> None:
    """Failed probes double the opening: 5, 10, 20, 40, 60, 60 s; a good probe resets it to 5 s."""
    breaker, clock = opened()
    lengths = []
    for _ in range(6):
        lengths.append(breaker.get_stats()["retry_after"])
        clock.advance(lengths[-1])
        fail(breaker)
    assert [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] == pytest.approx(lengths)
    clock.advance(60.0)
    breaker.success(breaker.before_call())
    assert breaker.state is State.CLOSED
    fail(breaker, 5)
    assert 5.0 == pytest.approx(breaker.get_stats()["retry_after"])


def test_an_opening_is_jittered() -> None:
    """Chance lengthens an opening by up to a tenth."""
    clock = ManualClock()
    clock.chance = 1.0
    breaker = CircuitBreaker("history", None, clock=clock)
    fail(breaker, 5)
    assert 5.5 == pytest.approx(breaker.get_stats()["retry_after"])


def test_exactly_one_of_16_threads_probes() -> None:
    """When the opening is over, one caller gets through and 15 are refused at once."""
    breaker, clock = opened()
    clock.advance(5.0)
    start = threading.Barrier(16)

    def knock() -> bool:
        start.wait()
        try:
            breaker.before_call()
        except CircuitOpen:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        passed = [done.result(10) for done in [pool.submit(knock) for _ in range(16)]]
    assert 1 == sum(passed)
    assert breaker.state is State.HALF_OPEN


def test_reads_probe_first() -> None:
    """A call that changes something may probe only once the opening has been over for another five seconds."""
    breaker, clock = opened()
    clock.advance(5.0)
    with pytest.raises(CircuitOpen) as caught:
        breaker.before_call(may_probe=False)
    assert 0.0 == caught.value.retry_after
    clock.advance(5.0)
    assert breaker.before_call(may_probe=False).state is State.HALF_OPEN


def test_an_interrupted_probe_is_given_back() -> None:
    """After an abandoned probe the very next caller probes, without another opening."""
    breaker, clock = opened()
    clock.advance(5.0)
    breaker.abandon(breaker.before_call())
    assert breaker.state is State.OPEN
    breaker.success(breaker.before_call())
    assert breaker.state is State.CLOSED


def test_an_answer_is_enough_for_a_probe() -> None:
    """A probe answered with 4xx closes the breaker: the gateway is there."""
    breaker, clock = opened()
    clock.advance(5.0)
    breaker.neutral(breaker.before_call())
    assert breaker.state is State.CLOSED


def test_what_must_be_tried_passes_an_open_breaker_and_changes_nothing() -> None:
    """A cancel goes out whatever the state, and its outcome neither opens nor closes."""
    breaker, _ = opened()
    for outcome in (breaker.success, breaker.neutral, breaker.abandon, breaker.failure):
        phase = breaker.before_call(must_try=True)
        assert phase is BYPASS
        outcome(phase)
        assert breaker.state is State.OPEN
    assert 4 == breaker.get_stats()["bypassed"]


@pytest.mark.parametrize("outcome", ["neutral", "abandon"])
def test_neutral_outcomes_never_open_it(outcome: str) -> None:
    """4xx, 429, 401, local refusals and interruptions, however many, leave it closed and do not end a row."""
    breaker, _ = make()
    fail(breaker, 4)
    for _ in range(100):
        getattr(breaker, outcome)(breaker.before_call())
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert breaker.state is State.OPEN


def test_a_late_outcome_of_an_earlier_phase_is_ignored() -> None:
    """A call that began before the opening closes nothing and reopens nothing when it ends during a later phase."""
    breaker, clock = make()
    early = [breaker.before_call() for _ in range(4)]
    fail(breaker, 5)
    breaker.success(early[0])
    breaker.failure(early[1])
    assert breaker.state is State.OPEN
    clock.advance(5.0)
    probe = breaker.before_call()
    breaker.success(early[2])
    breaker.failure(early[3])
    assert breaker.state is State.HALF_OPEN
    breaker.success(probe)
    breaker.failure(probe)
    breaker.abandon(probe)
    assert breaker.state is State.CLOSED


def test_call_guards_a_function() -> None:
    """`call` returns the function's result, counts its exceptions, and lets an interruption pass uncounted."""
    breaker, _ = make(consecutive_failures=1)
    assert 5 == breaker.call(max, 3, 5)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)
    assert breaker.state is State.CLOSED
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 // 0)
    with pytest.raises(CircuitOpen, match="ZeroDivisionError"):
        breaker.call(max, 3, 5)


def test_reset_forgets_everything() -> None:
    """After `reset` an open breaker is closed, with no failure remembered."""
    breaker, _ = opened()
    breaker.reset()
    assert breaker.state is State.CLOSED
    fail(breaker, 4)
    assert breaker.state is State.CLOSED


def test_listeners_hear_every_change_outside_the_lock() -> None:
    """A listener is told what changed and why, and may ask the breaker itself."""
    breaker, clock = make()
    heard: list[tuple[Change, str]] = []
    breaker.listen(lambda change: heard.append((change, breaker.get_stats()["state"])))
    fail(breaker, 5)
    clock.advance(5.0)
    breaker.success(breaker.before_call())
    assert ["open", "half_open", "closed"] == [state for _, state in heard]
    assert Change("orders", State.CLOSED, State.OPEN, "HTTP 503", 5.0) == heard[0][0]


def test_config_may_come_as_mapping_part_or_whole() -> None:
    """A mapping, a BreakerConfig, a Config and None all make the same breaker."""
    for config in ({}, BreakerConfig(), Config(), None):
        assert BreakerConfig() == CircuitBreaker("x", config).config
    assert "CircuitBreaker('x', closed)" == repr(CircuitBreaker("x"))


def test_every_pair_of_the_table_is_legal_and_all_else_raises() -> None:
    """A state and an event that the table does not name is a bug of the caller, not a silent no-op."""
    for state in State:
        for event in Event:
            breaker, _ = make()
            breaker._phase = Phase(state)
            with breaker._lock:
                if (state, event) in TRANSITIONS:
                    assert TRANSITIONS[state, event] is breaker._step(event).after
                else:
                    with pytest.raises(KeyError):
                        breaker._step(event)


ACTIONS = st.lists(
    st.sampled_from(["success", "failure", "neutral", "abandon", "wait", "stale", "bypass"]), max_size=60
)


@given(ACTIONS)
def test_any_history_keeps_the_rules(actions: list[str]) -> None:
    """Whatever happens: refusals only when not closed, one probe at a time, never open without failures."""
    breaker, clock = make()
    first = breaker.before_call()
    failures = 0
    for action in actions:
        if action == "wait":
            clock.advance(5.0)
            continue
        if action == "stale":
            breaker.failure(first)
            failures += 1
            continue
        due = breaker.state is State.CLOSED or action == "bypass" or breaker.get_stats()["retry_after"] == 0.0
        if not due:
            with pytest.raises(CircuitOpen):
                breaker.before_call()
            continue
        phase = breaker.before_call(must_try=action == "bypass")
        if phase.state is State.HALF_OPEN:
            with pytest.raises(CircuitOpen):
                breaker.before_call()
        outcome: Callable[..., None] = getattr(breaker, action, breaker.success)
        outcome(phase)
        failures += action == "failure"
        assert breaker.state is not State.HALF_OPEN
    assert breaker.state is State.CLOSED or failures >= 5


def test_no_lock_is_held_during_a_call() -> None:
    """16 calls that wait for each other all run at the same time."""
    breaker, _ = make()
    together = threading.Barrier(16)
    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(breaker.call, together.wait, 10) for _ in range(16)]
        assert set(range(16)) == {result.result(10) for result in done}


def test_a_breaker_that_closes_meanwhile_lets_the_call_pass() -> None:
    """Between the look without the lock and the one with it the probe may have succeeded; the call passes then."""
    breaker, _ = make()
    assert breaker.before_call() is breaker._probe_or_refuse(True)
    assert "Phase(CLOSED)" == repr(breaker.before_call())


def test_a_forked_child_starts_with_a_free_lock() -> None:
    """A lock that was held at the fork binds nobody in the child; the state is kept."""
    breaker, _ = opened()
    with breaker._lock:
        breaker.forked()
        assert "open" == breaker.get_stats()["state"]
