"""The pure window that several holders lease from."""

import math
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_world import Naive

from topstep_sync.config import RateConfig
from topstep_sync.http.shared_window import SharedWindow, load
from topstep_sync.http.sharing import (
    DONE,
    GAVE_UP,
    LONGEST,
    REFUSED,
    UNUSED,
    USABLE,
    Answer,
    Ask,
    Ended,
    Rules,
    key_of,
)
from topstep_sync.http.window import Gate

RULES = Rules("general", 8, 10.0, 0.0, 2, 5.0)


def ask(needed: int = 0, *, want: int = 0, urgent: bool = False, ended: Sequence[Ended] = (), who: str = "a") -> Ask:
    return Ask(who, needed, max(want, needed), urgent, list(ended))


def again(window: SharedWindow, now: float, rules: Rules = RULES) -> SharedWindow:
    """*window* after it was stored and read."""
    return SharedWindow.load(rules, window.dump(), now)


class TestLeases:
    def test_what_is_needed_is_leased_at_once(self) -> None:
        """Several permits come in one exchange, and the reserve stays."""
        window = SharedWindow(RULES)
        answer = window.exchange(0.0, ask(8))
        assert (1, 6, False, math.inf, 6) == (answer.lease, answer.granted, answer.probe, answer.wait, answer.used)

    def test_the_reserve_is_leased_to_urgent_ones(self) -> None:
        """Whoever cancels gets what nobody else may have."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(8))
        assert 2 == window.exchange(0.0, ask(8, urgent=True, who="b")).granted

    def test_a_mere_report_gets_nothing(self) -> None:
        """Who needs no permit takes none, however much it would like."""
        assert 0 == SharedWindow(RULES).exchange(0.0, ask(0, want=5)).granted

    def test_more_than_needed_only_while_there_is_plenty(self) -> None:
        """A quarter of what is left, at most, goes to one that only expects to need it."""
        window = SharedWindow(msgspec.structs.replace(RULES, limit=100))
        assert [17, 1] == [window.exchange(0.0, ask(1, want=want)).granted for want in (17, 1)]
        window.exchange(0.0, ask(70))
        assert [3, 2] == [window.exchange(0.0, ask(1, want=16)).granted for _ in range(2)]

    def test_ends_are_told_by_age(self) -> None:
        """A call that was complete two seconds ago is busy for eight more."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(6))
        answer = window.exchange(5.0, ask(1, ended=[Ended(1, DONE, 2.0)]))
        assert (0, 8.0, 6) == (answer.granted, answer.wait, answer.used)

    @pytest.mark.parametrize(("how", "used"), [(DONE, 6), (UNUSED, 5), (GAVE_UP, 6), (REFUSED, 5)])
    def test_every_end(self, how: str, used: int) -> None:
        """Each end of a call keeps or frees its slot."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(6))
        assert used == window.exchange(1.0, ask(ended=[Ended(1, how, 0.0, 1.0)])).used

    def test_reports_may_come_in_any_order(self) -> None:
        """Stamps are sorted, whoever tells first."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(3))
        window.exchange(9.0, ask(ended=[Ended(1, DONE, 1.0), Ended(1, DONE, 5.0), Ended(1, DONE, 3.0)]))
        assert [4.0, 6.0, 8.0] == list(window.busy)

    def test_a_lease_that_nobody_tells_the_end_of(self) -> None:
        """It counts as complete when the longest call would be, and the slot is free a window later."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(6))
        ends = USABLE + LONGEST
        assert [6, 6, 0] == [window.exchange(now, ask()).used for now in (ends - 1, ends + 9.9, ends + 10.1)]

    def test_a_late_report_is_counted_once_more(self) -> None:
        """Rather one slot too many than one too few."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(1))
        ends = USABLE + LONGEST
        window.exchange(ends + 1, ask())
        assert [2, 1] == [
            window.exchange(now, ask(ended=ended)).used
            for now, ended in ((ends + 8, [Ended(1, DONE, 0.0)]), (ends + 12, []))
        ]

    def test_an_unknown_lease_frees_nothing(self) -> None:
        """A permit given back twice does not make room for two."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(2))
        window.exchange(0.0, ask(ended=[Ended(1, UNUSED, 0.0)] * 5))
        assert 0 == window.used(0.0)

    def test_the_dead_are_buried(self) -> None:
        """What a dead holder sent last arrives within the time of grace; then its slots come free like others."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(3, who="dead"))
        window.exchange(0.0, ask(1, who="alive"))
        assert {"dead", "alive"} == window.holders()
        window.bury(1.0, ["dead"])
        assert ({"alive"}, 4, 1) == (window.holders(), window.used(15.9), window.used(16.0))

    def test_a_dead_prober_is_followed_by_another(self) -> None:
        """A class does not wait for ever for the outcome of a probe."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(1))
        window.exchange(0.0, ask(ended=[Ended(1, REFUSED, 0.0)]))
        probe = window.exchange(12.0, ask(5, who="dead"))
        assert (1, True, 0) == (probe.granted, probe.probe, window.exchange(12.0, ask(5)).granted)
        window.bury(12.0, ["dead"])
        assert Gate.FROZEN is window.gate


class TestStored:
    def test_nothing_is_lost(self) -> None:
        """A window is the same after it was stored."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(6))
        window.exchange(1.0, ask(ended=[Ended(1, DONE, 0.0), Ended(1, GAVE_UP, 0.0), Ended(1, REFUSED, 0.0, 1.0, 3.0)]))
        assert window.dump() == again(window, 1.0).dump()

    def test_what_was_learned_stays(self) -> None:
        """A process that starts later knows the gateway's window."""
        window = SharedWindow(RULES)
        window.learned.refused(0.0, 10.1, 8, None)
        window.learned.accepted(1.0, 10.3)
        window.review(1.0)
        assert (10.3, 1) == (again(window, 1.0).span, again(window, 1.0).learned.surveys)

    @pytest.mark.parametrize("changes", [{"limit": 9}, {"window": 12.0}])
    def test_other_figures_in_the_configuration(self, changes: dict[str, float]) -> None:
        """What was learned under other figures is forgotten; who used what is not."""
        window = SharedWindow(RULES)
        window.exchange(0.0, ask(3))
        window.learned.refused(0.0, 10.1, 8, None)
        window.review(0.0)
        rules = msgspec.structs.replace(RULES, **changes)
        found = again(window, 1.0, rules)
        assert (rules.window, rules.limit, 3) == (found.span, found.cap, found.used(1.0))

    def test_stamps_from_the_future_count_from_now(self) -> None:
        """After a restart of the machine, or a step of the server's clock, nothing is busy longer than it could be."""
        window = SharedWindow(RULES)
        window.exchange(5000.0, ask(4))
        window.exchange(5000.0, ask(ended=[Ended(1, DONE, 0.0), Ended(1, GAVE_UP, 0.0), Ended(1, REFUSED, 0.0)]))
        found = again(window, 10.0)
        assert ([10.0], [15.0], True) == (list(found.busy), found.ahead, found.until <= 10.0 + found.learned.most)
        assert (0, True) == (found.exchange(10.0 + USABLE + LONGEST + 20, ask()).used, found.thawed <= 10.0)

    def test_evidence_from_the_future_is_dropped(self) -> None:
        """What was learned stays under review, and slots that were free stay free."""
        window = SharedWindow(RULES)
        window.exchange(5000.0, ask(8, urgent=True))
        window.exchange(5000.0, ask(ended=[Ended(1, DONE, 0.0)] * 8))
        probe = window.exchange(5010.1, ask(1))
        window.exchange(5010.2, ask(ended=[Ended(probe.lease, REFUSED, 0.0, 0.1)]))
        window.exchange(5010.9, ask())
        assert (True, True) == (bool(window.freed or window.busy), window.review_at < math.inf)
        found = again(window, 10.0)
        assert (True, True) == (all(stamp <= 10.0 for stamp in (*found.freed, *found.busy)), found.review_at <= 11.0)

    @pytest.mark.parametrize("stored", [b"", b"nonsense", b"\x80", b"\xc0"])
    def test_what_cannot_be_read_is_told_and_begun_anew(self, stored: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged row is no reason to stop trading."""
        assert (0, 1) == (load(RULES, stored, 0.0).used(0.0), len(caplog.records))
        assert "cannot be read" in caplog.text


class TestWords:
    def test_rules_of_a_configuration(self) -> None:
        """No urgent call counts as history, so there is no reserve."""
        config = RateConfig()
        assert (200, 60.0, 2) == (Rules.of(config, "general").limit, Rules.of(config, "general").window, 2)
        assert (50, 30.0, 0) == (
            Rules.of(config, "history").limit, Rules.of(config, "history").window, Rules.of(config, "history").reserved
        )  # fmt: skip

    def test_the_key_does_not_tell_who_it_is(self) -> None:
        """Users and gateways are told apart by a hash."""
        keys = {key_of(user, url) for user in ("joe", "ann", None) for url in ("https://a", "https://b")}
        assert (6, False) == (len(keys), any("joe" in key for key in keys))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "urgent", DONE, UNUSED, GAVE_UP, REFUSED, "store"]),
            st.floats(0, 12),
            st.integers(0, 7),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_no_window_is_ever_overfull(steps: list[tuple[str, float, int]]) -> None:
    """Whatever three holders do, and however often it is stored in between, no window holds more than the limit."""
    window, naive, now = SharedWindow(RULES), Naive(RULES.limit, RULES.window), 0.0
    held: list[tuple[int, float, float]] = []  # lease, grant, end of what a report may say
    for what, pause, which in steps:
        now += pause
        if what == "store":
            window = again(window, now)
        elif what in ("ask", "urgent"):
            answer: Answer = window.exchange(now, ask(which, want=8, urgent=what == "urgent", who=f"{which % 3}"))
            for _ in range(answer.granted):
                naive.grant(now).last_arrival = now + USABLE + LONGEST
                held.append((answer.lease, now, now + USABLE + LONGEST))
        elif held:
            lease, granted, ends = held.pop(which % len(held))
            window.exchange(now, ask(ended=[Ended(lease, what, 0.0, now - granted)]))
            if now < ends:
                call = next(c for c in naive.calls if c.granted == granted and c.last_arrival == ends)
                if what in (DONE, GAVE_UP):
                    call.last_arrival = now + (5.0 if what == GAVE_UP else 0.0)
                else:
                    naive.calls.remove(call)
        assert 0 <= window.used(now)
