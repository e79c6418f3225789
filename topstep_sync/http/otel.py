"""OpenTelemetry: a span and a duration for every attempt, by the semantic conventions for HTTP clients (1.27).

Needs the extra: ``pip install "topstep-sync[otel]"``. Spans are made when the attempt has ended, with its real times,
so that nothing runs before a request; they belong to whatever span is current on the caller's thread.

The conventions know nothing of streams; these names are our own: a span ``gap`` from the last byte of a lost hub
connection to the subscriptions of the next, and counters ``topstep.stream.*`` by hub.
"""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from topstep_sync.errors import MissingExtra
from topstep_sync.events import ConnectionEvent, Reconnected, StreamEvent
from topstep_sync.http.telemetry import AttemptEnded, Happening

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

SCOPE: Final = "topstep_sync"

# Seconds; the conventions' advice for http.client.request.duration.
BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class OpenTelemetry:
    """A listener that reports to OpenTelemetry.

    Args:
        tracer_provider: where spans go; None: the global one.
        meter_provider: where durations go; None: the global one.

    Raises:
        MissingExtra: opentelemetry-api is not installed.
    """

    def __init__(
        self, tracer_provider: "TracerProvider | None" = None, meter_provider: "MeterProvider | None" = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtra('OpenTelemetry needs its extra: pip install "topstep-sync[otel]"') from error
        self._trace = trace
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._states = meter.create_counter(
            "topstep.stream.states", description="How often a hub connection came into each state."
        )
        self._recovered = meter.create_counter(
            "topstep.stream.recovered", description="Events that a gap hid, and a snapshot told."
        )
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )

    def __call__(self, happening: Happening) -> None:
        """The attempt, gap or state of a hub, if it is one, is reported."""
        if isinstance(happening, StreamEvent):
            self._stream(happening)
        elif isinstance(happening, AttemptEnded):
            common = _common(happening)
            self._duration.record(happening.seconds, common)
            self._span(happening, common)

    def _stream(self, event: StreamEvent) -> None:
        hub = {"topstep.hub": event.source}
        if isinstance(event, ConnectionEvent):
            self._states.add(1, {**hub, "topstep.state": event.state})
        elif isinstance(event, Reconnected):
            self._recovered.add(event.recovered_count, hub)
            more = {"topstep.recovered": event.recovered_count, "topstep.lost": event.lost}
            attributes: dict[str, Any] = {**hub, **more, "topstep.reconciled": event.reconciled}
            span = self._tracer.start_span("gap", attributes=attributes, start_time=int(event.gap_start * 1e9))
            span.end(end_time=int(event.gap_end * 1e9))

    def _span(self, ended: AttemptEnded, common: dict[str, Any]) -> None:
        attributes = {**common, "url.full": ended.url.partition("?")[0]}
        if ended.attempt > 1:
            attributes["http.request.resend_count"] = ended.attempt - 1
        span = self._tracer.start_span(
            f"{ended.method} {ended.endpoint}",
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=int(ended.started * 1e9),
        )
        if "error.type" in common:
            span.set_status(self._trace.StatusCode.ERROR, str(ended.error) if ended.error else None)
        span.end(end_time=int((ended.started + ended.seconds) * 1e9))


def _common(ended: AttemptEnded) -> dict[str, Any]:
    """What spans and durations share; few values each, so that series stay few."""
    parts = urlsplit(ended.url)
    attributes: dict[str, Any] = {
        "http.request.method": ended.method,
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        "url.scheme": parts.scheme,
        "url.template": ended.endpoint,
    }
    if ended.status is not None:
        attributes["http.response.status_code"] = ended.status
        if ended.status >= 400:
            attributes["error.type"] = str(ended.status)
    if ended.error is not None:
        attributes["error.type"] = type(ended.error).__name__
    return attributes
