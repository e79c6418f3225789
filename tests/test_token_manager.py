"""The life of a token: who is served, who waits, and what is asked of the gateway, and how often."""

import contextlib
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import freezegun
import pytest
from token_fakes import DAY, HOUR, FakeService, land, landed, together

from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_policy import Flight, TokenPolicy, TokenState
from topstep_sync.clock import SYSTEM_CLOCK, Deadline, ManualClock
from topstep_sync.config import Config, TokenConfig
from topstep_sync.errors import (
    AuthenticationError,
    AuthQueueFull,
    AuthUnavailable,
    ConfigError,
    RateLimited,
    SessionClosed,
    TopstepError,
    TransientError,
)
from topstep_sync.models import Token


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service(clock: ManualClock) -> FakeService:
    return FakeService(clock)


@pytest.fixture
def manager(service: FakeService, clock: ManualClock) -> Iterator[TokenManager]:
    manager = TokenManager(None, service, clock=clock)
    yield manager
    service.gate.set()
    manager.close()


################################################ who is served ################################################


def test_the_first_caller_logs_in(manager: TokenManager, service: FakeService) -> None:
    """INITIAL becomes VALID with one login, and later calls use its token."""
    assert TokenState.INITIAL is manager.get_state()
    assert "login-1-0-secret" == manager.get_token() == manager.token().value
    assert (TokenState.VALID, 1, 0) == (manager.get_state(), service.logins, service.validations)


@pytest.mark.parametrize("config", [None, {}, TokenConfig(), Config(), {"refresh_buffer_seconds": 7200}])
def test_every_kind_of_config(config: Any, service: FakeService, clock: ManualClock) -> None:
    """`None`, a mapping, the part and the whole are all accepted."""
    manager = TokenManager(config, service, clock=clock)
    assert "login-1-0-secret" == manager.get_token()


def test_an_unknown_setting_is_refused(service: FakeService) -> None:
    """A misspelt key is an error, not a default."""
    with pytest.raises(ConfigError, match="refresh_bufer"):
        TokenManager({"refresh_bufer": 1}, service)


