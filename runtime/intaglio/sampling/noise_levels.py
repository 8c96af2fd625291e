"""Noise levels of the training times, and the time of a noise level.

A level is a noise-to-signal ratio, sigma in x = x0 + sigma eps. Values are rounded to float32 where torch
rounds them: 1 - alpha_0 is 8.5e-4, so a float64 schedule would differ by 4e-5 at the last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.sampling.scheduler_config import SchedulerConfig

__all__ = ["Level", "times_of_sigmas", "training_sigmas"]

_LEAST_SIGNAL: Final = np.float32(2**-24)
"""alpha^2 that diffusers gives the last training time of a model with zero terminal SNR."""


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level in its three usual forms."""

    ratio: float
    """sigma / alpha: 0 is a finished image, infinity is pure noise."""

    @property
    def alpha(self) -> float:
        """Factor of the image where alpha^2 + sigma^2 = 1."""
        return 1 / math.hypot(self.ratio, 1)

    @property
    def sigma(self) -> float:
        """Factor of the noise where alpha^2 + sigma^2 = 1."""
        return 1.0 if math.isinf(self.ratio) else self.ratio * self.alpha

    @property
    def log_snr(self) -> float:
        """Half the log signal-to-noise ratio, lambda in the DPM-Solver papers; infinite at ratio 0."""
        return -math.log(self.ratio) if self.ratio > 0 else math.inf


def training_sigmas(config: SchedulerConfig, *, floor: bool = True) -> NDArray[np.float32]:
    """[num_train_timesteps] sigmas of the scaled-linear betas, increasing.

    The last one is infinite where the model was trained with zero terminal SNR. With `floor` it is that of
    alpha^2 = 2^-24, as in those of diffusers' schedulers that divide by alpha.
    """
    start = np.float32(math.sqrt(config.beta_start))
    end = np.float32(math.sqrt(config.beta_end))
    stride = (end - start) / np.float32(config.num_train_timesteps - 1)
    index = np.arange(config.num_train_timesteps, dtype=np.float32)
    # torch.linspace counts from the nearer end.
    roots = np.where(
        index < config.num_train_timesteps // 2, start + stride * index, end - stride * index[::-1]
    )
    products = _cumulative(np.float32(1) - roots * roots)
    if config.rescale_betas_zero_snr:
        products = _without_terminal_signal(products)
        if floor:
            products[-1] = _LEAST_SIGNAL
    with np.errstate(divide="ignore"):
        sigmas: NDArray[np.float32] = np.sqrt((np.float32(1) - products) / products)
    return sigmas


def _without_terminal_signal(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """alpha^2 shifted and scaled so that the last is 0 and the first stays: arXiv 2305.08891, algorithm 1."""
    roots = np.sqrt(products)
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    squares = roots * roots
    # Through the betas and back, because diffusers rounds there.
    alphas = np.concatenate([squares[:1], squares[1:] / squares[:-1]])
    betas = np.float32(1) - alphas
    return _cumulative(np.float32(1) - betas)


def _cumulative(alphas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of alphas; torch adds up in double precision, too."""
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def times_of_sigmas(sigmas: NDArray[np.float64], training: NDArray[np.float32]) -> NDArray[np.float64]:
    """Times between training times, linear in the log of sigma (diffusers' `_sigma_to_t`).

    The arithmetic is float32, as diffusers' is with numpy 1: some of its schedulers cut these times to whole
    ones, and in float64 the largest sigma would come out just below the last training time.
    """
    logs = np.log(training)
    log_sigmas = np.log(np.maximum(sigmas, 1e-10)).astype(np.float32)
    low_index = (np.searchsorted(logs, log_sigmas, side="right") - 1).clip(0, len(logs) - 2)
    low, high = logs[low_index], logs[low_index + 1]
    share = np.clip((low - log_sigmas) / (low - high), 0, 1)
    times: NDArray[np.float64] = (1 - share) * low_index + share * (low_index + 1)
    return times
