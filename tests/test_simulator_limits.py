"""The gateway's windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.limits import (
    FREE,
    GENERAL,
    HISTORY,
    FixedWindow,
    Limits,
    SegmentedWindow,
    SlidingLog,
    window_of,
)
from topstep_sync.simulator.settings import Settings

GAPS = st.lists(st.floats(0, 5), max_size=200)


def times(gaps: list[float]) -> list[float]:
    """Ascending instants with those gaps between them, in 1024ths of a second, whose sums and differences are exact."""
    now, found = 100.0, []
    for gap in gaps:
        now += round(gap * 1024) / 1024
        found.append(now)
    return found


def most(taken: list[float], length: float) -> int:
    """The most of *taken* within any half-open window."""
    return max((sum(start <= t < start + length for t in taken) for start in taken), default=0)


@given(GAPS, st.integers(1, 10), st.integers(512, 20_480).map(lambda ticks: ticks / 1024))
def test_no_sliding_window_is_ever_overfull(gaps: list[float], limit: int, length: float) -> None:
    """Within any window at most the limit is taken, and a refused arrival says truly when the next one could be."""
    log, taken = SlidingLog(limit, length), []
    for now in times(gaps):
        wait = log.arrive(now)
        if wait is None:
            taken.append(now)
        else:
            assert 0 < wait <= length
            assert most([t for t in taken if t > now - length], length) == limit
    assert most(taken, length) <= limit


@given(GAPS, st.integers(1, 10))
def test_a_sliding_window_takes_whatever_it_can(gaps: list[float], limit: int) -> None:
    """An arrival is refused only when the window is full."""
    log, taken = SlidingLog(limit, 7.0), []
    for now in times(gaps):
        recent = [t for t in taken if now - t < 7.0]
        accepted = log.arrive(now) is None
        assert accepted == (len(recent) < limit)
        if accepted:
            taken.append(now)
        assert len([t for t in taken if now - t < 7.0]) == log.used(now)


def test_a_fixed_window_lets_twice_its_limit_through_across_its_border() -> None:
    """The window starts with its first arrival and forgets all at once."""
    window = FixedWindow(2, 10.0)
    assert [None, None, 1.0] == [window.arrive(now) for now in (0.0, 9.0, 9.0)]
    assert [None, None] == [window.arrive(now) for now in (10.0, 10.0)]
    assert [2, 0] == [window.used(now) for now in (10.0, 20.0)]


def freed_after(window: SegmentedWindow, start: float) -> float:
    """How long after *start*, when the window was full, the next arrival is taken; probed each 10 ms."""
    now = start
    while window.used(now) > 0:
        now += 0.01
    return now - start


@pytest.mark.parametrize(("length", "low", "high"), [(60.0, 61.2, 61.8), (30.0, 31.3, 32.0), (5.0, 5.9, 6.1)])
def test_aspnet_segments_make_windows_longer_than_configured(length: float, low: float, high: float) -> None:
    """A slot comes back no sooner than the window, and as late as was measured on ASP.NET Core."""
    for offset in (0.0, 0.03, 0.71, 1.3):
        window = SegmentedWindow(5, length, 30)
        window.used(0.0)
        for _ in range(5):
            assert window.arrive(offset) is None
        assert window.arrive(offset) == length / 30
        assert low - 1.1 * length / 30 <= freed_after(window, offset) <= high
        later = offset + 1000.037  # off the heartbeat after a long pause
        assert window.arrive(later) is None
        assert low - 1.1 * length / 30 <= freed_after(window, later) <= high + 0.1


@given(GAPS)
def test_a_segmented_window_never_exceeds_its_limit(gaps: list[float]) -> None:
    """What counts never exceeds the limit, and after a long pause everything is free."""
    window, now = SegmentedWindow(5, 6.0, 6), 0.0
    for now in times(gaps):
        window.arrive(now)
        assert 0 <= window.used(now) <= 5
    assert 0 == window.used(now + 100.0)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/history/retrievebars", HISTORY), ("/api/order/place", GENERAL), ("/api/status/ping", FREE),
        ("/hubs/user", FREE), ("/", FREE), ("/api/nope", GENERAL),
    ],
)  # fmt: skip
def test_each_path_has_its_window(path: str, expected: str) -> None:
    """Bars have a budget of their own, ping and hubs none, everything else shares one."""
    assert expected == window_of(path)


@pytest.mark.parametrize("limiter", ["sliding", "fixed", "segmented"])
def test_users_and_classes_have_windows_of_their_own(limiter: str) -> None:
    """A full window of one user or class leaves the others alone; reset empties all."""
    limits = Limits(Settings.of(limiter=limiter, general_limit=2, history_limit=1))
    assert [None, None] == [limits.arrive(GENERAL, "a", 1.0) for _ in range(2)]
    assert limits.arrive(GENERAL, "a", 1.0) is not None
    assert [None, None] == [limits.arrive(GENERAL, "b", 1.0), limits.arrive(HISTORY, "a", 1.0)]
    assert limits.arrive(FREE, "a", 1.0) is None
    assert [2, 1, 0] == [limits.used(k, u, 1.0) for k, u in ((GENERAL, "a"), (HISTORY, "a"), (HISTORY, "b"))]
    limits.reset()
    assert 0 == limits.used(GENERAL, "a", 1.0)
    assert [(2, 60.0), (1, 30.0)] == [limits.limit(GENERAL), limits.limit(HISTORY)]


def test_no_limiter_refuses_nothing() -> None:
    """With the limiter off every arrival is taken."""
    limits = Limits(Settings.of(limiter="none", general_limit=1))
    assert [None] * 5 == [limits.arrive(GENERAL, "a", 1.0) for _ in range(5)]
