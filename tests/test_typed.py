"""Typed calls: what goes out, what comes back, and what everything else becomes."""

import json
from collections.abc import Iterator

import pytest
import requests_mock

from tests.echo_server import EchoServer, running
from topstep_sync import errors
from topstep_sync.config import Config
from topstep_sync.messages import AccountsReply, ByOrder, Reply, SearchAccounts
from topstep_sync.session import Session

SEARCH, CANCEL = "/api/Account/search", "/api/Order/cancel"
ASK = SearchAccounts(only_active_accounts=True)


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.fixture
def session(server: EchoServer) -> Iterator[Session]:
    with Session(config=Config(base_url=server.url, retry={"base_delay": 0.0})) as one:
        one.tokens.adopt("token")
        yield one


def test_what_goes_out(session: Session, server: EchoServer) -> None:
    """A record goes out as JSON in the wire's names, with the session's headers; none is an empty body."""
    server.script += [(200, {})] * 2
    session.headers["X-Mine"] = "1"
    session.call(SEARCH, ASK, Reply)
    session.call("/api/Auth/logout", None, Reply)
    (_, _, headers, body), (_, _, _, nothing) = server.seen
    assert (b'{"onlyActiveAccounts":true}', b"") == (body, nothing)
    assert ("application/json", "1", "Bearer token") == (
        headers["Content-Type"], headers["X-Mine"], headers["Authorization"],
    )  # fmt: skip


@pytest.mark.parametrize("way", ["auth", "headers"])
def test_the_long_way_gives_the_same(session: Session, server: EchoServer, way: str) -> None:
    """Where requests must prepare the call itself, a typed call still has its deadline and its reply."""
    server.script += [(200, {})]
    if way == "auth":
        session.auth = lambda request: request
    else:
        session.headers = {"X-Plain": "dict"}  # type: ignore[assignment]
    assert session.call(SEARCH, ASK, Reply, timeout=5.0).success
    assert b'{"onlyActiveAccounts":true}' == server.seen[0][3]


def test_a_refusal_keeps_the_gateways_words(session: Session, server: EchoServer) -> None:
    """The message of the envelope is in the error, and in its attribute."""
    server.script += [(200, {}, b'{"success":false,"errorCode":3,"errorMessage":"too late"}')]
    with pytest.raises(errors.OrderRejected, match="too late") as caught:
        session.call(CANCEL, ByOrder(account_id=1, order_id=2), Reply)
    assert (3, "Rejected", "too late") == (
        caught.value.error_code, caught.value.error_name, caught.value.error_message,
    )  # fmt: skip


@pytest.mark.parametrize("times", ["0001-01-01T00:00:00", "2025-07-18T21:00:01.268009"])
def test_times_without_a_zone_are_utc(session: Session, server: EchoServer, times: str) -> None:
    """A reply whose times say no zone, .NET's default of year 1 included, is read as UTC, and can be sorted."""
    order = {"id": 1, "accountId": 5, "contractId": "C", "status": 1, "type": 1, "side": 0, "size": 1, "fillVolume": 0}
    rows = [{**order, "creationTimestamp": times + zone, "updateTimestamp": times} for zone in ("Z", "")]
    server.script += [(200, {}, json.dumps({"success": True, "errorCode": 0, "orders": rows}).encode())]
    found = session.orders.search(5, "2025-07-18T00:00:00Z")
    assert [0.0] * 2 == [order.creation_timestamp.utcoffset().total_seconds() for order in found]  # type: ignore[union-attr]
    assert found[0] == found[1]


def test_a_deep_reply_is_a_bad_reply(session: Session, server: EchoServer) -> None:
    """Brackets without end, where they pass for a field nobody knows, are rubbish like any other."""
    deep = b"[" * 100_000 + b"]" * 100_000
    server.script += [(200, {}, b'{"success":true,"errorCode":0,"x":' + deep + b"}")]
    with pytest.raises(errors.BadReply):
        session.call(CANCEL, ByOrder(account_id=1, order_id=2), Reply)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"success":true}', b'{"success":"yes","errorCode":0}', b""])
def test_rubbish_is_a_bad_reply(session: Session, server: EchoServer, body: bytes) -> None:
    """A change whose reply is not what the contract says may have happened: no second attempt, fate unknown."""
    server.script += [(200, {}, body)]
    with pytest.raises(errors.BadReply) as caught:
        session.call(CANCEL, ByOrder(account_id=1, order_id=2), Reply)
    assert (errors.Fate.UNKNOWN, 1) == (caught.value.fate, len(server.seen))


def test_rubbish_from_a_stand_in(session: Session, server: EchoServer) -> None:
    """A mock that answers in the adapter's place may talk rubbish, too."""
    with requests_mock.Mocker() as mock:
        mock.post(server.url + SEARCH, text="<html>")
        with pytest.raises(errors.BadReply):
            session.call(SEARCH, ASK, AccountsReply)


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.PermanentError),
        (403, errors.PermanentError),
        (429, errors.RateLimited),
        (500, errors.TransientError),
    ],
)
def test_other_statuses_are_errors(session: Session, server: EchoServer, status: int, cls: type[Exception]) -> None:
    """Whatever the gateway answers that is not 200 is raised, with the reply."""
    server.script += [(status, {})]
    with pytest.raises(cls) as caught:
        session.call(CANCEL, ByOrder(account_id=1, order_id=2), Reply)
    assert status == caught.value.response.status_code  # type: ignore[attr-defined]


def test_a_dead_token_without_credentials_says_what_to_do(session: Session, server: EchoServer) -> None:
    """When the adopted token is refused and nobody can log in, the error names the way out."""
    server.script += [(401, {}), (401, {})]
    with pytest.raises(errors.TopstepError, match="TOPSTEP_USERNAME"):
        session.call(SEARCH, ASK, Reply)


def test_refused_credentials_reach_the_caller(server: EchoServer) -> None:
    """A login that the gateway refuses is an AuthenticationError with its advice, not a missing credential."""
    server.script += [(200, {}, b'{"success":false,"errorCode":3,"token":null}')]
    refused = pytest.raises(errors.AuthenticationError, match="platform login")
    with Session("joe", "wrong", base_url=server.url) as session, refused:
        session.call(SEARCH, ASK, Reply)


@pytest.mark.parametrize("body", [b'{"success":true,"more":' + b"[" * 9000, b'{"success":true,"errorMessage":"\xff"}'])
def test_whatever_comes_instead_of_a_reply_is_a_bad_reply(session: Session, server: EchoServer, body: bytes) -> None:
    """JSON that nests without end, or is not UTF-8: an error of this library's, for reads and for orders."""
    server.script += [(200, {}, body)] * 4
    for path, request in ((SEARCH, ASK), (CANCEL, ByOrder(account_id=1, order_id=2))):
        with pytest.raises(errors.BadReply):
            session.call(path, request, Reply)


def test_a_login_by_hand_with_an_odd_reply_is_the_callers_to_read(session: Session, server: EchoServer) -> None:
    """A reply that cannot be read is handed over as it came, and adopted by nobody."""
    body = b'{"success":true,"token":"abc","more":' + b"[" * 9000
    server.script += [(200, {}, body)]
    assert body == session.post("/api/Auth/loginKey", json={"userName": "joe", "apiKey": "k"}).content
    assert "token" == session.tokens.get_token()
