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
