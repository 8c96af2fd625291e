"""The diffusion loss: noise, its target and min-SNR weights, as functions of tensors.

`B` of a batch. x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps with a_t = `alphas_cumprod`; SNR_t = a_t / (1 - a_t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler

from intaglio_train.errors import ConfigError

__all__ = [
    "NoiseSchedule",
    "add_noise",
    "diffusion_errors",
    "every_level",
    "loss_weights",
    "noise_schedule_of",
    "signal_and_sigma",
    "target_of",
]


@dataclass(frozen=True)
class NoiseSchedule:
    """`alphas_cumprod` [steps] in fp32 and what the model predicts ("epsilon" or "v_prediction")."""

    alphas: torch.Tensor
    prediction: str


def noise_schedule_of(scheduler: Any, device: torch.device) -> NoiseSchedule:
    """The training schedule that a model's (sampling) scheduler is configured with. Raises `ConfigError`."""
    training = DDPMScheduler.from_config(scheduler.config)  # type: ignore[no-untyped-call]
    prediction = training.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise ConfigError(f"the model predicts {prediction}; the trainers know epsilon and v_prediction")
    return NoiseSchedule(training.alphas_cumprod.to(device, torch.float32), prediction)


def every_level(schedule: NoiseSchedule) -> range:
    """All noise levels of `schedule`."""
    return range(len(schedule.alphas))


def signal_and_sigma(schedule: NoiseSchedule, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The roots of a_t and of 1 - a_t, each [B,1,1,1]."""
    alphas = schedule.alphas[times].view(-1, 1, 1, 1)
    return alphas.sqrt(), (1.0 - alphas).sqrt()


def add_noise(
    schedule: NoiseSchedule, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
) -> torch.Tensor:
    """x_t in fp32."""
    signal, sigma = signal_and_sigma(schedule, times)
    return signal * latents.float() + sigma * noise


def target_of(
    schedule: NoiseSchedule, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
) -> torch.Tensor:
    """What the model should predict: eps, or v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512)."""
    if schedule.prediction == "epsilon":
        return noise
    signal, sigma = signal_and_sigma(schedule, times)
    return signal * noise - sigma * latents.float()


def loss_weights(schedule: NoiseSchedule, times: torch.Tensor, gamma: float | None) -> torch.Tensor:
    """Min-SNR-gamma weights [B] (arXiv 2303.09556): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v;
    ones without gamma.
    """
    alphas = schedule.alphas[times]
    if gamma is None:
        return torch.ones_like(alphas)
    snr = alphas / (1.0 - alphas)
    clamped = snr.clamp(max=gamma)
    # At zero terminal SNR the ratio's limit is 1.
    return (
        clamped / (snr + 1.0)
        if schedule.prediction == "v_prediction"
        else torch.where(snr > 0, clamped / snr, torch.ones_like(snr))
    )


def diffusion_errors(predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted squared error of each image, averaged over its elements: [B] in fp32."""
    return (predicted.float() - target).square().mean(dim=(1, 2, 3)) * weights
