"""The simulator's switches."""

import pytest

from topstep_sync.simulator.bus import Bus, Publication
from topstep_sync.simulator.settings import CHOICES, Settings


def test_unknown_switches_are_refused_with_the_known_ones() -> None:
    """A misspelt switch does not pass in silence."""
    with pytest.raises(ValueError, match=r"no setting 'sped'.*speed"):
        Settings.of(sped=1)


@pytest.mark.parametrize("name", list(CHOICES))
def test_choices_are_checked(name: str) -> None:
    """Each switch with a list of values takes those and no others."""
    for value in CHOICES[name]:
        assert value == getattr(Settings.of(**{name: value}), name)
    with pytest.raises(ValueError, match=name):
        Settings.of(**{name: "nonsense"})


@pytest.mark.parametrize("name", ["speed", "port", "general_limit", "token_lifetime"])
def test_negative_values_are_refused(name: str) -> None:
    """Sizes and times are not negative."""
    with pytest.raises(ValueError, match=name):
        Settings.of(**{name: -1})


def test_the_listing_date_may_be_the_simulations_own() -> None:
    """Given, it is that day; empty, the first day of the simulation."""
    assert "2026-11-24" == Settings().listing_date(0.0).isoformat()
    assert "1970-01-02" == Settings.of(listing="").listing_date(86400.0).isoformat()


def test_the_bus_calls_everybody_until_they_leave() -> None:
    """Subscribers hear every publication in order, and none after they left."""
    bus, heard = Bus(), []
    leave = bus.subscribe(lambda p: heard.append(("a", p.target)))
    bus.subscribe(lambda p: heard.append(("b", p.target)))
    bus.publish(Publication("user", "X", ()))
    leave()
    bus.publish(Publication("user", "Y", ()))
    assert [("a", "X"), ("b", "X"), ("b", "Y")] == heard
