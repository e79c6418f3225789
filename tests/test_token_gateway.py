"""The token manager and the gateway's auth calls together, against the simulator over real sockets."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from token_fakes import DAY, HOUR, land, landed, together

from topstep_sync.auth.gateway_auth import GatewayAuth
from topstep_sync.auth.token_manager import TokenManager
from topstep_sync.auth.token_policy import TokenState
from topstep_sync.clock import SYSTEM_CLOCK, ManualClock
from topstep_sync.errors import AuthenticationError, AuthUnavailable
from topstep_sync.models import Token

pytest.importorskip("uvicorn", reason="needs the simulator")

START = 1_790_000_000.0


class Day:
    """A manager and a gateway whose clocks move together, unless told otherwise."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.clock = ManualClock(epoch=START)
        config = gateway.config
        self.auth = GatewayAuth(config, clock=self.clock)
        self.manager = TokenManager(config, self.auth, clock=self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.gateway.advance(seconds)

    def calls(self) -> tuple[int, int]:
        """Logins and validations that arrived at the gateway."""
        paths = [arrival.path.lower() for arrival in self.gateway.requests]
        return sum(p.endswith("loginkey") for p in paths), sum(p.endswith("validate") for p in paths)

    def accepted(self, token: Token) -> bool:
        """Whether the gateway takes *token*."""
        return self.auth.validate(token) is not None


@pytest.fixture
def day(gateway: Any) -> Iterator[Day]:
    day = Day(gateway)
    yield day
    day.manager.close()
    land()


# Time moves by `advance` alone, from START.
def still(**settings: Any) -> Any:
    return pytest.mark.gateway(speed=0.0, start=START, **settings)


@still()
def test_a_day_with_rotation(day: Day) -> None:
    """Login, a day later a rotated token from `validate`, and the old one was served until then."""
    first = day.manager.token()
    assert DAY == pytest.approx(first.expires_at - START, abs=1.0)
    day.advance(DAY - HOUR)
    assert first == day.manager.token()
    assert TokenState.VALID is landed(day.manager)
    second = day.manager.token()
    assert (2, True, (1, 1)) == (second.generation, second.value != first.value, day.calls())
    assert DAY == pytest.approx(second.expires_at - day.clock.epoch(), abs=1.0)
    day.advance(2 * HOUR)
    assert day.accepted(second)


@still(validate="null")
def test_a_day_without_rotation(day: Day) -> None:
    """`validate` gives null: the token keeps its expiry, and a login before the end means that nobody ever waits."""
    first = day.manager.token()
    while day.manager.token(deadline=0.0) == first:
        assert day.clock.epoch() < first.expires_at
        day.advance(20)
        day.manager.token(deadline=0.0)
        if day.manager.get_state() is TokenState.REFRESHING:
            land()
    assert (2, 8) == day.calls()
    assert day.accepted(day.manager.token())


@still(replaced="revoke")
def test_the_replaced_token_is_revoked(day: Day) -> None:
    """A call under way with the old token gets a 401 after a rotation: the new token, and no further refresh."""
    old = day.manager.token()
    day.advance(DAY - HOUR)
    day.manager.token()
    land()
    assert not day.accepted(old)
    before = day.calls()
    new = day.manager.rejected(old)
    assert (True, before) == (day.accepted(new), (day.calls()[0], day.calls()[1] - 1))


@still()
def test_a_revoked_token_heals(day: Day) -> None:
    """32 calls get a 401 with hours left: one login, no validation, a token that works."""
    old = day.manager.token()
    day.advance(HOUR)
    day.gateway.revoke_tokens()
    found = together(32, lambda: day.manager.rejected(old))
    assert ({2}, (2, 0)) == ({token.generation for token in found}, day.calls())
    assert day.accepted(found[0])


@pytest.mark.parametrize(
    "reply", [pytest.param(reply, marks=still(expired_validate=reply)) for reply in ("401", "code")]
)
def test_expired_for_the_gateway_first(day: Day, reply: str) -> None:
    """The gateway's clock runs ahead: `validate` of a token that it calls expired is answered either way, and heals."""
    old = day.manager.token()
    day.clock.advance(DAY - HOUR)
    day.gateway.advance(DAY + HOUR)
    assert old == day.manager.token()
    assert TokenState.VALID is landed(day.manager)
    assert (2, 1) == day.calls()
    assert day.accepted(day.manager.token())


@still()
def test_validate_is_down(day: Day) -> None:
    """503 from `validate` for a while: the schedule, the old token meanwhile, then a login; no caller notices."""
    old = day.manager.token()
    day.gateway.faults.status("Auth/validate", 503, times=None)
    day.advance(DAY - HOUR)
    for wait in (30, 60, 120, 300):
        assert old == day.manager.token(deadline=0.0)
        assert TokenState.ERROR is landed(day.manager)
        day.advance(wait)
    assert old == day.manager.token(deadline=0.0)
    land()
    assert (2, 4) == day.calls()
    day.gateway.faults.clear()
    assert (2, True) == (day.manager.token().generation, day.accepted(day.manager.token()))


@still()
def test_everything_is_down(day: Day) -> None:
    """The whole gateway answers 503: those who cannot wait are told when the next attempt is, and then it heals."""
    day.gateway.faults.status("Auth/loginKey", 503, times=1, retry_after="40")
    with pytest.raises(AuthUnavailable) as caught:
        day.manager.token(deadline=20.0)
    assert 40.0 == caught.value.retry_after
    day.advance(40)
    assert 1 == day.manager.token().generation


@pytest.mark.parametrize("kind", ["reset", "reset-read", "html", "truncate"])
@still()
def test_a_login_that_breaks(day: Day, kind: str) -> None:
    """A reset, a page instead of JSON, half a body: 30 s later the next attempt succeeds."""
    day.gateway.faults.add("Auth/loginKey", kind)
    with pytest.raises(AuthUnavailable):
        day.manager.token(deadline=5.0)
    day.advance(30)
    assert day.accepted(day.manager.token())


@still(login_code=7)
def test_agreements_are_not_signed(day: Day) -> None:
    """A definite refusal: every caller is told what to do, and the gateway is asked once."""
    for _ in range(20):
        with pytest.raises(AuthenticationError, match="agreements"):
            day.manager.token()
    assert (1, 0) == day.calls()


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
@still(token_lifetime=600.0)
def test_skewed_clocks(day: Day, skew: float) -> None:
    """Our clock is an hour off: a token of ten minutes is used for most of them, and never beyond."""
    day.clock.jump(skew)
    token = day.manager.token()
    assert 600.0 == pytest.approx(token.expires_at - day.clock.epoch(), abs=2.0)
    day.advance(500)
    assert day.manager.token(deadline=0.0) == token
    land()
    assert day.accepted(day.manager.token())


@still(token_lifetime=30.0)
def test_a_token_of_half_a_minute(day: Day) -> None:
    """300 calls in five minutes with tokens of 30 s: about one refresh per 15 s, and nobody waits."""
    day.manager.token()
    for _ in range(300):
        day.advance(1)
        token = day.manager.token(deadline=0.0)
        land()
        assert not day.gateway.run(lambda world, value=str(token.value): world.tokens.check(value).fault)
    logins, validations = day.calls()
    assert logins == 1
    assert 15 <= validations <= 25


@still()
def test_logout(day: Day) -> None:
    """The gateway ends the session, and the next call begins another."""
    old = day.manager.token()
    day.manager.logout()
    assert not day.accepted(old)
    assert day.accepted(day.manager.token())


@still()
def test_no_secret_in_any_log(day: Day, caplog: pytest.LogCaptureFixture) -> None:
    """A whole life at DEBUG, with every library talking: neither a token nor the key is in the log."""
    caplog.set_level(logging.DEBUG)
    tokens = [day.manager.token()]
    day.advance(DAY - HOUR)
    day.manager.token()
    land()
    tokens.append(day.manager.token())
    day.gateway.revoke_tokens()
    tokens.append(day.manager.rejected(tokens[-1]))
    day.gateway.faults.add("Auth/logout", "reset")
    day.manager.logout()
    day.gateway.faults.add("Auth/loginKey", "reset-read")
    with pytest.raises(AuthUnavailable):
        day.manager.token(deadline=1.0)
    assert "/api/Auth/loginKey" in caplog.text  # the libraries did talk
    for secret in (day.gateway.api_key, *(token.value for token in tokens)):
        assert secret not in caplog.text
        assert secret not in repr(vars(day.manager)) + repr(vars(day.auth)) + repr(vars(day.manager._policy))


@pytest.mark.slow
def test_a_full_queue_drains(gateway: Any) -> None:
    """100 threads, the machine's own clock, a login over a socket: one login, all served well within 10 s."""
    config = gateway.config
    manager = TokenManager(config, GatewayAuth(config))
    begun = SYSTEM_CLOCK.monotonic()
    found = together(100, manager.token)
    took = SYSTEM_CLOCK.monotonic() - begun
    assert ({1}, True) == ({token.generation for token in found}, took < 10.0)
    assert 1 == sum(arrival.path.lower().endswith("loginkey") for arrival in gateway.requests)
