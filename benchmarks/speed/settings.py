"""Settings that compute less for the same picture, or for one as near to the converged picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["FEWER_STEPS", "MATCHED", "ONE_SLICE", "PREVIEWS", "SETTINGS", "SLICES", "STREAMED", "UNARY"]

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

UNARY: Final = "sdxl"
ONE_SLICE: Final = "one slice"
SLICES: Final = "slices of 5 steps"
PREVIEWS: Final = "slices of 5 steps, previews of 256 pixels"
STREAMED: Final[Mapping[str, Mapping[str, int]]] = {
    ONE_SLICE: {"slice_steps": 150},
    SLICES: {"slice_steps": 5},
    PREVIEWS: {"slice_steps": 5, "preview": 256},
}
"""Inputs of `sdxl_stream` by the name of the setting; no setting changes the picture."""
