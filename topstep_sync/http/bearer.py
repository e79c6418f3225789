"""Whose bearer goes with a call: the session's current one, or the one its caller put there.

A script that logs in by itself keeps working and gains refresh: the token of a login that passes through the session
is adopted, and a header that carries a token of this session is stamped with the current one. A foreign token is left
alone.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from topstep_sync.clock import Deadline
from topstep_sync.errors import AuthenticationError, MissingCredentials, TopstepError
from topstep_sync.http.routes import Safety, Window, route
from topstep_sync.models import Token

log = logging.getLogger("topstep_sync.http")

KNOWN_TOKENS: Final = 16
"""Tokens of this session that are recognised in a caller's own header; there is one a day."""

MISSING: Final = (
    "no credentials: set TOPSTEP_USERNAME and TOPSTEP_API_KEY, or give user_name= and api_key= to Session; "
    "the user name is the platform login, the key is made in TopstepX under Settings, API"
)

# Replies that carry a token, and the field it is in.
_CARRIERS: Final[Mapping[str, str]] = {"/api/auth/loginkey": "token", "/api/auth/validate": "newToken"}


class Tokens(Protocol):
    """Where bearers come from."""

    def token(self, deadline: Deadline | None = None) -> Token: ...
    def rejected(self, token: Token, deadline: Deadline | None = None) -> Token: ...
    def adopt(self, value: str, *, user_name: str | None = None, api_key: str | None = None) -> None: ...


class Signer:
    """Stamps bearers, and learns of the ones that pass by. Thread-safe.

    Args:
        tokens: where they come from.
        can_login: whether there is anything to log in with.
    """

    def __init__(self, tokens: Tokens, can_login: Callable[[], bool] = lambda: True) -> None:
        self._tokens = tokens
        self._can_login = can_login
        self._known: dict[str, None] = {}  # bearers of this session, oldest first; replaced, never changed

    def is_ours(self, path: str, headers: Mapping[str, Any]) -> bool:
        """Whether the current token goes with a call: there is no other, or the caller's own is one of ours.

        A login takes none, nor does the free ping, which must not cause a login. A caller who renews or ends a
        session says which by the token in the header.
        """
        header = headers.get("Authorization")
        if header is None:
            found = route(path)
            return found.safety is not Safety.AUTH and found.window is not Window.FREE
        text = header.decode("latin-1") if isinstance(header, bytes) else str(header)
        return text.removeprefix("Bearer ") in self._known

    def sign(self, headers: Any, deadline: Deadline) -> Token:
        """The headers carry the current token, which is returned. Waits for one where there is none.

        Raises:
            MissingCredentials: nobody has logged in, and there is nothing to log in with.
            RequestError: there is no token, and none will come before the deadline.
        """
        try:
            token = self._tokens.token(deadline)
        except AuthenticationError:
            if self._can_login():
                raise
            raise MissingCredentials(MISSING) from None
        self.stamp(headers, token)
        return token

    def stamp(self, headers: Any, token: Token) -> None:
        """The headers carry *token*."""
        headers["Authorization"] = f"Bearer {token.value}"
        if token.value not in self._known:
            self._remember(token.value)

    def renewed(self, token: Token, path: str, deadline: Deadline) -> Token | TopstepError:
        """The newer token to send a call again with that got a 401 for *token*; else the reason there is none."""
        try:
            return self._tokens.rejected(token, deadline)
        except TopstepError as trouble:
            log.warning("! %s: 401, and no newer token: %s", path, trouble)
            return trouble

    def learn(self, path: str, asked: Any, replied: Any) -> None:
        """A successful reply of an AUTH path has passed; a token in it, and the credentials, become the session's.

        Args:
            path: the endpoint.
            asked: body of the request.
            replied: body of the reply.
        """
        name = _CARRIERS.get(path.lower())
        if name is None:
            return
        reply, request = _mapping(replied), _mapping(asked)
        value = reply.get(name)
        if reply.get("success") is True and isinstance(value, str) and value:
            self._remember(value)
            self._tokens.adopt(value, user_name=request.get("userName"), api_key=request.get("apiKey"))

    def _remember(self, value: str) -> None:
        self._known = dict.fromkeys([*self._known, str(value)][-KNOWN_TOKENS:])


def _mapping(body: Any) -> Mapping[str, Any]:
    """The JSON object in *body*; empty when it holds none."""
    try:
        found = msgspec.json.decode(body) if isinstance(body, (bytes, str)) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
