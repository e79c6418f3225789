"""For notebooks: tables, frames, progress, and a live table of events. No event loop; every cell can be run again.

Records and lists of the typed API show themselves as tables; this room adds what a notebook wants beside that.
"""

import queue
from typing import Any, Final, Protocol

from topstep_sync.api.bars import Bars
from topstep_sync.api.progress import Progress, Terminal
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.errors import MissingExtra, StreamError
from topstep_sync.tables import Rows, Shown, table

__all__ = ["Bars", "Progress", "Rows", "Shown", "progress", "table", "watch"]

REFRESH: Final = 0.25  # seconds between two drawings; browsers choke on more


class Source(Protocol):
    """What `watch` takes events from; `session.subscribe(...)` gives one."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...


class Screen(Protocol):
    """What `watch` draws on."""

    def update(self, html: str) -> None: ...


def progress(title: str) -> Terminal:
    """A progress bar for ``history.bars(..., progress=...)`` under a title of your own.

    Raises:
        MissingExtra: tqdm is not installed.
    """
    return Terminal(title)


def watch(
    events: Source, seconds: float = 30.0, *, screen: Screen | None = None, clock: Clock = SYSTEM_CLOCK
) -> dict[Any, Any]:
    """Draws the newest state of everything that *events* tell about, until the time is up or the cell is interrupted.

    Args:
        events: a queue of ``session.subscribe(...)``.
        seconds: how long to watch.

    Returns:
        The newest event of each kind and subject, as drawn.

    Raises:
        MissingExtra: IPython is not installed.
    """
    page = screen if screen is not None else _display()
    latest: dict[Any, Any] = {}
    end = clock.monotonic() + seconds
    drawn = -REFRESH
    try:
        while (now := clock.monotonic()) < end:
            event = _next(events, min(REFRESH, end - now))
            if event is not None:
                latest[subject(event)] = event
            if clock.monotonic() - drawn >= REFRESH:
                drawn = clock.monotonic()
                page.update(draw(latest))
    except (KeyboardInterrupt, StreamError):
        pass  # a stopped cell and a closed queue both end the watching, and what was seen stays
    page.update(draw(latest))
    return latest


def subject(event: Any) -> tuple[str, Any]:
    """What an event is about: its kind, and the contract, order, position or account."""
    data = getattr(event, "data", None)
    for name in ("contract_id", "source"):
        found = getattr(event, name, None)
        if found:
            return event.kind, found
    return event.kind, getattr(data, "id", None)


def draw(latest: dict[Any, Any]) -> str:
    """An HTML table, one row for each subject."""
    rows = [(kind, about, _short(event)) for (kind, about), event in sorted(latest.items(), key=lambda kv: str(kv[0]))]
    return table(("kind", "about", "now"), rows, f"{len(rows)} subjects")


def _short(event: Any) -> str:
    data = getattr(event, "data", None)
    if isinstance(data, list):
        data = data[-1] if data else None
    return repr(event if data is None else data)


def _next(events: Source, timeout: float) -> Any:
    try:
        return events.get(timeout=timeout)
    except queue.Empty:
        return None


def _display() -> Screen:
    try:
        from IPython.display import HTML, display
    except ImportError as error:
        raise MissingExtra("watch needs IPython: pip install 'topstep-sync[notebook]'") from error

    class Cell:
        """The output of the running cell, drawn over and over."""

        def __init__(self) -> None:
            self._handle: Any = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]

        def update(self, html: str) -> None:
            self._handle.update(HTML(html))  # type: ignore[no-untyped-call]

    return Cell()
