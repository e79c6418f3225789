"""The states of an intent, and what each answer means."""

import itertools

import pytest
from gateway_model import GatewayModel
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import errors
from topstep_sync.api.intent import OPEN, TRANSITIONS, Answer, Event, State, answer, step
from topstep_sync.codes import CODES, failure

PLACE = "/api/Order/place"


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_a_pair_that_is_missing_raises(state: State, event: Event) -> None:
    """Every pair of the table has its state; every other is a bug and raises."""
    if (state, event) in TRANSITIONS:
        assert TRANSITIONS[state, event] is step(state, event)
    else:
        with pytest.raises(KeyError):
            step(state, event)


@given(st.lists(st.sampled_from(list(Event))))
def test_a_lost_order_is_never_called_not_executed(events: list[Event]) -> None:
    """Whatever happens, an intent whose reply was lost ends as found, absent or unknown."""
    state, lost = State.PREPARED, False
    for event in events:
        if (state, event) not in TRANSITIONS:
            continue
        state = step(state, event)
        lost = lost or state is State.LOST
        assert not (lost and event in (Event.TURN_AWAY, Event.REJECT))


def test_every_state_can_be_reached() -> None:
    """No state is without a way to it, and none that is settled leads back to an order in flight."""
    assert set(State) - {State.PREPARED} == set(TRANSITIONS.values())
    assert not [s for (s, e), _ in TRANSITIONS.items() if e is Event.SEND and s not in {*OPEN, State.ABSENT}]


# Source: resilience study §1.5; codes of PlaceOrderErrorCode, gateway documentation 2026-09.
CODE_ANSWERS = {
    1: Answer.REJECTED, 2: Answer.REJECTED, 3: Answer.REJECTED, 4: Answer.REJECTED, 5: Answer.REJECTED,
    6: Answer.AMBIGUOUS, 7: Answer.AMBIGUOUS, 8: Answer.REJECTED, 9: Answer.REJECTED, 10: Answer.REJECTED,
    11: Answer.AMBIGUOUS,
}  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), CODE_ANSWERS.items())
def test_what_each_code_of_place_means(code: int, expected: Answer) -> None:
    """Pending, unknown and undocumented codes are ambiguous; every other is a refusal."""
    assert set(range(1, len(CODES["/api/order/place"]))) == set(CODE_ANSWERS) - {11}
    assert expected is answer(failure(PLACE, code, None, order_id=7))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("lost", Answer.AMBIGUOUS), ("500", Answer.AMBIGUOUS), ("502", Answer.AMBIGUOUS),
        ("truncated", Answer.AMBIGUOUS), ("409", Answer.AMBIGUOUS), ("bug", Answer.AMBIGUOUS),
        ("ctrl-c", Answer.AMBIGUOUS), ("400", Answer.REJECTED), ("401", Answer.NOT_EXECUTED),
        ("429", Answer.NOT_EXECUTED), ("refused", Answer.NOT_EXECUTED), ("open", Answer.NOT_EXECUTED),
    ],
)  # fmt: skip
def test_what_each_failure_means(fault: str, expected: Answer) -> None:
    """Only what provably did not run is called so; doubt is ambiguous."""
    assert expected is answer(GatewayModel.error(fault, PLACE))


def test_a_taken_tag_is_a_duplicate() -> None:
    """The text tells a taken tag from other refusals of code 2."""
    error = failure(PLACE, 2, "Specified custom tag is already in use")
    assert Answer.DUPLICATE is answer(error)
    assert isinstance(error, errors.DuplicateCustomTag)
