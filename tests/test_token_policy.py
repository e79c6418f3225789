"""The decisions about a token, without a clock, a lock or a thread."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from topstep_sync.auth.token_policy import (
    DEATHS,
    LOST,
    TRANSITIONS,
    Flight,
    Instant,
    Plan,
    Source,
    TokenEvent,
    TokenPolicy,
    TokenState,
    step,
    windows,
)
from topstep_sync.config import TokenConfig
from topstep_sync.errors import AuthenticationError, TransientError
from topstep_sync.models import Token
from topstep_sync.redact import Secret

DAY = 86_400.0
HOUR = 3600.0
START = Instant(1000.0, 1_790_000_000.0)
DOWN = TransientError("down")


def token(now: Instant = START, life: float = DAY, value: str = "a", generation: int = 0) -> Token:
    return Token(Secret(value), generation, now.epoch, now.epoch + life)


def begin(policy: TokenPolicy, now: Instant, *, can_login: bool = True) -> Flight:
    flight = Flight()
    policy.begin(flight, now, can_login=can_login)
    return flight


def logged_in(now: Instant = START, life: float = DAY, config: TokenConfig | None = None) -> TokenPolicy:
    policy = TokenPolicy(config or TokenConfig())
    policy.obtained(begin(policy, now), token(now, life), Source.NEW, now, 0.0)
    return policy


def test_the_table_is_the_machine() -> None:
    """Every pair that is absent from the table raises, every pair in it leads where it says."""
    for state in TokenState:
        for event in TokenEvent:
            if (state, event) in TRANSITIONS:
                assert TRANSITIONS[state, event] is step(state, event)
            else:
                with pytest.raises(KeyError):
                    step(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    """No state of the table is a dead end or an island."""
    reached = {target for (source, _), target in TRANSITIONS.items() if target is not source}
    left = {source for (source, _), target in TRANSITIONS.items() if target is not source}
    assert set(TokenState) == reached == left


@pytest.mark.parametrize(
    ("life", "advisory", "mandatory"),
    [(DAY, DAY - 7200, DAY - 60), (HOUR, 1800, HOUR - 60), (300, 150, 270), (30, 15, 27), (0, 0, 0)],
)
def test_windows_shrink_with_the_life(life: float, advisory: float, mandatory: float) -> None:
    """Advisory: 2 h or half the life; mandatory: 60 s or a tenth of it."""
    assert (advisory, mandatory) == windows(token(life=life), TokenConfig(), START.epoch, 0.0)


def test_the_refresh_is_jittered() -> None:
    """Two processes with the same token refresh up to 5 % of the window apart, never earlier than 2 h."""
    early, _ = windows(token(), TokenConfig(), START.epoch, 0.0)
    late, _ = windows(token(), TokenConfig(), START.epoch, 1.0)
    assert (DAY - 7200, 360.0) == (early, pytest.approx(late - early))


def test_an_expiry_in_the_far_future_is_not_believed() -> None:
    """However long a token claims to live, it is looked after within a day."""
    far = Token(Secret("a"), 0, START.epoch, START.epoch + 365 * DAY)
    assert (DAY - 7200, DAY - 60) == windows(far, TokenConfig(), START.epoch, 0.0)


def test_without_a_token_the_first_caller_starts_and_all_wait() -> None:
    """INITIAL: start; then wait without limit for the refresh."""
    policy = TokenPolicy(TokenConfig())
    verdict = policy.attend(START)
    assert (None, True) == (verdict.token, verdict.start)
    assert Plan.LOGIN is begin(policy, START).plan
    verdict = policy.attend(START)
    assert (None, False, math.inf) == (verdict.token, verdict.start, verdict.wait)


def test_one_refresh_at_a_time() -> None:
    """A second one cannot begin."""
    policy = TokenPolicy(TokenConfig())
    begin(policy, START)
    with pytest.raises(AssertionError):
        begin(policy, START)


def test_fresh_then_advisory_then_mandatory() -> None:
    """A day: served quietly, served with a refresh, not served."""
    policy = logged_in()
    for seconds, served, start in [
        (0, True, False),
        (DAY - 7201, True, False),
        (DAY - 7200, True, True),
        (DAY - 61, True, True),
        (DAY - 60, False, True),
    ]:
        verdict = policy.attend(START.after(seconds))
        assert (served, start) == (verdict.token is not None, verdict.start), seconds
    assert TokenState.EXPIRED is policy.state


def test_what_readers_see_ends_when_somebody_must_think() -> None:
    """Until the advisory window; during a refresh, until the mandatory one; nothing once dead."""
    policy = logged_in()
    assert (START.monotonic + DAY - 7200, START.epoch + DAY - 7200) == (policy.held().monotonic, policy.held().epoch)
    late = START.after(DAY - 7200)
    begin(policy, late)
    assert START.epoch + DAY - 60 == policy.held().epoch
    policy.reject(1, late)
    assert (None, -math.inf) == (policy.held().token, policy.held().epoch)


def test_the_schedule_of_failures() -> None:
    """30, 60, 120, 300, 300 … seconds; the fifth attempt is a login; the token is served all along."""
    policy = logged_in()
    now = START.after(DAY - 7200)
    plans, delays = [], []
    for _ in range(6):
        assert policy.attend(now).start
        flight = begin(policy, now)
        policy.failed(flight, DOWN, now, 0.0)
        plans.append(flight.plan)
        assert TokenState.ERROR is policy.state
        assert policy.attend(now).token is not None
        delay = next(d for d in range(1000) if policy.attend(now.after(d)).start)
        delays.append(delay)
        now = now.after(delay)
    assert [30, 60, 120, 300, 300, 300] == delays
    assert [Plan.VALIDATE] * 4 + [Plan.LOGIN] * 2 == plans


@pytest.mark.parametrize("how", ["obtained", "adopted", "forgotten"])
def test_a_good_end_forgets_the_failures(how: str) -> None:
    """The schedule begins anew, the reason is gone, and a cooldown from before does not hold up what comes after."""
    policy = logged_in()
    now = START.after(DAY - 3600)
    for _ in range(3):
        policy.failed(begin(policy, now), DOWN, now, 3000.0)
        now = now.after(400)
    if how == "obtained":
        policy.obtained(begin(policy, now), token(now), Source.NEW, now, 0.0)
    elif how == "adopted":
        policy.adopt(token(now), now, 0.0)
    else:
        policy.forget()
    assert (0, None) == (policy.failures, policy._trouble)
    policy.reject(policy.generation, now)
    assert policy.attend(now).start
    policy.failed(begin(policy, now), DOWN, now, 0.0)
    assert 30.0 == policy.attend(now).wait


def test_retry_after_outlasts_the_schedule() -> None:
    """A gateway that asked for 90 s is left alone for 90 s, even when the token runs out meanwhile."""
    policy = logged_in()
    now = START.after(DAY - 100)
    policy.failed(begin(policy, now), DOWN, now, 90.0)
    assert not policy.attend(now.after(50)).start
    verdict = policy.attend(now.after(60))
    assert (None, False, 30.0) == (verdict.token, verdict.start, verdict.wait)
    assert policy.attend(now.after(90)).start


def test_the_end_of_a_token_ends_its_leisure() -> None:
    """The backoff of a background refresh does not delay those who have no token: a login starts at once."""
    policy = logged_in()
    now = START.after(DAY - 70)
    for _ in range(3):
        policy.failed(begin(policy, now), DOWN, now, 0.0)
    expired = now.after(15)
    assert policy.attend(expired).start
    assert Plan.LOGIN is begin(policy, expired).plan


def test_a_validation_that_outlives_its_token_is_followed_by_a_login() -> None:
    """The token runs out while `validate` hangs and fails: the login is not put off."""
    policy = logged_in()
    now = START.after(DAY - 61)
    flight = begin(policy, now)
    policy.failed(flight, DOWN, now.after(10), 0.0)
    assert (Plan.VALIDATE, TokenState.EXPIRED) == (flight.plan, policy.state)
    assert policy.attend(now.after(10)).start


def test_a_login_that_fails_without_a_token_follows_the_schedule() -> None:
    """EXPIRED and the gateway down: those who wait are told 30 s, then 60 s."""
    policy = logged_in()
    now = START.after(DAY)
    for delay in (30.0, 60.0, 120.0):
        assert policy.attend(now).start
        policy.failed(begin(policy, now), DOWN, now, 0.0)
        verdict = policy.attend(now)
        assert (False, delay, DOWN) == (verdict.start, verdict.wait, verdict.trouble)
        now = now.after(delay)


def test_a_definite_refusal_is_repeated_once_per_cooldown() -> None:
    """Without a token: one login in 30 s, and the refusal is at hand for everybody in between."""
    policy = TokenPolicy(TokenConfig())
    no = AuthenticationError("no")
    policy.failed(begin(policy, START), no, START, 30.0, definite=True)
    for late in (0, 30, 60):
        verdict = policy.attend(START.after(late + 29))
        assert (False, no) == (verdict.start, verdict.trouble)
        now = START.after(late + 30)
        assert policy.attend(now).start
        policy.failed(begin(policy, now), no, now, 30.0, definite=True)


def test_a_refusal_with_a_token_in_hand_follows_the_schedule_until_it_runs_out() -> None:
    """A key that was revoked: the token is served to its end, and the logins are far apart."""
    policy = logged_in()
    now = START.after(DAY - 200)
    no = AuthenticationError("no")
    for _ in range(3):
        policy.failed(begin(policy, now), no, now, 30.0, definite=True)
    assert policy.attend(now.after(119)).token is not None
    assert not policy.attend(now.after(119)).start
    assert policy.attend(now.after(141)).start  # expired, and the cooldown is over
    policy.failed(begin(policy, now.after(141)), no, now.after(141), 30.0, definite=True)
    assert (30.0, no) == policy.attend(now.after(141))[2:]


def test_a_kept_token_keeps_its_expiry() -> None:
    """`validate` without a new token extends nothing: it is asked again halfway, and a login comes before the end."""
    policy = logged_in()
    now = START.after(DAY - 7200)
    end = policy.token.expires_at if policy.token else 0.0
    plans = []
    while True:
        verdict = policy.attend(now)
        assert verdict.token is not None, "a caller would have had to wait"
        if verdict.start:
            flight = begin(policy, now)
            plans.append(flight.plan)
            if flight.plan is Plan.LOGIN:
                break
            policy.obtained(flight, verdict.token, Source.KEPT, now, 0.0)
            assert end == verdict.token.expires_at
        now = now.after(1)
    assert [Plan.VALIDATE] * 8 + [Plan.LOGIN] == plans
    assert now.epoch < end - 60


def test_a_kept_token_that_was_proved_dead_meanwhile_is_not_kept() -> None:
    """The 401 knows better than `validate`: a login follows at once."""
    policy = logged_in()
    now = START.after(DAY - 7200)
    flight = begin(policy, now)
    policy.reject(1, now)
    assert (TokenState.REFRESHING, True) == (policy.state, policy.died(flight))
    policy.obtained(flight, token(), Source.KEPT, now, 0.0)
    assert (TokenState.EXPIRED, True) == (policy.state, policy.attend(now).start)
    assert Plan.LOGIN is begin(policy, now).plan


@pytest.mark.parametrize("jump", [600.0, -600.0])
def test_halfway_is_reckoned_on_the_clock_that_ends_first(jump: float) -> None:
    """A wall clock that jumped, either way: the next question comes before the token's end on both clocks."""
    policy = logged_in()
    now = START.after(DAY - 1260)
    now = Instant(now.monotonic, now.epoch + jump)
    policy.obtained(begin(policy, now), token(), Source.KEPT, now, 0.0)
    left = 600.0 if jump > 0 else 1200.0
    assert not policy.attend(now.after(left / 2 - 1)).start
    assert policy.attend(now.after(left / 2)).start