def test_a_valid_token_is_served_while_a_refresh_is_under_way(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """In the advisory window nobody waits, and one refresh runs."""
    old = manager.get_token()
    clock.advance(DAY - 1 * HOUR)
    service.gate.clear()
    assert {old} == set(together(32, manager.get_token))
    assert TokenState.REFRESHING is manager.get_state()
    service.gate.set()
    assert TokenState.VALID is landed(manager)
    assert ("rotated-1-1-secret", 2) == (manager.get_token(), manager.token().generation)
    assert (1, 1) == (service.logins, service.validations)


def test_a_failed_refresh_still_serves_the_token(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """ERROR serves the valid token, and asks again on the schedule only."""
    old = manager.get_token()
    service.on_validate = lambda token: TransientError("down")
    clock.advance(DAY - HOUR)
    for wait in (30.0, 60.0, 120.0, 300.0):
        before = service.validations
        assert old == manager.get_token()
        assert TokenState.ERROR is landed(manager)
        clock.advance(wait - 1)
        assert old == manager.get_token()
        assert before + 1 == service.validations
        clock.advance(1)
    assert old == manager.get_token()
    assert TokenState.VALID is landed(manager)
    assert ("login-2-4-secret", 4) == (manager.get_token(), service.validations)


def test_a_session_that_is_gone_is_replaced_in_the_background(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """`validate` says the session is gone: a login in the same refresh, while the old token is served."""
    old = manager.get_token()
    service.on_validate = lambda token: None
    clock.advance(DAY - HOUR)
    assert old == manager.get_token()
    land()
    assert ("login-2-1-secret", 2, 1) == (manager.get_token(), service.logins, service.validations)


def test_a_kept_token_keeps_generation_and_expiry(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A null newToken changes nothing about the token, and is no failure."""
    old = manager.token()
    service.on_validate = lambda token: token
    clock.advance(DAY - HOUR)
    manager.token()
    assert TokenState.VALID is landed(manager)
    assert old is manager.token()


def test_a_day_without_waiting(service: FakeService) -> None:
    """A caller every minute for three days: each is served at once, and each day costs one refresh."""
    clock = ManualClock()
    service.clock = clock
    manager = TokenManager(None, service, clock=clock)
    manager.get_token()
    for _ in range(3 * 24 * 60):
        clock.advance(60)
        assert manager.token(deadline=0.0).expires_at > clock.epoch()
        if manager.get_state() is TokenState.REFRESHING:
            land()
    assert (1, 3) == (service.logins, service.validations)


def test_an_expired_token_is_not_served(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """EXPIRED: 32 callers wait for one login, and none sees the old token."""
    manager.get_token()
    clock.advance(DAY)
    assert TokenState.EXPIRED is manager.get_state()
    assert {"login-2-0-secret"} == set(together(32, manager.get_token))
    assert (2, 0) == (service.logins, service.validations)


def test_the_wall_clock_of_the_machine() -> None:
    """With the machine's own clock: 23 hours later the old token is served, a day later it is not."""
    with freezegun.freeze_time("2026-11-24 12:00:00") as frozen:
        service = FakeService(SYSTEM_CLOCK)
        manager = TokenManager(None, service)
        assert "login-1-0-secret" == manager.get_token()
        frozen.tick(timedelta(hours=21, minutes=59))
        assert "login-1-0-secret" == manager.get_token()
        assert TokenState.VALID is manager.get_state()
        frozen.tick(timedelta(hours=2, minutes=1))
        assert TokenState.EXPIRED is manager.get_state()


################################################ who waits ################################################


def test_the_queue_is_bounded(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """100 callers wait for the first token, the 101st is refused at once, and all 100 get it."""
    service.gate.clear()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(manager.get_token())) for _ in range(100)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(100)
    assert 100 == manager.stats()["waiting"]
    with pytest.raises(AuthQueueFull, match="100 callers"):
        manager.get_token()
    service.gate.set()
    for thread in threads:
        thread.join()
    assert (["login-1-0-secret"] * 100, 1, 0) == (found, service.logins, manager.stats()["waiting"])


def test_every_waiter_has_its_own_deadline(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """Three callers, one login that hangs: each gives up when its own time is over."""
    service.gate.clear()
    ended: dict[float, float] = {}

    def call(limit: float) -> None:
        with pytest.raises(AuthUnavailable, match="a refresh is under way"):
            manager.get_token(limit)
        ended[limit] = clock.monotonic() - start

    start = clock.monotonic()
    threads = {limit: threading.Thread(target=call, args=(limit,)) for limit in (5.0, 10.0, 20.0)}
    for thread in threads.values():
        thread.start()
    clock.wait_for_sleepers(3)
    for step, limit in ((5.0, 5.0), (5.0, 10.0), (10.0, 20.0)):
        clock.advance(step)
        threads[limit].join(10)
    assert {5.0: 5.0, 10.0: 10.0, 20.0: 20.0} == ended


def test_a_deadline_object_is_spent_not_restarted(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A `Deadline` that has passed leaves no time to wait."""
    service.gate.clear()
    deadline = Deadline(5.0, clock)
    clock.advance(5.0)
    with pytest.raises(AuthUnavailable):
        manager.token(deadline)


def test_a_caller_that_names_no_deadline_waits_a_bounded_time(service: FakeService, clock: ManualClock) -> None:
    """`wait_seconds` bounds the wait of those who did not think of it."""
    manager = TokenManager({"wait_seconds": 7.0}, service, clock=clock)
    service.gate.clear()
    advance = threading.Thread(target=lambda: (clock.wait_for_sleepers(1), clock.advance(7.0)))
    advance.start()
    with pytest.raises(AuthUnavailable):
        manager.get_token()
    advance.join()
    service.gate.set()


def test_a_failed_login_fails_those_who_cannot_wait(manager: TokenManager, service: FakeService) -> None:
    """The next attempt is 30 s away: a caller with 10 s is told so at once, and told why."""
    service.on_login = lambda: TransientError("the gateway is down")
    with pytest.raises(AuthUnavailable, match="the gateway is down") as caught:
        manager.get_token(deadline=10.0)
    assert (30.0, TokenState.ERROR) == (caught.value.retry_after, manager.get_state())
    assert isinstance(caught.value.__cause__, TransientError)


def test_a_failed_login_is_repeated_for_those_who_can_wait(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A caller with 60 s sits out the 30 s of the schedule and gets the token of the second attempt."""
    answers = iter([TransientError("down"), None])
    service.on_login = lambda: next(answers)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(manager.get_token(deadline=60.0)))
    thread.start()
    clock.wait_for_sleepers(1)
    land()
    clock.wait_for_sleepers(1)
    assert 1 == service.logins
    clock.advance(30.0)
    thread.join(10)
    assert (["login-2-0-secret"], 2) == (found, service.logins)


def test_retry_after_of_the_gateway_is_obeyed(manager: TokenManager, service: FakeService) -> None:
    """A 429 that asks for 45 s gets 45 s, though the schedule says 30."""
    service.on_login = lambda: RateLimited("slow down", retry_after=45.0)
    with pytest.raises(AuthUnavailable) as caught:
        manager.get_token(deadline=10.0)
    assert 45.0 == caught.value.retry_after


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), ValueError("odd"), GeneratorExit()]
)
def test_every_exit_of_the_refresher_releases_all(
    error: BaseException, manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """Whatever leaves the refresher, 32 waiters are released, and the next attempt may succeed."""
    service.on_login = lambda: error
    found = together(32, lambda: manager.get_token(deadline=10.0))
    assert {AuthUnavailable} == {type(one) for one in found}
    service.on_login = lambda: None
    clock.advance(30.0)
    assert "secret" in manager.get_token()


def test_each_caller_gets_an_error_of_its_own(manager: TokenManager, service: FakeService) -> None:
    """32 threads raise the refusal; they share no exception, so no traceback grows in another's hands."""
    service.on_login = lambda: AuthenticationError("bad key", error_code=3)
    found = together(32, manager.get_token)
    assert ({AuthenticationError}, {3}, 32) == (
        {type(e) for e in found},
        {e.error_code for e in found},
        len(set(map(id, found))),
    )
    assert 1 == service.logins


def test_a_refused_login_is_repeated_once_per_cooldown(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A thousand calls in 100 s with a bad key: four logins, and every call is told what to do."""
    service.on_login = lambda: AuthenticationError("check TOPSTEP_API_KEY")
    for _ in range(1000):
        with pytest.raises(AuthenticationError, match="check TOPSTEP_API_KEY"):
            manager.get_token()
        clock.advance(0.1)
    assert 4 == service.logins


def test_ctrl_c_of_one_caller_takes_nothing_from_the_others(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """The main thread is interrupted while it waits; the refresh goes on and the others get the token."""
    service.gate.clear()
    found: list[str] = []
    others = [threading.Thread(target=lambda: found.append(manager.get_token())) for _ in range(8)]
    for thread in others:
        thread.start()
    clock.wait_for_sleepers(8)

    def interrupt() -> None:
        clock.wait_for_sleepers(9)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        manager.get_token()
    thread.join()
    service.gate.set()
    for thread in others:
        thread.join()
    assert (["login-1-0-secret"] * 8, 1, 0) == (found, service.logins, manager.stats()["waiting"])


# In a process of its own: an interrupted `Thread.start` can leave a thread behind that never runs, and never ends.
INTERRUPTED = """
import faulthandler, os, random, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from token_fakes import FakeService
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.clock import SYSTEM_CLOCK

faulthandler.dump_traceback_later(90, exit=True)  # whatever hangs is shown
manager = TokenManager({"login_cooldown_seconds": 0.0, "backoff_seconds": (0.01,)}, FakeService(SYSTEM_CLOCK))
stop = threading.Event()
def others():
    while not stop.wait(0.001):
        assert manager.get_token(deadline=20.0)
crew = [threading.Thread(target=others, daemon=True) for _ in range(3)]
for thread in crew:
    thread.start()
chance, interrupted, armed = random.Random(7), 0, False
def ctrl_c(number, frame):
    if armed:  # else it meets the loop around what is tried
        raise KeyboardInterrupt
signal.signal(signal.SIGPROF, ctrl_c)
while interrupted < 200:
    try:
        armed = True
        # Of processor time, so a busy machine changes nothing; and again soon, as by somebody who has no patience.
        signal.setitimer(signal.ITIMER_PROF, chance.uniform(1e-5, 5e-3), chance.uniform(1e-5, 5e-3))
        for step in range(50):  # then anew: an interruption within a weak reference's callback is swallowed
            manager.rejected(manager.token(deadline=20.0), deadline=20.0)
            manager.adopt(f"adopted-token-{step}") if step % 3 == 0 else manager.get_state()
        armed = False
    except KeyboardInterrupt:
        armed = False
        interrupted += 1
signal.signal(signal.SIGPROF, signal.SIG_IGN)
stop.set()
for thread in crew:
    thread.join(20)
good = manager.get_token(deadline=5.0) and not any(thread.is_alive() for thread in crew)
print(manager.stats()["waiting"], bool(good), flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_hundreds_of_real_ctrl_c() -> None:
    """Interrupted over and over at random moments, while other threads use it: nothing hangs, nothing is lost.

    The moments themselves are gone through one by one in `test_interruptions`; here they come as signals.
    """
    command = [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent)]
    # Coverage's tracer takes a lock of its own in a way that an interruption leaves closed for ever.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment)
    assert 0 == done.returncode, done.stderr[-5000:]
    assert ["0", "True"] == done.stdout.split()


def test_ctrl_c_before_the_refresh_took_off(
    manager: TokenManager, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes between the decision and the thread: nobody waits for a refresh that never began."""

    def interrupt(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.get_token()
    assert (0, 0) == (service.logins, manager.stats()["failures"])
    assert "login-1-0-secret" == manager.get_token(deadline=5.0)


def test_ctrl_c_after_the_refresh_took_off(
    manager: TokenManager, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread runs already: it is left to bring the token."""
    start = threading.Thread.start

    def interrupt(self: threading.Thread) -> None:
        start(self)
        self.join()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.get_token()
    assert ("login-1-0-secret", 1) == (manager.get_token(deadline=5.0), service.logins)


def test_a_refresh_is_flown_once(manager: TokenManager, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of the thread fails in what follows it, as when it is interrupted: there is one login all the same."""
    start = threading.Thread.start

    def fail(self: threading.Thread) -> None:
        start(self)
        raise RuntimeError("release unlocked lock")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        service.gate.clear()
        opener = threading.Timer(0.0, service.gate.set)
        start(opener)
        assert "login-1-0-secret" == manager.get_token(deadline=5.0)
    opener.join()
    land()
    assert 1 == service.logins


def test_a_refresh_that_was_given_up_does_nothing(manager: TokenManager, service: FakeService) -> None:
    """Its thread comes too late: another refresh has its place."""
    manager._fly(Flight())
    assert 0 == service.logins


def test_an_interrupted_decision_is_taken_back(manager: TokenManager, service: FakeService) -> None:
    """Half a decision would leave the machine in a state from which no step leads."""

    def half(policy: TokenPolicy) -> None:
        policy.state = TokenState.REFRESHING
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager._decide(half)
    assert ("login-1-0-secret", TokenState.VALID) == (manager.get_token(), manager.get_state())


def test_without_a_thread_the_caller_refreshes(
    manager: TokenManager, service: FakeService, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no thread can be started, as at interpreter exit, a caller without a token does it; others do not wait."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    old = manager.get_token()
    assert (1, "login-1-0-secret") == (service.logins, old)
    clock.advance(DAY - HOUR)
    assert (old, TokenState.ERROR, 0) == (manager.get_token(), manager.get_state(), service.validations)
    clock.advance(HOUR)
    service.on_login = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        manager.get_token()
    service.on_login = lambda: None
    clock.advance(30)
    assert "login-3-0-secret" == manager.get_token()


################################################ a 401 ################################################


def test_a_401_with_the_current_token_refreshes_once(manager: TokenManager, service: FakeService) -> None:
    """32 calls that got a 401 with the same token cause one login, and all get its token."""
    old = manager.token()
    found = together(32, lambda: manager.rejected(old))
    assert {2} == {token.generation for token in found}
    assert (2, 0) == (service.logins, service.validations)


def test_a_401_with_an_old_token_refreshes_nothing(manager: TokenManager, service: FakeService) -> None:
    """The current token comes back at once."""
    old = manager.token()
    new = manager.rejected(old)
    assert (new, 2) == (manager.rejected(old), service.logins)


def test_a_token_revoked_with_hours_left_heals(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """Two hours in, a 401 proves the token dead: EXPIRED at once, one login, VALID again."""
    old = manager.token()
    clock.advance(2 * HOUR)
    service.gate.clear()
    thread = threading.Thread(target=manager.rejected, args=(old,))
    thread.start()
    clock.wait_for_sleepers(1)
    assert TokenState.REFRESHING is manager.get_state()
    service.gate.set()
    thread.join()
    assert (TokenState.VALID, 2) == (manager.get_state(), service.logins)


def test_a_401_during_a_refresh_waits_for_that_refresh(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """The token under validation dies; `validate` still says it is fine; the same refresh goes on to log in."""
    old = manager.token()
    service.on_validate = lambda token: token
    clock.advance(DAY - HOUR)
    service.gate.clear()
    manager.token()
    found: list[Token] = []
    thread = threading.Thread(target=lambda: found.append(manager.rejected(old)))
    thread.start()
    clock.wait_for_sleepers(1)
    service.gate.set()
    thread.join()
    assert ([2], 2, 1) == ([token.generation for token in found], service.logins, service.validations)


def test_a_401_with_credentials_that_do_not_work_any_more(manager: TokenManager, service: FakeService) -> None:
    """The definite refusal reaches the call that got the 401."""
    old = manager.token()
    service.on_login = lambda: AuthenticationError("key disabled")
    with pytest.raises(AuthenticationError, match="key disabled"):
        manager.rejected(old)


def test_tokens_that_die_at_once_cause_no_storm(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A gateway that refuses every token it issues: a handful of logins in a minute, not hundreds."""
    for _ in range(600):
        with contextlib.suppress(AuthUnavailable):
            manager.rejected(manager.token(deadline=0.0), deadline=0.0)
        land()
        clock.advance(0.1)
    assert 3 <= service.logins <= 10


############################################ from outside, logout, close ############################################


def test_an_adopted_token_is_the_current_one(manager: TokenManager, service: FakeService) -> None:
    """No login of our own, and the next generation."""
    manager.adopt("token-from-the-users-own-login")
    assert ("token-from-the-users-own-login", 1, 0) == (manager.get_token(), manager.token().generation, service.logins)
    manager.adopt("another-token")
    manager.adopt("another-token")
    assert ("another-token", 2) == (manager.get_token(), manager.token().generation)


def test_an_adopted_token_releases_those_who_wait(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """The refresh hangs, the user logs in: nobody waits on, and the late answer is thrown away."""
    service.gate.clear()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(manager.get_token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(8)
    manager.adopt("the-users-own-token")
    for thread in threads:
        thread.join()
    service.gate.set()
    land()
    assert (["the-users-own-token"] * 8, "the-users-own-token") == (found, manager.get_token())


def test_nonsense_is_not_adopted(manager: TokenManager, caplog: pytest.LogCaptureFixture) -> None:
    """A reply without a usable token changes nothing, and is told."""
    manager.adopt("a b\r\nX-Evil: 1")
    assert (TokenState.INITIAL, 1) == (manager.get_state(), len(caplog.records))


def test_adopting_a_dead_token_again_revives_it(manager: TokenManager) -> None:
    """The same text from a new login is a new token: the gateway issued it a moment ago."""
    manager.adopt("same-text-token")
    dead = manager.token()
    manager._policy.reject(dead.generation, manager._now())
    manager.adopt("same-text-token")
    assert ("same-text-token", dead.generation + 1) == (manager.get_token(), manager.token().generation)


def test_logout(manager: TokenManager, service: FakeService) -> None:
    """The gateway is told, INITIAL again, and the next caller logs in."""
    old = manager.get_token()
    manager.logout()
    assert ([old], TokenState.INITIAL) == (service.logouts, manager.get_state())
    assert ("login-2-0-secret", 2) == (manager.get_token(), manager.token().generation)


def test_a_logout_that_the_gateway_does_not_hear(manager: TokenManager, service: FakeService) -> None:
    """The token is forgotten all the same."""

    def fail(token: Token) -> None:
        raise TransientError("down")

    manager.logout()  # nothing to log out of
    manager.get_token()
    service.logout = fail  # type: ignore[method-assign]
    manager.logout()
    assert TokenState.INITIAL is manager.get_state()


def test_a_login_from_before_the_logout_is_thrown_away(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """Logging out while a login is under way: its token is not used, and the waiter gets one of a login after it."""
    service.gate.clear()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(manager.get_token()))
    thread.start()
    clock.wait_for_sleepers(1)
    manager.logout()
    service.gate.set()
    thread.join()
    assert (["login-2-0-secret"], 2) == (found, service.logins)


def test_close_releases_everybody(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """Those who wait get `SessionClosed`, and so does everybody afterwards, also with a valid token."""
    service.gate.clear()
    errors: list[Any] = []

    def call() -> None:
        with pytest.raises(SessionClosed) as caught:
            manager.get_token()
        errors.append(caught.value)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(8)
    manager.close()
    for thread in threads:
        thread.join()
    assert 8 == len(errors)
    service.gate.set()
    land()
    manager.close()
    with pytest.raises(SessionClosed):
        manager.token()


def test_a_closed_manager_serves_nothing(manager: TokenManager) -> None:
    """Not even the valid token it has, and not through `rejected` either."""
    token = manager.token()
    manager.close()
    for call in (manager.get_token, manager.token, lambda: manager.rejected(token), manager.get_token):
        with pytest.raises(SessionClosed):
            call()


def test_a_forgotten_manager_is_freed(service: FakeService, clock: ManualClock) -> None:
    """Nothing keeps a manager alive that nobody uses."""
    manager = TokenManager(None, service, clock=clock)
    manager.get_token()
    land()
    gone = weakref.ref(manager)
    del manager
    gc.collect()
    assert gone() is None


################################################ time and processes ################################################


def test_suspend(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """A day asleep, of which the monotonic clock saw nothing: the first call after waking up logs in."""
    manager.get_token()
    clock.jump(DAY)
    assert "login-2-0-secret" == manager.get_token()


def test_the_wall_clock_is_set_back(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """Ten hours back, then a day of waiting: the token ends after a day, not after 34 hours."""
    manager.get_token()
    clock.jump(-10 * HOUR)
    clock.advance(DAY - 59)
    assert "login-2-0-secret" == manager.get_token()


def test_the_wall_clock_is_set_forward_and_back(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """A day forward costs one login; going back again costs nothing, and the new token does not outlive its day."""
    manager.get_token()
    clock.jump(DAY)
    new = manager.get_token()
    clock.jump(-DAY)
    assert (new, 2) == (manager.get_token(), service.logins)
    clock.advance(DAY - 59)
    assert "login-3-0-secret" == manager.get_token()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_a_login_is_under_way(service: FakeService, clock: ManualClock) -> None:
    """The child has neither the thread nor the waiters: it logs in by itself, at once; the parent goes on."""
    manager = TokenManager(None, service, clock=clock)
    service.gate.clear()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(manager.get_token()))
    thread.start()
    clock.wait_for_sleepers(1)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which pytest must not see the end of
        good = False
        signal.alarm(20)
        try:
            service.gate = threading.Event()
            service.gate.set()
            good = manager.get_token(deadline=5.0) == "login-2-0-secret" and manager.stats()["waiting"] == 0
        finally:
            os._exit(0 if good else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    service.gate.set()
    thread.join()
    assert ["login-1-0-secret"] == found


def test_what_a_fork_leaves_behind(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """As in the child: the refresh and the queue are gone, and the next caller begins anew."""
    service.gate.clear()
    waiter = threading.Thread(target=lambda: together(1, lambda: manager.get_token(deadline=5.0)))
    waiter.start()
    clock.wait_for_sleepers(1)
    manager.forked()
    assert (0, TokenState.ERROR, None) == (manager.stats()["waiting"], manager.get_state(), manager._policy.flight)
    service.gate.set()
    clock.advance(10)
    waiter.join()
    land()
    assert "login-2-0-secret" == manager.get_token(deadline=5.0)
    manager.forked()
    assert "login-2-0-secret" == manager.get_token()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_with_a_valid_token(manager: TokenManager, service: FakeService) -> None:
    """The child uses its parent's token without a login, also while other threads ask for it."""
    token = manager.get_token()
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [manager.get_state() for _ in iter(lambda: stop.wait(0.0001), True)])
    busy.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:  # pragma: no cover
                good = False
                signal.alarm(20)
                try:
                    good = manager.get_token() == token and manager.get_state() is TokenState.VALID
                finally:
                    os._exit(0 if good else 1)
            assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        stop.set()
        busy.join()


################################################ the looks of it ################################################


def test_repr_and_stats_hold_no_secret(manager: TokenManager) -> None:
    """They tell the state, not the token."""
    assert "TokenManager(initial, generation 0)" == repr(manager)
    token = manager.get_token()
    assert "TokenManager(valid, generation 1, expires in 86400 s)" == repr(manager)
    assert token not in repr(manager.stats())
    assert {"state": "valid", "generation": 1, "expires_in": DAY, "failures": 0, "waiting": 0} == manager.stats()


@pytest.mark.parametrize("dump", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_manager_does_not_travel(dump: Any, manager: TokenManager) -> None:
    """Neither pickled nor copied: two managers with one token would refresh it twice."""
    with pytest.raises(TypeError, match="make one in each process"):
        dump(manager)


def test_a_foreign_error_is_kept_as_text(manager: TokenManager, service: FakeService) -> None:
    """What an unknown library raised may carry requests; only its name and its cleaned text go on."""
    service.on_login = lambda: OSError("Bearer abcdefghijklmnop was refused")
    with pytest.raises(AuthUnavailable) as caught:
        manager.get_token(deadline=1.0)
    cause = caught.value.__cause__
    assert isinstance(cause, TopstepError)
    assert "OSError: Bearer ****mnop was refused" == str(cause)


########################################## the specification's service ##########################################


class SpecService:
    """A service as the specification has it, and nothing else."""

    def __init__(self) -> None:
        self.works = True
        self.calls = 0
        self._token: Any = None
        self._token_expiry: Any = None

    def authenticate(self) -> bool:
        self.calls += 1
        self._token = f"spec-token-{self.calls}"
        return self.works


def test_a_service_with_only_authenticate(clock: ManualClock) -> None:
    """`authenticate() -> bool`, `_token` and `_token_expiry` are enough for the whole life of a token."""
    spec = SpecService()
    manager = TokenManager({}, spec, clock=clock)
    spec._token_expiry = datetime.fromtimestamp(clock.epoch() + HOUR)
    assert ("spec-token-1", clock.epoch() + HOUR) == (manager.get_token(), manager.token().expires_at)
    spec._token_expiry = None
    clock.advance(HOUR * 0.52)
    assert "spec-token-1" == manager.get_token()
    land()
    assert ("spec-token-2", clock.epoch() + DAY) == (manager.get_token(), manager.token().expires_at)
    manager.logout()
    assert "spec-token-3" == manager.get_token()


def test_authenticate_that_fails_is_tried_again(clock: ManualClock) -> None:
    """False does not say why, so the schedule decides."""
    spec = SpecService()
    spec.works = False
    manager = TokenManager(None, spec, clock=clock)
    with pytest.raises(AuthUnavailable, match="authenticate"):
        manager.get_token(deadline=5.0)
    spec.works = True
    clock.advance(30.0)
    assert "spec-token-2" == manager.get_token()


def test_a_service_that_says_its_token_has_expired_is_asked_once(clock: ManualClock) -> None:
    """No storm of logins: the schedule decides, and the caller is told what is wrong."""
    spec = SpecService()
    spec._token_expiry = clock.epoch() - 1
    manager = TokenManager(None, spec, clock=clock)
    with pytest.raises(AuthUnavailable, match="clock"):
        manager.get_token(deadline=5.0)
    assert 1 == spec.calls


def test_a_login_that_fails_at_once_again_and_again_ends_at_the_deadline(
    service: FakeService, clock: ManualClock
) -> None:
    """With pauses of nothing the failures follow each other; the caller still leaves when its time is over."""

    def fail() -> TransientError:
        clock.advance(0.1)
        return TransientError("down")

    service.on_login = fail
    manager = TokenManager({"backoff_seconds": (0.0,)}, service, clock=clock)
    with pytest.raises(AuthUnavailable):
        manager.get_token(deadline=1.0)
    land()
    assert 10 <= service.logins <= 12
