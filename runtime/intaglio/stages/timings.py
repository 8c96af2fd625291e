"""Seconds by stage, which a picture's tensors carry from stage to stage."""

from __future__ import annotations

from typing import Any

from intaglio.contract.ports import Tensors
from intaglio.errors import InvalidRequest
from intaglio.request.texts import read_json

__all__ = ["read_timings"]

_ALLOWED = "a JSON object of seconds by stage"


def read_timings(found: Tensors) -> dict[str, float]:
    """The seconds in the tensor `timings`; none where it is absent or blank.

    Raises:
        InvalidRequest: it is something else.
    """
    value: Any = read_json(found, "timings", allowed=_ALLOWED) if "timings" in found else None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(map(_is_seconds, value.values())):
        raise InvalidRequest("timings", "something else", allowed=_ALLOWED)
    return value


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
