"""How a session says that it does."""

from topstep_sync import Session
from topstep_sync.auth.token_manager import TokenState
from topstep_sync.health import SessionHealth
from topstep_sync.http.circuit_breaker import State as Circuit
from topstep_sync.realtime.health import Health, HubHealth, Status
from topstep_sync.realtime.lifecycle import State


def test_a_fresh_session_is_healthy(gateway):
    """Before anything was asked of it there is nothing wrong, and nothing to say about hubs."""
    with Session(config=gateway.config) as session:
        health = session.health()

    assert health
    assert health.stream is None
    assert "healthy" == str(health)


def test_a_streaming_session_names_its_hubs(gateway):
    """Connected hubs appear with their round trip."""
    with Session(config=gateway.config) as session, session.subscribe(accounts=[704]):
        text = str(session.health())

    assert "user hub connected" in text
    assert "market" not in text


def test_the_worst_part_decides():
    """Status and order of the reasons follow the worst part; every part is named."""
    market = HubHealth(hub="market", state=State.CONNECTED, status=Status.DEGRADED, reasons=("stale",))
    health = SessionHealth(
        stream=Health(user=HubHealth(hub="user"), market=market),
        token=TokenState.ERROR,
        circuits={"orders": Circuit.OPEN, "history": Circuit.CLOSED},
        budget_trouble="no such host",
    )

    assert not health
    assert Status.UNHEALTHY is health.status
    assert "calls of class orders: breaker open" == health.reasons[0]
    assert {"market: stale", "token: error", "shared budget: no such host"} == set(health.reasons[1:])
    assert str(health).startswith("unhealthy · market hub connected · calls of class orders")


def test_a_notebook_shows_it_as_tables():
    """Every fact and reason is in a cell, escaped; a session that never streamed has no table of hubs."""
    user = HubHealth(
        hub="user",
        state=State.RECONNECTING,
        reason="<b>lost</b>",
        since_inbound=1.25,
        round_trip=0.0042,
        since_data={"SubscribeOrders(5)": 3.0},
        reconnects=7,
        faults=2,
        malformed=1,
        queue_depth=9,
        lag=0.5,
    )
    stream = Health(user=user, market=HubHealth(hub="market", status=Status.DEGRADED, reasons=("stale & old",)))
    shown = stream._repr_html_()
    assert all(fact in shown for fact in ("the stream is degraded", "stale &amp; old", "1.2 s ago", "4.2 ms"))
    assert all(fact in shown for fact in ("SubscribeOrders(5): 3.0 s ago", ">7<", ">2, 1<", "9 events, 0.5 s behind"))
    assert ("&lt;b&gt;lost" in shown, "<b>" in shown) == (True, False)
    assert "user hub" in user._repr_html_()
    health = SessionHealth(stream=stream, token=TokenState.VALID, circuits={"orders": Circuit.OPEN})
    assert all(fact in health._repr_html_() for fact in ("breaker of orders", "market: stale &amp; old", "4.2 ms"))
    assert "hub" not in SessionHealth(stream=None, token=TokenState.VALID)._repr_html_()
