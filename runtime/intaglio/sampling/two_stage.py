"""Solvers that call the model twice a step: Heun and DPM++ SDE. Each call is a row of the table.

The first call of a step has an even number. It keeps in `H1` and `H2` what the second call needs.
"""

from __future__ import annotations

import math

from intaglio.sampling.noise_levels import Level
from intaglio.sampling.rows import H1, H2, NOISE, Course, Row, X

__all__ = ["dpmpp_sde", "heun"]


def heun(course: Course, i: int) -> tuple[Row, ...]:
    """Euler, then the mean of the slopes at both ends. Karras et al., arXiv 2206.00364, algorithm 1.

    The last step is Euler's: at sigma 0 there is no slope. History: the x and the slope of the step's start.
    """
    slope = course.eps(i)
    if i % 2 == 0:
        stride = course.to(i).ratio - course.at(i).ratio
        return X + stride * slope, X, slope
    stride = course.to(i).ratio - course.at(i - 1).ratio
    return (H1 + stride / 2 * (H2 + slope),)


def dpmpp_sde(course: Course, i: int) -> tuple[Row, ...]:
    """DPM-Solver++ of order 2 with noise, at midpoint 1/2 (k-diffusion, `sample_dpmpp_sde`).

    The last step goes to sigma 0 by Euler. Both calls of a step see one Brownian path: the noise of the whole
    step contains that of its first half. History: the x of the step's start, and the noise of its first half.
    """
    denoised = course.denoised(i)
    if course.to(i).ratio == 0:
        return (denoised,)
    if i % 2 == 0:
        return _ancestral_step(course.at(i), course.to(i), X, denoised, NOISE), X, NOISE
    start, middle, end = course.at(i - 1), course.at(i), course.to(i)
    whole = start.ratio - end.ratio
    first_share = (start.ratio - middle.ratio) / whole
    noise = math.sqrt(first_share) * H2 + math.sqrt(1 - first_share) * NOISE
    return (_ancestral_step(start, end, H1, denoised, noise),)


def _ancestral_step(start: Level, end: Level, x: Row, denoised: Row, noise: Row) -> Row:
    """x moved from `start` to below `end` for a constant x0, then up with `noise`."""
    up = min(end.ratio, end.ratio * math.sqrt(max(start.ratio**2 - end.ratio**2, 0)) / start.ratio)
    down = math.sqrt(end.ratio**2 - up**2)
    shrink = down / start.ratio
    moved: Row = shrink * x + (1 - shrink) * denoised + up * noise
    return moved
