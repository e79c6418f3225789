"""What comes out of an event queue."""

import inspect

import pytest

from topstep_sync import events
from topstep_sync.events import Event, MarketEvent, StreamEvent, UserEvent

KINDS = [
    cls
    for cls in vars(events).values()
    if inspect.isclass(cls) and issubclass(cls, Event) and cls not in (Event, MarketEvent, UserEvent, StreamEvent)
]


def test_kinds_are_distinct() -> None:
    """Each kind of event is told apart by its name alone."""
    assert len(KINDS) == len({cls.kind for cls in KINDS} - {""})


@pytest.mark.parametrize("cls", KINDS)
def test_each_says_where_it_is_from(cls: type[Event]) -> None:
    """Events of the hubs say which; events about the stream belong to none."""
    expected = "market" if issubclass(cls, MarketEvent) else "user" if issubclass(cls, UserEvent) else ""
    assert expected == cls.hub


@pytest.mark.parametrize("cls", KINDS)
def test_the_head_of_the_room_names_each(cls: type[Event]) -> None:
    """The docstring of the room lists every kind of event."""
    assert f"`{cls.__name__}`" in str(events.__doc__)


@pytest.mark.parametrize("cls", KINDS)
def test_each_says_what_it_means(cls: type[Event]) -> None:
    """Each kind has a docstring of its own."""
    assert cls.__dict__.get("__doc__")
