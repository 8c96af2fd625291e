"""What is said of one request in one stage: lines of the log, and spans where the request is traced."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from typing import Any, Final

from intaglio.errors import DeadlineExceeded, TritonCode, single_line, triton_code_of
from intaglio.telemetry.event_log import EventLog, Level
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.telemetry.tracing import RequestSpans, SpanCounts, Tracing

__all__ = ["LONGEST_ID", "NOBODY", "Journal", "Telemetry"]

LONGEST_ID: Final = 128
"""Characters of a request's id in log and traces."""
_DROPPED_EVERY: Final = 60.0
"""Seconds between two lines about spans that no collector took."""


class Journal:
    """One request. Any thread may call any method; `ended` comes last."""

    def __init__(self, log: EventLog, request_id: str = "", spans: RequestSpans | None = None) -> None:
        self._log = log
        self._spans = spans
        self._began = time.perf_counter()
        self.request_id = request_id
        """As the caller gave it."""
        named = {} if spans is None else {"trace": spans.trace_id}
        self._named = {"request": single_line(request_id, limit=LONGEST_ID), **named}

    @property
    def traceparent(self) -> str | None:
        """What a stage that this one calls puts its spans below; None where the request is not traced."""
        return None if self._spans is None else self._spans.traceparent

    def tell(self, event: str, *, level: Level = "info", **fields: Any) -> None:
        """A line of the log."""
        self._log(level, event, **self._named, **fields)

    def waited(self, seconds: float) -> None:
        """Its turn has come, `seconds` after it was queued."""
        self.tell("begun", waited=round(seconds, 3))
        if self._spans is not None:
            now = time.perf_counter()
            self._spans.add("queue", now - seconds, now)

    def did(
        self, name: str, began: float, *, parts: Mapping[str, float] | None = None, **attributes: int
    ) -> None:
        """Something is over that began at `began` (`perf_counter`); `parts` of it took these seconds."""
        now = time.perf_counter()
        rounded = {part: round(seconds, 3) for part, seconds in (parts or {}).items()}
        self.tell(name, level="debug", took=round(now - began, 3), seconds=rounded, **attributes)
        if self._spans is not None:
            self._spans.add(name, began, now, parts=parts, attributes=attributes)

    def ended(
        self, error: BaseException | None = None, *, status: TritonCode | None = None, **fields: Any
    ) -> None:
        """It is over, well or with `error`, for which the caller gets `status`."""
        took = round(time.perf_counter() - self._began, 3)
        if error is None:
            self.tell("finished", took=took, **fields)
        else:
            status = status or triton_code_of(error)
            event, level = _ending(error, status)
            told = {"error": type(error).__name__, "status": status, "message": single_line(str(error))}
            self.tell(event, level=level, took=took, **told, **fields)
        if self._spans is not None:
            attributes = {"intaglio.error": type(error).__name__} if error is not None else {}
            problem = None if error is None else single_line(str(error))
            self._spans.end(problem=problem, attributes=attributes)


def _ending(error: BaseException, status: TritonCode) -> tuple[str, Level]:
    if status == "INTERNAL":
        return "failed", "error"
    if status == "CANCELLED":
        return ("late" if isinstance(error, DeadlineExceeded) else "cancelled"), "info"
    return "refused", "warning"


NOBODY: Final = Journal(EventLog(least="error", write=lambda line: None))
"""Of what no caller asked for; it says nothing."""


class Telemetry:
    """The log and the traces of one model instance, from its making to `close`."""

    def __init__(self, settings: TelemetrySettings, *, stage: str, instance: str = "") -> None:
        """Raises MissingExtra where traces are wanted and OpenTelemetry is not installed."""
        self.log = EventLog(stage=stage, instance=instance, format=settings.format, least=settings.level)
        self._said = -math.inf
        self._tracing: Tracing | None = None
        if settings.traces is not None:
            self._tracing = Tracing(settings.traces, stage=stage, dropped=self._dropped)

    @property
    def traces(self) -> bool:
        """Whether requests may have spans."""
        return self._tracing is not None

    @property
    def span_counts(self) -> SpanCounts:
        """What has become of the spans."""
        return SpanCounts() if self._tracing is None else self._tracing.counts

    def journal(self, request_id: str, traceparent: str | None) -> Journal:
        """Of a request that has just arrived; `traceparent` names the span that it belongs to."""
        spans = None
        if self._tracing is not None and traceparent is not None:
            named = {"intaglio.request_id": single_line(request_id, limit=LONGEST_ID)}
            spans = self._tracing.request(traceparent, named)
        return Journal(self.log, request_id, spans)

    def failure(self, request_id: str = "") -> None:
        """Log the traceback of the error that is being handled."""
        shown = single_line(request_id, limit=LONGEST_ID)  # it may be anything
        text = traceback.format_exc().rstrip()
        message = single_line(text.splitlines()[-1])
        self.log("error", "traceback", request=shown, message=message, traceback=text)

    def close(self) -> None:
        """Send the spans that wait."""
        if self._tracing is not None:
            self._tracing.close()

    def _dropped(self, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _DROPPED_EVERY:
            self._said = now
            self.log("warning", "spans_dropped", spans=total)
