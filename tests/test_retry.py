"""ERR-001: what an error is, whether to try again, and how long to wait."""

import socket
import ssl
from http.client import IncompleteRead, RemoteDisconnected
from typing import Any

import pytest
import requests
import urllib3.exceptions as u3
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync import errors
from topstep_sync.clock import ManualClock
from topstep_sync.errors import Category, Fate
from topstep_sync.http.classify import from_exception, read_body, retry_after
from topstep_sync.http.retry import ErrorHandler, RetryBudget

READ, CHANGE, ORDER = "/api/Account/search", "/api/Order/modify", "/api/Order/place"

TRANSIENT = {408, 425, 429, 500, 502, 503, 504, *range(520, 528)}
PERMANENT = {400, 401, 403, 404, 405, 409, 422, 501, 505}


def handler(**config: object) -> ErrorHandler:
    clock = ManualClock()
    clock.chance = 1.0
    return ErrorHandler(config, clock=clock)


################################################# statuses #################################################


@pytest.mark.parametrize("endpoint", [READ, CHANGE, ORDER, ""])
def test_every_status_is_classified(endpoint: str) -> None:
    """Every status from 300 to 599 gives one error whose class, category, fate and permission agree."""
    for status in range(300, 600):
        error = handler().classify_error(status, b"", endpoint=endpoint)
        transient = isinstance(error, errors.TransientError)
        assert (status, endpoint or None) == (error.status_code, error.endpoint)
        assert transient is not isinstance(error, errors.PermanentError)
        assert transient or status not in TRANSIENT
        assert not transient or not (status in PERMANENT or status < 400)
        assert status < 500 or Category.SERVER is error.category
        assert (transient and (endpoint == READ or error.fate is not Fate.UNKNOWN)) is error.retryable


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (401, Category.AUTH), (403, Category.AUTH), (400, Category.CLIENT), (404, Category.CLIENT),
        (408, Category.TIMEOUT), (429, Category.RATE_LIMIT), (500, Category.SERVER), (504, Category.SERVER),
        (302, Category.CLIENT), (422, Category.CLIENT),
    ],
)  # fmt: skip
def test_categories(status: int, category: Category) -> None:
    """Each status has the category of the specification."""
    assert category is handler().classify_error(status).category


def test_a_conflict_may_mean_that_it_exists() -> None:
    """409 to an order is no proof that there is none."""
    assert Fate.UNKNOWN is handler().classify_error(409, endpoint=ORDER).fate


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"success":false,"errorCode":2,"errorMessage":"no"}', "no"),
        ('{"title":"One or more","errors":{"$.accountId":["bad"]}}', "One or more $.accountId: ['bad']"),
        (b"<html><body>  Service\n maintenance", "<html><body> Service maintenance"),
        ({"errorMessage": "told"}, "told"),
        ({"detail": "d", "title": "t"}, "d"),
        (b"[1]", "[1]"),
        (b"", None),
        (None, None),
        (7, None),
        (["not", "a", "mapping"], None),
        ({"errorCode": True, "success": 1}, None),
        (b"\xff\xfe\x00", "\ufffd\ufffd\x00"),
    ],
)
def test_any_body_is_read(body: object, message: str | None) -> None:
    """Envelopes, ProblemDetails, pages and rubbish give their words, or none, and never an exception."""
    assert message == read_body(body).message


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300), st.recursive(st.none(), st.lists, max_leaves=3)))
def test_no_body_breaks_the_classification(body: object) -> None:
    """Whatever a server sends as a body, the error comes out, with no token in its text."""
    assert isinstance(handler().classify_error(503, body, endpoint=READ), errors.TransientError)


def test_tokens_in_bodies_are_masked() -> None:
    """A body that echoes a token does not carry it into the error's text."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.secretsecret"
    assert "secretsecret" not in str(handler().classify_error(500, f"bad token {token}", endpoint=READ))


def test_a_refusal_in_the_envelope_has_its_own_class() -> None:
    """200 with success:false is classified by the endpoint's own table of codes."""
    body = b'{"success":false,"errorCode":3,"errorMessage":null,"orderId":null}'
    error = handler().classify_error(200, body, endpoint=ORDER)
    assert isinstance(error, errors.InsufficientFunds)
    assert isinstance(handler().classify_error(200, body, endpoint="/api/Order/cancel"), errors.OrderRejected)


