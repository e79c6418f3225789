"""How a budget shows itself."""

from topstep_sync.http.budgets import Budgets, ClassBudget


def budget(**changes: object) -> ClassBudget:
    facts = {
        "name": "general", "limit": 200, "window": 60.0, "learned_limit": 200, "learned_window": 60.15, "used": 12,
        "waiting": (0, 0, 0), "next_free": 0.0, "worst_wait": 0.0,
    }  # fmt: skip
    return ClassBudget(**{**facts, **changes})  # type: ignore[arg-type]


def test_repr_of_a_quiet_class() -> None:
    """Where nothing happens, the repr is short."""
    assert "<general: 12 of 200 used in 60 s>" == repr(budget())


def test_repr_says_what_is_unusual() -> None:
    """Waiting callers, the next free slot, a freeze and what was learned are told."""
    busy = budget(
        used=200, waiting=(0, 3, 1), next_free=12.34, worst_wait=31.0, gate="frozen",
        why="the gateway's window is 61.50 s, not 60 s",
    )  # fmt: skip
    assert (
        "<general: 200 of 200 used in 60 s, waiting 0+3+1, next in 12.3 s, worst wait 31.0 s, frozen, "
        "the gateway's window is 61.50 s, not 60 s>"
    ) == repr(busy)


def test_free_is_what_is_left_of_the_learned_limit() -> None:
    """Slots that others take are not free, and never fewer than none are."""
    assert [188, 8, 0] == [budget(learned_limit=n).free for n in (200, 20, 5)]


def test_budgets_by_name() -> None:
    """A class is found by its name, and all are iterated."""
    both = Budgets([budget(), budget(name="history")])
    assert ("history", 2, ["general", "history"]) == (both["history"].name, len(both), [b.name for b in both])
    assert repr(both).startswith("Budgets(<general: ")


def test_html_is_escaped_and_has_the_same_facts() -> None:
    """The table shows every class, and no text becomes markup."""
    table = Budgets([budget(why="<b>"), budget(name="history", gate="probing")])._repr_html_()
    assert (2, True, False, True) == (
        table.count("<tr><td>"),
        "&lt;b&gt;" in table,
        "<b>" in table,
        "probing" in table,
    )
    assert "200 / 60.15 s" in table
