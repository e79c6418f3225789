"""Health: what makes a hub unhealthy, and what is done about a feed that has gone silent."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topstep_sync.config import StreamConfig
from topstep_sync.realtime.health import Action, Health, HubHealth, StaleWatch, Status, judge
from topstep_sync.realtime.lifecycle import State

CONFIG = StreamConfig()
OPEN = datetime(2026, 11, 24, 15, tzinfo=UTC).timestamp()
CLOSED = datetime(2026, 11, 28, 15, tzinfo=UTC).timestamp()
JUST_OPENED = datetime(2026, 11, 23, 23, 1, tzinfo=UTC).timestamp()


def judged(wanted: bool = True, **facts: Any) -> tuple[str, tuple[str, ...]]:
    hub = judge(HubHealth(hub="market", **{"state": State.CONNECTED, **facts}), wanted, CONFIG)
    return hub.status.value, hub.reasons


@pytest.mark.parametrize(
    ("facts", "status", "word"),
    [
        ({"state": State.FAILED, "reason": "401"}, "unhealthy", "gave up: 401"),
        ({"state": State.RECONNECTING, "reason": "reset"}, "unhealthy", "no connection: reset"),
        ({"state": State.CONNECTING}, "degraded", "connecting"),
        ({"since_inbound": 25.0}, "degraded", "not a byte for 25 s"),
        ({"reconnects": 7}, "degraded", "7 reconnects"),
        ({"trouble": "503"}, "degraded", "not reconciled: 503"),
        ({"stale": ("Q(A)",), "since_data": {"Q(A)": 150.0}}, "degraded", "no data for up to 150 s: Q(A)"),
        ({"stale": tuple("ABCD"), "since_data": dict.fromkeys("ABCD", 300.0)}, "unhealthy", "A, B, C, …"),
        ({"lag": 7.0, "queue_depth": 9}, "degraded", "7 s behind, 9 events wait"),
        ({"lag": 70.0}, "unhealthy", "70 s behind"),
    ],
)
def test_what_makes_a_hub_unhealthy(facts: dict[str, Any], status: str, word: str) -> None:
    """Each trouble by itself, with a reason a person understands."""
    found, reasons = judged(**facts)
    assert (status, 1, True) == (found, len(reasons), word in reasons[0])


def test_the_worst_reason_decides_and_comes_first() -> None:
    """Several troubles: the status is that of the worst."""
    assert ("unhealthy", 2) == (judged(lag=7.0, state=State.FAILED)[0], len(judged(lag=7.0, state=State.FAILED)[1]))
    assert "gave up" in judged(lag=7.0, state=State.FAILED)[1][0]


def test_a_hub_nobody_uses_is_healthy() -> None:
    """No connection is no trouble where none is wanted."""
    assert ("healthy", ()) == judged(wanted=False, state=State.DISCONNECTED)
    assert ("healthy", ()) == judged()


def test_the_stream_is_as_good_as_its_worse_hub() -> None:
    """Status, reasons by hub, and truth in one object."""
    good, bad = HubHealth(hub="user"), HubHealth(hub="market", status=Status.DEGRADED, reasons=("lag",))
    health = Health(user=good, market=bad)
    assert (Status.DEGRADED, ("market: lag",), False) == (health.status, health.reasons, bool(health))
    assert Health(user=good, market=HubHealth(hub="market"))


################################################### silent feeds ###################################################


class Feed:
    """A watch of the subscriptions A and B, looked at every 30 s, as the hub's thread does."""

    def __init__(self, epoch: float = OPEN) -> None:
        self.watch = StaleWatch(CONFIG)
        self.now, self.epoch = 1000.0, epoch
        self.data: dict[str, float] = {}
        self.actions: list[tuple[float, Action, list[str]]] = []

    def run(self, seconds: float, *flowing: str, echo: bool = False) -> list[str]:
        """Time passes; *flowing* get data all along. With *echo*, subscribing anew brings one event at once."""
        start, found = self.now, []
        while self.now < start + seconds:
            self.now += 30.0
            self.epoch += 30.0
            self.data.update(dict.fromkeys(flowing, self.now - 1))
            action, keys = self.watch.decide({"A", "B"}, self.data, self.now, self.epoch)
            if action is Action.PROBE:
                found.append("probe " + "".join(sorted(keys)))
                if echo:
                    self.data.update(dict.fromkeys(keys, self.now + 0.1))
            elif action is Action.REPLACE:
                found.append("replace")
                self.watch.fresh()
                if echo:
                    self.data.update(dict.fromkeys("AB", self.now + 0.1))
        return found


def test_a_feed_that_flows_is_left_alone() -> None:
    """Hours of data, no action."""
    assert [] == Feed().run(7200, "A", "B")


def test_one_silent_subscription_is_only_asked_for_anew() -> None:
    """While others flow the connection is not to blame; the question is repeated after half an hour, not before."""
    assert ["probe B"] == Feed().run(1500, "A")
    assert ["probe B"] * 2 == Feed().run(2400, "A")


@pytest.mark.parametrize("echo", [False, True])
def test_a_dead_feed_is_probed_then_replaced_and_less_and_less_often(echo: bool) -> None:
    """All silent for 120 s: probe; 30 s later: a new connection; then after growing waits, for ever."""
    feed = Feed()
    assert ["probe AB", "replace"] == feed.run(240, echo=echo)
    later = feed.run(4 * 3600, echo=echo)
    assert 3 <= later.count("replace") <= 12


def test_data_after_a_replacement_ends_the_alarm() -> None:
    """A feed that flows again is trusted again, and the next silence is answered as quickly as the first."""
    feed = Feed()
    feed.run(240)
    assert [] == feed.run(600, "A", "B")
    assert ["probe AB", "replace"] == feed.run(240)


def test_a_closed_market_is_quiet_by_right() -> None:
    """No probe and no reconnect all weekend."""
    assert [] == Feed(CLOSED).run(8 * 3600)


def test_a_market_that_has_just_opened_has_time() -> None:
    """The silence of the night does not count against the first two minutes."""
    feed = Feed(JUST_OPENED - 30)
    feed.run(0)
    assert [] == feed.run(60)
    assert ["probe AB", "replace"] == feed.run(270)


def test_ages_count_from_the_subscription() -> None:
    """A subscription that never had data is as old as its standing; one that is gone is forgotten."""
    feed = Feed()
    feed.run(30)
    assert {"A": 60.0, "B": 60.0} == feed.watch.ages({"A", "B"}, {}, feed.now + 60)
    feed.watch.decide({"A"}, {}, feed.now, feed.epoch)
    assert {"A": 60.0, "B": 0.0} == feed.watch.ages({"A", "B"}, {}, feed.now + 60)


@given(st.lists(st.sets(st.sampled_from("AB")), max_size=100), st.booleans())
def test_no_pattern_of_data_causes_a_storm(pattern: list[set[str]], echo: bool) -> None:
    """Whatever flows when, replacements are at least two minutes apart."""
    feed = Feed()
    replaced = [feed.now for flowing in pattern if "replace" in feed.run(30, *flowing, echo=echo)]
    assert all(later - earlier >= 120 for earlier, later in itertools.pairwise(replaced))


def test_severity_orders_the_statuses() -> None:
    """Unhealthy is worse than degraded is worse than healthy."""
    assert [0, 1, 2] == [status.severity for status in (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY)]