@pytest.mark.parametrize(("endpoint", "retryable"), [(READ, True), (ORDER, False)])
def test_a_page_instead_of_json_is_a_bad_reply(endpoint: str, retryable: bool) -> None:
    """A 200 that is no envelope is transient, and may be fetched again where the call only reads."""
    error = handler().classify_error(200, "<html>login</html>", endpoint=endpoint)
    assert isinstance(error, errors.BadReply)
    assert (retryable, Fate.UNKNOWN) == (error.retryable, error.fate)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), (" 3 ", 3.0), ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None), ("-1", None), ("1.5", None), ("", None), ("9" * 30, 999999999.0),
    ],
)  # fmt: skip
def test_retry_after_in_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date; rubbish counts as absent."""
    assert seconds == retry_after({"Retry-After": value}, 1000.0)


def test_no_retry_after() -> None:
    """Without headers, or without that header, there is no advice."""
    assert retry_after(None, 0.0) is None
    assert retry_after({}, 0.0) is None
    assert 5.0 == handler().classify_error(429, headers={"Retry-After": "5"}).retry_after


############################################ exceptions of the transport ############################################


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


NOBODY: Any = None  # where urllib3's exceptions want the pool they come from


def spent(reason: Exception) -> u3.MaxRetryError:
    return u3.MaxRetryError(NOBODY, "/", reason)


def tls(error: ssl.SSLError) -> Exception:
    return requests.exceptions.SSLError(spent(u3.SSLError(error)))


def aborted(reason: BaseException) -> u3.ProtocolError:
    return u3.ProtocolError("Connection aborted.", reason)


NEVER_SENT: list[tuple[Exception, type[errors.RequestError]]] = [
    (
        requests.ConnectionError(spent(u3.NameResolutionError("h", NOBODY, socket.gaierror(-2)))),
        errors.ConnectFailed,
    ),
    (requests.ConnectionError(spent(u3.NewConnectionError(NOBODY, "refused"))), errors.ConnectFailed),
    (requests.ConnectionError(u3.ClosedPoolError(NOBODY, "closed")), errors.ConnectFailed),
    (requests.ConnectTimeout(spent(u3.ConnectTimeoutError("slow"))), errors.ConnectTimedOut),
    (tls(ssl.SSLCertVerificationError("unknown issuer")), errors.TlsFailed),
    (tls(ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x")), errors.TlsFailed),
    (tls(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x")), errors.TlsFailed),
    (
        requests.exceptions.ProxyError(spent(u3.ProxyError("no", OSError("Tunnel connection failed: 407")))),
        errors.ProxyFailed,
    ),
]

MAYBE_SENT: list[tuple[Exception, type[errors.RequestError]]] = [
    (requests.ReadTimeout(u3.ReadTimeoutError(NOBODY, "/", "slow")), errors.ReplyTimedOut),
    (u3.ReadTimeoutError(NOBODY, "/", "slow"), errors.ReplyTimedOut),
    (TimeoutError("timed out"), errors.ReplyTimedOut),
    (requests.ConnectionError(aborted(RemoteDisconnected("x"))), errors.ReplyLost),
    (requests.ConnectionError(aborted(ConnectionResetError(104, "reset"))), errors.ReplyLost),
    (tls(ssl.SSLError(1, "[SSL] bad record mac")), errors.ReplyLost),
    (requests.ConnectionError("made by a mock"), errors.ReplyLost),
    (requests.Timeout("made by a mock"), errors.ReplyLost),
    (u3.ProtocolError("broken", IncompleteRead(b"", 10)), errors.ReplyTruncated),
    (requests.exceptions.ChunkedEncodingError(aborted(u3.IncompleteRead(1, 2))), errors.ReplyTruncated),
    (u3.DecodeError("bad gzip"), errors.ReplyTruncated),
]


@pytest.mark.parametrize(("trouble", "cls"), [*NEVER_SENT, *MAYBE_SENT])
def test_a_connection_that_did_not_stand_was_sent_nothing(trouble: Exception, cls: type[errors.RequestError]) -> None:
    """Where the pool knows that the request was not written yet, nothing was sent, whatever the trouble is called."""
    error = from_exception(trouble, ORDER, sent=False)
    assert error is not None
    assert Fate.NOT_SENT is error.fate
    assert isinstance(error, errors.ConnectFailed)
    assert issubclass(cls, errors.ReplyTimedOut) <= isinstance(error, errors.ConnectTimedOut)


@pytest.mark.parametrize(("trouble", "cls"), [*NEVER_SENT, *MAYBE_SENT])
def test_a_connection_that_stood_may_have_been_sent_all(trouble: Exception, cls: type[errors.RequestError]) -> None:
    """Where the request may have been written, its fate is unknown, whatever the trouble is called."""
    error = from_exception(trouble, ORDER, sent=True)
    assert error is not None
    assert Fate.UNKNOWN is error.fate
    assert isinstance(error, errors.ReplyLost)


@pytest.mark.parametrize(("trouble", "cls"), NEVER_SENT)
def test_what_was_never_sent_says_so(trouble: Exception, cls: type[errors.RequestError]) -> None:
    """Name, route, proxy and TLS trouble: the request never left, whatever wraps it."""
    error = handler().classify_exception(trouble, ORDER)
    assert cls is type(error)
    assert error is not None
    assert (Fate.NOT_SENT, ORDER) == (error.fate, error.endpoint)
    assert "nothing was sent" in str(error)


@pytest.mark.parametrize(("trouble", "cls"), MAYBE_SENT)
def test_what_may_have_been_sent_says_so(trouble: Exception, cls: type[errors.RequestError]) -> None:
    """After sending nobody knows; only a call that reads may simply be repeated."""
    for endpoint, retryable in ((READ, True), (ORDER, False), (CHANGE, False)):
        error = from_exception(trouble, endpoint)
        assert cls is type(error)
        assert error is not None
        assert (Fate.UNKNOWN, retryable) == (error.fate, error.retryable)


def test_other_exceptions_are_none_of_its_business() -> None:
    """A ValueError, a KeyboardInterrupt or a malformed URL is not turned into a network error."""
    for other in (ValueError("x"), KeyboardInterrupt(), requests.exceptions.InvalidURL("x"), TypeError("x")):
        assert from_exception(other, READ) is None


def test_an_error_of_ours_stays_itself() -> None:
    """What is classified already is not classified again."""
    error = errors.SessionClosed("closed")
    assert error is from_exception(error)


def test_a_circle_of_causes_ends() -> None:
    """Exceptions that cause each other do not hang the classification."""
    one, two = ValueError("a"), ValueError("b")
    one.__cause__, two.__cause__ = two, one
    assert from_exception(one) is None


################################################## policy ##################################################


@pytest.mark.parametrize(
    ("error", "read", "change", "order"),
    [
        (errors.ConnectFailed("x"), True, True, False),
        (errors.ConnectTimedOut("x"), True, True, False),
        (errors.TlsFailed("x"), False, False, False),
        (errors.CircuitOpen("x"), True, False, False),
        (errors.PermanentError("x"), False, False, False),
    ],
)
def test_who_may_be_sent_again(error: errors.RequestError, read: bool, change: bool, order: bool) -> None:
    """A read may when the error allows it, a change only when it never left, an order never."""
    for endpoint, allowed in ((READ, read), (CHANGE, change), (ORDER, order)):
        error.endpoint = endpoint
        assert allowed is handler().should_retry(error, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_change_is_not_resent_after_an_answer(status: int) -> None:
    """Whatever the gateway answered, a change or an order is not sent again here."""
    for endpoint in (CHANGE, ORDER, "/api/Auth/loginKey", "/api/Nobody/knows"):
        assert not handler().should_retry(handler().classify_error(status, endpoint=endpoint), 1)
    assert handler().should_retry(handler().classify_error(status, endpoint=READ), 1)


def test_without_an_endpoint_only_the_error_counts() -> None:
    """An error that names no endpoint may be retried exactly when it says so itself."""
    assert handler().should_retry(errors.RateLimited("x", retryable=True), 1)
    assert not handler().should_retry(handler().classify_error(503), 1)
    assert not handler().should_retry(ValueError("x"), 1)


def test_attempts_are_bounded() -> None:
    """The third attempt is the last one by default."""
    error = errors.ConnectFailed("x", endpoint=READ)
    assert [True, True, False] == [handler().should_retry(error, attempt) for attempt in (1, 2, 3)]


def test_delays_double_from_a_quarter_second_up_to_the_cap() -> None:
    """With full chance: 0.25, 0.5, 1 … 20 s; throttling starts at 1 s."""
    server = errors.TransientError("x")
    throttled = errors.RateLimited("x")
    one = handler()
    assert [0.25, 0.5, 1.0, 2.0] == [one.get_retry_delay(attempt, server) for attempt in (1, 2, 3, 4)]
    assert [1.0, 2.0, 4.0] == [one.get_retry_delay(attempt, throttled) for attempt in (1, 2, 3)]
    assert 20.0 == one.get_retry_delay(10_000, server)
    assert 0.25 == one.get_retry_delay(1)


def test_retry_after_is_the_least_delay() -> None:
    """The server's wish is honoured even where it is longer than the cap."""
    assert 120.0 == handler().get_retry_delay(1, errors.RateLimited("x", retry_after=120.0))


