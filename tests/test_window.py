"""The pure sliding window of one class."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.http.window import GATES, Gate, Notice, Window


def window(limit: int = 3, length: float = 10.0, reserved: int = 0) -> Window:
    return Window(limit, length, reserved=reserved)


def fill(full: Window, now: float, count: int | None = None) -> None:
    """*count* calls (all that are allowed) were granted and complete at *now*."""
    for _ in range(full.cap if count is None else count):
        assert 0.0 == full.take(now, True)
        full.release(now, full.gate is Gate.PROBING)


def frozen(limit: int = 3) -> Window:
    """A window that was used up at 0, and whose first reuse, at 10, was refused."""
    full = window(limit)
    fill(full, 0.0)
    assert 0.0 == full.take(10.0, False)
    full.refused(10.0, 10.0, True, None)
    return full


class TestGranting:
    def test_wait_is_until_the_oldest_slot_is_free(self) -> None:
        """The wait is exact, so nobody wakes early and asks again."""
        full = window()
        for now in (0.0, 1.0, 2.0):
            fill(full, now, 1)
        assert 7.5 == full.take(2.5, False)

    def test_calls_in_flight_have_no_end_yet(self) -> None:
        """Where every slot is in flight, only an event helps."""
        full = window()
        for _ in range(3):
            full.take(0.0, False)
        assert math.inf == full.take(1.0, False)

    def test_a_given_up_call_keeps_its_slot_for_grace_and_window(self) -> None:
        """The stamp of a call without a reply lies ahead."""
        full = window(limit=1)
        full.take(0.0, False)
        full.abandon(25.0, 20.0, False)
        assert [15.0, 4.0, 0.0] == [full.take(20.0, False), full.take(31.0, False), full.take(35.0, False)]

    def test_a_given_up_call_does_not_hide_later_ones(self) -> None:
        """Stamps that lie ahead are sorted in when their time has come."""
        full = window(limit=2)
        full.take(0.0, False)
        full.take(0.0, False)
        full.abandon(5.0, 0.0, False)
        full.release(1.0, False)
        assert (10.0, [1.0, 5.0]) == (full.take(11.0, False) or 10.0, [1.0, *full.busy])

    def test_the_reserve_is_for_urgent_calls(self) -> None:
        """Ordinary calls leave the reserved slots alone."""
        full = window(limit=3, reserved=2)
        assert 0.0 == full.take(0.0, False)
        assert math.inf == full.take(0.0, False)
        assert [0.0, 0.0, math.inf] == [full.take(0.0, True) for _ in range(3)]

    def test_a_reserve_of_everything_leaves_one(self) -> None:
        """However large the reserve, an ordinary call can go."""
        assert 0.0 == window(limit=1, reserved=5).take(0.0, False)

    def test_a_refund_frees_the_slot_at_once(self) -> None:
        """What was never sent was never counted."""
        full = window(limit=1)
        full.take(0.0, False)
        full.refund(0.0, False)
        assert 0.0 == full.take(0.0, False)

    @pytest.mark.parametrize(("ahead", "expected"), [(0, 9.0), (1, 9.5), (2, 10.0), (3, 19.0), (7, 29.5)])
    def test_estimate_for_those_behind(self, ahead: int, expected: float) -> None:
        """Who stands behind others waits for as many slots more, window after window."""
        full = window()
        fill(full, 0.0, 1)
        fill(full, 0.5, 1)
        full.take(1.0, False)
        assert expected == full.wait(1.0, ahead, False)

    def test_estimate_where_there_is_room(self) -> None:
        """Nobody waits while there are slots."""
        assert [0.0, 0.0, 10.0] == [window().wait(0.0, ahead, False) for ahead in (0, 2, 3)]

    def test_estimate_while_frozen(self) -> None:
        """Nobody is quicker than the freeze."""
        full = window()
        full.take(0.0, False)
        full.refused(0.0, 0.0, False, 7.0)
        assert 7.0 == full.wait(0.0, 0, False)

    def test_estimate_counts_given_up_calls(self) -> None:
        """A stamp that lies ahead is one more slot to wait for."""
        full = window(limit=1)
        full.take(0.0, False)
        full.abandon(5.0, 0.0, False)
        assert 15.0 == full.wait(0.0, 0, False) == full.take(0.0, False)


class TestGate:
    def test_every_pair_is_a_decision(self) -> None:
        """Legal pairs lead where the table says; any other is a caller's bug."""
        for state in Gate:
            for notice in Notice:
                gate = window()
                gate.gate = state
                if (state, notice) in GATES:
                    gate.step(notice)
                    assert GATES[state, notice] is gate.gate
                else:
                    with pytest.raises(KeyError):
                        gate.step(notice)

    def test_a_refusal_freezes_and_one_probe_goes_first(self) -> None:
        """After the freeze one call goes, and everybody else waits for its outcome."""
        full = frozen()
        until = full.until
        assert (Gate.FROZEN, pytest.approx(until - 10.01)) == (full.gate, full.take(10.01, False))
        assert (0.0, Gate.PROBING, math.inf) == (full.take(until, False), full.gate, full.take(until, False))
        full.release(until + 0.1, True)
        assert (Gate.FLOWING, 0) == (full.gate, full.learned.strikes)

    def test_a_refused_probe_freezes_again(self) -> None:
        """Each refused probe costs one call and a pause."""
        full = frozen()
        until = full.until
        full.take(until, False)
        full.refused(until, until, True, None)
        assert (Gate.FROZEN, True) == (full.gate, full.until > until)

    @pytest.mark.parametrize("how", ["refund", "abandon"])
    def test_a_lost_probe_is_followed_by_another(self, how: str) -> None:
        """A probe of which nobody knows the outcome decides nothing."""
        full = frozen()
        until = full.until
        full.take(until, False)
        full.refund(until, True) if how == "refund" else full.abandon(until + 5, until, True)
        assert Gate.FROZEN is full.gate
        assert (0.0, Gate.PROBING) == (full.take(until, False), full.gate)

    def test_old_news_freezes_nothing(self) -> None:
        """A refusal of a call that was granted before the last probe succeeded is not believed."""
        full = frozen(limit=5)
        until = full.until
        full.take(until, False)
        full.release(until + 0.1, True)
        full.taken += 1  # another call is in flight since before the freeze
        full.refused(until + 0.2, 9.0, False, None)
        assert Gate.FLOWING is full.gate

    def test_a_straggler_lengthens_the_freeze(self) -> None:
        """Calls that were in flight when the class froze may be refused, too."""
        full = window()
        full.take(0.0, False)
        full.take(0.0, False)
        full.refused(0.0, 0.0, False, 1.0)
        full.refused(0.5, 0.0, False, 9.0)
        assert (Gate.FROZEN, 9.5) == (full.gate, full.until)

    def test_a_straggler_does_not_disturb_the_probe(self) -> None:
        """While one call is alone on its way, the refusal of an older one changes no state."""
        full = frozen(limit=5)
        until = full.until
        full.take(until, False)
        full.taken += 1  # another call is in flight since before the freeze
        full.refused(until, 9.0, False, None)
        assert (Gate.PROBING, True) == (full.gate, until == full.until)

    def test_the_first_reuse_of_a_slot_goes_alone(self) -> None:
        """Nobody knows the gateway's window before it has accepted a call at such an age."""
        full = window(limit=2)
        fill(full, 0.0)
        assert (0.0, Gate.PROBING, math.inf) == (full.take(10.0, False), full.gate, full.take(10.0, False))
        full.release(10.1, True)
        assert (0.0, Gate.FLOWING) == (full.take(10.1, False), full.gate)

    def test_a_cancel_does_not_wait_for_the_end_of_a_doubt(self) -> None:
        """An urgent call passes a probe that only tries the window, and waits for one that follows a refusal."""
        full = Window(3, 10.0, reserved=1)
        fill(full, 0.0)
        assert (0.0, Gate.PROBING, True) == (full.take(10.0, False), full.gate, full.alone)
        assert (0.0, False, math.inf) == (full.take(10.0, True), full.alone, full.take(10.0, False))
        full.refused(10.1, 10.0, True, None)
        full.take(full.until, False)
        assert (Gate.PROBING, math.inf) == (full.gate, full.take(full.until, True))

    def test_few_calls_raise_no_doubt(self) -> None:
        """Who never comes near the limit never goes alone."""
        full = window(limit=2)
        for now in range(0, 1000, 7):
            assert (0.0, Gate.FLOWING) == (full.take(float(now), False), full.gate)
            full.release(float(now), False)

    def test_slots_are_taken_again_when_the_window_turns_out_longer(self) -> None:
        """What was free by the documented window is not by the learned one."""
        full = window(limit=2, length=100.0)
        fill(full, 0.0)
        full.take(100.0, False)
        full.refused(100.0, 100.0, True, None)
        assert (2, Gate.FROZEN) == (full.used(100.0), full.gate)
        assert pytest.approx(100.0 / 150) == full.take(100.0, False)

    def test_a_shrunk_limit_comes_back(self) -> None:
        """What others took is ours again some windows later."""
        full = window(limit=4)
        fill(full, 0.0, 1)
        full.take(0.0, False)
        full.refused(0.0, 0.0, False, None)
        assert 1 == full.cap
        full.take(15.0, False)
        full.release(15.0, True)
        full.used(200.0)
        assert 4 == full.cap


