"""The session as its users see it: credentials, paths, typed calls, and the end."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from topstep_sync.config import Config
from topstep_sync.errors import APIError, MissingCredentials, SessionClosed, TransientError
from topstep_sync.messages import AccountsReply, PlaceOrder, PlaceReply, SearchAccounts
from topstep_sync.models import OrderSide, OrderType
from topstep_sync.session import Session
from topstep_sync.testing import Gateway

HERE = "http://127.0.0.1:9"  # nothing listens on the discard port
SEARCH = "/api/Account/search"


def test_missing_credentials_are_named_before_anything_is_sent() -> None:
    """Without credentials a call that needs a token is refused, naming both variables and both arguments."""
    with Session(base_url=HERE) as session:
        for call in (
            lambda: session.call(SEARCH, SearchAccounts(only_active_accounts=True), AccountsReply),
            lambda: session.post(SEARCH, json={}),
        ):
            with pytest.raises(MissingCredentials) as caught:
                call()
            for word in ("TOPSTEP_USERNAME", "TOPSTEP_API_KEY", "user_name=", "api_key="):
                assert word in str(caught.value)


def test_from_env_needs_credentials() -> None:
    """`from_env` with an empty environment fails at once and says which variables it wants."""
    with pytest.raises(MissingCredentials, match="TOPSTEP_USERNAME and TOPSTEP_API_KEY"):
        Session.from_env()


def test_from_env_reads_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` takes credentials and address from the environment; arguments win."""
    monkeypatch.setenv("TOPSTEP_USERNAME", "joe")
    monkeypatch.setenv("TOPSTEP_API_KEY", "key-of-joe")
    with Session.from_env(base_url=HERE) as session:
        assert (session.config.user_name, session.config.base_url) == ("joe", HERE)
        assert "key-of-joe" not in repr(session)


def test_a_closed_session_sends_nothing() -> None:
    """After `close` a call is refused; closing twice is no error."""
    session = Session("joe", "key", config=Config(base_url=HERE))
    session.close()
    session.close()
    with pytest.raises(SessionClosed):
        session.post(SEARCH, json={})


def test_a_session_is_not_pickled() -> None:
    """Pickling is refused with the reason: it would carry the token along."""
    with Session("joe", "key", base_url=HERE) as session, pytest.raises(TypeError, match="token"):
        pickle.dumps(session)


def test_the_main_job(gateway: Gateway) -> None:
    """One login serves raw and typed calls alike: accounts, bars, an order, its cancellation."""
    with Session(config=gateway.config) as session:
        raw = session.post(SEARCH, json={"onlyActiveAccounts": True})
        assert raw.json()["success"] is True
        account = session.accounts.search()[0]
        assert raw.json()["accounts"][0]["id"] == account.id
        contract = session.contracts.search("MNQ")[0]
        order = session.orders.place(account.id, contract.id, side="buy", size=1, limit_price=contract.tick_size * 40)
        cancelled = session.post("/api/Order/cancel", json={"accountId": account.id, "orderId": order.id})
        assert cancelled.json()["success"] is True
        assert session.status.ping() >= 0.0
        assert 1 == sum(call.path.lower().endswith("loginkey") for call in gateway.requests)


@pytest.mark.slow
@pytest.mark.gateway(general_limit=10_000)
def test_one_session_serves_32_threads(gateway: Gateway) -> None:
    """32 threads × 50 calls through one session: no 429, no error, one login."""
    limits = {"general_limit": 10_000, "burst": None}
    with Session(config=gateway.config_with(rate=limits)) as session:

        def work() -> list[int]:
            return [session.post(SEARCH, json={"onlyActiveAccounts": True}).status_code for _ in range(50)]

        with ThreadPoolExecutor(32) as pool:
            statuses = [status for done in [pool.submit(work) for _ in range(32)] for status in done.result(60)]
        assert [200] * 1600 == statuses
        assert 1 == sum(call.path.lower().endswith("loginkey") for call in gateway.requests)


################################################# the stream #################################################

