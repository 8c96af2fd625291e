"""A call belongs to the application's trace, and costs nothing where it has none."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from intaglio_client.connections.channels import ChannelSettings
from intaglio_client.connections.trace_headers import trace_headers


def test_the_current_span_is_named() -> None:
    tracer = TracerProvider().get_tracer("application")
    assert trace_headers({}) == {}, "there is no span"
    with tracer.start_as_current_span("a job") as span:
        context = span.get_span_context()
        expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert trace_headers({}) == {"traceparent": expected}
        settings = ChannelSettings(headers={"x-team": "films"})
        assert settings.metadata == (("x-team", "films"), ("traceparent", expected))


def test_a_span_that_nobody_records_is_not_named() -> None:
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("application")
    with tracer.start_as_current_span("a job") as span:
        assert span.get_span_context().is_valid
        assert trace_headers({}) == {}


def test_a_header_of_the_caller_stays() -> None:
    given = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    with TracerProvider().get_tracer("application").start_as_current_span("a job"):
        assert ChannelSettings(headers=given).metadata == tuple(given.items())


def test_the_client_alone_imports_no_opentelemetry() -> None:
    code = """
import sys
import intaglio_client
from intaglio_client.connections.channels import ChannelSettings
ChannelSettings().metadata
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