def test_a_short_token_is_not_refreshed_at_every_call() -> None:
    """30 s of life that the gateway does not renew: validated at half of it, replaced after three quarters."""
    policy = logged_in(life=30.0)
    refreshes = {}
    for tenth in range(270):
        now = START.after(tenth / 10)
        if policy.attend(now).start:
            flight = begin(policy, now)
            refreshes[tenth / 10] = flight.plan
            source = Source.KEPT if flight.plan is Plan.VALIDATE else Source.NEW
            policy.obtained(flight, token(now, 30.0), source, now, 0.0)
    assert {15.0: Plan.VALIDATE, 21.0: Plan.LOGIN} == refreshes


def test_generations_grow_and_survive_a_logout() -> None:
    """Every token has a higher number than all before it, so that an old 401 is never taken for a new one."""
    policy = logged_in()
    policy.adopt(token(value="b"), START, 0.0)
    policy.forget()
    assert TokenState.INITIAL is policy.state
    policy.obtained(begin(policy, START), token(value="c"), Source.NEW, START, 0.0)
    assert 3 == policy.generation
    policy.obtained(begin(policy, START), token(value="d", generation=9), Source.STORED, START, 0.0)
    assert 9 == policy.generation


def test_a_401_of_an_old_token_means_nothing() -> None:
    """Only the current generation can be proved dead, and only once."""
    policy = logged_in()
    policy.adopt(token(value="b"), START, 0.0)
    policy.reject(1, START)
    assert (TokenState.VALID, False) == (policy.state, policy.dead)
    policy.reject(2, START)
    assert TokenState.EXPIRED is policy.state
    policy.reject(2, START)
    assert (TokenState.EXPIRED, True, True) == (policy.state, policy.dead, policy.attend(START).start)


