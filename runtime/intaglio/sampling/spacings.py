"""Formulas that place steps: training times, or noise levels between two ends."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["AYS_TIMES", "ays_times", "beta_sigmas", "distilled_times", "exponential_sigmas", "karras_sigmas"]

Floats = NDArray[np.float64]

KARRAS_RHO: Final = 7.0
"""Exponent of the noise levels of Karras et al., arXiv 2206.00364, equation 5."""
BETA_SHAPE: Final = 0.6
"""Both parameters of the distribution in Lee et al., "Beta Sampling is All You Need", arXiv 2407.12173."""
AYS_TIMES: Final = (999, 845, 730, 587, 443, 310, 193, 116, 53, 13)
"""SDXL's ten steps of Sabour et al., "Align Your Steps", arXiv 2404.14507; diffusers has this table."""
_SERIES_TERMS: Final = 80
"""Terms of the incomplete beta function's series; at x = 1/2 the last is below 1e-24 of the first."""
_HALVINGS: Final = 60


def karras_sigmas(highest: float, lowest: float, steps: int, *, rho: float = KARRAS_RHO) -> Floats:
    """Even in a root of sigma, the seventh by default: arXiv 2206.00364, equation 5."""
    first = highest ** (1 / rho)
    last = lowest ** (1 / rho)
    sigmas: Floats = (first + np.linspace(0, 1, steps) * (last - first)) ** rho
    return sigmas


def exponential_sigmas(highest: float, lowest: float, steps: int) -> Floats:
    """Even in the log of sigma (k-diffusion, `get_sigmas_exponential`)."""
    sigmas: Floats = np.exp(np.linspace(np.log(highest), np.log(lowest), steps))
    return sigmas


def beta_sigmas(highest: float, lowest: float, steps: int) -> Floats:
    """Sigmas at even quantiles of the beta distribution: dense at both ends. arXiv 2407.12173.

    As in diffusers the quantiles are those of sigma; ComfyUI takes quantiles of the time.
    """
    sigmas: Floats = lowest + beta_quantiles(1 - np.linspace(0, 1, steps)) * (highest - lowest)
    return sigmas


def beta_quantiles(shares: Floats) -> Floats:
    """Quantiles of the symmetric beta distribution with `BETA_SHAPE`; scipy's `beta.ppf`, without scipy."""
    # The distribution is symmetric about 1/2, and the series converges fast below it.
    tail = np.minimum(shares, 1 - shares)
    low = np.zeros_like(tail)
    high = np.full_like(tail, 0.5)
    half = _incomplete_beta(np.array(0.5))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _incomplete_beta(middle) / half < 2 * tail
        low = np.where(below, middle, low)
        high = np.where(below, high, middle)
    quantiles = np.where(tail == 0, 0.0, (low + high) / 2)
    mirrored: Floats = np.where(shares <= 0.5, quantiles, 1 - quantiles)
    return mirrored


def _incomplete_beta(x: Floats) -> Floats:
    """Integral of t^(a-1) (1-t)^(a-1) from 0 to x <= 1/2, as its power series. DLMF 8.17.7."""
    total = np.zeros_like(x)
    coefficient = 1.0
    for term in range(_SERIES_TERMS):
        total = total + coefficient * x**term / (BETA_SHAPE + term)
        coefficient *= (1 - BETA_SHAPE + term) / (term + 1)
    return np.asarray(x**BETA_SHAPE * total, np.float64)


def ays_times(steps: int, training: NDArray[np.float32]) -> Floats:
    """[steps] times of Align Your Steps, not rounded; ten are SDXL's table.

    Other numbers interpolate the log of sigma between the table's levels, as its authors do. `training` are
    the sigmas of SDXL's betas.
    """
    knots = np.log(training[[*AYS_TIMES, 0]].astype(np.float64))
    wanted = np.interp(np.linspace(0, 1, steps + 1)[:-1], np.linspace(0, 1, len(knots)), knots)
    times: Floats = np.interp(wanted, np.log(training.astype(np.float64)), np.arange(len(training)))
    return times


def distilled_times(steps: int, *, original: int, training_times: int) -> Floats:
    """`steps` of the `original` times that a consistency model is distilled on, evenly by index."""
    distilled = np.arange(original, 0, -1) * (training_times // original) - 1
    indices = np.floor(np.linspace(0, original, steps, endpoint=False)).astype(np.int64)
    times: Floats = distilled[indices].astype(np.float64)
    return times
