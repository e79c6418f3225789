"""A token's own word about its life: a hint, read without trust."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.auth.jwt import MAX_LENGTH, Claims, claims, new_token, plausible, seconds_left

NOW = 1_790_000_000.0
DAY = 86_400.0


def jwt(**said: object) -> str:
    """A token that says *said*, unsigned."""
    parts = (json.dumps({"alg": "none"}), json.dumps(said), "signature")
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def test_the_claims_of_a_jwt() -> None:
    """`iat` and `exp` are read, whatever else is there."""
    assert Claims(iat=NOW, exp=NOW + 30) == claims(jwt(iat=NOW, exp=NOW + 30, sub="joe", aud=["a"]))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d",
        "a.!!!.c",
        "ä.ö.ü",
        jwt(exp="tomorrow"),
        jwt(exp=True),
        jwt(exp=[1]),
        "x." + base64.urlsafe_b64encode(b"[1]").decode() + ".y",
        "x." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".y",
        "x." + base64.urlsafe_b64encode(b'{"exp": 1e999}').decode() + ".y",
        "x." + "A" * MAX_LENGTH + ".y",
        "x." + base64.urlsafe_b64encode(b'{"more":' + b"[" * 8000).decode().rstrip("=") + ".y",
    ],
)
def test_no_jwt_has_no_claims(value: str) -> None:
    """Anything else says nothing, and raises nothing."""
    assert Claims() == claims(value)


@given(st.text())
def test_no_text_breaks_the_reader(value: str) -> None:
    """Whatever the text, the time left is more than 0 and at most the lifetime."""
    assert 0 < seconds_left(value, NOW, None, DAY) <= DAY


@given(st.floats(-1e18, 1e18) | st.integers(-(10**30), 10**30), st.floats(-1e9, 1e9), st.none() | st.floats(-1e9, 1e9))
def test_no_claim_is_believed_beyond_a_day(exp: float, iat: float, skew: float | None) -> None:
    """Whatever `exp` says, and wherever the clocks stand, the time left is more than 0 and at most the lifetime."""
    server = None if skew is None else NOW + skew
    assert 0 < seconds_left(jwt(exp=exp, iat=iat), NOW, server, DAY) <= DAY


@pytest.mark.parametrize(
    ("said", "server", "left"),
    [
        ({}, None, DAY),  # it does not say
        ({"exp": NOW + 600}, None, 600.0),
        ({"exp": NOW + 600}, NOW, 600.0),
        ({"exp": NOW + 600}, NOW - 300, 900.0),  # our clock is 5 minutes ahead
        ({"exp": NOW + 600}, NOW + 300, 300.0),  # and 5 minutes behind
        ({"exp": NOW - 600}, NOW - 3600, 3000.0),  # our clock is an hour ahead: expired by ours, not by the gateway's
        ({"exp": NOW + 600}, NOW + 3600, 600.0),  # the Date header cannot be right
        ({"exp": NOW - 600, "iat": NOW - 4200}, None, 3600.0),  # no Date: what was just issued lives as long as it says
        ({"exp": NOW - 600}, NOW, DAY),  # it cannot be expired, as it was just issued: the hint is worth nothing
        ({"exp": NOW + 600, "iat": NOW}, NOW - 3600, 600.0),  # the Date header is an hour old
        ({"exp": NOW + 600, "iat": NOW + 600}, None, 600.0),  # an iat that cannot be
        ({"exp": (NOW + 60) * 1000}, None, DAY),  # milliseconds
        ({"exp": NOW + 7 * DAY}, NOW, DAY),
    ],
)
def test_time_left(said: dict[str, float], server: float | None, left: float) -> None:
    """The gateway's clock counts if it is known, and no hint that contradicts the reply counts at all."""
    assert left == seconds_left(jwt(**said), NOW, server, DAY)


def test_expiry_is_on_our_clock() -> None:
    """A token for 600 s expires in 600 s here, whatever the gateway's clock says."""
    token = new_token(jwt(exp=NOW + 10_600), NOW, NOW + 10_000, DAY, generation=7)
    assert (NOW, NOW + 600, 7) == (token.issued_at, token.expires_at, token.generation)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("abc", True),
        (jwt(exp=1), True),
        ("", False),
        ("a b", False),
        ("a\r\nX: y", False),
        ("ü", False),
        ("a" * MAX_LENGTH + "a", False),
    ],
)
def test_what_can_travel_in_a_header(value: str, good: bool) -> None:
    """Visible ASCII of a sane length; anything else could smuggle a header or break the request."""
    assert good is plausible(value)