def test_a_401_without_a_token_means_nothing() -> None:
    """Before the first login there is nothing to prove dead."""
    policy = TokenPolicy(TokenConfig())
    policy.reject(0, START)
    assert TokenState.INITIAL is policy.state


def test_tokens_that_die_at_once_are_not_fetched_in_a_storm() -> None:
    """A few in a row are replaced at once; then the deaths are spaced by the cooldown."""
    policy = logged_in()
    for number in range(1, DEATHS + 1):
        policy.reject(number, START)
        assert policy.attend(START).start
        policy.obtained(begin(policy, START), token(), Source.NEW, START, 0.0)
    policy.reject(DEATHS + 1, START)
    verdict = policy.attend(START)
    assert (False, 30.0, None) == (verdict.start, verdict.wait, verdict.trouble)
    assert policy.attend(START.after(30)).start


def test_a_refresh_from_before_a_logout_lands_on_nothing() -> None:
    """An old answer never overwrites what came after it: logout, or a token from outside."""
    policy = logged_in()
    flight = begin(policy, START)
    policy.forget()
    assert (None, False) == policy.attend(START)[:2]  # it is still under way, so nothing else begins
    policy.obtained(flight, token(value="late"), Source.NEW, START, 0.0)
    assert (None, TokenState.INITIAL) == (policy.token, policy.state)
    flight = begin(policy, START)
    policy.adopt(token(value="mine"), START, 0.0)
    policy.failed(flight, DOWN, START, 0.0)
    policy.reject(policy.generation, START)
    assert not policy.died(flight)  # it set out to confirm another token
    policy.adopt(token(value="mine"), START, 0.0)
    assert ("mine", TokenState.VALID) == (policy.token and policy.token.value, policy.state)
    policy.failed(flight, DOWN, START, 0.0)  # nor does it land twice
    policy.lost(flight)
    assert TokenState.VALID is policy.state


