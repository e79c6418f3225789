"""Which calls a fault meets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.faults import HUB_KINDS, REST_KINDS, Fault, Faults

PLACE = "/api/order/place"


def made(**options: object) -> tuple[Faults, Fault]:
    faults = Faults(7)
    fault = Fault(**{"operation": "Order/place", "kind": "lose", **options})
    faults.add(fault, 100.0)
    return faults, fault


def strikes(faults: Faults, count: int, path: str = PLACE, now: float = 100.0) -> list[bool]:
    return [faults.take(path, now) is not None for _ in range(count)]


@given(st.integers(0, 5), st.integers(0, 5))
def test_it_strikes_after_so_many_and_so_often(skip: int, times: int) -> None:
    """The nth call is met, and then as many as asked for."""
    faults, fault = made(skip=skip, times=times)
    assert [False] * skip + [True] * times + [False] * 3 == strikes(faults, skip + times + 3)
    assert times == fault.struck


def test_without_a_number_it_strikes_until_removed() -> None:
    """`times=None` goes on; remove and clear end it."""
    faults, fault = made(times=None)
    assert [True] * 5 == strikes(faults, 5)
    faults.remove(fault)
    assert [False] == strikes(faults, 1)
    faults.add(Fault(operation="*", kind="reset", times=None), 0.0)
    faults.clear()
    assert [False] == strikes(faults, 1)


def test_it_ends_with_its_time() -> None:
    """`until` is counted on the simulation's clock from when the fault came into force."""
    faults, _ = made(times=None, until=10.0)
    assert [True, True, False] == [strikes(faults, 1, now=now)[0] for now in (100.0, 109.9, 110.0)]


def test_chance_repeats_with_the_seed() -> None:
    """A probability strikes about as often as it says, and at the same calls every time."""
    runs = [strikes(made(times=None, probability=0.3)[0], 1000) for _ in range(2)]
    assert runs[0] == runs[1]
    assert 230 < sum(runs[0]) < 370


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ("Order/place", PLACE, True), ("ORDER/PLACE", PLACE, True), ("place", PLACE, True), ("*", PLACE, True),
        ("Order/place", "/api/order/placex", False), ("Order/search", PLACE, False),
    ],
)  # fmt: skip
def test_paths_match_by_their_end(operation: str, path: str, expected: bool) -> None:
    """An operation is named by the end of its path, in any case; a star is every one."""
    faults, _ = made(operation=operation)
    assert [expected] == strikes(faults, 1, path)


def test_kinds_meet_their_own_side_only() -> None:
    """A REST fault leaves hubs alone and the other way round."""
    faults = Faults(7)
    faults.add(Fault(operation="*", kind="refuse", times=None), 0.0)
    assert [False, True] == [strikes(faults, 1, path)[0] for path in (PLACE, "/hubs/user")]
    faults.clear()
    faults.add(Fault(operation="*", kind="lose", times=None), 0.0)
    assert [True, False] == [strikes(faults, 1, path)[0] for path in (PLACE, "/hubs/user")]


def test_the_first_rule_that_matches_strikes() -> None:
    """Rules are tried in the order they were added; a spent one lets the next strike."""
    faults = Faults(7)
    for kind in ("lose", "reset"):
        faults.add(Fault(operation="*", kind=kind), 0.0)
    found = [faults.take(PLACE, 0.0) for _ in range(3)]
    assert ["lose", "reset", None] == [fault and fault.kind for fault in found]


@pytest.mark.parametrize(
    ("change", "text"), [({"kind": "nope"}, "no fault of kind 'nope'"), ({"probability": 1.5}, "0.0 to 1.0")]
)
def test_nonsense_is_refused(change: dict[str, object], text: str) -> None:
    """An unknown kind and an impossible probability are refused with what was expected."""
    with pytest.raises(ValueError, match=text):
        made(**change)


def test_every_kind_is_explained() -> None:
    """Each kind has a sentence for the README and the status page."""
    assert all(text for text in {**REST_KINDS, **HUB_KINDS}.values())