CONTRACT = "CON.F.US.MNQ.Z26"


def test_events_of_an_order_arrive_in_the_queue(gateway: Gateway) -> None:
    """Subscribed, an order's events come out of the queue, the state knows it, and connections are kept warm."""
    with Session(config=gateway.config) as session:
        assert {} == dict(session.state.orders)
        with session.subscribe(accounts=[536]) as events:
            assert session._warmth.on
            order = session.orders.place(536, CONTRACT, side="buy", size=1, limit_price=1000.0)
            event = events.wait_for(lambda one: one.kind == "order" and one.data.id == order.id, timeout=10.0)
            assert event.data.custom_tag == order.custom_tag
            assert order.id in session.state.orders
        session._ping()
        assert not session._warmth.on


def test_a_lost_order_is_found_by_its_event(gateway: Gateway) -> None:
    """With a stream open, placing hears the user hub: a lost reply is settled by the event, without a look-up."""
    with Session(config=gateway.config) as session, session.subscribe(accounts=[536]):
        session.contracts.get(CONTRACT)
        gateway.faults.lose("Order/place")
        order = session.orders.place(536, CONTRACT, side="buy", size=1, limit_price=1000.0)
        assert [order.id] == [one.id for one in gateway.executed_orders]


def test_what_was_missed_is_recovered_by_a_snapshot(gateway: Gateway) -> None:
    """After a drop of the hubs, orders, positions and trades of the gap come out of the queue, marked recovered."""
    with Session(config=gateway.config) as session, session.subscribe(accounts=[536]) as events:
        gateway.drop_hubs()
        placed = session.post(
            "/api/Order/place", json={"accountId": 536, "contractId": CONTRACT, "type": 2, "side": 0, "size": 1}
        ).json()
        assert placed["success"]
        seen = events.wait_for(lambda one: one.kind == "trade" and one.data.order_id == placed["orderId"], timeout=20.0)
        assert 1 == seen.data.size
        events.wait_for(lambda one: one.kind == "reconnected" and one.source == "user", timeout=20.0)
        assert session.state.position(536, CONTRACT) is not None


def test_a_token_that_outlives_the_session(gateway: Gateway, tmp_path: Path) -> None:
    """With a stored token a second session needs no second login."""
    token = {"memory_only": False, "storage_path": str(tmp_path / "token")}
    for _ in range(2):
        with Session(config=gateway.config_with(token=token)) as session:
            assert session.accounts.search()
    assert 1 == sum(call.path.lower().endswith("loginkey") for call in gateway.requests)


def test_the_budget_shows_what_was_used(gateway: Gateway) -> None:
    """`budget()` counts the calls of this session; `trades`, `positions` and `history` are there as typed rooms."""
    with Session(config=gateway.config) as session:
        used = session.budget()["general"].used
        session.positions.search_open(536)
        session.trades.search(536, "2026-01-01T00:00:00Z")
        assert 2 <= session.budget()["general"].used - used
        assert session.history is session.history
        assert "general" in repr(session.budget())
        assert gateway.user_name in repr(session)


def test_a_refused_order_names_its_record(gateway: Gateway) -> None:
    """A typed refusal carries the gateway's record of it, the code's name, and the reply."""
    request = PlaceOrder(account_id=999, contract_id=CONTRACT, type=OrderType.MARKET, side=OrderSide.BUY, size=1)
    with Session(config=gateway.config) as session, pytest.raises(APIError) as caught:
        session.call("/api/Order/place", request, PlaceReply)
    assert (200, 1) == (caught.value.status_code, caught.value.attempts)
    assert caught.value.error_name
    assert caught.value.response.json()["success"] is False


def test_a_ping_that_fails_says_so(gateway: Gateway) -> None:
    """A status other than 200 is an error; the text is returned otherwise."""
    with Session(config=gateway.config_with(retry={"max_attempts": 1})) as session:
        assert "pong" in session.get_text("/api/Status/ping")
        gateway.faults.status("Status/ping", 503)
        with pytest.raises(TransientError):
            session.get_text("/api/Status/ping")