def test_a_lost_connection_is_tried_again_at_once() -> None:
    """The first repetition after a connection that ended without a reply does not wait; the second does."""
    one = handler()
    assert [0.0, 0.5] == [one.get_retry_delay(attempt, errors.ReplyLost("x")) for attempt in (1, 2)]
    assert 0.25 == one.get_retry_delay(1, errors.ReplyTimedOut("x"))


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_any_delay_is_within_its_bounds(attempt: int, chance: float) -> None:
    """Full jitter: from zero to the doubled base, never above the cap."""
    clock = ManualClock()
    clock.chance = chance
    delay = ErrorHandler(clock=clock).get_retry_delay(attempt, errors.TransientError("x"))
    assert 0.0 <= delay <= min(20.0, 0.25 * 2 ** (attempt - 1))


def test_the_budget_allows_a_fifth_of_the_calls() -> None:
    """100 calls in a minute allow 20 retries; without calls it is three; a minute later all is forgotten."""
    clock = ManualClock()
    budget = RetryBudget(clock=clock)
    assert [True, True, True, False] == [budget.take() for _ in range(4)]
    for _ in range(100):
        budget.called()
    assert 17 == sum(budget.take() for _ in range(50))
    clock.advance(60.0)
    assert [True, True, True, False] == [budget.take() for _ in range(4)]


def test_handle_error_counts_and_decides() -> None:
    """It returns the delay or None, and the stats tell what happened."""
    one = handler(budget_min=1)
    error = errors.TransientError("broken", endpoint=READ, retryable=True)
    assert 0.25 == one.handle_error(error, READ, 1)
    assert one.handle_error(error, READ, 2) is None  # the budget is spent
    assert one.handle_error(errors.PermanentError("no", endpoint=ORDER), ORDER, 1) is None
    assert one.handle_error(ValueError("odd"), ORDER, 1) is None
    one.succeeded()
    stats = one.get_stats()
    assert (4, 1, 1, 1) == tuple(stats[name] for name in ("errors", "retries", "budget_refused", "successes"))
    assert {READ: 2, ORDER: 2} == stats["by_endpoint"]
    assert {"server": 2, "client": 2} == stats["by_category"]
    assert ["TransientError", "TransientError", "PermanentError", "ValueError"] == [
        entry["error"] for entry in stats["last_errors"]
    ]


def test_a_forked_child_starts_with_free_locks() -> None:
    """A lock that was held at the fork binds nobody in the child."""
    one = handler()
    with one._lock, one.budget._lock:
        one.forked()
        assert 0 == one.get_stats()["errors"]
        assert one.budget.take()