def test_a_lost_refresh_is_nobodys_fault() -> None:
    """The next caller begins at once, and no failure is counted."""
    policy = TokenPolicy(TokenConfig())
    policy.lost(begin(policy, START))
    assert (0, True) == (policy.failures, policy.attend(START).start)
    policy.obtained(begin(policy, START), token(), Source.NEW, START, 0.0)
    assert TokenState.VALID is policy.state


def test_without_credentials_a_token_is_validated_to_its_end() -> None:
    """An adopted token whose credentials nobody knows: `validate` is all there is."""
    policy = logged_in()
    late = START.after(DAY - 30)
    assert policy.attend(late).start
    flight = begin(policy, late, can_login=False)
    assert Plan.VALIDATE is flight.plan
    policy.obtained(flight, token(), Source.KEPT, late, 0.0)
    confirmed = policy.attend(late)
    assert (True, False) == (confirmed.token is not None, confirmed.start)
    asked = 0
    for tenth in range(300):
        now = late.after(tenth / 10)
        if policy.attend(now).start and now.epoch < START.epoch + DAY:
            asked += 1
            policy.obtained(begin(policy, now, can_login=False), token(), Source.KEPT, now, 0.0)
    assert 3 <= asked <= 6  # halving, but not for ever
    end = START.after(DAY)
    assert (None, True) == policy.attend(end)[:2]
    assert Plan.LOGIN is begin(policy, end, can_login=False).plan


