"""One refresh: what is asked first, and what is stored under which number."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from token_fakes import DAY, FakeService

from topstep_sync.auth.refresh import LEASE_SECONDS, Outcome, Refresher
from topstep_sync.auth.token_policy import Flight, Plan, Source
from topstep_sync.clock import ManualClock
from topstep_sync.config import TokenConfig
from topstep_sync.models import Token
from topstep_sync.redact import Secret

CLOCK = ManualClock()
NOW = CLOCK.epoch()


class Shelf:
    """A store in memory that writes down what happens; *meanwhile* comes into it as the lease is given."""

    def __init__(self, held: Token | None = None, meanwhile: Token | None = None) -> None:
        self.held = held
        self.meanwhile = meanwhile
        self.log: list[str] = []

    def load(self) -> Token | None:
        self.log.append("load")
        return self.held

    def save(self, token: Token) -> bool:
        self.log.append("save")
        self.held = token
        return True

    def clear(self) -> None:
        self.held = None

    @contextlib.contextmanager
    def lease(self, timeout: float, cancelled: threading.Event | None = None) -> Iterator[bool]:
        assert LEASE_SECONDS == timeout
        self.log.append("lease")
        self.held = self.meanwhile or self.held
        yield True
        self.log.append("end")


def token(value: str, generation: int, left: float = DAY) -> Token:
    return Token(Secret(value), generation, NOW + left - DAY, NOW + left)


class World:
    """What the refresh comes back to."""

    def __init__(self, died: bool = False, wanted: bool = True) -> None:
        self._died = died
        self._wanted = wanted

    def died(self, flight: Flight) -> bool:
        return self._died

    def wanted(self, flight: Flight) -> bool:
        return self._wanted


def run(shelf: Any, plan: Plan, old: Token | None, generation: int = 0, **answers: Any) -> tuple[Outcome, FakeService]:
    service = FakeService(CLOCK)
    service.on_validate = answers.pop("validate", service.on_validate)
    flight = Flight()
    flight.plan, flight.token, flight.generation = plan, old, generation
    return Refresher(service, shelf, TokenConfig(), CLOCK).run(flight, World(**answers)), service


def test_a_stored_token_needs_no_lease() -> None:
    """A warm start waits for nobody."""
    shelf = Shelf(token("a", 3))
    outcome, service = run(shelf, Plan.LOGIN, None)
    assert (Outcome(token("a", 3), Source.STORED), ["load"], 0) == (outcome, shelf.log, service.logins)


def test_a_token_that_came_while_waiting_for_the_lease() -> None:
    """Another process was quicker: its token is taken, and the gateway is not asked."""
    shelf = Shelf(None, meanwhile=token("a", 1))
    outcome, service = run(shelf, Plan.LOGIN, None)
    assert (Outcome(token("a", 1), Source.STORED), 0) == (outcome, service.logins)
    assert ["load", "lease", "load", "end"] == shelf.log


def test_nothing_stored() -> None:
    """Lease, look again, ask, store; under generation 1."""
    shelf = Shelf()
    outcome, _ = run(shelf, Plan.LOGIN, None)
    assert (1, Source.NEW, outcome.token) == (outcome.token.generation, outcome.source, shelf.held)
    assert ["load", "lease", "load", "load", "save", "end"] == shelf.log


@pytest.mark.parametrize(
    ("stored", "ours", "generation", "taken"),
    [
        (token("b", 3), token("a", 2), 2, True),  # newer
        (token("b", 2), token("a", 2), 2, True),  # another of the same number: somebody adopted one
        (token("b", 1), token("a", 2), 2, False),  # older
        (token("a", 2), token("a", 2), 2, False),  # the very one that is to be replaced
        (token("b", 3, 30.0), token("a", 2), 2, False),  # newer, but at its end
        (token("b", 3, -30.0), token("a", 2), 2, False),
        (token("b", 1), None, 5, True),  # logged out here; whatever is stored is another process's
    ],
)
def test_what_is_worth_taking(stored: Token, ours: Token | None, generation: int, taken: bool) -> None:
    """A stored token is taken when it is not ours, not older, and not about to end."""
    outcome, service = run(Shelf(stored), Plan.LOGIN, ours, generation)
    assert (taken, 0 if taken else 1) == (outcome.source is Source.STORED, service.logins)


@pytest.mark.parametrize(
    ("stored", "generation", "expected"), [(None, 4, 5), (token("b", 9, -1.0), 4, 10), (token("b", 2), 4, 5)]
)
def test_generations_follow_the_highest(stored: Token | None, generation: int, expected: int) -> None:
    """Ours or the stored one, whichever is higher, and one more."""
    outcome, _ = run(Shelf(stored), Plan.LOGIN, token("a", generation), generation)
    assert expected == outcome.token.generation


@pytest.mark.parametrize(
    ("validate", "died", "source", "logins"),
    [
        (lambda old: token("new", 0), False, Source.NEW, 0),
        (lambda old: old, False, Source.KEPT, 0),
        (lambda old: token("a", 0, 5.0), False, Source.KEPT, 0),  # the same text is the same token
        (lambda old: old, True, Source.NEW, 1),
        (lambda old: None, False, Source.NEW, 1),
    ],
)
def test_what_validate_leads_to(validate: Any, died: bool, source: Source, logins: int) -> None:
    """A new token, the old one, or a login in the same refresh; a kept token keeps its expiry."""
    old = token("a", 2)
    outcome, service = run(None, Plan.VALIDATE, old, 2, validate=validate, died=died)
    assert (source, logins) == (outcome.source, service.logins)
    if source is Source.KEPT:
        assert old is outcome.token


def test_a_plan_without_a_token_is_a_login() -> None:
    """There is nothing to validate."""
    outcome, service = run(None, Plan.VALIDATE, None)
    assert (Source.NEW, 1, 0) == (outcome.source, service.logins, service.validations)


def test_a_kept_token_is_not_stored() -> None:
    """What is there already stays as it is."""
    shelf = Shelf(token("a", 2))
    run(shelf, Plan.VALIDATE, token("a", 2), 2, validate=lambda old: old)
    assert "save" not in shelf.log


def test_a_token_that_nobody_wants_is_not_stored() -> None:
    """Logged out while the refresh was under way: what it brings must not outlive that in the store."""
    shelf = Shelf()
    run(shelf, Plan.LOGIN, None, wanted=False)
    assert (None, ["load", "lease", "load", "end"]) == (shelf.held, shelf.log)


def test_a_store_that_fails_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    """A network store that times out costs one timeout per refresh, not one per question."""

    class Broken(Shelf):
        def load(self) -> Token | None:
            self.log.append("load")
            raise TimeoutError("no answer")

    shelf = Broken()
    outcome, _ = run(shelf, Plan.LOGIN, None)
    assert (1, ["load"]) == (outcome.token.generation, shelf.log)
    assert "no answer" in caplog.text


def test_a_store_that_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A failed save costs a warning, not the token."""

    class Full(Shelf):
        def save(self, token: Token) -> bool:
            raise OSError("the disk is full")

    outcome, _ = run(Full(), Plan.LOGIN, None)
    assert Source.NEW is outcome.source
    assert "the disk is full" in caplog.text
