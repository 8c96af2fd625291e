"""What stands between a trajectory's latents and a decoder's input.

diffusers' SDXL pipelines decode `latents * std / scaling_factor + mean` where a VAE's configuration has both
a mean and a standard deviation (Playground v2.5), and `latents / scaling_factor` otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["SDXL_LATENTS", "LatentStatistics"]


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """The values of a VAE's configuration; `mean` and `std` have one number a channel."""

    scaling_factor: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> LatentStatistics:
        """Those of a VAE's configuration that has all values: of a network, or of `configuration_read`."""
        factor = float(values["scaling_factor"])
        mean, std = values["latents_mean"], values["latents_std"]
        if mean is None or std is None:
            return cls(factor)
        return cls(factor, tuple(map(float, mean)), tuple(map(float, std)))


SDXL_LATENTS: Final = LatentStatistics(0.13025)
"""vae/config.json of stabilityai/stable-diffusion-xl-base-1.0."""
