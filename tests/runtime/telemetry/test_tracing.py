"""Spans reach a real receiver; a collector that is gone costs spans and nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from intaglio.telemetry import tracing
from intaglio.telemetry.tracing import RequestSpans, Tracing

from ...trace_receiver import TraceReceiver

ABOVE = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def gone() -> Iterator[str]:
    """The address of a collector whose connections are never accepted."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/traces"


def request(tracing: Tracing, traceparent: str = ABOVE) -> RequestSpans:
    found = tracing.request(traceparent, {"intaglio.request_id": "12ab"})
    assert found is not None
    return found


def test_a_request_is_one_tree_whose_times_add_up() -> None:
    with TraceReceiver() as receiver:
        tracing = Tracing(receiver.url, stage="diffuse", dropped=lambda total: None)
        spans = request(tracing)
        began = time.perf_counter()
        spans.add("slice", began, began + 0.75, parts={"text": 0.25, "denoise": 0.5}, attributes={"first": 0})
        spans.end(problem="late")
        tracing.close()
        found = {span.name: span for span in receiver.wait_for(lambda spans: len(spans) == 4)}
    root, piece, text, denoise = (found[name] for name in ("intaglio diffuse", "slice", "text", "denoise"))
    assert {span.trace for span in found.values()} == {"ab" * 16} == {spans.trace_id}
    assert (root.parent, piece.parent, text.parent, denoise.parent) == ("cd" * 8, root.id, piece.id, piece.id)
    assert spans.traceparent == f"00-{root.trace}-{root.id}-01"
    assert (text.start, text.end, denoise.end) == (piece.start, denoise.start, piece.end)
    assert [round(span.seconds, 3) for span in (piece, text, denoise)] == [0.75, 0.25, 0.5]
    assert (root.failed, root.attributes, root.service) == (True, {"intaglio.request_id": "12ab"}, "intaglio")
    assert tracing.counts.ended == 4
    assert tracing.counts.dropped == 0


@pytest.mark.parametrize(
    "above", ["", "nonsense", f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{'ab' * 16}-{'cd' * 8}-00"]
)
def test_without_a_sampled_span_above_there_is_none(above: str, gone: str) -> None:
    tracing = Tracing(gone, stage="diffuse", dropped=lambda total: None)
    assert tracing.request(above, {}) is None
    tracing.close()


def test_spans_that_nobody_takes_are_counted(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that found the queue full and those that could not be sent: all of them."""
    monkeypatch.setattr(tracing, "_QUEUE", 64)
    monkeypatch.setattr(tracing, "_BATCH", 32)
    monkeypatch.setattr(tracing, "_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(tracing, "_CLOSE_SECONDS", 0.2)
    said: list[int] = []
    made = Tracing(gone, stage="diffuse", dropped=said.append)
    for _ in range(1000):
        request(made).end()
    made.close()
    assert made.counts.ended == 1000
    assert made.counts.dropped == 1000
    assert said == sorted(said)
    assert said[-1] == 1000
