"""Bearer tokens: JWT with HS256, issued, checked, revoked."""

import base64
import datetime as dt
import enum
import hashlib
import hmac
from typing import Any, Final, NamedTuple

import msgspec

from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock

_HEADER: Final = b'{"alg":"HS256","typ":"JWT"}'


class TokenFault(enum.Enum):
    """Why a bearer is not taken."""

    MISSING = "missing"
    INVALID = "invalid"
    REVOKED = "revoked"
    EXPIRED = "expired"
    FORGED = "forged"


class Claims(msgspec.Struct, frozen=True):
    """What a token says. `jti` is its generation: 1 for the first issued."""

    sub: str
    jti: str
    iat: int
    exp: int


class Verdict(NamedTuple):
    """A token, checked: its claims when it is ours, and the fault when it is not taken."""

    claims: Claims | None
    fault: TokenFault | None


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Tokens:
    """Issues and checks the tokens. Loop thread only."""

    def __init__(self, settings: Settings, clock: SimClock) -> None:
        self._settings = settings
        self._clock = clock
        self._key = hashlib.sha256(f"simulator key {settings.seed}".encode()).digest()
        self._live: dict[str, Claims] = {}
        self._revoked: set[str] = set()
        self.lifetime = settings.token_lifetime
        """Seconds; of the tokens issued from now on."""
        self.issued = 0

    def issue(self) -> str:
        """A new token of the user, valid from now."""
        self.issued += 1
        now = int(self._clock.epoch())
        claims = Claims(self._settings.user_name, str(self.issued), now, int(now + self.lifetime))
        body = _encode(_HEADER) + b"." + _encode(msgspec.json.encode(claims))
        text = (body + b"." + self._sign(body)).decode()
        self._live[text] = claims
        return text

    def check(self, token: str | None) -> Verdict:
        """Whether *token* is taken now."""
        if not token:
            return Verdict(None, TokenFault.MISSING)
        claims = self._live.get(token)
        if claims is None:
            return Verdict(None, TokenFault.FORGED if _looks_like_jwt(token) else TokenFault.INVALID)
        if self._clock.epoch() >= claims.exp + self._settings.clock_skew:
            return Verdict(claims, TokenFault.EXPIRED)
        if claims.jti in self._revoked:
            return Verdict(claims, TokenFault.REVOKED)
        return Verdict(claims, None)

    def check_header(self, header: str | None) -> Verdict:
        """Whether the value of an Authorization header is taken now."""
        scheme, _, token = (header or "").partition(" ")
        return self.check(token.strip() if scheme.lower() == "bearer" else None)

    def revoke(self, jti: str | None = None) -> None:
        """That token, or every one so far, is not taken any more."""
        self._revoked.update([jti] if jti is not None else [c.jti for c in self._live.values()])

    def challenge(self, verdict: Verdict) -> str:
        """The WWW-Authenticate header of the 401, as ASP.NET Core words it."""
        if verdict.fault is TokenFault.MISSING:
            return "Bearer"
        if verdict.fault is TokenFault.EXPIRED and verdict.claims:
            when = _american(verdict.claims.exp)
            return f'Bearer error="invalid_token", error_description="The token expired at \'{when}\'"'
        if verdict.fault is TokenFault.FORGED:
            return 'Bearer error="invalid_token", error_description="The signature key was not found"'
        return 'Bearer error="invalid_token"'

    def _sign(self, body: bytes) -> bytes:
        return _encode(hmac.new(self._key, body, hashlib.sha256).digest())


def _looks_like_jwt(token: str) -> bool:
    """Whether it has three parts, the first two of them JSON: then ASP.NET complains of the signature only."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        for part in parts[:2]:
            msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError):
        return False
    return True


def _american(epoch: int) -> str:
    return dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%m/%d/%Y %H:%M:%S")
