"""Rows of settings from seconds and distances that a test states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from intaglio_client.tune.grid import BASELINE, CONVERGED, FAMILIAR
from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import Row, SceneFigures, row_of
from intaglio_client.tune.settings import Setting, named_setting

BASELINE_SECONDS = 10.0


def figures(seconds: float, psnr: Sequence[float], **judged: float) -> list[SceneFigures]:
    """One picture a value of `psnr`, each of the same seconds."""
    return [SceneFigures(seconds, BASELINE_SECONDS, one, 0.9, judged=judged) for one in psnr]


def row(setting: Setting, seconds: float, psnr: Sequence[float], **judged: float) -> Row:
    """A row beside a baseline of 34 dB in every scene."""
    baseline = figures(BASELINE_SECONDS, [34.0] * len(psnr), **dict.fromkeys(judged, 0.5))
    ratio = Figure(seconds / BASELINE_SECONDS, 0.0, len(psnr))
    return row_of(setting, figures(seconds, psnr, **judged), baseline, ratio=ratio)


def setting(steps: int, scheduler: str = "dpmpp_2m_karras", **others: Any) -> Setting:
    return named_setting({"scheduler": scheduler, "steps": steps, **others})


def anchors(scenes: int = 2) -> list[Row]:
    """The anchors: 34, 48 and 55 dB, at 1, 1 and 2 times the baseline's seconds."""
    return [
        row(BASELINE, 10.0, [34.0] * scenes),
        row(FAMILIAR, 10.0, [48.0] * scenes),
        row(CONVERGED, 20.0, [55.0] * scenes),
    ]
