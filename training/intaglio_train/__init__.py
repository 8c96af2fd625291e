"""LoRA and ControlNet trainers for SDXL, on diffusers, peft and accelerate.

    from intaglio_train import lora_config_from_yaml, train_lora
    train_lora(lora_config_from_yaml(Path("configs/training/night.yaml")))

Importing this package loads neither torch nor diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from intaglio_train.config import (
    ControlNetConfig,
    DataConfig,
    LoraConfig,
    PriorConfig,
    SampleConfig,
    controlnet_config_from_yaml,
    lora_config_from_yaml,
)
from intaglio_train.errors import CheckpointError, ConfigError, DataError, TrainingError
from intaglio_train.lcm_config import LcmConfig, lcm_config_from_yaml

if TYPE_CHECKING:
    from intaglio_train.controlnet import ControlNetResult, train_controlnet
    from intaglio_train.lora import LoraResult, train_lora

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ControlNetConfig",
    "ControlNetResult",
    "DataConfig",
    "DataError",
    "LcmConfig",
    "LoraConfig",
    "LoraResult",
    "PriorConfig",
    "SampleConfig",
    "TrainingError",
    "controlnet_config_from_yaml",
    "lcm_config_from_yaml",
    "lora_config_from_yaml",
    "train_controlnet",
    "train_lora",
]


_LAZY = {
    "LoraResult": "intaglio_train.lora",
    "train_lora": "intaglio_train.lora",
    "ControlNetResult": "intaglio_train.controlnet",
    "train_controlnet": "intaglio_train.controlnet",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
