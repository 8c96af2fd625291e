"""The error of a latent consistency distillation: the teacher steps, the LoRA answers at both ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from intaglio_train.conditioning import Conditions
from intaglio_train.consistency import (
    consistent,
    ddim_step,
    denoised_and_noise,
    end_times,
    guided,
    huber_errors,
    teacher_times,
)
from intaglio_train.lcm_config import LcmConfig
from intaglio_train.session import Example, Session

__all__ = ["ConsistencyErrors", "without_adapters"]


@contextmanager
def without_adapters(network: torch.nn.Module) -> Iterator[None]:
    """`network` as it was before adapters were added to it."""
    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class ConsistencyErrors:
    """How differently the UNet with its LoRA answers at the two ends of a step of the teacher.

    The teacher is the same UNet without the LoRA, with guidance. The answer at the cleaner end is the target
    and gets no gradient; a separate, averaged target network is not needed for a LoRA.
    """

    def __init__(self, session: Session, config: LcmConfig) -> None:
        self._session = session
        self._config = config
        self._step = teacher_times(config.teacher_steps, session.schedule).step

    def __call__(self, example: Example) -> torch.Tensor:
        """The error [B] of each image."""
        ends = end_times(example.times, self._step)
        with torch.no_grad():
            target = self._answer(self._cleaner(example, ends), ends, example.conditions)
        return huber_errors(
            self._answer(example.noisy, example.times, example.conditions), target, self._config.huber_c
        )

    def _cleaner(self, example: Example, ends: torch.Tensor) -> torch.Tensor:
        """Where the teacher's step leads, in fp32."""
        session = self._session
        smallest, largest = self._config.guidance_range
        scales = smallest + (largest - smallest) * example.shares
        conditional = example.conditions
        unconditional = session.unconditional(conditional)
        with without_adapters(session.base.unet):
            predicted = guided(
                self._predict(example.noisy, example.times, conditional),
                self._predict(example.noisy, example.times, unconditional),
                scales,
            )
        denoised, noise = denoised_and_noise(session.schedule, example.noisy, example.times, predicted)
        return ddim_step(session.schedule, denoised, noise, ends)

    def _answer(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """f(x_t, t) in fp32."""
        predicted = self._predict(noisy, times, conditions)
        denoised, _ = denoised_and_noise(self._session.schedule, noisy, times, predicted)
        return consistent(noisy, times, denoised)

    def _predict(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Conditions) -> Any:
        session = self._session
        return session.predict(noisy.to(session.base.dtype), times, conditions).float()
