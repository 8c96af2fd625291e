"""Which span a request names."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.triton_models.trace_context import traceparent_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMED = json.dumps({"traceparent": PARENT, "tracestate": "a=b"})


def request(context: str, parameters: str) -> Any:
    """As Triton's Python backend has it."""
    trace = SimpleNamespace(get_context=lambda: context)
    return SimpleNamespace(trace=lambda: trace, parameters=lambda: parameters)


@pytest.mark.parametrize(
    ("context", "parameters", "right"),
    [
        (NAMED, "", PARENT),
        ("", NAMED, PARENT),
        ("{}", NAMED, PARENT),
        ("", "", None),
        ('{"traceparent": 1}', "[]", None),
        ('{"traceparent": "\n', NAMED, PARENT),
        ("", "not JSON", None),
    ],
)
def test_what_names_no_span_fails_no_request(context: str, parameters: str, right: str | None) -> None:
    assert traceparent_of(request(context, parameters)) == right
