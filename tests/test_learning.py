"""What the gateway's refusals and acceptances teach."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_world import Stretching, drive

from topstep_sync.http.learning import FADE, MOST, STUBBORN, Learned
from topstep_sync.http.window import Window


def learned(limit: int = 100, window: float = 60.0, margin: float = 0.0) -> Learned:
    return Learned(limit, window, margin)


class TestStretch:
    def test_the_documentation_is_believed_at_first(self) -> None:
        """Without a refusal a slot is busy for the documented window and the margin."""
        new = learned(margin=0.0025)
        assert (60.15, 100, "", False) == (new.span, new.cap, new.why(), new.sure)

    def test_a_refusal_that_our_own_calls_explain_lengthens_the_window(self) -> None:
        """The age at which a call was refused is a lower bound of the window."""
        new = learned()
        pause = new.refused(100.0, age=60.5, own=100, hint=None)
        assert (pytest.approx(60.9), 0.4, 0) == (new.span, pause, new.foreign)

    def test_two_windows_settle_the_length(self) -> None:
        """The first accepted probe is tried again, alone; the second adds a guard and is believed."""
        new = learned()
        new.refused(100.0, age=60.5, own=100, hint=None)
        new.accepted(101.0, age=61.5)
        assert (61.5, False) == (new.span, new.sure)
        new.accepted(163.0, age=61.5)
        assert (pytest.approx(62.025), True) == (new.span, new.sure)

    def test_a_late_probe_does_not_tell_the_length(self) -> None:
        """An acceptance long after the refusal leaves the truth anywhere between."""
        new = learned()
        new.refused(100.0, age=60.5, own=100, hint=None)
        new.accepted(400.0, age=70.0)
        assert (pytest.approx(60.9), 0) == (new.span, new.surveys)

    def test_nothing_longer_than_a_quarter_more_is_believed(self) -> None:
        """However long the probes go on, the window is at most 1.25 times the documented one."""
        new = learned()
        for strike in range(40):
            new.refused(100.0 + strike, age=min(60.0 + strike / 2, 74.9), own=100, hint=None)
        assert 60.0 * MOST == new.span

    def test_the_whole_range_costs_at_most_twenty_refusals(self) -> None:
        """Step by step from the documented window to the longest believed one."""
        new, age, refusals = learned(), 60.0, 0
        while age < new.most:
            age += new.refused(100.0, age=age, own=100, hint=None)
            refusals += 1
        assert refusals <= 20

    def test_it_is_forgotten_within_an_hour(self) -> None:
        """Most of it holds for half an hour, none after a whole one."""
        new = learned()
        new.refused(0.0, age=60.5, own=100, hint=None)
        new.accepted(1.0, age=61.5)
        new.accepted(62.0, age=61.5)
        spans = []
        for share in (0.25, 0.5, 0.75, 1.0):
            again = new.review(62.0 + share * FADE)
            spans.append(round(new.span, 2))
        assert ([62.02, 61.9, 61.38, 60.0], math.inf) == (spans, again)

    def test_a_stretched_window_is_tried_by_one_call_after_a_pause(self) -> None:
        """A proof is good for a tenth of a window where windows are known to scatter."""
        new = learned()
        new.refused(0.0, age=60.5, own=100, hint=None)
        new.accepted(1.0, age=61.5)
        new.accepted(62.0, age=61.5)
        new.review(62.0 + 5.9)
        assert new.sure
        new.review(62.0 + 6.1)
        assert not new.sure


class TestRetryAfter:
    def test_believable_one_is_a_lower_bound(self) -> None:
        """A wait that fits into a window we would believe in is obeyed."""
        assert 2.0 == learned().refused(100.0, age=60.2, own=100, hint=2.0)

    def test_one_that_misled_is_a_guess_from_then_on(self) -> None:
        """A refusal after an obeyed wait shows that the gateway guesses."""
        new = learned()
        new.refused(100.0, age=60.2, own=100, hint=1.0)
        assert (0.4, True) == (new.refused(101.0, age=61.2, own=100, hint=1.0), new.misled)
        new.accepted(102.0, age=61.6)
        assert 0.4 == new.refused(200.0, age=61.6, own=100, hint=1.0)

    def test_one_that_contradicts_every_window_is_believed_last(self) -> None:
        """ASP.NET's fixed window answers with its whole length; obeying that would cost a window."""
        new = learned()
        pauses = [new.refused(100.0, age=60.2, own=100, hint=60.0) for _ in range(STUBBORN + 1)]
        assert [0.4] * STUBBORN + [60.0] == pauses

    def test_zero_says_nothing(self) -> None:
        """A Retry-After of zero is no wait at all."""
        assert 0.4 == learned().refused(100.0, age=60.2, own=100, hint=0.0)


