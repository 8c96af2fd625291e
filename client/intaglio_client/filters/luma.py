"""Filters of what can be measured at a picture's luma: nothing there, too dark or bright, blurred."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.filters import BlankFilter, ExposureFilter, SharpnessFilter
from intaglio.imaging.measures import SMALLEST_SIDE, luma_of, sharpness_of
from intaglio_client.filters.verdict import Candidate, Verdict

__all__ = ["Blank", "Exposure", "Sharpness", "verdict_within"]

_BLACK: Final = 2.0
_WHITE: Final = 253.0
_LEVELS_BITS: Final = 5
"""Bits of a channel in which pixels count as one colour: the VAE's noise lies below."""


def verdict_within(
    name: str, value: float, least: float | None, most: float | None, scores: dict[str, Any]
) -> Verdict:
    """Accepted where `value` lies within the bounds; the reason names it `name`."""
    if least is not None and value < least:
        return Verdict(False, f"{name} {value:.4g} is below {least:g}", scores)
    if most is not None and value > most:
        return Verdict(False, f"{name} {value:.4g} is above {most:g}", scores)
    return Verdict(True, "", scores)


class Blank:
    """Rejects pictures that show nothing."""

    def __init__(self, spec: BlankFilter) -> None:
        self.name = spec.name
        self._spec = spec

    def __call__(self, candidate: Candidate) -> Verdict:
        contrast = float(luma_of(candidate.pixels).std()) / 255
        share = _share_of_one_colour(candidate.pixels)
        scores = {"contrast": round(contrast, 6), "one_colour": round(share, 6)}
        within = verdict_within("contrast", contrast, self._spec.least_contrast, None, scores)
        if not within.accepted:
            return within
        return verdict_within("share of one colour", share, None, self._spec.most_of_one_colour, scores)


def _share_of_one_colour(pixels: NDArray[np.uint8]) -> float:
    shift = 8 - _LEVELS_BITS
    levels = (pixels >> shift).astype(np.int32)
    codes = (levels[..., 0] << 2 * _LEVELS_BITS) | (levels[..., 1] << _LEVELS_BITS) | levels[..., 2]
    return float(np.bincount(codes.ravel()).max()) / codes.size


class Exposure:
    """Rejects pictures that are too dark, too bright or clipped."""

    def __init__(self, spec: ExposureFilter) -> None:
        self.name = spec.name
        self._spec = spec

    def __call__(self, candidate: Candidate) -> Verdict:
        luma = luma_of(candidate.pixels)
        mean = float(luma.mean()) / 255
        black, white = float((luma <= _BLACK).mean()), float((luma >= _WHITE).mean())
        scores = {"mean": round(mean, 6), "black": round(black, 6), "white": round(white, 6)}
        spec = self._spec
        bounds = (
            ("mean luma", mean, spec.least, spec.most),
            ("share of black", black, None, spec.most_black),
            ("share of white", white, None, spec.most_white),
        )
        verdicts = [verdict_within(name, value, least, most, scores) for name, value, least, most in bounds]
        return next((one for one in verdicts if not one.accepted), verdicts[0])


class Sharpness:
    """Rejects pictures that are blurred, or noisy."""

    def __init__(self, spec: SharpnessFilter) -> None:
        self.name = spec.name
        self._spec = spec

    def __call__(self, candidate: Candidate) -> Verdict:
        height, width = candidate.pixels.shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            return Verdict(False, f"{width}x{height} pixels are too few to judge")
        value = sharpness_of(candidate.pixels)
        scores = {"variance": round(value, 3)}
        return verdict_within("variance", value, self._spec.least, self._spec.most, scores)
