"""What listeners and OpenTelemetry are told about calls."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.echo_server import EchoServer, running
from topstep_sync import errors
from topstep_sync.config import Config
from topstep_sync.events import ConnectionEvent, Reconnected, SessionConflict, StreamEvent
from topstep_sync.http.circuit_breaker import Change, State
from topstep_sync.http.otel import OpenTelemetry
from topstep_sync.http.telemetry import AttemptEnded, RetryScheduled
from topstep_sync.session import Session

READ, ORDER = "/api/Account/search", "/api/Order/place"


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with running() as one:
        yield one


@pytest.fixture
def session(server: EchoServer) -> Iterator[Session]:
    config = Config(base_url=server.url, retry={"base_delay": 0.0}, breaker={"consecutive_failures": 2})
    with Session(config=config) as one:
        one.tokens.adopt("token")
        yield one


def test_listeners_hear_attempts_retries_and_breakers(session: Session, server: EchoServer) -> None:
    """A read that fails twice: three attempts, two retries, one breaker that opened and refused nothing yet."""
    heard: list[Any] = []
    end = session.listen(heard.append)
    server.script += [(503, {}), (200, {})]
    session.post(READ, json={})
    assert [AttemptEnded, RetryScheduled, AttemptEnded] == [type(one) for one in heard]
    first, retry, second = heard
    assert ("POST", READ, 1, 503, None) == (first.method, first.endpoint, first.attempt, first.status, first.error)
    assert (READ, 1, 0.0) == (retry.endpoint, retry.attempt, retry.delay)
    assert (2, 200) == (second.attempt, second.status)
    assert 0.0 < second.seconds < 5.0
    heard.clear()
    server.script += [("drop", {}), ("drop", {})]
    for _ in range(2):
        with pytest.raises(errors.ReplyLost):
            session.post(ORDER, json={})
    assert [AttemptEnded, Change, AttemptEnded] == [type(one) for one in heard]
    assert isinstance(heard[0].error, errors.ReplyLost)
    assert (State.CLOSED, State.OPEN) == (heard[1].before, heard[1].after)
    end()
    heard.clear()
    session.post(READ, json={})
    assert [] == heard


def test_a_listener_that_fails_harms_nobody(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged; the call and the other listeners go on."""
    heard: list[Any] = []
    session.listen(lambda happening: 1 // 0)
    session.listen(heard.append)
    assert session.post(READ, json={}).ok
    assert 1 == len(heard)
    assert "a listener failed" in caplog.text


def test_stats_tell_what_happened(session: Session, server: EchoServer) -> None:
    """Errors, retries, refusals, breakers, permits and the token, as plain values."""
    server.script += [(503, {}), (200, {}, b'{"success":false,"errorCode":1}')]
    session.post(READ, json={})
    stats = session.stats()
    calls = stats["calls"]
    assert (1, 1, 1, 1) == tuple(calls[name] for name in ("errors", "retries", "successes", "refused_in_envelope"))
    assert "closed" == stats["breakers"]["account"]["state"]
    assert 2 == stats["limits"]["general"]["granted"]
    assert stats["token"]


def test_spans_and_durations(session: Session, server: EchoServer) -> None:
    """Every attempt is a client span with the conventions' attributes, and a duration in seconds."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    end = session.instrument(tracer_provider=tracers, meter_provider=meters)
    server.script += [(503, {}), (200, {}), ("drop", {})]
    with tracers.get_tracer("test").start_as_current_span("mine") as mine:
        session.post(READ + "?x=secret", json={})
        with pytest.raises(requests.ConnectionError):
            session.post(ORDER, json={})
    end()
    session.post(READ, json={})
    first, second, lost = (span for span in exporter.get_finished_spans() if span.name != "mine")
    assert f"POST {READ}" == first.name
    assert mine.get_span_context().span_id == first.parent.span_id
    assert server.url + READ == first.attributes["url.full"]
    assert ("127.0.0.1", server.server_port) == (first.attributes["server.address"], first.attributes["server.port"])
    assert (503, "503") == (first.attributes["http.response.status_code"], first.attributes["error.type"])
    assert "http.request.resend_count" not in first.attributes
    assert (200, 1) == (second.attributes["http.response.status_code"], second.attributes["http.request.resend_count"])
    assert second.start_time <= second.end_time
    assert "ReplyLost" == lost.attributes["error.type"]
    assert not lost.status.is_ok
    metric = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0]
    assert ("http.client.request.duration", "s") == (metric.name, metric.unit)
    assert 3 == sum(point.count for point in metric.data.data_points)
    meters.shutdown()


def test_listeners_hear_what_the_stream_tells_about_itself(gateway: Any) -> None:
    """States of the hubs and gaps, on a thread that is neither the caller's nor the hub's, and gone after the end."""
    heard: list[tuple[Any, str]] = []
    back = threading.Event()

    def hear(happening: Any) -> None:
        if isinstance(happening, StreamEvent):
            heard.append((happening, threading.current_thread().name))
            if isinstance(happening, Reconnected):
                back.set()

    with Session(config=gateway.config) as session:
        end = session.listen(hear)
        with session.subscribe(accounts=[704]) as events:
            gateway.drop_hubs(how="fin")
            assert back.wait(10)
            seen = [event for event in events.drain() if isinstance(event, StreamEvent)]
        end()
    assert {"topstep-stream-listeners"} == {thread for _, thread in heard}
    told = [event for event, _ in heard]
    assert seen == told[: len(seen)]
    assert ["connecting", "connected", "reconnecting", "connected"] == [
        event.state for event in told if isinstance(event, ConnectionEvent)
    ][:4]


def test_nobody_listens_to_the_stream(gateway: Any) -> None:
    """Then there is no thread for it either."""
    with Session(config=gateway.config) as session, session.subscribe(accounts=[704]):
        assert "topstep-stream-listeners" not in {thread.name for thread in threading.enumerate()}


def test_gaps_are_spans_and_states_are_counted() -> None:
    """A gap has its real times, what it hid, and whether that was found; a state is one more of its hub."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    listener = OpenTelemetry(tracers, meters)
    for state in ("connected", "reconnecting", "connected"):
        listener(ConnectionEvent(source="user", state=state))
    listener(Reconnected(source="user", gap_start=100.0, gap_end=102.5, recovered_count=3, lost=1, reconciled=True))
    listener(SessionConflict(source="user"))
    (gap,) = exporter.get_finished_spans()
    assert ("gap", 100 * 10**9, 102_500_000_000) == (gap.name, gap.start_time, gap.end_time)
    expected = {"topstep.hub": "user", "topstep.recovered": 3, "topstep.lost": 1, "topstep.reconciled": True}
    assert expected == dict(gap.attributes)
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    counts = {m.name: [(p.attributes.get("topstep.state"), p.value) for p in m.data.data_points] for m in metrics}
    assert [("connected", 2), ("reconnecting", 1)] == counts["topstep.stream.states"]
    assert [(None, 3)] == counts["topstep.stream.recovered"]
    meters.shutdown()


def test_without_the_extra_it_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing opentelemetry-api: the error says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(errors.MissingExtra, match=r"topstep-sync\[otel\]"):
        session.instrument()
