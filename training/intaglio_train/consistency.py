"""Latent consistency models (arXiv 2310.04378) as functions of tensors: teacher's steps, boundary, error.

A consistency function f(x_t, t) answers with the clean latents that the teacher's trajectory through x_t ends
at. It is trained to answer alike at both ends of each of the teacher's DDIM steps, t -> s. `B` of a batch;
x_t = signal_t x_0 + sigma_t eps, as in `loss`.
"""

from __future__ import annotations

from typing import Final

import torch

from intaglio_train.errors import ConfigError
from intaglio_train.loss import NoiseSchedule, signal_and_sigma

__all__ = [
    "SIGMA_DATA",
    "TIME_SCALING",
    "consistent",
    "ddim_step",
    "denoised_and_noise",
    "end_times",
    "guided",
    "huber_errors",
    "teacher_times",
]

SIGMA_DATA: Final = 0.5
TIME_SCALING: Final = 10.0
"""Solvers have this value too (`timestep_scaling` of diffusers' LCMScheduler), so no run may change it."""


def teacher_times(count: int, schedule: NoiseSchedule) -> range:
    """Where the teacher's `count` steps through the noise levels of `schedule` begin, in ascending order.

    50 steps through 1000 levels begin at 19, 39, ..., 999: the times of diffusers' LCMScheduler. The range's
    step is the length of the teacher's steps.

    Raises:
        ConfigError: `count` does not divide the levels, so that the noisiest would be left out; or the
            teacher cannot step from the noisiest one.
    """
    levels = len(schedule.alphas)
    if count > levels:
        raise ConfigError(
            f"teacher_steps {count}: the model has {levels} noise levels; give at most {levels}"
        )
    if levels % count:
        below, above = _nearest_divisors(levels, count)
        raise ConfigError(
            f"teacher_steps {count}: does not divide the model's {levels} noise levels;"
            f" give {below} or {above}"
        )
    if schedule.prediction == "epsilon" and schedule.alphas[-1] == 0:
        raise ConfigError(
            "lcm: the model predicts noise and its schedule ends at zero SNR (rescale_betas_zero_snr), where"
            " no picture follows from the noise; take a model that predicts v, or a schedule without it"
        )
    length = levels // count
    return range(length - 1, levels, length)


def _nearest_divisors(number: int, count: int) -> tuple[int, int]:
    """The divisors of `number` next below and next above `count`, which is smaller and is none."""
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    above = next(divisor for divisor in divisors if divisor > count)
    return divisors[divisors.index(above) - 1], above


def end_times(starts: torch.Tensor, length: int) -> torch.Tensor:
    """Where steps of `length` levels end that begin at `starts`. The cleanest step ends at time 0."""
    return (starts - length).clamp(min=0)


def denoised_and_noise(
    schedule: NoiseSchedule, noisy: torch.Tensor, times: torch.Tensor, predicted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x_0, eps) [B,C,h,w] that a prediction of eps, or of v = signal eps - sigma x_0, means at x_t."""
    signal, sigma = signal_and_sigma(schedule, times)
    noisy = noisy.float()
    predicted = predicted.float()
    if schedule.prediction == "epsilon":
        return (noisy - sigma * predicted) / signal, predicted
    return signal * noisy - sigma * predicted, signal * predicted + sigma * noisy


def guided(
    conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scales: torch.Tensor
) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598) with a scale [B] for each image. 1 is no guidance.

    The paper's w, which diffusers' `w_min` and `w_max` name, is the scale less 1.
    """
    return unconditional + guidance_scales.view(-1, 1, 1, 1) * (conditional - unconditional)


def ddim_step(
    schedule: NoiseSchedule, denoised: torch.Tensor, noise: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """x_s from the x_0 and eps that were found at x_t (arXiv 2010.02502, without noise)."""
    signal, sigma = signal_and_sigma(schedule, ends)
    return signal * denoised + sigma * noise


def consistent(noisy: torch.Tensor, times: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """f(x_t, t) = c_skip(t) x_t + c_out(t) x_0, which at t = 0 is x_t itself, whatever the network says.

    With u = TIME_SCALING t and d = SIGMA_DATA: c_skip = d^2 / (u^2 + d^2), c_out = u / sqrt(u^2 + d^2).
    """
    scaled = TIME_SCALING * times.to(torch.float32).view(-1, 1, 1, 1)
    squares = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / squares * noisy.float() + scaled / squares.sqrt() * denoised


def huber_errors(answered: torch.Tensor, target: torch.Tensor, c: float) -> torch.Tensor:
    """Pseudo-Huber error of each image (arXiv 2310.14189), averaged over its elements: [B] in fp32.

    sqrt(d^2 + c^2) - c of a difference d: about |d| where |d| is much larger than c, and d^2 / 2c below.
    """
    difference = answered.float() - target.float()
    return ((difference.square() + c**2).sqrt() - c).mean(dim=(1, 2, 3))
