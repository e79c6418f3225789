"""Where a hub connection gets its token: our token manager, anything with `get_token()`, a function, or nowhere."""

from collections.abc import Callable
from typing import Any, Protocol

from topstep_sync.errors import AuthenticationError
from topstep_sync.models import Token
from topstep_sync.redact import Secret


class Tokens(Protocol):
    """What a connection asks; both may block, and are called on a thread that may."""

    def token(self) -> Token | None:
        """The token to connect with; `None` for a hub that wants none."""
        ...

    def rejected(self, token: Token) -> Token:
        """A newer token than *token*, which the hub refused.

        Raises:
            AuthenticationError: there is none to be had.
        """
        ...


class NoTokens:
    """For a hub that wants no token."""

    def token(self) -> None:
        return None

    def rejected(self, token: Token) -> Token:
        raise AuthenticationError("the hub wants a token, and this connection was made without any")


class CalledTokens:
    """Tokens from a function that returns text."""

    def __init__(self, get: Callable[[], str]) -> None:
        self._get = get
        self._generation = 0

    def token(self) -> Token:
        self._generation += 1
        return Token(Secret(self._get()), self._generation, 0.0, 0.0)

    def rejected(self, token: Token) -> Token:
        newer = self.token()
        if newer.value == token.value:
            raise AuthenticationError("the hub refused the token, and there is no other; log in again")
        return newer


def token_source(source: Any) -> Tokens:
    """*source* as `Tokens`: a token manager, an object with `get_token()`, a function, a text, or `None`."""
    if source is None:
        return NoTokens()
    if hasattr(source, "token") and hasattr(source, "rejected"):
        return source  # type: ignore[no-any-return]
    if isinstance(source, str):
        return CalledTokens(lambda: source)
    get = getattr(source, "get_token", source)
    if not callable(get):
        raise TypeError(f"{type(source).__name__} gives no tokens; expected a token manager or a function")
    return CalledTokens(get)
