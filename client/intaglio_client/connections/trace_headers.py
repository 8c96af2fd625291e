"""The headers that join a call to the application's own trace (W3C Trace Context)."""

# ruff: noqa: PLC0415  (only where the application has OpenTelemetry)

from __future__ import annotations

import sys
from collections.abc import Mapping

__all__ = ["TRACEPARENT", "trace_headers"]

TRACEPARENT = "traceparent"
_API = "opentelemetry.trace"
_SAMPLED = 1
"""The flag of W3C Trace Context."""


def trace_headers(given: Mapping[str, str]) -> dict[str, str]:
    """`traceparent`, and `tracestate` where there is one, of the span that is current in this thread or task.

    None where there is no span or one that is not sampled, where `given` has the header already, and in an
    application that has not imported OpenTelemetry: the client never imports it first.
    """
    if _API not in sys.modules or TRACEPARENT in given:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    # WAR: Triton 2.51 traces every request that has the header, also where its flags say that nobody records.
    is_sampled = TRACEPARENT in found and int(found[TRACEPARENT].rpartition("-")[2], 16) & _SAMPLED
    return found if is_sampled else {}
