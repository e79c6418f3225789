"""The notebook's room: watching events in a cell."""

import queue
from typing import Any

import pytest
from gateway_model import ACCOUNT, MNQ
from test_api_tables import ORDER, WHEN

from topstep_sync import notebook
from topstep_sync.clock import ManualClock
from topstep_sync.errors import StreamError
from topstep_sync.events import ConnectionEvent, OrderEvent, QuoteEvent, TradesEvent
from topstep_sync.models import MarketTrade, OrderSide, Quote


class Screen:
    def __init__(self) -> None:
        self.drawn: list[str] = []

    def update(self, html: str) -> None:
        self.drawn.append(html)


class Events:
    """Gives what it was given, then waits on the clock, then ends as it was told to."""

    def __init__(self, clock: ManualClock, events: list[Any], end: BaseException | None = None) -> None:
        self.clock, self.events, self.end = clock, events, end

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.events:
            return self.events.pop(0)
        if self.end is not None:
            raise self.end
        self.clock.advance(timeout or 0.0)
        raise queue.Empty


def some_events() -> list[Any]:
    trade = MarketTrade(price=1.5, timestamp=WHEN, type=OrderSide.SELL, volume=3)
    return [
        QuoteEvent(contract_id=MNQ.id, data=Quote(best_bid=21000.0)),
        QuoteEvent(contract_id=MNQ.id, data=Quote(best_bid=21000.25)),
        OrderEvent(data=ORDER),
        TradesEvent(contract_id=MNQ.id, data=[trade]),
        TradesEvent(contract_id="other", data=[]),
        ConnectionEvent(source="user", state="connected"),
    ]


def test_the_newest_of_each_subject_is_drawn() -> None:
    """Each contract, order and connection has one row, with its newest state, until the time is up."""
    clock, screen = ManualClock(), Screen()
    latest = notebook.watch(Events(clock, some_events()), 10.0, screen=screen, clock=clock)
    expected = {
        ("quote", MNQ.id), ("order", 1), ("trades", MNQ.id), ("trades", "other"), ("connection", "user"),
    }  # fmt: skip
    assert (expected, 1010.0) == (set(latest), clock.monotonic())
    assert 6 == screen.drawn[-1].count("<tr>")
    assert ("21000.25" in screen.drawn[-1], "best_bid=21000.0)" in screen.drawn[-1]) == (True, False)
    assert 45 > len(screen.drawn)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), StreamError("closed")])
def test_watching_ends_quietly(end: BaseException) -> None:
    """A stopped cell and a closed queue end the watching, and what was seen is returned."""
    clock, screen = ManualClock(), Screen()
    latest = notebook.watch(Events(clock, some_events(), end), 10.0, screen=screen, clock=clock)
    assert (5, 6) == (len(latest), screen.drawn[-1].count("<tr>"))


def test_it_draws_in_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a screen of the caller's own, the output of the running cell is drawn over and over."""
    import IPython.display

    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html.data)

    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: Handle())
    clock = ManualClock()
    notebook.watch(Events(clock, some_events()), 1.0, clock=clock)
    assert "5 subjects" in shown[-1]


def test_progress_has_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar of the notebook's room is one for `history.bars`, under its title."""
    bar = notebook.progress(f"account {ACCOUNT}")
    bar.close()
    assert f"account {ACCOUNT}" in capsys.readouterr().err
