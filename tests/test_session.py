"""The session as its users see it: credentials, paths, typed calls, and the end."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from topstep_sync.config import Config
from topstep_sync.errors import MissingCredentials, SessionClosed
from topstep_sync.messages import AccountsReply, SearchAccounts
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
