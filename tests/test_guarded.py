"""Logins and refreshes: counted, first in line, watched by a breaker, never stuck behind those who wait for them."""

import contextlib

import pytest

from topstep_sync import Session, errors
from topstep_sync.clock import ManualClock
from topstep_sync.http.circuit_breaker import CircuitBreaker, State
from topstep_sync.http.guarded import GuardedPost
from topstep_sync.http.rate_limiter import RateLimiter

LOGIN = "/api/Auth/loginKey"


class Way:
    """A `post` that answers what it is told."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def __call__(self, path, body, bearer):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome, {}, b"{}"


@pytest.fixture
def clock():
    return ManualClock(auto=True)


def guarded(way, clock, **rate):
    limiter = RateLimiter(rate, clock=clock)
    breaker = CircuitBreaker("auth", {"consecutive_failures": 2}, clock=clock)
    return GuardedPost(way, limiter, breaker, clock), limiter, breaker


def test_every_login_is_counted(clock):
    """A login takes a general permit like any other call."""
    post, limiter, _ = guarded(Way(200), clock)

    assert (200, {}, b"{}") == post(LOGIN, b"{}", None)
    assert 1 == limiter.budget()["general"].used


def test_a_connection_that_never_was_costs_no_permit(clock):
    """What was never sent is refunded."""
    post, limiter, _ = guarded(Way(errors.ConnectFailed("no route")), clock)

    with pytest.raises(errors.ConnectFailed):
        post(LOGIN, b"{}", None)
    assert 0 == limiter.budget()["general"].used


@pytest.mark.parametrize("outcome", [503, 408, errors.ReplyLost("gone")])
def test_failures_open_the_breaker_of_logins(clock, outcome):
    """After failures in a row the next login is refused here, with the time of the next try."""
    post, _, breaker = guarded(Way(outcome, outcome), clock)
    for _ in range(2):
        with contextlib.suppress(errors.ReplyLost):
            post(LOGIN, b"{}", None)

    assert State.OPEN is breaker.state
    with pytest.raises(errors.CircuitOpen) as refusal:
        post(LOGIN, b"{}", None)
    assert refusal.value.retry_after > 0


@pytest.mark.parametrize("outcome", [401, 400, KeyboardInterrupt()])
def test_refusals_and_ctrl_c_leave_the_breaker_alone(clock, outcome):
    """A wrong key or a Ctrl-C says nothing about the gateway's health."""
    post, _, breaker = guarded(Way(*[outcome] * 5), clock)
    for _ in range(5):
        with contextlib.suppress(KeyboardInterrupt):
            post(LOGIN, b"{}", None)

    assert State.CLOSED is breaker.state


def test_a_throttled_login_freezes_its_class(clock):
    """A 429 to a login is news about the whole class."""
    post, limiter, breaker = guarded(Way(429), clock)

    assert 429 == post(LOGIN, b"{}", None)[0]
    assert limiter.get_wait_time("/api/Account/search") > 0
    assert State.CLOSED is breaker.state


def test_a_login_goes_even_when_its_class_is_frozen(clock):
    """Everybody waits for the token, so the token waits for nobody for long."""
    post, limiter, _ = guarded(Way(200), clock)
    limiter.acquire("/api/Account/search").throttled(30.0)

    assert 200 == post(LOGIN, b"{}", None)[0]


def test_the_lone_probe_of_a_frozen_class_can_get_a_token(gateway):
    """A 429 and a revoked token at once: the one call that may go gets its new token, and through."""
    with Session(config=gateway.config_with(http={"total_timeout": 20}, rate={"general_window": 1.0})) as session:
        session.accounts.search()
        gateway.faults.status("Account/search", 429, times=1, retry_after="1")
        gateway.revoke_tokens()

        assert session.accounts.search()
    assert 2 == sum(request.path.lower().endswith("loginkey") for request in gateway.requests)


def test_a_session_counts_its_login(gateway):
    """Two requests reach the gateway for the first call, and two permits are used."""
    with Session(config=gateway.config) as session:
        session.accounts.search()

        assert 2 == session.budget()["general"].used == len(gateway.requests)
