"""Where the steps of a trajectory lie: timesteps and sigmas, as diffusers 0.36's schedulers place them.

Axes: `n` solver steps. A sigma is a noise-to-signal ratio: x = x0 + sigma eps. A schedule is computed in
float64 from training sigmas in float32, which is where torch rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig

__all__ = [
    "Schedule",
    "ddim_schedule",
    "euler_schedule",
    "karras_schedule",
    "lcm_schedule",
    "unipc_schedule",
]

KARRAS_RHO: Final = 7.0
"""Exponent of the noise levels of Karras et al., arXiv 2206.00364, equation 5."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a solver goes: model times and noise levels, highest first.

    `timesteps` is [n]. `sigmas` is [n + 1]; the last one is where the trajectory ends: 0, or the sigma of
    DDIM's final alpha. `begin` is the first step taken.
    """

    timesteps: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    begin: int

    def alpha_sigma(self, i: int) -> tuple[float, float]:
        """Variance-preserving signal and noise levels at step i: alpha^2 + sigma^2 = 1."""
        alpha = 1 / math.sqrt(self.sigmas[i] ** 2 + 1)
        return alpha, float(self.sigmas[i]) * alpha

    def log_snr(self, i: int) -> float:
        """Half the log signal-to-noise ratio, lambda in the DPM-Solver papers; infinite at the end."""
        return -math.log(self.sigmas[i]) if self.sigmas[i] > 0 else math.inf


def euler_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """`steps` times over the training times; sigma 0 after the last."""
    times = _spaced_times(config, steps, steps)
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def ddim_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """Euler's times, but the trajectory ends one stride (`num_train_timesteps // steps`) after the last time.

    Where that is before the first training time it ends at alpha_0, or at sigma 0 with `set_alpha_to_one`.
    """
    times = _spaced_times(config, steps, steps)
    sigmas = _training_sigmas(config)
    after = times[-1] - config.num_train_timesteps // steps
    end = float(sigmas[max(after, 0)]) if after >= 0 or not config.set_alpha_to_one else 0.0
    return Schedule(times.astype(np.float64), np.append(sigmas[times], end), begin)


def unipc_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """Leading spacing as for one step more, so that the largest time is close to the last training time."""
    times = _spaced_times(config, steps, steps + 1)
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def karras_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """Noise levels of arXiv 2206.00364, equation 5, over the whole training range.

    Times are the nearest training times.
    """
    training = _training_sigmas(config)
    first = float(training[-1]) ** (1 / KARRAS_RHO)
    last = float(training[0]) ** (1 / KARRAS_RHO)
    sigmas = (first + np.linspace(0, 1, steps) * (last - first)) ** KARRAS_RHO
    times = np.interp(np.log(sigmas), np.log(training), np.arange(len(training))).round()
    return _schedule_at(config, times, sigmas, begin)


def lcm_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """`steps` of the 50 times that consistency models are distilled on, evenly by index."""
    distilled = np.arange(LCM_ORIGINAL_STEPS, 0, -1) * (config.num_train_timesteps // LCM_ORIGINAL_STEPS) - 1
    times = distilled[np.floor(np.linspace(0, LCM_ORIGINAL_STEPS, steps, endpoint=False)).astype(np.int64)]
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def _schedule_at(config: SchedulerConfig, times: NDArray[Any], sigmas: NDArray[Any], begin: int) -> Schedule:
    """Schedule with sigma 0 after the last step; the levels are float32 as diffusers keeps them."""
    return Schedule(
        times.astype(np.float64), np.append(sigmas, 0).astype(np.float32).astype(np.float64), begin
    )


def _spaced_times(config: SchedulerConfig, steps: int, divisions: int) -> NDArray[np.int64]:
    """`steps` integer training times, latest first. Lin et al., arXiv 2305.08891, table 2."""
    if config.timestep_spacing == "trailing":
        ends = np.round(config.num_train_timesteps - np.arange(steps) * (config.num_train_timesteps / steps))
        trailing: NDArray[np.int64] = ends.astype(np.int64) - 1
        return trailing
    index = np.arange(divisions - 1, divisions - 1 - steps, -1, dtype=np.int64)
    times: NDArray[np.int64] = index * (config.num_train_timesteps // divisions) + config.steps_offset
    return times


def _training_sigmas(config: SchedulerConfig) -> NDArray[np.float32]:
    """[num_train_timesteps] sigmas of the scaled-linear betas, increasing.

    Rounded to float32 where torch rounds: 1 - alpha_0 is 8.5e-4, so a float64 schedule would differ by 4e-5
    at the last step.
    """
    start = np.float32(math.sqrt(config.beta_start))
    end = np.float32(math.sqrt(config.beta_end))
    stride = (end - start) / np.float32(config.num_train_timesteps - 1)
    index = np.arange(config.num_train_timesteps, dtype=np.float32)
    # torch.linspace counts from the nearer end.
    roots = np.where(
        index < config.num_train_timesteps // 2, start + stride * index, end - stride * index[::-1]
    )
    alphas = np.float32(1) - roots * roots
    products: NDArray[np.float32] = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
    sigmas: NDArray[np.float32] = np.sqrt((np.float32(1) - products) / products)
    return sigmas