class TestForeign:
    def test_a_refusal_that_no_window_explains_shrinks_the_limit(self) -> None:
        """What the gateway refuses though we sent less than the limit, others took."""
        new = learned()
        pause = new.refused(100.0, age=math.inf, own=70, hint=None)
        assert (30, 70, 6.0) == (new.foreign, new.cap, pause)
        assert "others take 30 of 100" in new.why()

    def test_it_recovers_slowly(self) -> None:
        """Held for a window, then halved each window."""
        new = learned()
        new.refused(0.0, age=math.inf, own=60, hint=None)
        caps = []
        for windows in (0.5, 1.0, 2.0, 3.0, 9.0):
            again = new.review(windows * 60.0)
            caps.append(new.cap)
        assert ([60, 60, 80, 90, 100], math.inf) == (caps, again)

    def test_one_call_is_always_left(self) -> None:
        """Even when others take everything, a probe may find out that they stopped."""
        new = learned()
        new.refused(0.0, age=math.inf, own=0, hint=None)
        assert 1 == new.cap

    def test_retry_after_is_obeyed_up_to_the_longest_window(self) -> None:
        """An hour would be a punishment that the documentation does not know."""
        pauses = [learned().refused(0.0, age=math.inf, own=5, hint=hint) for hint in (2.0, 20.0, 3600.0)]
        assert [6.0, 20.0, 75.0] == pauses

    def test_pauses_grow(self) -> None:
        """Refusal after refusal the class rests longer, up to 0.8 windows."""
        new = learned()
        pauses = [new.refused(0.0, age=math.inf, own=5, hint=None) for _ in range(5)]
        assert [6.0, 12.0, 24.0, 48.0, 48.0] == pauses


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("refused"), st.floats(0, 200) | st.just(math.inf), st.integers(0, 100)),
            st.tuples(st.just("accepted"), st.floats(0, 200) | st.just(math.inf), st.integers(0, 0)),
            st.tuples(st.just("review"), st.floats(0, 5000), st.integers(0, 0)),
        ),
        max_size=30,
    )
)
def test_figures_stay_within_their_bounds(events: list[tuple[str, float, int]]) -> None:
    """Whatever the gateway does, the window is between 1 and 1.25 times the documented one, and a call is left."""
    new, now = learned(margin=0.0025), 0.0
    for what, value, own in events:
        if what == "review":
            now += value
            assert new.review(now) > now
        elif what == "refused":
            assert 0 < new.refused(now, value, own, None) <= new.most
        else:
            new.accepted(now, value)
        assert new.base <= new.span <= new.most
        assert 1 <= new.cap <= new.limit


@pytest.mark.parametrize(("limit", "length", "hint"), [(50, 30.0, 1.0), (200, 60.0, 2.0), (50, 30.0, None)])
@pytest.mark.parametrize("seed", range(3))
def test_a_stretching_gateway_is_learned(limit: int, length: float, hint: float | None, seed: int) -> None:
    """Within 20 refusals the length is known, after two windows refusals are rare, and hardly any rate is lost."""
    window, server = Window(limit, length, margin=0.0025), Stretching(limit, length, 30, seed)
    _, refused = drive(window, server, until=13 * length, hint=hint)
    late = [at for at in refused if at > 2.3 * server.window]
    assert (True, True) == (len(refused) <= 20, len(late) <= 2)
    assert server.window / window.span >= 0.95
