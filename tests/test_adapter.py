"""The way of a request: permits, tokens, breakers and retries around one attempt."""

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from urllib3.util import connection

from tests.echo_server import EchoServer, running
from topstep_sync import errors
from topstep_sync.clock import ManualClock, SystemClock
from topstep_sync.config import Config
from topstep_sync.http.adapter import ResilientAdapter
from topstep_sync.http.circuit_breaker import State
from topstep_sync.http.routes import Circuit, Priority
from topstep_sync.models import Token
from topstep_sync.redact import Secret

READ, CHANGE, ORDER, CANCEL = "/api/Account/search", "/api/Order/modify", "/api/Order/place", "/api/Order/cancel"
LOGIN, VALIDATE = "/api/Auth/loginKey", "/api/Auth/validate"


class Permits:
    """A limiter that always agrees, and remembers what became of its permits."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.outcomes: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def acquire(self, endpoint: str, *, priority: Any = None, deadline: Any = None) -> Any:
        self.asked.append((endpoint, priority))
        self.before()
        return self

    def done(self) -> None:
        self.outcomes.append("done")

    def refund(self) -> None:
        self.outcomes.append("refund")

    def gave_up(self) -> None:
        self.outcomes.append("gave up")

    def throttled(self, retry_after: float | None) -> None:
        self.outcomes.append(f"throttled {retry_after}")


class Tokens:
    """A token manager that gives a new token whenever one was refused."""

    def __init__(self) -> None:
        self.current = self.make(1)
        self.refused: list[int] = []
        self.adopted: list[tuple[str, str | None, str | None]] = []
        self.trouble: errors.TopstepError | None = None

    def make(self, generation: int) -> Token:
        return Token(Secret(f"token-{generation}"), generation, 0.0, 1e12)

    def token(self, deadline: Any = None) -> Token:
        if self.trouble:
            raise self.trouble
        return self.current

    def rejected(self, token: Token, deadline: Any = None) -> Token:
        self.refused.append(token.generation)
        if self.trouble:
            raise self.trouble
        self.current = self.make(token.generation + 1)
        return self.current

    def adopt(self, value: str, *, user_name: str | None = None, api_key: str | None = None) -> None:
        self.adopted.append((value, user_name, api_key))


class Rig:
    """An adapter, what is around it, and a gateway that answers as scripted."""

    def __init__(self, server: EchoServer, clock: Any = None, **config: Any) -> None:
        self.server, self.permits, self.tokens = server, Permits(), Tokens()
        self.clock = clock or SystemClock()
        self.closed = threading.Event()
        settings = {"retry": {"base_delay": 0.0, "throttle_delay": 0.0}, **config}
        self.adapter = ResilientAdapter(
            Config(base_url=server.url, **settings),
            tokens=self.tokens,
            limiter=self.permits,
            clock=self.clock,
            closed=self.closed,
        )
        server.seen.clear()
        server.script.clear()
        server.release.clear()

    def send(self, path: str, body: Any = b"{}", headers: Any = None, **options: Any) -> requests.Response:
        request = requests.Request("POST", self.server.url + path, data=body, headers=headers).prepare()
        return self.adapter.send(request, **options)

    @property
    def bearers(self) -> list[str | None]:
        return [headers.get("Authorization") for _, _, headers, _ in self.server.seen]


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.fixture
def rig(server: EchoServer) -> Iterator[Rig]:
    one = Rig(server)
    yield one
    one.adapter.close()


################################################## permits ##################################################


def test_a_reply_settles_the_permit(rig: Rig) -> None:
    """One permit per attempt, by path and the path's priority, done when the reply is complete."""
    assert rig.send(READ).ok
    assert rig.send(CANCEL).ok
    assert [(READ, Priority.NORMAL), (CANCEL, Priority.URGENT)] == rig.permits.asked
    assert ["done", "done"] == rig.permits.outcomes


def test_every_attempt_takes_a_permit(rig: Rig) -> None:
    """A retried read is counted each time; a 429 tells the limiter what the server advised."""
    rig.server.script += [(429, {"Retry-After": "0"}), (503, {}), (200, {})]
    reply = rig.send(READ)
    assert (200, 3) == (reply.status_code, reply.attempts)  # type: ignore[attr-defined]
    assert ["throttled 0.0", "done", "done"] == rig.permits.outcomes


