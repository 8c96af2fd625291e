"""A receiver of OTLP over HTTP, as a collector has one: it keeps the spans that come in both encodings of the
protocol.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["Span", "TraceReceiver"]

PATH = "/v1/traces"


@dataclass(frozen=True)
class Span:
    """A span as the receiver got it. Times are nanoseconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    service: str
    attributes: dict[str, Any]
    failed: bool = False
    events: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


class TraceReceiver:
    """Listens on a free port of this machine from `__enter__` to `__exit__`."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def wait_for(self, wanted: Callable[[Sequence[Span]], bool], *, seconds: float = 30.0) -> list[Span]:
        """All spans so far, once `wanted` holds of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self._spans), seconds), self._spans
            return list(self._spans)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        with self._changed:
            self._spans.extend(_spans_of(request))
            self._changed.notify_all()


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        named = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    service=named.get("service.name", ""),
                    attributes={one.key: _value(one.value) for one in span.attributes},
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    events=tuple(event.name for event in span.events),
                )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _request_from_json(body: bytes) -> ExportTraceServiceRequest:
    """OTLP writes ids as hexadecimal digits, where protobuf's own JSON has base64."""
    message = json.loads(body)
    for resource in message.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span.get(key, ""))).decode()
                span.pop("links", None)
    return json_format.ParseDict(message, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def _handler(take: Callable[[ExportTraceServiceRequest], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # else a connection that is open outlives `stop`

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            is_json = self.headers["content-type"].startswith("application/json")
            known = self.path == PATH
            if known:
                take(_request_from_json(body) if is_json else ExportTraceServiceRequest.FromString(body))
            answer = b"{}" if is_json else ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if known else 404)
            self.send_header("content-type", self.headers["content-type"])
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *values: object) -> None:
            """Nothing is printed."""

    return Handler
