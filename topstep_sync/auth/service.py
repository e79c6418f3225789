"""Who a token manager asks for tokens: the protocol, and the specifications' simpler kind of service adapted to it."""

import contextlib
import math
from datetime import datetime
from typing import Any, Protocol

from topstep_sync.auth.jwt import new_token, plausible
from topstep_sync.clock import Clock
from topstep_sync.errors import BadReply, ConfigError, TransientError
from topstep_sync.models import Token


class AuthService(Protocol):
    """A source of tokens. The manager calls it from one thread at a time, and stamps the generations itself."""

    def login(self) -> Token:
        """A new token.

        Raises:
            PermanentError: a definite refusal, `AuthenticationError` mostly; asking again gives the same answer.
            Exception: anything else may pass, and is tried again by schedule.
        """
        ...

    def validate(self, token: Token) -> Token | None:
        """The token to use from now on: *token* itself, if it was kept. `None` when its session is gone.

        Raises:
            Exception: it is not known; tried again by schedule.
        """
        ...

    def logout(self, token: Token) -> None:
        """End the session of *token*."""
        ...


class AuthenticateService:
    """An object that has only ``authenticate() -> bool``, ``_token`` and ``_token_expiry``, as an `AuthService`.

    `_token_expiry` may be a `datetime` (a naive one is local time), seconds since 1970, or `None`.
    """

    def __init__(self, service: Any, clock: Clock, lifetime: float) -> None:
        self._service = service
        self._clock = clock
        self._lifetime = lifetime

    def login(self) -> Token:
        if not self._service.authenticate():
            # It does not say why, so it may be no more than the network.
            raise TransientError("authenticate() returned False; its own log says why")
        value = self._service._token
        if not isinstance(value, str) or not plausible(value):
            raise BadReply("authenticate() returned True but left no usable text in _token")
        now = self._clock.epoch()
        token = new_token(value, now, None, self._lifetime)
        expiry = _epoch(getattr(self._service, "_token_expiry", None))
        if expiry is None:
            return token
        return Token(token.value, 0, now, min(expiry, now + self._lifetime))

    def validate(self, token: Token) -> Token | None:
        return None  # there is no such call here; authenticating anew is the only refresh it knows

    def logout(self, token: Token) -> None:
        end = getattr(self._service, "logout", None)
        if callable(end):
            end()


def _epoch(value: Any) -> float | None:
    if isinstance(value, datetime):
        with contextlib.suppress(ValueError, OverflowError):  # `datetime.min`, say, for a token that is not there yet
            return value.timestamp()
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def as_service(service: Any, clock: Clock, lifetime: float) -> AuthService:
    """*service* itself when it has `login`, adapted when it has only `authenticate`.

    Raises:
        ConfigError: it has neither.
    """
    # On the class first: a mock has every attribute, but only those of the specification on purpose.
    if not callable(getattr(type(service), "login", None)) and callable(getattr(service, "authenticate", None)):
        return AuthenticateService(service, clock, lifetime)
    if callable(getattr(service, "login", None)) and callable(getattr(service, "validate", None)):
        found: AuthService = service
        return found
    raise ConfigError(
        f"{type(service).__name__} is no auth service; expected login(), validate(token) and logout(token), "
        "or authenticate() with _token and _token_expiry"
    )
