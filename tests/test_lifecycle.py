"""The states of a hub connection, and its schedule of attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.clock import FOREVER
from topstep_sync.config import StreamConfig
from topstep_sync.realtime.lifecycle import (
    LOGOUT_COUNTS,
    TRANSITIONS,
    Ending,
    Event,
    Schedule,
    State,
    after_logout,
    step,
)


def delays(endings: list[Ending], chance: float = 0.5, up: float | None = None, **config: object) -> list[float | None]:
    """What the schedule says after each of *endings*, an hour apart or each after *up* seconds of connection."""
    schedule = Schedule(StreamConfig.of(config))
    now, found = 0.0, []
    for ending in endings:
        if up is not None:
            schedule.up(now)
            now += up
        found.append(schedule.after(ending, now, chance))
    return found


def test_the_list_is_followed_and_its_last_value_repeats() -> None:
    """0, 2, 10, 30, 60, 60, … seconds, without end."""
    assert [0.0, 2.0, 10.0, 30.0, 60.0, 60.0, 60.0] == delays([Ending.LOST] * 7)


def test_jitter_spreads_all_but_the_first() -> None:
    """A fifth either way; the attempt at once stays at once."""
    assert [0.0, 1.6, 8.0] == delays([Ending.LOST] * 3, chance=0.0)
    assert [0.0, pytest.approx(2.4)] == delays([Ending.LOST] * 2, chance=1.0)


def test_only_a_stable_connection_starts_the_schedule_over() -> None:
    """A server that accepts and kicks at once is not hammered; one ping interval up counts as stable."""
    assert [0.0, 2.0, 10.0] == delays([Ending.LOST] * 3, up=14.9)
    assert [0.0, 0.0, 0.0] == delays([Ending.LOST] * 3, up=15.0)


def test_attempts_may_be_limited() -> None:
    """A finite budget ends; none at all ends with the first loss."""
    assert [0.0, 2.0, None] == delays([Ending.LOST] * 3, max_attempts=2)
    assert [None] == delays([Ending.LOST], max_attempts=0)


def test_a_close_without_allow_reconnect() -> None:
    """From the second step on, and five in a row are the end, unless one connection was stable."""
    assert [2.0, 2.0, 10.0, 30.0, None] == delays([Ending.KICKED] * 5)
    assert [2.0] * 7 == delays([Ending.KICKED] * 7, up=15.0)
    assert [None] == delays([Ending.KICKED], reconnect_on_close="server")


@pytest.mark.parametrize("other", [Ending.LOST, Ending.CONFLICT])
def test_the_row_of_closes_is_of_nothing_else(other: Ending) -> None:
    """A hub that throws us out does it each time; one that is also away, or throws out another's login, is flaky."""
    assert None not in delays([Ending.KICKED] * 4 + [other] + [Ending.KICKED] * 4)
    assert [60.0, None] == delays([Ending.KICKED] * 4 + [other] + [Ending.KICKED] * 5)[-2:]
    assert None not in delays([Ending.KICKED, other] * 20)


def test_a_conflict_backs_off_further_each_time() -> None:
    """From the third step on, so that two programs do not throw each other out all day."""
    assert [10.0, 30.0, 60.0, 60.0] == delays([Ending.CONFLICT] * 4)
    assert [10.0, 30.0, 60.0] == delays([Ending.CONFLICT] * 3, up=20.0)
    assert [10.0, 10.0] == delays([Ending.CONFLICT] * 2, up=200.0)


@pytest.mark.parametrize(
    ("ending", "age", "meaning"),
    [
        (Ending.LOST, 0.0, Ending.CONFLICT),
        (Ending.KICKED, LOGOUT_COUNTS, Ending.CONFLICT),
        (Ending.HOPELESS, 0.0, Ending.HOPELESS),
        (Ending.LOST, LOGOUT_COUNTS + 1, Ending.LOST),
        (Ending.KICKED, FOREVER, Ending.KICKED),
    ],
)
def test_a_logout_explains_only_an_end_that_follows_it(ending: Ending, age: float, meaning: Ending) -> None:
    """An end that comes minutes later, or never had a logout before it, is what it is."""
    assert meaning is after_logout(ending, age)


def test_hopeless_is_hopeless() -> None:
    """A refused handshake or token is not tried again."""
    assert [None] == delays([Ending.HOPELESS])


@given(st.lists(st.sampled_from(list(Ending)), max_size=30), st.floats(0, 1))
def test_no_delay_is_longer_than_the_longest(endings: list[Ending], chance: float) -> None:
    """Every delay is within the list's, give or take the jitter."""
    assert all(delay is None or 0 <= delay <= 72.001 for delay in delays(endings, chance))


@given(st.lists(st.sampled_from(list(Event)), max_size=50))
def test_any_events_keep_legal_states(events: list[Event]) -> None:
    """A pair that is not in the table raises and changes nothing; all others lead to a state."""
    state = State.DISCONNECTED
    for event in events:
        if (state, event) in TRANSITIONS:
            state = step(state, event)
        else:
            with pytest.raises(ValueError, match=event.value):
                step(state, event)
    assert state in State


def test_every_state_can_be_left_and_reached() -> None:
    """The table has no dead end and no state nobody reaches."""
    assert set(State) == {state for state, _ in TRANSITIONS} == set(TRANSITIONS.values())
    assert {State.DISCONNECTED} == {TRANSITIONS[state, Event.DISCONNECT] for state in State}
