"""Seconds by stage, which a picture's tensors carry from stage to stage."""

from __future__ import annotations

import time
from typing import Any

from intaglio.contract.ports import Tensors
from intaglio.errors import InvalidRequest
from intaglio.request.texts import read_json

__all__ = ["Clock", "read_timings"]

_ALLOWED = "a JSON object of seconds by stage"


class Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Give the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now


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
