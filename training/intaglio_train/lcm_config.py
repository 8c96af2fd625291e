"""The configuration of a latent consistency distillation: a LoRA's keys, and those of the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from intaglio_train.config import LoraConfig, SampleConfig, config_from_yaml
from intaglio_train.config_values import Positive, Probability

__all__ = ["LcmConfig", "LcmSampleConfig", "lcm_config_from_yaml"]

Scale = Annotated[float, Field(ge=1)]


class LcmSampleConfig(SampleConfig):
    """Pictures made during training as the LoRA is meant to be used: few steps of an LCM solver."""

    # At most the `original_inference_steps` of diffusers' LCMScheduler.
    steps: Annotated[int, Field(ge=1, le=50)] = 4
    guidance_scale: float = 1.0


class LcmConfig(LoraConfig):
    """A LoRA that makes few steps enough (LCM-LoRA, arXiv 2311.05556).

    The teacher is the model without the LoRA, so nothing but the LoRA is added to memory.
    """

    method: ClassVar[str | None] = "lcm"
    usage_hint: ClassVar[str | None] = "4 to 8 steps of an LCM solver, guidance scale 1 (off) to 2"

    teacher_steps: Positive = 50
    teacher_guidance: Scale | tuple[Scale, Scale] = 8.0  # a pair: each image draws a scale between both
    huber_c: Annotated[float, Field(gt=0)] = 1e-3
    caption_dropout: Probability = 0.0
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    samples: LcmSampleConfig | None = None

    @model_validator(mode="after")
    def _only_what_a_distillation_reads(self) -> LcmConfig:
        if self.train_text_encoders:
            raise ValueError("train_text_encoders: lcm trains the UNet only; leave it out")
        if self.min_snr_gamma is not None:
            raise ValueError(
                "min_snr_gamma weighs errors of a predicted noise, and lcm has none; leave it out"
            )
        smallest, largest = self.guidance_range
        if smallest > largest:
            raise ValueError(f"teacher_guidance [{smallest}, {largest}]: give the smaller scale first")
        return self

    @property
    def guidance_range(self) -> tuple[float, float]:
        """The teacher's smallest and largest guidance scale."""
        if isinstance(self.teacher_guidance, tuple):
            return self.teacher_guidance
        return self.teacher_guidance, self.teacher_guidance


def lcm_config_from_yaml(path: Path, overrides: dict[str, Any] | None = None) -> LcmConfig:
    """Read a distillation's YAML; `overrides` replace its keys (a path for `data` replaces data.folder).
    Raises `ConfigError`.
    """
    return config_from_yaml(path, LcmConfig, overrides)
