"""What the stages of the training have in common: where, how long, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

__all__ = ["MODEL", "Settings", "device", "half_precision"]

MODEL: Final = Path(__file__).parents[1] / "model"
"""The committed weights, as diffusers lays them out."""
_PRECISION: Final = torch.bfloat16
_STEPS: Final = {"autoencoder": 3400, "base": 6500, "refine": 6800, "decoder": 4500}
_RATES: Final = {"autoencoder": 1.5e-3, "base": 8e-4, "refine": 6e-4, "decoder": 7e-4}
_BATCHES: Final = {"autoencoder": 64, "base": 320, "refine": 320, "decoder": 64}
_COUNTS: Final = {"base": 48000, "controls": 10000, "lessons": 1500}


@dataclass(frozen=True)
class Settings:
    """How the miniature is trained. Only a trial changes any of it."""

    work: Path = Path("build/miniature")
    """Arrays lie under data/, weights and checkpoints under train/."""
    steps: Mapping[str, int] = field(default_factory=_STEPS.copy)
    learning_rate: Mapping[str, float] = field(default_factory=_RATES.copy)
    batch: Mapping[str, int] = field(default_factory=_BATCHES.copy)
    counts: Mapping[str, int] = field(default_factory=_COUNTS.copy)
    """Pictures of each training set; of `lessons`, for each LoRA."""
    lessons_in_batch: int = 16
    """Of the decoder's batch, pictures that the LoRAs teach."""
    recoloured_in_batch: int = 8
    """Of the decoder's batch, pictures of the world in other colours."""
    checkpoint_every: int = 1500
    adapter_options: tuple[str, ...] = ()
    """Further options of `intaglio train`."""
    compile: bool = field(default_factory=torch.cuda.is_available)
    """torch.compile fuses norms and activations, which take most of the time in networks this small."""

    def weights(self, stage: str) -> Path:
        """The file that a stage leaves."""
        return self.work / "train" / f"{stage}.safetensors"


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision() -> torch.autocast:
    """Autocast on the GPU; few CPUs gain from it."""
    return torch.autocast(device().type, _PRECISION, enabled=device().type == "cuda")