def test_what_was_never_sent_is_refunded(server: EchoServer) -> None:
    """A connection that did not come about costs no permit; three attempts are made, even of a change."""
    rig = Rig(server)
    rig.adapter._config = Config(base_url="http://127.0.0.1:9")
    request = requests.Request("POST", "http://127.0.0.1:9" + CHANGE, data=b"{}").prepare()
    with pytest.raises(errors.ConnectFailed) as caught:
        rig.adapter.send(request)
    assert (3, errors.Fate.NOT_SENT, CHANGE) == (caught.value.attempts, caught.value.fate, caught.value.endpoint)
    assert ["refund"] * 3 == rig.permits.outcomes


@pytest.mark.parametrize("path", [CHANGE, ORDER, "/api/Nobody/knows"])
def test_a_lost_reply_of_a_change_is_not_repeated(rig: Rig, path: str) -> None:
    """It may have run: one attempt, the permit stays busy, and the error says the fate is unknown."""
    rig.server.script += [("drop", {})]
    with pytest.raises(errors.ReplyLost) as caught:
        rig.send(path)
    assert (1, errors.Fate.UNKNOWN) == (caught.value.attempts, caught.value.fate)
    assert ["gave up"] == rig.permits.outcomes
    assert 1 == len(rig.server.seen)


@pytest.mark.parametrize("path", [CHANGE, ORDER])
def test_a_reply_that_a_proxy_lost_is_not_taken_for_a_proxy_that_was_not_reached(rig: Rig, path: str) -> None:
    """urllib3 calls it a ProxyError, but the request was through: one attempt, and the fate is unknown."""
    rig.server.script += [("drop", {})] * 3
    with pytest.raises(errors.ReplyLost) as caught:
        rig.send(path, proxies={"http": rig.server.url})
    assert (1, errors.Fate.UNKNOWN) == (caught.value.attempts, caught.value.fate)
    assert 1 == len(rig.server.seen)


def test_a_proxy_that_is_not_there_was_sent_nothing(rig: Rig) -> None:
    """Where no connection to the proxy came about, the error still says so."""
    with pytest.raises(errors.ProxyFailed) as caught:
        rig.send(ORDER, proxies={"http": "http://127.0.0.1:9"})
    assert errors.Fate.NOT_SENT is caught.value.fate


@pytest.mark.parametrize("path", [CHANGE, ORDER])
def test_what_the_caller_is_handling_says_nothing_of_this_call(rig: Rig, path: str) -> None:
    """A call made in an `except` block for a failed connection may itself lose its reply, and says so."""
    rig.server.script += [("drop", {})] * 3
    try:
        raise errors.ConnectTimedOut("another call, before")
    except errors.ConnectTimedOut:
        with pytest.raises(errors.ReplyLost) as caught:
            rig.send(path)
    assert (1, errors.Fate.UNKNOWN) == (caught.value.attempts, caught.value.fate)
    assert 1 == len(rig.server.seen)


def test_an_order_is_never_repeated_even_when_not_sent(server: EchoServer) -> None:
    """ORDER-001 decides about orders, not a generic retry."""
    rig = Rig(server)
    rig.adapter._config = Config(base_url="http://127.0.0.1:9")
    request = requests.Request("POST", "http://127.0.0.1:9" + ORDER, data=b"{}").prepare()
    with pytest.raises(errors.ConnectFailed) as caught:
        rig.adapter.send(request)
    assert 1 == caught.value.attempts


def test_an_interrupt_gives_everything_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a call passes through; the permit is settled, the breaker unmoved, nothing watched."""

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rig.send(READ)
    assert ["gave up"] == rig.permits.outcomes
    assert not rig.adapter._watch._current
    assert 0 == rig.adapter.breakers[Circuit.ACCOUNT].get_stats()["failures"]


def test_a_refusal_before_sending_refunds(rig: Rig) -> None:
    """Without a token nothing is sent, and the permit is given back."""
    rig.tokens.trouble = errors.AuthUnavailable("no token", retry_after=3.0)
    with pytest.raises(errors.AuthUnavailable) as caught:
        rig.send(READ)
    assert (0, READ) == (caught.value.attempts, caught.value.endpoint)
    assert ["refund"] == rig.permits.outcomes


def test_a_limiter_that_refuses_is_heard(rig: Rig) -> None:
    """The limiter's refusal reaches the caller at once, with no attempt made."""

    def refuse() -> None:
        raise errors.RateLimitTimeout("too late")

    rig.permits.before = refuse
    with pytest.raises(errors.RateLimitTimeout) as caught:
        rig.send(READ)
    assert 0 == caught.value.attempts
    assert not rig.server.seen


