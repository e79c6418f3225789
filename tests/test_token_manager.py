"""The life of a token: who is served, who waits, and what is asked of the gateway, and how often."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_policy import TokenState
from topstep_sync.clock import ManualClock
from topstep_sync.errors import AuthenticationError, AuthQueueFull, AuthUnavailable, SessionClosed, TransientError
from topstep_sync.models import Token
from topstep_sync.redact import Secret

HOUR = 3600.0
DAY = 24 * HOUR


class FakeService:
    """An auth service whose every answer a test can set: an exception to raise, or what to return."""

    def __init__(self, clock: ManualClock, life: float = DAY) -> None:
        self.clock = clock
        self.life = life
        self.logins = 0
        self.validations = 0
        self.logouts: list[str] = []
        self.on_login: Callable[[], Any] = lambda: None
        self.on_validate: Callable[[Token], Any] = lambda token: self.issue("rotated")
        self.gate = threading.Event()  # clear it to hold every call
        self.gate.set()
        self.entered = threading.Event()

    def issue(self, kind: str = "login") -> Token:
        now = self.clock.epoch()
        return Token(Secret(f"{kind}-{self.logins}-{self.validations}-secret"), 0, now, now + self.life)

    def login(self) -> Token:
        self.logins += 1
        return self._answer(lambda: self.on_login() or self.issue())

    def validate(self, token: Token) -> Token | None:
        self.validations += 1
        return self._answer(lambda: self.on_validate(token))

    def logout(self, token: Token) -> None:
        self.logouts.append(token.value)

    def _answer(self, make: Callable[[], Any]) -> Any:
        self.entered.set()
        assert self.gate.wait(30)
        answer = make()
        if isinstance(answer, BaseException):
            raise answer
        return answer


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


def landed(manager: TokenManager) -> TokenState:
    """The state once no refresh is under way."""
    for thread in threading.enumerate():
        if thread.name == "topstep-token":
            thread.join(10)
    return manager.get_state()


def test_the_first_caller_logs_in(manager: TokenManager, service: FakeService) -> None:
    """INITIAL becomes VALID with one login, and later calls use its token."""
    assert TokenState.INITIAL is manager.get_state()
    assert "login-1-0-secret" == manager.get_token() == manager.token().value
    assert (TokenState.VALID, 1, 0) == (manager.get_state(), service.logins, service.validations)


def test_a_valid_token_is_served_while_a_refresh_is_under_way(
    manager: TokenManager, service: FakeService, clock: ManualClock
) -> None:
    """In the advisory window nobody waits, and one refresh runs."""
    old = manager.get_token()
    clock.advance(DAY - 1 * HOUR)
    service.gate.clear()
    assert [old] * 50 == [manager.get_token() for _ in range(50)]
    assert TokenState.REFRESHING is manager.get_state()
    service.gate.set()
    assert TokenState.VALID is landed(manager)
    assert ("rotated-1-1-secret", 2) == (manager.get_token(), manager.token().generation)
    assert (1, 1) == (service.logins, service.validations)


def test_a_401_with_the_current_token_refreshes_once(manager: TokenManager, service: FakeService) -> None:
    """32 calls that got a 401 with the same token cause one login, and all get its token."""
    old = manager.token()
    found: list[Token] = []
    threads = [threading.Thread(target=lambda: found.append(manager.rejected(old))) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {2} == {token.generation for token in found}
    assert (2, 0) == (service.logins, service.validations)


def test_a_refused_login_says_so_and_is_not_repeated(manager: TokenManager, service: FakeService) -> None:
    """A definite refusal reaches every caller, and the gateway is asked once."""
    service.on_login = lambda: AuthenticationError("bad key")
    for _ in range(20):
        with pytest.raises(AuthenticationError, match="bad key"):
            manager.get_token()
    assert 1 == service.logins


def test_a_failed_login_fails_those_who_cannot_wait(manager: TokenManager, service: FakeService) -> None:
    """The next attempt is 30 s away: a caller with 10 s is told so at once."""
    service.on_login = lambda: TransientError("down")
    with pytest.raises(AuthUnavailable) as caught:
        manager.get_token(deadline=10.0)
    assert (30.0, TokenState.ERROR) == (caught.value.retry_after, manager.get_state())


def test_the_queue_is_bounded(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """100 callers wait for the first token, the 101st is refused at once, and all 100 get it."""
    service.gate.clear()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(manager.get_token())) for _ in range(100)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(100)
    with pytest.raises(AuthQueueFull):
        manager.get_token()
    service.gate.set()
    for thread in threads:
        thread.join()
    assert (["login-1-0-secret"] * 100, 1) == (found, service.logins)


def test_close_releases_everybody(manager: TokenManager, service: FakeService, clock: ManualClock) -> None:
    """Those who wait get `SessionClosed`, and so does the next caller."""
    service.gate.clear()
    errors: list[BaseException] = []

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
    with pytest.raises(SessionClosed):
        manager.token()
