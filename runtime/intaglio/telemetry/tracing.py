"""Spans of requests, sent to a collector by OpenTelemetry's own exporter (OTLP over HTTP).

Its packages, the extra `traces`, are imported only where a collector is named. Spans wait in a queue with a
bound; a thread sends them. So a collector that is slow or gone costs spans, never the time of a request.
"""

# ruff: noqa: PLC0415  (imported only where a collector is named)

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from intaglio.errors import MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Span

__all__ = ["RequestSpans", "SpanCounts", "Tracing"]

SERVICE: Final = "intaglio"
"""`service.name` of all spans, those of Triton too."""
_QUEUE: Final = 2048
"""Spans that wait to be sent. A picture of 30 steps in slices of 5 has about 30."""
_BATCH: Final = 256
_EVERY_MS: Final = 1000
_TIMEOUT_SECONDS: Final = 3.0
"""How long the exporter tries to send one batch."""
_CLOSE_SECONDS: Final = 2.0
"""How long the end of a process waits for what is not sent."""


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """Of this process, since its start."""

    ended: int = 0
    dropped: int = 0
    """Those that no collector took: the queue was full, or the collector did not answer."""


class Tracing:
    """Makes spans and sends them, from `open` to `close`."""

    def __init__(self, url: str, *, stage: str, dropped: Callable[[int], None]) -> None:
        """Send to `url`. `dropped` is called with the sum of dropped spans where that has grown.

        Raises:
            MissingExtra: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="traces") from error
        # What goes wrong with the collector is counted, and our own log says it.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self._count = _Count(dropped)
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_SECONDS)
        resource = Resource.create({"service.name": SERVICE})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._processor = _processor(self._exporter, self._count)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("intaglio")
        self._stage = stage

    @property
    def counts(self) -> SpanCounts:
        """What has become of the spans so far."""
        return self._count.now

    def request(self, traceparent: str, attributes: Mapping[str, Any]) -> RequestSpans | None:
        """Spans of a request that arrives now, below the span `traceparent` (W3C Trace Context).

        None where that names no span, or one that is not sampled.
        """
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        above = trace.get_current_span(context).get_span_context()
        if not above.is_valid or not above.trace_flags.sampled:
            return None
        started = time.time_ns()
        span = self._tracer.start_span(
            f"intaglio {self._stage}", context, attributes=dict(attributes), start_time=started
        )
        return RequestSpans(self._tracer, span, started)

    def close(self) -> None:
        """Send what waits, within seconds."""
        # Once the exporter is closed it gives up immediately. The processor alone would wait half a minute.
        giving_up = threading.Timer(_CLOSE_SECONDS, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class RequestSpans:
    """The span of one request in one stage, and those of its parts. Times are seconds of `perf_counter`."""

    def __init__(self, tracer: Any, span: Span, started: int) -> None:
        self._tracer = tracer
        self._span = span
        # A clock that is set while the request runs must not turn its spans around.
        self._offset = started - time.perf_counter_ns()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """What another stage puts its own spans below."""
        return f"00-{self.trace_id}-{self._span.get_span_context().span_id:016x}-01"

    def add(
        self,
        name: str,
        begin: float,
        end: float,
        *,
        parts: Mapping[str, float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """A part that is over. `parts` took these seconds of it, one after another from its beginning."""
        from opentelemetry import trace

        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span),
            attributes=dict(attributes or {}),
            start_time=self._wall(begin),
        )
        inside = trace.set_span_in_context(span)
        at = begin
        for part, seconds in (parts or {}).items():
            piece = self._tracer.start_span(part, inside, start_time=self._wall(at))
            at += seconds
            piece.end(self._wall(at))
        span.end(self._wall(end))

    def end(self, *, problem: str | None = None, attributes: Mapping[str, Any] | None = None) -> None:
        """The request is over in this stage; `problem` says why it failed."""
        from opentelemetry.trace import Status, StatusCode

        for name, value in (attributes or {}).items():
            self._span.set_attribute(name, value)
        if problem is not None:
            self._span.set_status(Status(StatusCode.ERROR, problem))
        self._span.end(self._wall(time.perf_counter()))

    def _wall(self, moment: float) -> int:
        """Nanoseconds since 1970."""
        return int(moment * 1e9) + self._offset


class _Count:
    """Spans that ended, that the exporter got, and that it could not send."""

    def __init__(self, dropped: Callable[[int], None]) -> None:
        self._lock = threading.Lock()
        self._dropped = dropped
        self._ended = self._given = self._unsent = self._crowded = 0

    @property
    def now(self) -> SpanCounts:
        with self._lock:
            return SpanCounts(self._ended, self._unsent + self._crowded)

    def span_ended(self) -> None:
        with self._lock:
            self._ended += 1
            # What was neither given to the exporter nor has a place in the queue is gone.
            waiting = self._ended - self._given - self._crowded
            self._crowded += max(waiting - _QUEUE, 0)

    def given(self, spans: int) -> None:
        with self._lock:
            self._given += spans

    def unsent(self, spans: int) -> None:
        with self._lock:
            self._unsent += spans
            total = self._unsent + self._crowded
        self._dropped(total)


def _processor(exporter: SpanExporter, count: _Count) -> BatchSpanProcessor:
    """OpenTelemetry's queue of spans, whose losses are counted."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Counted(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            count.given(len(spans))
            result = exporter.export(spans)
            if result is not SpanExportResult.SUCCESS:
                count.unsent(len(spans))
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    class Counting(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if span.context is not None and span.context.trace_flags.sampled:
                count.span_ended()
            super().on_end(span)

    return Counting(
        Counted(), max_queue_size=_QUEUE, schedule_delay_millis=_EVERY_MS, max_export_batch_size=_BATCH
    )