def test_a_bad_timeout_costs_nothing(rig: Rig) -> None:
    """requests' own ValueError, and the permit is given back."""
    with pytest.raises(ValueError, match="Invalid timeout"):
        rig.send(READ, timeout=(1, 2, 3))
    assert ["refund"] == rig.permits.outcomes


################################################## the token ##################################################


def test_the_token_is_stamped_after_the_wait_for_a_permit(rig: Rig) -> None:
    """What was refreshed during the wait is what goes out."""

    def refresh() -> None:
        rig.tokens.current = rig.tokens.make(7)

    rig.permits.before = refresh
    assert rig.send(READ).ok
    assert ["Bearer token-7"] == rig.bearers


@pytest.mark.parametrize("path", [READ, CHANGE, ORDER])
def test_a_401_is_replayed_once_with_a_newer_token(rig: Rig, path: str) -> None:
    """A 401 says that nothing was done, so even an order goes out again, once."""
    rig.server.script += [(401, {}), (200, {})]
    assert 200 == rig.send(path).status_code
    assert ["Bearer token-1", "Bearer token-2"] == rig.bearers
    assert [1] == rig.tokens.refused
    rig.server.script += [(401, {}), (401, {}), (200, {})]
    assert 401 == rig.send(path).status_code
    assert [1, 2] == rig.tokens.refused


