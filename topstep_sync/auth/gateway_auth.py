"""The gateway's four auth calls as an `AuthService`: what each reply means for the token.

Source: gateway documentation and swagger, 2026-09. Undocumented: whether an expired token makes `validate` answer 401
or a code, and whether it rotates the token; both readings are handled.
"""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec

from topstep_sync.auth.jwt import new_token, plausible
from topstep_sync.auth.transport import PlainPost, Post
from topstep_sync.clock import SYSTEM_CLOCK, Clock
from topstep_sync.codes import code_name, failure
from topstep_sync.config import Config
from topstep_sync.errors import APIError, AuthenticationError, BadReply, PermanentError, RateLimited, TransientError
from topstep_sync.messages import LoginKey, LoginReply, Reply, ValidateReply
from topstep_sync.models import Token, given
from topstep_sync.redact import Secret, SecretBytes

LOGIN: Final = "/api/Auth/loginKey"
VALIDATE: Final = "/api/Auth/validate"
LOGOUT: Final = "/api/Auth/logout"

MIN_SKEW: Final = 2.0  # seconds; the Date header has whole ones, and the reply was under way for a while

# Codes of our own, beside the gateway's.
NO_ENVELOPE: Final = -1
FAILED: Final = -2  # success: false, with the code of success

_GONE: Final = frozenset({"InvalidSession", "SessionNotFound", "ExpiredToken"})

_DECODERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    LOGIN: msgspec.json.Decoder(LoginReply),
    VALIDATE: msgspec.json.Decoder(ValidateReply),
    LOGOUT: msgspec.json.Decoder(Reply),
}


class _Answer(NamedTuple):
    """A reply with its token out of the open."""

    path: str
    status: int
    code: int
    message: str | None
    token: Secret | None
    received: float
    server_now: float | None
    retry_after: float | None

    @property
    def name(self) -> str:
        return code_name(self.path, self.code)


