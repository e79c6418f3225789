"""Who is next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.http.line import Line, Pacing, Waiter


def names(line: Line) -> list[tuple[int, float]]:
    """Priority and arrival of everybody, in the order in which they go."""
    gone = []
    while (head := line.head()) is not None:
        gone.append((head.rank, head.since))
        assert line.leave(head)
    return gone


class TestLine:
    def test_urgent_ones_go_first(self) -> None:
        """Priority 0 passes everybody, in its own order."""
        line = Line(30.0)
        for rank, now in [(1, 0.0), (2, 1.0), (0, 2.0), (0, 3.0)]:
            line.join(Waiter(rank), now)
        assert [(0, 2.0), (0, 3.0), (1, 0.0), (2, 1.0)] == names(line)

    def test_bulk_is_passed_for_a_while_only(self) -> None:
        """A bulk call goes before ordinary ones that came more than the ageing time later."""
        line = Line(30.0)
        for rank, now in [(2, 0.0), (1, 29.0), (1, 31.0)]:
            line.join(Waiter(rank), now)
        assert [(1, 29.0), (2, 0.0), (1, 31.0)] == names(line)

    @pytest.mark.parametrize(("rank", "passes"), [(0, True), (1, True), (2, False)])
    def test_who_passes_a_bulk_waiter(self, rank: int, passes: bool) -> None:
        """A newcomer is next only where it outranks the head."""
        line = Line(30.0)
        line.join(Waiter(2), 0.0)
        assert passes == line.passes(rank, 10.0)

    def test_anybody_passes_an_empty_line(self) -> None:
        """Where nobody waits, everybody is next."""
        assert Line(30.0).passes(2, 0.0)

    def test_nobody_overtakes_an_equal(self) -> None:
        """First come, first served, also among those that come at the same instant."""
        line = Line(30.0)
        line.join(Waiter(0), 5.0)
        assert not line.passes(0, 5.0)

    def test_ahead(self) -> None:
        """How many go before a newcomer."""
        line = Line(30.0)
        for rank, now in [(0, 0.0), (1, 0.0), (2, 0.0), (1, 1.0)]:
            line.join(Waiter(rank), now)
        assert [1, 3, 4, 4] == [line.ahead(0, 2.0), line.ahead(1, 2.0), line.ahead(2, 2.0), line.ahead(1, 31.0)]

    def test_leaving_from_the_middle(self) -> None:
        """Somebody who gives up is gone, and cannot go twice."""
        line = Line(30.0)
        waiters = [Waiter(1) for _ in range(3)]
        for now, waiter in enumerate(waiters):
            line.join(waiter, float(now))
        assert [True, False] == [line.leave(waiters[1]), line.leave(waiters[1])]
        assert [(1, 0.0), (1, 2.0)] == names(line)

    def test_figures(self) -> None:
        """Counts by priority, and since when the longest waits."""
        line = Line(30.0)
        assert (None, 0) == (line.oldest(), len(line))
        for rank, now in [(2, 3.0), (1, 4.0), (2, 5.0)]:
            line.join(Waiter(rank), now)
        assert (3.0, (0, 1, 2), 3, 3) == (line.oldest(), line.counts(), len(line), len(line.everybody()))

    @given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 20)), max_size=30))
    def test_nobody_is_lost_and_each_priority_keeps_its_order(self, arrivals: list[tuple[int, float]]) -> None:
        """Everybody goes once, and never before somebody of the same priority that came earlier."""
        line, now, joined = Line(30.0), 0.0, []
        for rank, pause in arrivals:
            now += pause
            line.join(Waiter(rank), now)
            joined.append((rank, now))
        gone = names(line)
        assert sorted(joined) == sorted(gone)
        for rank in range(3):
            assert [item for item in joined if item[0] == rank] == [item for item in gone if item[0] == rank]


class TestPacing:
    def test_a_burst_and_then_the_rate(self) -> None:
        """The bucket's content goes at once, then one call per gap."""
        pacing, now, gone = Pacing(3, 2.0), 100.0, []
        for _ in range(6):
            now += pacing.wait(now)
            pacing.spend(now)
            gone.append(now)
        assert [100.0, 100.0, 100.0, 100.5, 101.0, 101.5] == gone

    def test_it_fills_up_to_the_burst_only(self) -> None:
        """An hour of silence saves no more than one burst."""
        pacing = Pacing(2, 2.0)
        pacing.spend(0.0)
        waits = []
        for _ in range(3):
            waits.append(pacing.wait(3600.0))
            pacing.spend(3600.0)
        assert [0.0, 0.0, 0.5] == waits

    def test_those_behind_wait_longer(self) -> None:
        """Each caller ahead costs one gap."""
        assert [0.0, 0.0, 0.5, 1.0] == [Pacing(2, 2.0).wait(0.0, ahead) for ahead in range(4)]
