"""A row of figures for every setting, and the front of seconds against distance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from intaglio_client.tune.judges import check_paired
from intaglio_client.tune.pairs import (
    Figure,
    mean_figure,
    median_figure,
    paired_difference,
)
from intaglio_client.tune.settings import Setting

__all__ = ["Row", "SceneFigures", "error_change", "front", "row_of"]


@dataclass(frozen=True)
class SceneFigures:
    """One picture of one scene."""

    seconds: float
    baseline_seconds: float
    """Of the baseline's picture of the scene in the same run."""
    psnr: float
    """dB to the scene's reference."""
    ssim: float
    perceptual: float | None = None
    """0 for equal pictures; None where no extractor was given."""
    judged: Mapping[str, float] = field(default_factory=dict)
    """What a judge says of the picture."""

    @property
    def error(self) -> float:
        """Root mean square of the difference to the reference, in levels of 255: what PSNR is the logarithm
        of.
        """
        return 255.0 * math.pow(10.0, -self.psnr / 20)


@dataclass(frozen=True)
class Row:
    """A setting over all scenes."""

    setting: Setting
    seconds: Figure
    ratio: Figure
    """Seconds over those of the baseline."""
    psnr: Figure
    psnr_gain: Figure
    """PSNR minus the baseline's, scene by scene: above 0 is nearer to the reference."""
    error: Figure
    """Levels of 255."""
    error_change: Figure
    """The error minus the baseline's, scene by scene: below 0 is nearer to the reference."""
    ssim: Figure
    perceptual: Figure | None
    judged: Mapping[str, Figure]
    judged_gain: Mapping[str, Figure]
    scenes: Sequence[SceneFigures]


def row_of(
    setting: Setting, scenes: Sequence[SceneFigures], baseline: Sequence[SceneFigures], *, ratio: Figure
) -> Row:
    """The row of `setting`; `baseline` has the same scenes in the same order.

    Raises:
        ConfigError: a judge gives the two pictures of a scene different figures.
    """
    for one, other in zip(scenes, baseline, strict=True):
        check_paired(one.judged, other.judged)
    judged = _judged(scenes)
    before = _judged(baseline)
    perceptual = [one.perceptual for one in scenes if one.perceptual is not None]
    return Row(
        setting=setting,
        seconds=median_figure([one.seconds for one in scenes]),
        ratio=ratio,
        psnr=mean_figure([one.psnr for one in scenes]),
        psnr_gain=paired_difference([one.psnr for one in scenes], [one.psnr for one in baseline]),
        error=mean_figure([one.error for one in scenes]),
        error_change=error_change(scenes, baseline),
        ssim=mean_figure([one.ssim for one in scenes]),
        perceptual=mean_figure(perceptual) if perceptual else None,
        judged={name: mean_figure(values) for name, values in judged.items()},
        judged_gain={name: paired_difference(values, before[name]) for name, values in judged.items()},
        scenes=tuple(scenes),
    )


def error_change(
    scenes: Sequence[SceneFigures], others: Sequence[SceneFigures], *, times: float = 1.0
) -> Figure:
    """The errors of `scenes` minus `times` those of `others`, scene by scene."""
    return paired_difference([one.error for one in scenes], [times * one.error for one in others])


def _judged(scenes: Sequence[SceneFigures]) -> dict[str, list[float]]:
    """Every figure, over the scenes that the judge gives it for: two at least."""
    found: dict[str, list[float]] = {}
    for one in scenes:
        for name, value in one.judged.items():
            found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if len(values) >= 2}


def front(rows: Iterable[Row]) -> list[Row]:
    """The Pareto front, cheapest first: rows to which no other is both as cheap and as near to the reference.

    Rows that are listed apart do not count.
    """
    ranked = sorted(
        (row for row in rows if not row.setting.apart),
        key=lambda row: (row.ratio.value, -row.psnr.value),
    )
    found: list[Row] = []
    for row in ranked:
        if not found or row.psnr.value > found[-1].psnr.value:
            found.append(row)
    return found