class GatewayAuth:
    """Logs in to, and refreshes at, the gateway that *config* names.

    Args:
        config: for the credentials, the address, the timeouts and the token's assumed life.
        post: the way out, ``post(path, body, bearer) -> (status, headers, body)``; its own plain one by default.
        clock: where the time comes from.
    """

    def __init__(self, config: Config, *, post: Post | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._post = PlainPost(config, clock) if post is None else post
        self._clock = clock
        self._lifetime = config.token.lifetime_seconds
        self._credentials = (config.user_name, config.api_key)  # replaced as one, so never of two users

    @property
    def can_login(self) -> bool:
        """Whether there are credentials to log in with."""
        return None not in self._credentials

    def remember(self, user_name: str, api_key: str) -> bool:
        """Later logins use these credentials; whether they are of another user than the ones before."""
        before, _ = self._credentials
        self._credentials = (user_name, Secret(api_key))
        return before is None or before.casefold() != user_name.casefold()

    def login(self) -> Token:
        """A new token for the credentials.

        Raises:
            AuthenticationError: there are no credentials, or the gateway refused them for good.
            RequestError: anything else; a later try may succeed.
        """
        user_name, api_key = self._credentials
        if user_name is None or api_key is None:
            raise AuthenticationError(
                "there are no credentials to log in with; set TOPSTEP_USERNAME and TOPSTEP_API_KEY", endpoint=LOGIN
            )
        # In one expression: a plain key in a local variable would show in a traceback that prints them.
        body = SecretBytes(msgspec.json.encode(LoginKey(user_name=user_name, api_key=api_key.reveal())))
        answer = self._ask(LOGIN, body, None)
        if answer.code != 0:
            raise _trouble(answer)
        return self._token(answer)

    def validate(self, token: Token) -> Token | None:
        """The token to go on with: *token* itself when the gateway sent none. `None`: its session is gone.

        Raises:
            RequestError: it is not known.
        """
        answer = self._ask(VALIDATE, b"{}", token.value)
        if answer.status in (401, 403) or answer.name in _GONE:
            return None
        if answer.code != 0:
            raise _trouble(answer)
        return token if answer.token is None else self._token(answer)

    def logout(self, token: Token) -> None:
        """The session of *token* has ended. Whether that ends other tokens of the user is not documented.

        Raises:
            RequestError: it is not known.
        """
        answer = self._ask(LOGOUT, b"{}", token.value)
        if answer.status != 401 and answer.code != 0 and answer.name != "InvalidSession":
            raise _trouble(answer)

    def _token(self, answer: _Answer) -> Token:
        if answer.token is None or not plausible(answer.token):
            raise BadReply(
                f"{answer.path}: success without a usable token", endpoint=answer.path, status_code=200, attempts=1
            )
        return new_token(answer.token, answer.received, answer.server_now, self._lifetime)

    def _ask(self, path: str, body: bytes, bearer: str | None) -> _Answer:
        """The gateway's answer; 401 and 403 are one too, where a bearer was sent.

        Raises:
            APIError: any other status than 200, or no envelope.
        """
        sent = self._clock.epoch()
        status, headers, reply = self._post(path, body, bearer)
        reply = SecretBytes(reply)
        received = self._clock.epoch()
        code, message, token = _decode(path, reply) if status == 200 else (NO_ENVELOPE, None, None)
        after = _seconds_until(headers.get("Retry-After"), received)
        answer = _Answer(path, status, code, message, token, received, _server_now(headers, sent, received), after)
        if (status == 200 and code != NO_ENVELOPE) or (bearer is not None and status in (401, 403)):
            return answer
        raise _trouble(answer)


def _decode(path: str, body: bytes) -> tuple[int, str | None, Secret | None]:
    """Code, message and token of an envelope."""
    try:
        reply = _DECODERS[path].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NO_ENVELOPE, None, None
    value = getattr(reply, "token", None) or getattr(reply, "new_token", None)
    code = reply.error_code if reply.success else reply.error_code or FAILED
    message = reply.error_message if given(reply.error_message) else None
    return code, message, Secret(value) if given(value) and value else None


def _trouble(answer: _Answer) -> APIError:
    """What *answer* means when it is not success."""
    path, status = answer.path, answer.status
    facts: dict[str, Any] = {"endpoint": path, "status_code": status, "attempts": 1}
    if status == 200:
        return _refusal(answer, facts)
    if status == 429:
        return RateLimited(f"{path}: HTTP 429, too many calls", retry_after=answer.retry_after, **facts)
    if status >= 500 or status == 408:
        return TransientError(f"{path}: HTTP {status}", retry_after=answer.retry_after, **facts)
    if status in (400, 401, 403):
        advice = "check TOPSTEP_USERNAME and TOPSTEP_API_KEY, and that this machine may reach the gateway"
        return AuthenticationError(f"{path}: HTTP {status}; {advice}", **facts)
    return PermanentError(f"{path}: HTTP {status}; check base_url", **facts)


def _refusal(answer: _Answer, facts: dict[str, Any]) -> APIError:
    """What an answer of HTTP 200 means that is not success."""
    if answer.code == NO_ENVELOPE:
        return BadReply(f"{answer.path}: not the documented JSON envelope; is base_url the gateway?", **facts)
    if answer.name == "UnknownError" or answer.name.startswith("Code"):
        said = f" ({answer.message})" if answer.message else ""
        facts |= {"error_code": answer.code, "error_name": answer.name, "error_message": answer.message}
        return TransientError(f"{answer.path}: {answer.name}{said}", **facts)
    return failure(answer.path, answer.code, answer.message, attempts=1)


def _http_date(text: str | None) -> float | None:
    try:
        date = None if text is None else parsedate_to_datetime(text)
        # "-0000" gives a date without a zone, which would be taken for local time.
        return None if date is None else (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _server_now(headers: Mapping[str, str], sent: float, received: float) -> float | None:
    """The gateway's wall clock when the reply arrived; ours, when the two differ by no more than can be measured."""
    date = _http_date(headers.get("Date"))
    if date is None:
        return None
    skew = date + 0.5 - (sent + received) / 2  # the header drops the fraction of the second
    return received + skew if abs(skew) > MIN_SKEW + (received - sent) / 2 else received


def _seconds_until(text: str | None, now: float) -> float | None:
    """A Retry-After header, which is seconds or a date, as seconds."""
    if text is None:
        return None
    if text.strip().isdecimal() and len(text) < 10:
        return float(text)
    date = _http_date(text)
    return None if date is None else max(0.0, date - now)
