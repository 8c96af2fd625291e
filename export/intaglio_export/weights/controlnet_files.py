"""What a ControlNet's file is, by its tensors' names and shapes: of one type, a union, or no ControlNet.

controlnet_cond_embedding.*, down_blocks.*, ...   diffusers' layout
input_hint_block.*, zero_convs.*, ...             ControlNet's own, with or without `control_model.` before it
task_embedding, control_add_embedding.*, ...      in diffusers' layout, only a ControlNet-Union has these

A single file has no configuration. A ControlNet is a copy of the first half of the base's UNet, whose
configuration has most of its values; the shapes have the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from intaglio.contract.architecture import down_attentions
from intaglio.errors import BuildError, ConfigError
from intaglio.loras.tensor_files import map_tensor_file
from intaglio_export.weights.configuration import CONFIGURATION, configuration_read

__all__ = ["ORIGINAL_PREFIX", "check_kind", "config_of_file"]

ORIGINAL_PREFIX: Final = "control_model."
"""How the names of ControlNet's own layout may begin."""
_UNION_KEYS: Final = ("task_embedding", "control_add_embedding.", "transformer_layes.")
"""Tensors that only a ControlNet-Union has; its config.json may be that of a plain ControlNet."""
_TASKS: Final = "task_embedding"
_OTHER_KINDS: Final[tuple[tuple[str, str], ...]] = (
    ("lora_controlnet", "a Control-LoRA, which is applied to the base's UNet"),
    ("lllite_", "a ControlNet-LLLite, which is applied to the base's UNet"),
    ("adapter.body.", "a T2I-Adapter"),
    ("body.0.in_conv.", "a T2I-Adapter"),
    ("image_proj.", "an IP-Adapter"),
    ("lora_unet_", "a LoRA: list it under `loras` or in the registry"),
    ("lora_te", "a LoRA: list it under `loras` or in the registry"),
    (".lora_", "a LoRA: list it under `loras` or in the registry"),
    ("model.diffusion_model.", "a whole checkpoint: list it under `base`"),
    ("controlnet_x_embedder.", "a ControlNet of a diffusion transformer, which is not SDXL"),
    ("double_blocks.", "a diffusion transformer, which is not SDXL"),
    ("transformer_blocks.0.norm1_context", "a diffusion transformer, which is not SDXL"),
    ("up_blocks.", "a UNet"),
    ("output_blocks.", "a UNet"),
)
"""Parts of names, and what a file with such names is."""
_OF_THE_UNET_ALONE: Final = {
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "mid_block_type",
    "sample_size",
}
"""Keys whose values in the UNet's configuration say nothing of its ControlNets."""
_OTHER_BASE: Final = "made for another base"
_INSTEAD: Final = "take a ControlNet of this base"
_HEADS: Final = 8
"""Of a union's transformer: what diffusers assumes, and what the published unions have. No shape tells it."""

Shapes = Mapping[str, tuple[int, ...]]


