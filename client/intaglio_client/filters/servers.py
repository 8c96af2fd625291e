"""Servers that filters may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from intaglio_client.asking import Settings

__all__ = ["FilterServers"]


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class FilterServers:
    """Servers that a filter may ask, where its work is done by a model of theirs."""

    urls: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    patience: float = 0.0
    """Seconds for which a filter asks again while none of them can be reached."""
    stopped: Callable[[], bool] = _never
    """Whether it shall wait no longer."""