class TestRest:
    def test_reset_remembers_only_what_is_in_flight(self) -> None:
        """A call in flight keeps its slot, and may end as it likes."""
        full = window(limit=3)
        fill(full, 0.0, 1)
        full.take(0.0, False)
        full.take(0.0, False)
        full.refused(0.0, 0.0, False, None)
        full.reset()
        assert (1, Gate.FLOWING) == (full.taken, full.gate)
        full.release(1.0, True)
        assert [0.0, 0.0, 10.0] == [full.take(1.0, False) for _ in range(3)]

    def test_reset_frees_given_up_calls(self) -> None:
        """Nothing is ahead after a reset."""
        full = window(limit=1)
        full.take(0.0, False)
        full.abandon(5.0, 0.0, False)
        full.reset()
        assert 0.0 == full.take(0.0, False)

    def test_orphans_count_as_complete_later(self) -> None:
        """Calls whose holder is gone may still arrive for a while."""
        full = window(limit=2)
        full.take(0.0, False)
        full.orphan(5.0)
        assert (0, [0.0, 15.0]) == (full.flying, [full.take(0.0, False), full._until_free(0.0, 0)])

    def test_more_calls_than_the_limit(self) -> None:
        """Where others' late reports fill more than the window, the newest calls are of no age."""
        full = window(limit=2)
        full.taken = 5
        assert 0.0 == full.age(100.0)

    def test_an_orphaned_probe_is_lost(self) -> None:
        """The next call probes in its stead."""
        full = window()
        full.take(0.0, False)
        full.refused(0.0, 0.0, False, None)
        full.take(full.until, False)
        full.orphan(full.until + 5)
        assert Gate.FROZEN is full.gate


@given(
    limit=st.integers(1, 5),
    reserved=st.integers(0, 3),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "urgent", "release", "refund", "abandon", "refused"]),
            st.floats(0, 12),
            st.integers(0, 4),
        ),
        max_size=60,
    ),
)
def test_the_books_balance(limit: int, reserved: int, steps: list[tuple[str, float, int]]) -> None:
    """At every moment each slot is free, in flight, busy or ahead, and a wait that is finite ends with a permit."""
    books, flying, now = window(limit, reserved=reserved), [], 0.0
    for what, pause, which in steps:
        now += pause
        if what in ("take", "urgent"):
            wait = books.take(now, what == "urgent")
            if wait == 0.0:
                flying.append((now, books.gate is Gate.PROBING))
            else:
                assert wait > 0.0
        elif flying:
            granted, probe = flying.pop(which % len(flying))
            if what == "release":
                books.release(now, probe)
            elif what == "refund":
                books.refund(now, probe)
            elif what == "abandon":
                books.abandon(now + 5.0, now, probe)
            else:
                books.refused(now, granted, probe, None)
        assert len(flying) == books.flying
        assert 0 <= books.taken <= limit
        assert sorted(books.busy) == list(books.busy)