def check_kind(weights: Sequence[Path], *, union: bool) -> None:
    """Refuse a ControlNet's weights of the other kind than the deployment says; `union` is what it says.

    `weights` are all of the network's files.

    Raises:
        ConfigError: the deployment says something else.
        BuildError: the file is damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights:
        shapes |= _shapes(path)
    _check_union(weights[0], shapes, union=union)


def config_of_file(path: Path, *, unet: Mapping[str, Any], union: bool) -> dict[str, Any]:
    """The configuration of the ControlNet in the single file `path`, for a base with the UNet `unet`.

    Raises:
        ConfigError: a union where the deployment says one type, or the reverse.
        BuildError: the file is damaged, no ControlNet, or one of another base.
    """
    shapes = {name.removeprefix(ORIGINAL_PREFIX): shape for name, shape in _shapes(path).items()}
    original = "input_hint_block.0.weight" in shapes
    if not original and "controlnet_cond_embedding.conv_in.weight" not in shapes:
        raise BuildError(f"{path}: {_other_kind(shapes)}; take a ControlNet of SDXL")
    _check_union(path, shapes, union=union)
    if union and original:
        raise BuildError(f"{path}: a union that is not in diffusers' layout; take one that is")
    unet = configuration_read("unet", unet) | dict(unet)
    if (problem := _other_base(shapes, unet, original=original)) is not None:
        raise BuildError(f"{path}: {problem}")
    component = "controlnet_union" if union else "controlnet"
    own = CONFIGURATION[component].keys() - _OF_THE_UNET_ALONE
    found = {key: value for key, value in unet.items() if key in own}
    found["conditioning_embedding_out_channels"] = _embedding_channels(shapes, original=original)
    return found | (_union_values(shapes) if union else {})


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        tensors = map_tensor_file(path).tensors
    except (OSError, ValueError) as error:
        raise BuildError(f"{path}: {error}; fetch the file again") from error
    return {name: tensor.shape for name, tensor in tensors.items()}


def _check_union(path: Path, shapes: Shapes, *, union: bool) -> None:
    found = next((name for name in shapes if name.startswith(_UNION_KEYS)), None)
    if found is not None and not union:
        raise ConfigError(
            f"{path}: a ControlNet-Union (it has {found}); instead of `type` say which controls it serves "
            "(union: {pose: openpose, depth: depth})"
        )
    if union and found is None:
        raise ConfigError(
            f"{path}: no ControlNet-Union (it has no {_TASKS}); instead of `union` say what its image shows "
            "(type: pose)"
        )


def _other_kind(shapes: Shapes) -> str:
    for part, kind in _OTHER_KINDS:
        if any(part in name for name in shapes):
            return f"this is {kind}"
    return "no ControlNet: it has neither controlnet_cond_embedding.* nor input_hint_block.*"


def _other_base(shapes: Shapes, unet: Mapping[str, Any], *, original: bool) -> str | None:
    """Why the ControlNet is not one of a base with `unet`."""
    labels = "label_emb.0.0.weight" if original else "add_embedding.linear_1.weight"
    first = "input_blocks.0.0.weight" if original else "conv_in.weight"
    contexts = [shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")]
    if labels not in shapes or not contexts:
        return "a ControlNet of Stable Diffusion 1 or 2, not of SDXL; take a ControlNet of SDXL"
    found = {
        "projection_class_embeddings_input_dim": shapes[labels][1],
        "cross_attention_dim": contexts[0],
        "block_out_channels": shapes.get(first, (0,))[0],
    }
    for key, value in found.items():
        wanted = unet[key][0] if key == "block_out_channels" else unet[key]
        if value != wanted:
            return f"{_OTHER_BASE}: {key} is {value}, the base has {wanted}; {_INSTEAD}"
    layers = len(down_attentions(unet))
    if len(contexts) != layers:
        return (
            f"{_OTHER_BASE}: it attends to the prompt in {len(contexts)} layers, "
            f"the first half of the base's UNet in {layers}; {_INSTEAD} (small ones have fewer layers)"
        )
    return None


def _embedding_channels(shapes: Shapes, *, original: bool) -> list[int]:
    """Channels of the layers that read the control image: the first, and every second of the others."""
    if original:
        return [shapes[f"input_hint_block.{index}.weight"][0] for index in (0, 4, 8, 12)]
    blocks = sum(name.startswith("controlnet_cond_embedding.blocks.") for name in shapes) // 2
    names = ["conv_in", *(f"blocks.{index}" for index in range(1, blocks, 2))]
    return [shapes[f"controlnet_cond_embedding.{name}.weight"][0] for name in names]


def _union_values(shapes: Shapes) -> dict[str, Any]:
    layers = {name.split(".")[1] for name in shapes if name.startswith("transformer_layes.")}
    types, width = shapes[_TASKS]
    return {
        "num_control_type": types,
        "num_trans_channel": width,
        "num_proj_channel": width,
        "num_trans_layer": len(layers),
        "num_trans_head": _HEADS,
    }
