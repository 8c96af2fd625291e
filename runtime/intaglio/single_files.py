"""What one SDXL file in Stability's layout says of its UNet, and which files it leaves out.

The build and the trainer must judge every file alike, so both take these rules from here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

__all__ = [
    "CONFIGURATIONS",
    "SDXL_HUB_ID",
    "TOKENIZERS",
    "needed_files",
    "other_prediction",
    "stated_prediction",
]

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
_OTHER_TENSORS: Final[Mapping[str, str]] = {
    "edm_vpred.sigma_max": "EDM v-prediction (CosXL)",
    "edm_vpred.sigma_min": "EDM v-prediction (CosXL)",
    "edm_mean": "EDM (Playground v2.5)",
    "edm_std": "EDM (Playground v2.5)",
}
"""Tensors of a UNet that predicts in EDM's form (ComfyUI's and diffusers' convention)."""
_NOISE: Final[Mapping[str, Any]] = {"prediction_type": "epsilon"}
_VELOCITY: Final[Mapping[str, Any]] = {"prediction_type": "v_prediction"}
_ZERO_SNR: Final[Mapping[str, Any]] = {"rescale_betas_zero_snr": True}
_TENSORS: Final[Mapping[str, Mapping[str, Any]]] = {"v_pred": _VELOCITY, "ztsnr": _ZERO_SNR}
"""Empty tensors by which a file states keys of scheduler_config.json (ComfyUI's convention)."""
_SPEC: Final[Mapping[str, Mapping[str, Any]]] = {
    "epsilon": _NOISE,
    "eps": _NOISE,
    "v": _VELOCITY,
    "v_prediction": _VELOCITY,
    "v-prediction": _VELOCITY,
}
_METADATA: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "modelspec.prediction_type": _SPEC,
    "modelspec.predict_key": _SPEC,
    # A trainer's flags: False is what it writes by default, so it states nothing.
    "ss_v_parameterization": {"True": _VELOCITY, "False": {}, "None": {}},
    "ss_zero_terminal_snr": {"True": _ZERO_SNR, "False": {}, "None": {}},
}
"""Metadata by which a file states keys of scheduler_config.json, with every value that is known."""


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
    """Where a file says that its UNet predicts neither noise nor velocity, and what; None where it does not.

    `tensors` are the names of the file's tensors.
    """
    for name, meaning in _OTHER_TENSORS.items():
        if name in tensors:
            return f"its tensor {name} says that it predicts {meaning}"
    for name, values in _METADATA.items():
        value = metadata.get(name)
        if value is not None and value not in values:
            return f"its metadata say {name}: {value}"
    return None


def stated_prediction(tensors: Collection[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The keys of scheduler_config.json that a file states: what its UNet predicts, and zero terminal SNR.

    Empty where it states none. Where both speak, a tensor counts more than metadata.
    """
    found: dict[str, Any] = {}
    for name, values in _METADATA.items():
        found |= values.get(metadata.get(name, ""), {})
    for name, keys in _TENSORS.items():
        if name in tensors:
            found |= keys
    return found
