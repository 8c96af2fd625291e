"""What one SDXL file in Stability's layout says of its UNet, and which files it leaves out.

The build and the trainer must judge every file alike, so both take these rules from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

__all__ = ["CONFIGURATIONS", "SDXL_HUB_ID", "other_prediction"]

SDXL_HUB_ID: Final = "stabilityai/stable-diffusion-xl-base-1.0"
"""The repository whose configurations a single file takes where none are named."""
CONFIGURATIONS: Final = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "vae/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
)
"""Files of a diffusers folder that a single file needs beside it. A folder needs them beside its weights."""
_TENSORS: Final[Mapping[str, str]] = {
    "v_pred": "v-prediction",
    "ztsnr": "zero terminal SNR",
    "edm_vpred.sigma_max": "EDM v-prediction (CosXL)",
    "edm_vpred.sigma_min": "EDM v-prediction (CosXL)",
    "edm_mean": "EDM (Playground v2.5)",
    "edm_std": "EDM (Playground v2.5)",
}
"""Tensors that say what the UNet predicts (ComfyUI's and diffusers' convention)."""
_METADATA: Final[Mapping[str, tuple[str, ...]]] = {
    "modelspec.prediction_type": ("epsilon", "eps"),
    "modelspec.predict_key": ("epsilon", "eps"),
    "ss_v_parameterization": ("False", "None"),
    "ss_zero_terminal_snr": ("False", "None"),
}
"""Metadata that say what the UNet predicts, each with the values that mean noise."""


def other_prediction(tensors: Collection[str], metadata: Mapping[str, str]) -> str | None:
    """Where a file says that its UNet does not predict noise, and what it predicts; None where it does.

    `tensors` are the names of the file's tensors.
    """
    for name, meaning in _TENSORS.items():
        if name in tensors:
            return f"its tensor {name} says that it predicts {meaning}"
    for name, noise in _METADATA.items():
        value = metadata.get(name, noise[0])
        if value not in noise:
            return f"its metadata say {name}: {value}"
    return None