def test_a_confirmation_that_comes_after_the_end_confirms_nothing() -> None:
    """`validate` hung until the token had expired: a login follows."""
    policy = logged_in()
    flight = begin(policy, START.after(DAY - 61))
    policy.obtained(flight, token(), Source.KEPT, START.after(DAY + 1), 0.0)
    assert (TokenState.EXPIRED, True) == (policy.state, policy.attend(START.after(DAY + 1)).start)


def test_a_backward_jump_does_not_lengthen_a_token() -> None:
    """The wall clock goes back an hour: the monotonic one ends the token on time."""
    policy = logged_in()
    now = Instant(START.monotonic + DAY - 60, START.epoch + DAY - 60 - HOUR)
    assert policy.attend(now).token is None


def test_a_suspended_laptop_wakes_up_with_an_expired_token() -> None:
    """23 h 59 min 30 s on the wall, nothing on the monotonic clock: the wall clock ends the token."""
    policy = logged_in()
    assert policy.attend(Instant(START.monotonic + 1, START.epoch + DAY - 30)).token is None


def test_a_forward_jump_refreshes_too_early_and_no_more() -> None:
    """The wall clock goes an hour ahead within the last three: a refresh, and the token is served."""
    policy = logged_in()
    verdict = policy.attend(Instant(START.monotonic + DAY - 3 * HOUR, START.epoch + DAY - 2 * HOUR))
    assert (True, True) == (verdict.token is not None, verdict.start)


def test_a_pause_is_monotonic() -> None:
    """A wall clock that jumps neither shortens nor lengthens a backoff."""
    policy = TokenPolicy(TokenConfig())
    policy.failed(begin(policy, START), DOWN, START, 0.0)
    assert 30.0 == policy.attend(Instant(START.monotonic, START.epoch + DAY)).wait
    assert policy.attend(Instant(START.monotonic + 30, START.epoch - DAY)).start


