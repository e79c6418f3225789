"""What arrived, and the worst windows."""

from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.evidence import Arrival, Evidence


def arrival(at: float, **fields: object) -> Arrival:
    defaults = {
        "method": "POST",
        "path": "/api/x",
        "window": "general",
        "port": 1,
        "partition": "trader",
        "status": 200,
    }
    return Arrival(at=at, **{**defaults, **fields})


@given(st.lists(st.integers(0, 300), max_size=60).map(sorted), st.integers(1, 60))
def test_the_worst_window_is_the_worst(times: list[int], length: int) -> None:
    """The read-out equals the count over every window that starts with an arrival."""
    evidence = Evidence()
    evidence.arrivals.extend(arrival(float(t)) for t in times)
    expected = max((sum(start <= t < start + length for t in times) for start in times), default=0)
    assert expected == evidence.worst("general", float(length))


def test_only_valid_tokens_and_the_class_count() -> None:
    """Other classes and calls without a valid token are left out, refused ones on demand."""
    evidence = Evidence()
    evidence.arrivals.extend(
        [arrival(1.0), arrival(1.0, status=429), arrival(1.0, partition=""), arrival(1.0, window="history")]
    )
    assert (2, 1, 1) == (
        evidence.worst("general", 60.0),
        evidence.worst("general", 60.0, refused=False),
        evidence.worst("history", 30.0),
    )  # fmt: skip


def test_memory_is_bounded() -> None:
    """The oldest arrivals are forgotten."""
    evidence = Evidence(3)
    evidence.arrivals.extend(arrival(float(t)) for t in range(5))
    assert [2.0, 3.0, 4.0] == [a.at for a in evidence.arrivals]


def test_bodies_are_kept() -> None:
    """The body can be asked for as JSON."""
    assert ({"a": 1}, None) == (arrival(0.0, body=b'{"a":1}').json(), arrival(0.0).json())
