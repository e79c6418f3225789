"""What a bearer says about its own life. Read without verification, as a hint: the gateway alone knows.

A hint that contradicts the reply it came with is ignored, and none is believed beyond the documented 24 hours.
"""

import base64
import binascii
from typing import Final

import msgspec

from topstep_sync.models import Token
from topstep_sync.redact import Secret

MAX_LENGTH: Final = 16 * 1024  # a header line longer than this is refused by most servers


class Claims(msgspec.Struct, frozen=True):
    """The two claims that matter here, in seconds since 1970 of the gateway's clock."""

    iat: float | None = None
    exp: float | None = None


_DECODER: Final = msgspec.json.Decoder(Claims)


def claims(value: str) -> Claims:
    """The claims of *value*; empty ones when it is no JWT, or not one of this kind. Never raises."""
    parts = value.split(".")
    if len(parts) != 3 or len(value) > MAX_LENGTH:
        return Claims()
    try:
        return _DECODER.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return Claims()


def plausible(value: str) -> bool:
    """Whether *value* can travel in a header: visible ASCII, neither empty nor absurdly long."""
    return 0 < len(value) <= MAX_LENGTH and value.isascii() and value.isprintable() and " " not in value


def seconds_left(value: str, now: float, server_now: float | None, lifetime: float) -> float:
    """How long *value*, just received, will be accepted; above 0 and at most *lifetime* seconds.

    Args:
        value: the bearer.
        now: this machine's wall clock, in seconds since 1970.
        server_now: the gateway's, from the reply's `Date` header; `None` when it had none.
        lifetime: assumed when the token does not say, and the most that is believed.
    """
    said = claims(value)
    if said.exp is None:
        return lifetime
    if said.iat is not None and said.exp > said.iat:
        lifetime = min(lifetime, said.exp - said.iat)  # none has more left than it ever had, whatever the clocks say
    starts = (server_now, now, said.iat)  # the gateway's own clock first; what was just issued has life left
    readings = (said.exp - start for start in starts if start is not None)
    return min(next((left for left in readings if left > 0), lifetime), lifetime)


def new_token(value: str, now: float, server_now: float | None, lifetime: float, generation: int = 0) -> Token:
    """A `Token` whose `expires_at` is on this machine's clock, whatever the skew between the two."""
    left = seconds_left(value, now, server_now, lifetime)
    return Token(value=Secret(value), generation=generation, issued_at=now, expires_at=now + left)
