"""What one .safetensors file in Stability's layout is, from its header: SDXL base, or what it is instead.

model.diffusion_model.*      the UNet
conditioner.embedders.0.*    the first text encoder (CLIP ViT-L)
conditioner.embedders.1.*    the second text encoder (OpenCLIP ViT-bigG)
first_stage_model.*          the VAE
v_pred, ztsnr, edm_mean, ..  what the UNet predicts (`intaglio.single_files`)
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from intaglio.contract.architecture import unet_attentions
from intaglio.errors import BuildError
from intaglio.loras.tensor_files import TensorFile, map_tensor_file
from intaglio.single_files import other_prediction, stated_prediction
from intaglio_export.weights.checkpoint_files import PREFIXES

__all__ = ["check_single_file", "prediction_of_file"]

log = logging.getLogger(__name__)

_UNET: Final = PREFIXES["unet"]
_FIRST: Final = f"{_UNET}input_blocks.0.0.weight"
_LABELS: Final = f"{_UNET}label_emb.0.0.weight"
_CONTEXT: Final = ".attn2.to_k.weight"
_INSTEAD: Final = "take an SDXL base checkpoint"
_COMPUTED: Final = "which is not supported; take an epsilon or v-prediction checkpoint"
_REFINER: Final = f"this is the SDXL refiner, which improves a picture; {_INSTEAD}"
_REFINER_LABELS: Final = 2560
_OLDER: Final[Mapping[int, str]] = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
"""Models by the width of their prompt."""
_OTHER_KINDS: Final[tuple[tuple[str, str], ...]] = (
    ("lora_", "a LoRA: list it under `loras` or in the registry"),
    (".lora_", "a LoRA: list it under `loras` or in the registry"),
    ("control_model.", "a ControlNet: list it under `controlnets`"),
    ("controlnet_", "a ControlNet: list it under `controlnets`"),
    ("joint_blocks.", "a diffusion transformer, which is not SDXL"),
    ("double_blocks.", "a diffusion transformer, which is not SDXL"),
    ("transformer_blocks.0.norm1_context", "a diffusion transformer, which is not SDXL"),
    ("input_blocks.0.0.", "a UNet alone"),
    ("down_blocks.0.", "a network in diffusers' layout"),
    ("decoder.conv_in.", "a VAE alone"),
)
"""Parts of names, and what a file with such names is."""


def check_single_file(path: Path, *, unet: Mapping[str, Any], replaced: Collection[str] = ()) -> None:
    """Refuse a file that is no SDXL base checkpoint; `unet` is the configuration that it will be loaded with.

    `replaced` are components that come from elsewhere. Shapes decide; metadata that name another model are
    only reported.

    Raises:
        BuildError: says what the file is and what to do.
    """
    file = _mapped(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    prediction = other_prediction(shapes, file.metadata)
    for problem in (
        _other_kind(shapes),
        None if prediction is None else f"{prediction}, {_COMPUTED}",
        _other_unet(shapes, unet),
        _missing_component(shapes, replaced),
    ):
        if problem is not None:
            raise BuildError(f"{path}: {problem}")
    architecture = file.metadata.get("modelspec.architecture", "")
    if architecture and not architecture.startswith("stable-diffusion-xl-v1-base"):
        log.warning("%s: its metadata say %s, but its tensors are SDXL base's", path, architecture)


def prediction_of_file(path: Path) -> dict[str, Any]:
    """The keys of scheduler_config.json that the file states, see `stated_prediction`.

    Raises:
        BuildError: the file cannot be read.
    """
    file = _mapped(path)
    return stated_prediction(file.tensors, file.metadata)


def _mapped(path: Path) -> TensorFile:
    try:
        return map_tensor_file(path)
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: {error}; fetch the file again") from error


def _other_kind(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if len(shapes.get(_FIRST, ())) == 4:
        return None
    for part, kind in _OTHER_KINDS:
        if any(part in name for name in shapes):
            return f"this is {kind}; `base: file` takes a whole SDXL checkpoint in Stability's layout"
    return f"no SDXL checkpoint in Stability's layout: it has no tensor {_FIRST}"


def _other_unet(shapes: Mapping[str, tuple[int, ...]], unet: Mapping[str, Any]) -> str | None:
    """What the UNet is if it is not the one that `unet` describes."""
    labels = shapes.get(_LABELS, (0, 0))[1]
    contexts = [
        shape[1] for name, shape in shapes.items() if name.startswith(_UNET) and name.endswith(_CONTEXT)
    ]
    if not contexts:
        return f"its UNet does not attend to a prompt; {_INSTEAD}"
    if not labels:
        return f"this is {_OLDER.get(contexts[0], 'an older model')}, not SDXL; {_INSTEAD}"
    if labels == _REFINER_LABELS or "conditioner.embedders.0.model.text_projection" in shapes:
        return _REFINER
    channels = shapes[_FIRST][1]
    if channels != 4:
        kind = {8: "an editing UNet", 9: "an inpainting UNet"}.get(channels, "another UNet")
        return (
            f"this is {kind} of {channels} input channels, which needs a picture; "
            "take the text-to-image checkpoint that it was made from"
        )
    return _other_sizes(shapes, unet, labels=labels, contexts=contexts)


def _other_sizes(
    shapes: Mapping[str, tuple[int, ...]], unet: Mapping[str, Any], *, labels: int, contexts: Sequence[int]
) -> str | None:
    found = {
        "projection_class_embeddings_input_dim": labels,
        "cross_attention_dim": contexts[0],
        "block_out_channels": shapes[_FIRST][0],
    }
    for key, value in found.items():
        configured = unet[key][0] if key == "block_out_channels" else unet[key]
        if value != configured:
            return (
                f"its UNet has {key} {value}, the configurations that it is loaded with say {configured}; "
                "list a diffusers folder of the same model after it"
            )
    layers = len(unet_attentions(unet))
    if len(contexts) != layers:
        return (
            f"its UNet attends to the prompt in {len(contexts)} layers, the configurations that it is loaded "
            f"with say {layers} (SSD-1B and other distilled SDXLs have fewer); "
            "list a diffusers folder of the same model after it"
        )
    return None


def _missing_component(shapes: Mapping[str, tuple[int, ...]], replaced: Collection[str]) -> str | None:
    for component, prefix in PREFIXES.items():
        if component in replaced or any(name.startswith(prefix) for name in shapes):
            continue
        if component == "vae":
            return "it has no VAE; name one (vae: {hub: madebyollin/sdxl-vae-fp16-fix})"
        return (
            f"it has no {component} ({prefix}*); take the whole checkpoint, "
            "or a diffusers folder that has all components"
        )
    return None