class AnyLife(RuleBasedStateMachine):
    """Whatever happens to a token, in whatever order, the rules hold."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = TokenPolicy(TokenConfig())
        self.now = START
        self.flights: list[Flight] = []
        self.highest = 0

    @rule(seconds=st.floats(0, 2 * DAY), jump=st.floats(-2 * DAY, 2 * DAY) | st.just(0.0))
    def pass_time(self, seconds: float, jump: float) -> None:
        self.now = Instant(self.now.monotonic + seconds, self.now.epoch + seconds + jump)

    @rule(can_login=st.booleans())
    def call(self, can_login: bool) -> None:
        verdict = self.policy.attend(self.now)
        if verdict.token is not None:
            assert self.policy.usable(self.now)
            assert self.now.epoch < verdict.token.expires_at
        if verdict.start:
            assert self.policy.flight is None
            self.flights.append(begin(self.policy, self.now, can_login=can_login))
        elif verdict.token is None:
            assert verdict.wait > 0
            assert self.policy.flight is not None or verdict.wait <= 600

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), life=st.floats(0, 2 * DAY), source=st.sampled_from(Source), chance=st.floats(0, 1))
    def succeed(self, data: st.DataObject, life: float, source: Source, chance: float) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        if source is Source.KEPT and flight.token is None:
            source = Source.NEW
        new = token(self.now, life, generation=data.draw(st.integers(0, 50)))
        self.policy.obtained(flight, new, source, self.now, chance)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), pause=st.floats(0, 600), definite=st.booleans())
    def fail(self, data: st.DataObject, pause: float, definite: bool) -> None:
        flight = data.draw(st.sampled_from(self.flights))
        error = AuthenticationError("no") if definite else DOWN
        self.policy.failed(flight, error, self.now, pause, definite=definite)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.policy.lost(data.draw(st.sampled_from(self.flights)))

    @rule(generation=st.integers(0, 60))
    def reject(self, generation: int) -> None:
        self.policy.reject(generation, self.now)

    @rule()
    def adopt(self) -> None:
        self.policy.adopt(token(self.now), self.now, 0.5)

    @rule()
    def forget(self) -> None:
        self.policy.forget()

    @invariant()
    def readers_see_only_what_is_usable(self) -> None:
        held = self.policy.held()
        if self.now.monotonic < held.monotonic and self.now.epoch < held.epoch:
            assert held.token is self.policy.token
            assert self.policy.usable(self.now)

    @invariant()
    def generations_never_shrink(self) -> None:
        assert self.policy.generation >= self.highest
        self.highest = self.policy.generation

    @invariant()
    def refreshing_means_a_refresh(self) -> None:
        if self.policy.state is TokenState.REFRESHING:
            assert self.policy.flight is not None


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(stateful_step_count=25)


@given(st.floats(0, 10 * DAY), st.floats(-DAY, 10 * DAY), st.floats(0, 1))
def test_the_mandatory_window_lies_within_the_advisory_one(life: float, passed: float, chance: float) -> None:
    """Whatever the life and the jitter, a refresh is due before the token is unusable."""
    advisory, mandatory = windows(token(life=life), TokenConfig(), START.epoch + passed, chance)
    assert advisory <= mandatory


@pytest.mark.parametrize("life", [-DAY, -1.0, 0.0])
def test_a_token_that_has_expired_already_is_a_failure(life: float) -> None:
    """A login that brings nothing to use is repeated on the schedule, not at once and for ever."""
    policy = TokenPolicy(TokenConfig())
    policy.obtained(begin(policy, START), token(life=life), Source.NEW, START, 0.0)
    verdict = policy.attend(START)
    assert (TokenState.ERROR, False, 30.0) == (policy.state, verdict.start, verdict.wait)
    assert "clock" in str(verdict.trouble)


@pytest.mark.parametrize("how", ["over", "deserted", "too long"])
def test_a_flight_that_will_never_land_is_replaced(how: str) -> None:
    """Whoever flew it is gone, or hangs: the next caller begins anew, and a late landing changes nothing."""
    policy, now = TokenPolicy(TokenConfig()), START
    flight = begin(policy, now)
    assert not policy.attend(now).start
    if how == "too long":
        flight.launched = True
        assert not policy.attend(now.after(LOST - 1)).start
        now = now.after(LOST)
    else:
        setattr(flight, how, True)
    assert policy.attend(now).start
    policy.obtained(begin(policy, now), token(now, value="b"), Source.NEW, now, 0.0)
    policy.obtained(flight, token(now), Source.NEW, now, 0.0)
    assert policy.token is not None
    assert "b" == policy.token.value


def test_a_flight_that_took_off_is_not_lost_with_its_starter() -> None:
    """A Ctrl-C of the caller that started it comes too late to matter."""
    policy = TokenPolicy(TokenConfig())
    flight = begin(policy, START)
    flight.launched = flight.deserted = True
    assert (False, flight) == (policy.attend(START).start, policy.flight)


def test_readers_look_again_when_a_refresh_in_the_background_is_lost() -> None:
    """A refresh that hangs while the token is good is begun anew, not only when the token has run out."""
    policy, late = logged_in(), START.after(DAY - HOUR)
    begin(policy, late)
    assert late.monotonic + LOST == policy.held().monotonic
    assert policy.attend(late.after(LOST)).start