def test_without_a_newer_token_the_401_is_the_answer(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The raw caller gets the gateway's 401; the log says why there was no replay."""
    rig.server.script += [(401, {})]

    def refused(token: Token, deadline: Any = None) -> Token:
        raise errors.AuthenticationError("the key was withdrawn")

    rig.tokens.rejected = refused  # type: ignore[method-assign]
    assert 401 == rig.send(READ).status_code
    assert "the key was withdrawn" in caplog.text


def test_a_foreign_token_is_left_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A header that is not ours goes out as it is, and its 401 is told plainly."""
    rig.server.script += [(401, {})]
    assert 401 == rig.send(READ, headers={"Authorization": "Bearer somebody-else"}).status_code
    assert ["Bearer somebody-else"] == rig.bearers
    assert [] == rig.tokens.refused
    assert "did not come through this session" in caplog.text


def test_an_old_token_of_ours_in_a_header_is_replaced(rig: Rig) -> None:
    """A caller who keeps the first token in a header gets the current one stamped."""
    rig.send(READ)
    rig.tokens.current = rig.tokens.make(5)
    rig.send(READ, headers={"Authorization": "Bearer token-1"})
    rig.send(READ, headers={"Authorization": b"Bearer token-1"})
    assert ["Bearer token-1", "Bearer token-5", "Bearer token-5"] == rig.bearers


def test_a_login_that_passes_is_adopted(rig: Rig) -> None:
    """Token and credentials of a caller's own login become the session's; a login never carries a bearer."""
    rig.server.script += [(200, {}, b'{"token":"fresh","success":true,"errorCode":0}')]
    rig.send(LOGIN, b'{"userName":"joe","apiKey":"key"}')
    assert [("fresh", "joe", "key")] == rig.tokens.adopted
    assert [None] == rig.bearers
    rig.server.script += [(200, {}, b'{"newToken":"fresher","success":true,"errorCode":0}')]
    rig.send(VALIDATE, b"", headers={"Authorization": "Bearer fresh"})
    assert ("fresher", None, None) == rig.tokens.adopted[-1]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"no json", b'{"token":null,"success":false}', b'{"token":7,"success":true}']
)
def test_a_login_that_failed_is_not_adopted(rig: Rig, body: bytes) -> None:
    """Only a success with a token counts."""
    rig.server.script += [(200, {}, body)]
    rig.send(LOGIN, b"not json either")
    assert [] == rig.tokens.adopted


################################################# the breaker #################################################


def test_an_open_breaker_refuses_before_a_permit_is_taken(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """After five failures the next order is refused without a permit; a cancel passes; history is not concerned."""
    rig.server.script += [(500, {})] * 5
    for _ in range(5):
        rig.send(ORDER)
    assert "= breaker orders is open (HTTP 500)" in caplog.text
    taken = len(rig.permits.asked)
    with pytest.raises(errors.CircuitOpen) as caught:
        rig.send(ORDER)
    assert (0, "HTTP 500") == (caught.value.attempts, caught.value.last_error)
    assert taken == len(rig.permits.asked)
    assert rig.send(CANCEL).ok
    assert rig.send("/api/History/retrieveBars").ok


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_refusals_do_not_trip(rig: Rig, status: int) -> None:
    """However many 4xx and 429: the breaker stays closed."""
    rig.server.script += [(status, {})] * 40
    for _ in range(10):
        rig.send(ORDER)
    assert rig.adapter.breakers[Circuit.ORDERS].state is State.CLOSED


def test_a_breaker_that_opens_during_the_wait_is_noticed(server: EchoServer) -> None:
    """A call that waited long for its permit is refused if the breaker opened meanwhile, and its permit refunded."""
    clock = ManualClock()
    rig = Rig(server, clock)
    breaker = rig.adapter.breakers[Circuit.ORDERS]

    def outage() -> None:
        clock.advance(1.0)
        for _ in range(5):
            breaker.failure(breaker.before_call())

    rig.permits.before = outage
    with pytest.raises(errors.CircuitOpen):
        rig.send(ORDER)
    assert ["refund"] == rig.permits.outcomes
    assert not rig.server.seen
    rig.permits.before = lambda: clock.advance(1.0)
    assert rig.send(READ).ok
    rig.adapter.close()


################################################# the deadline #################################################


def test_no_attempt_begins_after_the_deadline(server: EchoServer) -> None:
    """When the wait for a permit used the time up, nothing is sent."""
    clock = ManualClock()
    rig = Rig(server, clock)
    rig.permits.before = lambda: clock.advance(100.0)
    with pytest.raises(errors.DeadlineExceeded):
        rig.send(READ)
    assert not rig.server.seen
    rig.adapter.close()


@pytest.mark.parametrize("how", ["deadline", "close"])
def test_nothing_is_sent_over_a_connection_that_came_too_late(
    server: EchoServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A slow name server holds a call beyond its time; the order does not go out after it, and nobody says it might."""
    rig = Rig(server, http={"total_timeout": 0.1 if how == "deadline" else 20.0})
    real = connection.create_connection

    def slow(*args: Any, **options: Any) -> Any:
        watched = rig.adapter._keeper.here.watched
        assert watched is not None
        if how == "close":
            rig.closed.set()
            rig.adapter._watch.close()
        for _ in range(1000):
            if watched.cut:
                break
            threading.Event().wait(0.01)
        return real(*args, **options)

    monkeypatch.setattr(connection, "create_connection", slow)
    with pytest.raises(errors.ConnectFailed, match="nothing was sent") as caught:
        rig.send(ORDER)
    assert (errors.Fate.NOT_SENT, ORDER) == (caught.value.fate, caught.value.endpoint)
    assert (["refund"], []) == (rig.permits.outcomes, rig.server.seen)
    rig.adapter.close()


def test_a_delay_past_the_deadline_is_not_slept(server: EchoServer) -> None:
    """A Retry-After that lies beyond the deadline ends the call with the answer there is."""
    rig = Rig(server)
    rig.server.script += [(503, {"Retry-After": "1000"})]
    assert 503 == rig.send(READ).status_code
    rig.adapter.close()


def test_timeouts_never_exceed_what_is_left(rig: Rig) -> None:
    """Connect and read timeouts are the caller's, else the configured, cut to the time that is left."""
    from urllib3.util import Timeout

    from topstep_sync.clock import Deadline

    clock = ManualClock()

    def limits(timeout: Any, left: float = 60.0) -> tuple[Any, Any]:
        found = rig.adapter.limits(timeout, Deadline(left, clock))
        return found.connect_timeout, found.read_timeout

    assert (5.0, 20.0) == limits(None)
    assert (7, 7) == limits(7)
    assert (3.05, 20.0) == limits((3.05, None))
    assert (1.0, 2.0) == limits(Timeout(connect=1.0, read=2.0))
    assert (5.0, 6.0) == limits(None, 6.0)


@pytest.mark.parametrize("stream", [False, True])
def test_closing_ends_a_reply_that_is_waited_for(rig: Rig, stream: bool) -> None:
    """`close` cuts the connection under a call in flight, which then says that its fate is unknown."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            rig.send("/slow", stream=stream)
        except errors.ReplyLost as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not rig.server.seen:
        pass
    rig.closed.set()
    rig.adapter.close()
    thread.join(4.0)
    assert errors.Fate.UNKNOWN is caught[0].fate  # type: ignore[attr-defined]
    assert "closed" in str(caught[0])


def test_closing_ends_the_wait_between_attempts(server: EchoServer) -> None:
    """A retry that waits is over as soon as the session closes."""
    rig = Rig(server, retry={"base_delay": 50.0, "throttle_delay": 50.0, "max_delay": 50.0})
    rig.server.script += [(503, {"Retry-After": "50"})]
    threading.Timer(0.05, rig.closed.set).start()
    with pytest.raises(errors.SessionClosed):
        rig.send(READ)
    with pytest.raises(errors.SessionClosed):
        rig.send(READ)
    rig.adapter.close()


################################################### bodies ###################################################


def test_a_file_is_rewound_and_a_generator_refused(rig: Rig) -> None:
    """A second attempt sends the whole file; half a generator is never sent."""
    file = io.BytesIO(b"skip this: the rest")
    file.seek(11)
    rig.server.script += [(503, {}), (200, {})]
    assert rig.send(READ, file).ok
    assert [b"the rest", b"the rest"] == [body for *_, body in rig.server.seen]
    rig.server.script += [(503, {}), (200, {})]
    assert 503 == rig.send(READ, iter([b"once"])).status_code


def test_a_file_that_cannot_be_rewound_is_not_sent_again(rig: Rig) -> None:
    """A body that cannot be rewound ends the retries."""

    class Odd(io.BytesIO):
        def seek(self, *args: Any) -> int:
            if rig.server.seen:
                raise OSError("gone")
            return super().seek(*args)

    rig.server.script += [(503, {}), (200, {})]
    assert 503 == rig.send(READ, Odd(b"body")).status_code


def test_a_reply_that_is_too_large_is_refused(server: EchoServer) -> None:
    """Beyond the configured size the reply is not taken into memory."""
    rig = Rig(server, http={"max_reply_bytes": 100})
    rig.server.script += [(200, {}, b"x" * 100), (200, {}, b"x" * 101)]
    assert 100 == len(rig.send(ORDER).content)
    with pytest.raises(errors.BadReply, match="max_reply_bytes"):
        rig.send(ORDER)
    rig.adapter.close()


def test_a_stream_is_left_to_the_caller(rig: Rig) -> None:
    """With stream=True the body is read by the caller, and the connection is not watched any more."""
    reply = rig.send("/lines", stream=True)
    assert not rig.adapter._watch._current
    assert 5 == len(list(reply.iter_lines()))
    rig.server.script += [(503, {}), (200, {})]
    assert 200 == rig.send(READ, stream=True).status_code


################################################ knowing things ################################################


def test_the_gateways_clock_is_known_to_the_second(server: EchoServer) -> None:
    """`skew` compares the last Date header with our clock, and calls what cannot be measured zero."""
    import time

    rig = Rig(server)
    assert 0.0 == rig.adapter.skew()
    rig.send(READ)
    assert 0.0 == rig.adapter.skew()
    rig.adapter._dated = (rig.adapter._dated[0], time.time() - 100.0)
    assert 98.0 < rig.adapter.skew() < 102.0
    rig.adapter.close()


def test_refusals_in_the_envelope_are_counted(rig: Rig) -> None:
    """200 with success:false is returned untouched, and counted."""
    rig.server.script += [(200, {}, b'{"success":false,"errorCode":2}')]
    assert {"success": False, "errorCode": 2} == rig.send(ORDER).json()
    assert 1 == rig.adapter.rejections
