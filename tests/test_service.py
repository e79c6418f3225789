"""What counts as an auth service, and how the specification's kind is adapted."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from token_fakes import DAY, FakeService

from topstep_sync.auth.service import AuthenticateService, as_service
from topstep_sync.clock import ManualClock
from topstep_sync.errors import BadReply, ConfigError, TransientError
from topstep_sync.models import Token
from topstep_sync.redact import Secret

CLOCK = ManualClock()
NOW = CLOCK.epoch()


def adapted(token: Any = "a-token", expiry: Any = None, answer: bool = True, **more: Any) -> AuthenticateService:
    service = SimpleNamespace(authenticate=lambda: answer, _token=token, _token_expiry=expiry, **more)
    found = as_service(service, CLOCK, DAY)
    assert isinstance(found, AuthenticateService)
    return found


def test_a_whole_service_is_taken_as_it_is() -> None:
    """`login` and `validate` are all that is looked for, on the class or on the object."""
    service = FakeService(CLOCK)
    loose = SimpleNamespace(login=service.login, validate=service.validate, logout=service.logout)
    assert (service, loose) == (as_service(service, CLOCK, DAY), as_service(loose, CLOCK, DAY))


def test_a_mock_is_the_specifications_service() -> None:
    """A bare `Mock` has every attribute; what a test set on it is `authenticate`, `_token` and `_token_expiry`."""
    mock = Mock()
    mock.authenticate.return_value = True
    mock._token = "mock-token"
    mock._token_expiry = NOW + 60
    token = as_service(mock, CLOCK, DAY).login()
    assert ("mock-token", NOW + 60) == (token.value, token.expires_at)


@pytest.mark.parametrize("service", [None, 1, SimpleNamespace(login=lambda: None), SimpleNamespace(authenticate=1)])
def test_anything_else_is_refused(service: Any) -> None:
    """The message says what was expected."""
    with pytest.raises(
        ConfigError, match=r"expected login\(\), validate\(token\) and logout\(token\), or authenticate"
    ):
        as_service(service, CLOCK, DAY)


@pytest.mark.parametrize(
    ("expiry", "expires_at"),
    [
        (None, NOW + DAY),
        (NOW + 10, NOW + 10),
        (int(NOW) + 10, NOW + 10),
        (datetime.fromtimestamp(NOW + 10, UTC), NOW + 10),
        (datetime.min, NOW + DAY),
        (datetime.max, NOW + DAY),
        (datetime.fromtimestamp(NOW + 10), NOW + 10),
        (NOW + 10 * DAY, NOW + DAY),  # nothing is believed beyond a day
        ("tomorrow", NOW + DAY),
        (float("nan"), NOW + DAY),
        (float("inf"), NOW + DAY),
        (True, NOW + DAY),
    ],
)
def test_expiry(expiry: Any, expires_at: float) -> None:
    """A date, a number or nothing; what cannot be read counts as nothing."""
    token = adapted(expiry=expiry).login()
    assert ("a-token", NOW, expires_at) == (token.value, token.issued_at, token.expires_at)


def test_failure() -> None:
    """False is a failure of unknown kind; True without a token is a broken promise."""
    with pytest.raises(TransientError):
        adapted(answer=False).login()
    for token in (None, "", "a b", 7):
        with pytest.raises(BadReply):
            adapted(token=token).login()


def test_validate_and_logout() -> None:
    """There is no validation, so the session counts as gone; logout is passed on if there is one."""
    token = Token(Secret("a"), 1, 0, 0)
    assert adapted().validate(token) is None
    adapted().logout(token)
    called: list[int] = []
    adapted(logout=lambda: called.append(1)).logout(token)
    assert [1] == called
