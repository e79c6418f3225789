"""The monitor: every change of a hub's health is told once, whatever the connection is doing."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from rude_hub import call, soon
from test_stream import MNQ, Hubs, trade

from topstep_sync.realtime.health import Status
from topstep_sync.realtime.lifecycle import State


@pytest.fixture
def hubs(caplog: pytest.LogCaptureFixture) -> Iterator[Hubs]:
    caplog.set_level(logging.INFO, "topstep_sync.realtime")
    made = Hubs()
    yield made
    made.stream.close()
    for hub in (made.user, made.market):
        hub.__exit__()


def told(caplog: pytest.LogCaptureFixture, hub: str) -> list[tuple[str, str, str]]:
    """(level, status, why) of every change of the hub's health."""
    start = f"= {hub} is "
    found = [(record.levelname, record.message) for record in caplog.records if ": " in record.message]
    rows = [(level, *text.removeprefix(start).split(": ", 1)) for level, text in found if text.startswith(start)]
    return [(level, status, why) for level, status, why in rows if status in list(Status)]


@pytest.mark.parametrize("hub", ["user", "market"])
def test_a_hub_that_stays_down_is_told_of_once_and_so_is_its_return(
    hubs: Hubs, caplog: pytest.LogCaptureFixture, hub: str
) -> None:
    """While there is no connection nothing is served, and yet it is told; each vain attempt anew is not."""
    wanted: dict[str, Any] = {"accounts": [5]} if hub == "user" else {"count": 1, "quotes": [MNQ]}
    _, peer = hubs.subscribe(**wanted)
    rude = getattr(hubs, hub)
    rude.stop_listening()
    peer.rst()
    assert soon(lambda: sum("next attempt" in record.message for record in caplog.records) > 4)
    rude.listen_again()
    hubs.again(wanted.get("count", 4), rude)
    assert soon(lambda: told(caplog, hub)[-1][1] == "healthy" and hubs.stream.health())
    assert [
        ("INFO", "degraded", "connecting"),
        ("INFO", "healthy", "all is well"),
        ("WARNING", "unhealthy"),
        ("INFO", "healthy", "all is well"),
    ] == [row if row[1] != "unhealthy" else row[:2] for row in told(caplog, hub)]
    assert told(caplog, hub)[2][2].startswith("no connection: ")


def test_a_hub_that_gives_up_is_told_of(hubs: Hubs, caplog: pytest.LogCaptureFixture) -> None:
    """FAILED is no state in which anything is served; closing afterwards is no news."""
    hubs.stream = hubs.make(max_attempts=0)
    _, peer = hubs.subscribe(accounts=[5])
    peer.rst()
    assert soon(lambda: hubs.stream.health().user.state is State.FAILED)
    assert soon(lambda: told(caplog, "user")[-1][1] == "unhealthy")
    assert told(caplog, "user")[-1][2].startswith("gave up: ")
    before = told(caplog, "user")
    hubs.stream.close()
    assert before == told(caplog, "user")


def test_a_reconciliation_that_fails_is_told_and_so_is_the_next(hubs: Hubs, caplog: pytest.LogCaptureFixture) -> None:
    """The health is looked at when a snapshot came or did not, not half a minute later."""
    hubs.failures = [RuntimeError("503"), RuntimeError("503 again")]
    hubs.subscribe(accounts=[5])
    assert soon(lambda: [status for _, status, _ in told(caplog, "user")][-2:] == ["degraded", "healthy"])
    assert ("WARNING", "degraded", "not reconciled: RuntimeError: 503") == told(caplog, "user")[-2]


def test_the_age_of_each_account(hubs: Hubs) -> None:
    """Since its last event, or since it was asked for; a quiet account is never stale; one let go is not reported."""
    events, peer = hubs.subscribe(accounts=[5])
    second = hubs.stream.subscribe(accounts=[6], wait=0)

    def ages() -> list[float]:
        return [hubs.stream.health().user.since_data.get(f"account {number}", -1.0) for number in (5, 6)]

    assert soon(lambda: ages()[0] > ages()[1] > 0.0)
    peer.send(call("GatewayUserTrade", trade(1)))
    assert soon(lambda: 0.0 < ages()[0] < ages()[1])
    assert () == hubs.stream.health().user.stale
    second.close()
    assert ["account 5"] == list(hubs.stream.health().user.since_data)
    events.close()
