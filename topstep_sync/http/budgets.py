"""How much of the gateway's budget is used, as a value that shows itself in a shell and in a notebook."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class ClassBudget:
    """One class of calls at one moment."""

    name: str
    limit: int
    """Calls per window, as documented or configured."""
    window: float
    """Seconds of the window, as documented or configured."""
    learned_limit: int
    """Calls per window that are left to us, as the gateway's refusals showed."""
    learned_window: float
    """Seconds that a slot stays busy after its call, as the gateway's refusals showed; the drift margin is in it."""
    used: int
    """Slots that are busy, calls in flight included."""
    waiting: tuple[int, int, int]
    """Callers that wait, by priority."""
    next_free: float
    """Seconds until an ordinary call would get a permit; 0.0 when it would at once."""
    worst_wait: float
    """Seconds of the longest wait so far."""
    gate: str = "flowing"
    """"flowing", "frozen" after a 429, or "probing"."""
    why: str = ""
    """Why learned and documented figures differ; empty where they do not."""

    @property
    def free(self) -> int:
        """Slots that are not busy."""
        return max(0, self.learned_limit - self.used)

    def __repr__(self) -> str:
        facts = [f"{self.used} of {self.limit} used in {self.window:g} s"]
        if any(self.waiting):
            facts.append("waiting " + "+".join(map(str, self.waiting)))
        if self.next_free > 0:
            facts.append(f"next in {self.next_free:.1f} s")
        if self.worst_wait >= 0.05:
            facts.append(f"worst wait {self.worst_wait:.1f} s")
        if self.gate != "flowing":
            facts.append(self.gate)
        if self.why:
            facts.append(self.why)
        return f"<{self.name}: {', '.join(facts)}>"


_HEADINGS = (
    "class", "limit", "window", "learned", "used", "free", "waiting 0 / 1 / 2", "next free", "worst wait", "note",
)  # fmt: skip


class Budgets:
    """The budgets of all classes, by name: ``budgets["history"].free``; iterates over them. Immutable."""

    __slots__ = ("_classes",)

    def __init__(self, classes: Iterable[ClassBudget]) -> None:
        self._classes = {budget.name: budget for budget in classes}

    def __getitem__(self, name: str) -> ClassBudget:
        return self._classes[name]

    def __iter__(self) -> Iterator[ClassBudget]:
        return iter(self._classes.values())

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"Budgets({', '.join(map(repr, self))})"

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in _HEADINGS)
        rows = "".join(f"<tr>{_cells(budget)}</tr>" for budget in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(budget: ClassBudget) -> str:
    learned = f"{budget.learned_limit} / {budget.learned_window:.2f} s"
    values = (
        budget.name, str(budget.limit), f"{budget.window:g} s", learned, str(budget.used), str(budget.free),
        " / ".join(map(str, budget.waiting)), f"{budget.next_free:.1f} s", f"{budget.worst_wait:.1f} s",
        budget.why or budget.gate,
    )  # fmt: skip
    return "".join(f"<td>{escape(value)}</td>" for value in values)
