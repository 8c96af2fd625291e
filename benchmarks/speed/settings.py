"""Settings that compute less for the same picture, or for one as near to the converged picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["FEWER_STEPS", "MATCHED", "SETTINGS"]

FEWER_STEPS: Final[Mapping[str, Any]] = {"scheduler": "dpmpp_2m_karras", "steps": 15}
"""About as near to the converged picture as 30 Euler steps: docs/tuning.md."""
MATCHED: Final = "fewer steps, ControlNet every 2nd"
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "the case": {},
    "ControlNet every 2nd step": {"control_every": 2},
    "ControlNet every 3rd step": {"control_every": 3},
    "fewer steps": FEWER_STEPS,
    MATCHED: {**FEWER_STEPS, "control_every": 2},
}
