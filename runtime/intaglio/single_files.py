"""What one SDXL file in Stability's layout says of its UNet, and which files it leaves out.

The build and the trainer must judge every file alike, so both take these rules from here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

__all__ = ["CONFIGURATIONS", "SDXL_HUB_ID", "TOKENIZERS", "needed_files", "other_prediction"]

SDXL_HUB_ID: Final = "stabilityai/stable-diffusion-xl-base-1.0"
"""The repository whose configurations a single file takes where none are named."""
CONFIGURATIONS: Final = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "vae/config.json",
)
"""Files of a diffusers folder that a single file needs beside it. A folder needs them beside its weights. The
tokenizers' files come to them, see `needed_files`.
"""
TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
_TOKENIZER_FILES: Final = ("vocab.json", "merges.txt")
_WHOLE_TOKENIZER: Final = "tokenizer.json"
"""What transformers 5 writes instead of `_TOKENIZER_FILES`."""
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


def needed_files(is_there: Callable[[str], bool]) -> tuple[str, ...]:
    """`CONFIGURATIONS` and the files of both tokenizers, in the layout that is there.

    `is_there` says whether a file of this name is in the folder or repository.
    """
    found = list(CONFIGURATIONS)
    for tokenizer in TOKENIZERS:
        parts = [f"{tokenizer}/{name}" for name in _TOKENIZER_FILES]
        whole = f"{tokenizer}/{_WHOLE_TOKENIZER}"
        found += [whole] if is_there(whole) and not is_there(parts[0]) else parts
    return tuple(found)


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
