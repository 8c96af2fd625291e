"""Which span a request belongs to, and how a model tells the models that it calls.

Triton gives each request that it traces a span of its own, also those of an ensemble's stages. A request of
one model to another (business logic scripting) has none: it brings the calling stage's span as a parameter.
Handing over Triton's own trace would need the caller's request, which `sdxl_stream` has given back by then.
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["call_context", "traceparent_of"]

_TRACEPARENT: Final = "traceparent"
"""The header of W3C Trace Context, in Triton's context and as a parameter of a call."""


def traceparent_of(request: Any) -> str | None:
    """The span that `request` of Triton's Python backend belongs to; None where it is not traced."""
    for text in (request.trace().get_context(), request.parameters()):
        try:
            found = json.loads(text) if text else {}
        except ValueError:  # what a caller sends beside its request may spoil its trace, and nothing else
            continue
        if isinstance(found, dict) and isinstance(found.get(_TRACEPARENT), str):
            return str(found[_TRACEPARENT])
    return None


def call_context(traceparent: str | None) -> dict[str, Any]:
    """What a call needs further so that it belongs to the span `traceparent`."""
    return {} if traceparent is None else {"parameters": {_TRACEPARENT: traceparent}}
