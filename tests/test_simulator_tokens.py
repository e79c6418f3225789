"""The bearer tokens."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.simulator.settings import Settings
from topstep_sync.simulator.simclock import SimClock
from topstep_sync.simulator.tokens import TokenFault, Tokens

START = 1_795_500_000.0


def made(**settings: object) -> tuple[Tokens, SimClock]:
    clock = SimClock(0.0, START)
    return Tokens(Settings.of(**settings), clock), clock


def part(token: str, number: int) -> dict[str, object]:
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_is_a_jwt_that_says_when_it_ends() -> None:
    """Three parts, HS256, with the user, a generation, and whole seconds of issue and expiry."""
    tokens, _ = made()
    first, second = tokens.issue(), tokens.issue()
    assert {"alg": "HS256", "typ": "JWT"} == part(first, 0)
    assert {"sub": "trader", "jti": "1", "iat": int(START), "exp": int(START) + 86400} == part(first, 1)
    assert "2" == part(second, 1)["jti"]
    key = hashlib.sha256(b"simulator key 7").digest()
    signature = hmac.new(key, first.rpartition(".")[0].encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64encode(signature).rstrip(b"=").decode() == first.rpartition(".")[2]


@pytest.mark.parametrize(("skew", "later", "fault"), [
    (0.0, 86399.0, None), (0.0, 86400.0, TokenFault.EXPIRED), (300.0, 86699.0, None),
    (300.0, 86700.0, TokenFault.EXPIRED),
])  # fmt: skip
def test_it_is_taken_until_it_expires(skew: float, later: float, fault: TokenFault | None) -> None:
    """A token dies at its expiry, or as much later as the clock skew allows."""
    tokens, clock = made(clock_skew=skew)
    token = tokens.issue()
    clock.advance(later)
    assert fault is tokens.check(token).fault


def test_lifetimes_apply_from_now_on() -> None:
    """A new lifetime changes the tokens issued after it only."""
    tokens, clock = made()
    old = tokens.issue()
    tokens.lifetime = 10.0
    new = tokens.issue()
    clock.advance(11.0)
    assert [None, TokenFault.EXPIRED] == [tokens.check(t).fault for t in (old, new)]


def test_one_or_all_can_be_revoked() -> None:
    """A revoked token is refused and still known; later ones are taken."""
    tokens, _ = made()
    a, b = tokens.issue(), tokens.issue()
    tokens.revoke("1")
    assert [TokenFault.REVOKED, None] == [tokens.check(t).fault for t in (a, b)]
    assert "1" == tokens.check(a).claims.jti  # type: ignore[union-attr]
    tokens.revoke()
    assert TokenFault.REVOKED is tokens.check(b).fault
    assert tokens.check(tokens.issue()).fault is None


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (None, TokenFault.MISSING), ("", TokenFault.MISSING), ("Bearer", TokenFault.MISSING),
        ("Bearer ", TokenFault.MISSING), ("Basic abc", TokenFault.MISSING), ("{token}", TokenFault.MISSING),
        ("Bearer x", TokenFault.INVALID), ("Bearer a.b.c", TokenFault.INVALID), ("Bearer é", TokenFault.INVALID),
        ("Bearer {token}x", TokenFault.FORGED), ("Bearer {token}", None), ("bearer {token}", None),
        ("BEARER  {token} ", None),
    ],
)  # fmt: skip
def test_headers(header: str | None, fault: TokenFault | None) -> None:
    """Only the bearer scheme carries a token, in any case."""
    tokens, _ = made()
    token = tokens.issue()
    assert fault is tokens.check_header(header and header.format(token=token)).fault


def test_each_fault_has_its_challenge() -> None:
    """The WWW-Authenticate headers are ASP.NET Core's."""
    tokens, clock = made(token_lifetime=60)
    token, revoked = tokens.issue(), tokens.issue()
    tokens.revoke("2")
    forged = 'Bearer error="invalid_token", error_description="The signature key was not found"'
    assert "Bearer" == tokens.challenge(tokens.check(None))
    assert 'Bearer error="invalid_token"' == tokens.challenge(tokens.check("x"))
    assert 'Bearer error="invalid_token"' == tokens.challenge(tokens.check(revoked))
    assert forged == tokens.challenge(tokens.check(token + "x"))
    clock.advance(61)
    expired = 'Bearer error="invalid_token", error_description="The token expired at \'11/24/2026 06:01:00\'"'
    assert expired == tokens.challenge(tokens.check(token))


@given(st.text(max_size=200))
def test_no_text_breaks_the_check(text: str) -> None:
    """Whatever a client sends as its token is refused, never an error."""
    tokens, _ = made()
    tokens.issue()
    assert tokens.check(text).fault is not None
    assert tokens.check_header(f"Bearer {text}").fault is not None
