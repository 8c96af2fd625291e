"""LoRA files: which layers of this base their keys change, and how. Every key is accounted for or the file is
refused.

Layouts: diffusers and peft (`unet.<module>.lora_A.weight`), kohya and LyCORIS
(`lora_unet_<name>.lora_down.weight`, with the UNet's names of diffusers or of Stability's own code). Methods:
LoRA, LoCon (convolutions), DoRA, LoHa, LoKr. Axes: r rank, o outputs, i inputs, k l kernel.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import LoraRefused
from intaglio.loras.layers import Layer, Part
from intaglio.loras.tensor_files import StoredTensor, TensorFile

__all__ = [
    "Component",
    "LayerTable",
    "LoraFile",
    "layer_table",
    "lora_file_from_bytes",
    "named_components",
]

Component = Literal["unet", "text_encoder", "text_encoder_2"]
LayerTable = Mapping[Component, Mapping[str, tuple[int, ...]]]
"""Module name -> shape [o, i] or [o, i, k, l] of every layer that a LoRA may change."""

_SUFFIXES: Final[Mapping[str, Part]] = {
    "lora_A.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.down.weight": "down",
    "lora_B.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "mid",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "dora_scale": "magnitude",
    "hada_w1_a": "hada_w1_a",
    "hada_w1_b": "hada_w1_b",
    "hada_w2_a": "hada_w2_a",
    "hada_w2_b": "hada_w2_b",
    "lokr_w1": "lokr_w1",
    "lokr_w1_a": "lokr_w1_a",
    "lokr_w1_b": "lokr_w1_b",
    "lokr_w2": "lokr_w2",
    "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b",
    "alpha": "alpha",
}
_BY_LENGTH: Final = sorted(_SUFFIXES, key=len, reverse=True)
_OLD_PROCESSOR: Final = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.")
_PREFIXES: Final[Mapping[Component, tuple[str, ...]]] = {
    "unet": ("lora_unet_", "lycoris_"),
    "text_encoder": ("lora_te1_",),
    "text_encoder_2": ("lora_te2_",),
}
_CONTEXT_WIDTHS: Final = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 2048: "full-size SDXL"}
"""Width of the text that cross-attention reads."""
_FOREIGN: Final = (
    (re.compile(r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]"), "a Flux LoRA"),
    (re.compile(r"joint_blocks|attn\.add_[qkv]_proj|attn_add_[qkv]_proj"), "a Stable Diffusion 3 LoRA"),
    (
        re.compile(r"^(transformer|diffusion_model|lora_transformer|model\.diffusion_model)[._]"),
        "a LoRA of a diffusion transformer",
    ),
    (re.compile(r"^lora_te_text_model"), "a Stable Diffusion 1.5 or 2 LoRA (one text encoder)"),
)
_ARCHITECTURES: Final = (
    ("flux", "a Flux LoRA"),
    ("stable-diffusion-v1", "a Stable Diffusion 1.5 LoRA"),
    ("sd_v1", "a Stable Diffusion 1.5 LoRA"),
    ("stable-diffusion-v2", "a Stable Diffusion 2 LoRA"),
    ("sd_v2", "a Stable Diffusion 2 LoRA"),
    ("stable-diffusion-3", "a Stable Diffusion 3 LoRA"),
    ("sd3", "a Stable Diffusion 3 LoRA"),
)
"""Starts of kohya's `ss_base_model_version` and of `modelspec.architecture`."""


@dataclass(frozen=True)
class LoraFile:
    """What one file changes."""

    layers: Mapping[tuple[Component, str], Layer]
    format: str
    """`diffusers LoRA`, `kohya LoCon`, ..."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Every rank in the file, smallest first."""
        return tuple(sorted({layer.rank for layer in self.layers.values()}))

    @property
    def targets(self) -> dict[str, int]:
        """Layers changed by component."""
        counts: dict[str, int] = {}
        for component, _ in self.layers:
            counts[component] = counts.get(component, 0) + 1
        return dict(sorted(counts.items()))


def layer_table(shapes: Mapping[Component, Mapping[str, tuple[int, ...]]]) -> LayerTable:
    """The layers among named weights (`<module>.weight`): matrices and kernels; norms and embeddings are
    none.
    """
    return {
        component: {
            name.removesuffix(".weight"): shape
            for name, shape in weights.items()
            if name.endswith(".weight") and len(shape) in (2, 4) and "embeddings." not in name
        }
        for component, weights in shapes.items()
    }


def named_components(lora: str, keys: Iterable[str]) -> frozenset[Component]:
    """The components whose layers `keys` name, without a look at the base.

    Raises:
        LoraRefused: a key in kohya's layout names none of them.
    """
    return frozenset(_named_component(lora, key) for key in keys)


def _named_component(lora: str, key: str) -> Component:
    for component, prefixes in _PREFIXES.items():
        if key.removeprefix("base_model.model.").startswith((f"{component}.", *prefixes)):
            return component
    if key.startswith("lora_"):
        starts = ", ".join(itertools.chain.from_iterable(_PREFIXES.values()))
        raise LoraRefused(lora, f"{key} names no network of SDXL; its keys start with {starts}")
    return "unet"  # files of the UNet alone may name its modules without a prefix


def lora_file_from_bytes(lora: str, data: bytes, *, table: LayerTable) -> LoraFile:
    """The layers that the file changes, in float32, checked against the base's.

    Raises:
        LoraRefused: damaged, for another base, with keys that name no layer of this one, of other shapes, or
            not finite.
    """
    try:
        file = TensorFile(data)
    except ValueError as error:
        raise LoraRefused(lora, f"{error}; copy the file again") from error
    if foreign := _foreign(file, table):
        raise LoraRefused(lora, f"it is {foreign}; this base is an SDXL")
    names = _layer_names(table)
    parts: dict[tuple[Component, str], dict[Part, str]] = {}
    unknown = []
    for key in file.tensors:
        place = _place(key, names)
        if place is None or place[1] in parts.setdefault(place[0], {}):
            unknown.append(key)
        else:
            parts[place[0]][place[1]] = key
    if not file.tensors:
        raise LoraRefused(lora, "it has no tensors")
    if unknown:
        raise LoraRefused(lora, _unknown(unknown, file))
    scales = _peft_scales(lora, file)
    layers = {place: _layer(lora, file, place, found, scales) for place, found in parts.items()}
    for (component, module), layer in layers.items():
        layer.check(lora, f"{component}.{module}", shape=table[component][module])
    return LoraFile(layers, _format(file, layers.values()))


def _unknown(unknown: list[str], file: TensorFile) -> str:
    shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    return f"{len(unknown)} of {len(file.tensors)} keys name no layer of this base that may change: {shown}"


def _place(key: str, names: Mapping[str, tuple[Component, str]]) -> tuple[tuple[Component, str], Part] | None:
    """((component, module), part) of a key; None where it is no part of a layer that the base has."""
    plain = _OLD_PROCESSOR.sub(
        lambda found: f".{'to_out.0' if found[1] == 'to_out' else found[1]}.lora.", key
    ).replace(".default.", ".")
    for suffix in _BY_LENGTH:
        if plain.endswith(f".{suffix}"):
            place = names.get(plain.removesuffix(f".{suffix}").removeprefix("base_model.model."))
            return None if place is None else (place, _SUFFIXES[suffix])
    return None


def _layer_names(table: LayerTable) -> dict[str, tuple[Component, str]]:
    """Every name that a file may give a layer."""
    names: dict[str, tuple[Component, str]] = {}
    for component, layers in table.items():
        levels = _Levels.of(layers) if component == "unet" else None
        for module in layers:
            aliases = [f"{component}.{module}"]
            stems = {module.replace(".", "_")}
            if levels is not None:
                aliases.append(module)
                stems.add(levels.stability_name(module).replace(".", "_"))
            aliases += [f"{prefix}{stem}" for prefix in _PREFIXES[component] for stem in stems]
            names |= dict.fromkeys(aliases, (component, module))
    return names


@dataclass(frozen=True)
class _Levels:
    """What the numbering of blocks in Stability's code (sgm) depends on.

    It numbers blocks through all levels: input_blocks.0 is conv_in, then each level's layers (resnet 0,
    attention 1) and its downsampler; output levels have one layer more, the last of which carries the
    upsampler.
    """

    layers: int
    attention_up: frozenset[str]

    @classmethod
    def of(cls, modules: Iterable[str]) -> _Levels:
        found = [module.split(".") for module in modules]
        first = {words[3] for words in found if words[:3] == ["down_blocks", "0", "resnets"]}
        return cls(
            len(first),
            frozenset(words[1] for words in found if words[0] == "up_blocks" and words[2] == "attentions"),
        )

    def stability_name(self, module: str) -> str:
        if module in _OUTSIDE_BLOCKS:
            return _OUTSIDE_BLOCKS[module]
        side, *words = module.split(".")
        if side == "mid_block":
            kind, index, rest = words[0], int(words[1]), ".".join(words[2:])
            return f"middle_block.{2 * index + (kind == 'attentions')}.{_RESNET_LAYERS.get(rest, rest)}"
        level, kind, index, rest = int(words[0]), words[1], int(words[2]), ".".join(words[3:])
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (self.layers + 1)}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{level * (self.layers + 1) + self.layers}.{2 if words[0] in self.attention_up else 1}.conv"
        block = level * (self.layers + 1) + index
        stem = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
        return f"{stem}.1.{rest}" if kind == "attentions" else f"{stem}.0.{_RESNET_LAYERS[rest]}"


_RESNET_LAYERS: Final = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS: Final = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _foreign(file: TensorFile, table: LayerTable) -> str | None:
    """What the file is, where it is for another model."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        said = file.metadata.get(key, "").lower()
        for start, what in _ARCHITECTURES:
            if said.startswith(start):
                return what
    for pattern, what in _FOREIGN:
        if any(pattern.search(key) for key in file.tensors):
            return what
    width, own = _context_width(file.tensors), _base_context_width(table)
    if width is not None and width != own:
        family = _CONTEXT_WIDTHS.get(width, "another model")
        return f"for {family} (its cross-attention reads text of width {width}, this base's of {own})"
    return None


def _context_width(tensors: Mapping[str, StoredTensor]) -> int | None:
    """Width of the text that the LoRA's cross-attention reads."""
    for key, tensor in tensors.items():
        if (
            "attn2" in key
            and "to_k" in key
            and ("down" in key.rsplit("to_k", 1)[1] or "lora_A" in key)
            and len(tensor.shape) == 2
        ):
            return tensor.shape[1]
    return None


def _base_context_width(table: LayerTable) -> int | None:
    return next(
        (shape[1] for module, shape in table.get("unet", {}).items() if module.endswith("attn2.to_k")), None
    )


def _layer(
    lora: str,
    file: TensorFile,
    place: tuple[Component, str],
    keys: Mapping[Part, str],
    scales: Mapping[str, float],
) -> Layer:
    """The layer's parts in float32."""
    arrays: dict[Part, NDArray[np.float32]] = {}
    for part, key in keys.items():
        values = np.asarray(file.read(key), np.float32)
        if not np.isfinite(values).all():
            raise LoraRefused(
                lora,
                f"{key} has values that are not finite (NaN or infinite): the training diverged; use an earlier checkpoint",
            )
        arrays[part] = values
    alpha = float(arrays.pop("alpha").reshape(-1)[0]) if "alpha" in arrays else None
    return Layer(arrays, alpha=alpha, scale=scales.get(".".join(place), scales.get(place[0])))


def _peft_scales(lora: str, file: TensorFile) -> dict[str, float]:
    """Scale by component, and by layer where it has its own, from the adapter configuration that diffusers
    writes beside the tensors.
    """
    text = file.metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        values: dict[str, Any] = json.loads(text)
        scales: dict[str, float] = {}
        for component in _PREFIXES:
            if f"{component}.r" not in values:
                continue
            rank, alpha = values[f"{component}.r"], values[f"{component}.lora_alpha"]
            power = 0.5 if values.get(f"{component}.use_rslora") else 1.0
            scales[component] = float(alpha) / float(rank) ** power
            ranks, alphas = (values.get(f"{component}.{name}_pattern") or {} for name in ("rank", "alpha"))
            for module in {**ranks, **alphas}:
                scales[f"{component}.{module}"] = (
                    float(alphas.get(module, alpha)) / float(ranks.get(module, rank)) ** power
                )
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise LoraRefused(lora, f"its lora_adapter_metadata is damaged: {error!r}") from error
    return scales


def _format(file: TensorFile, layers: Iterable[Layer]) -> str:
    kohya = any(key.startswith(("lora_", "lycoris_")) for key in file.tensors)
    methods = {layer.method for layer in layers}
    return f"{'kohya' if kohya else 'diffusers'} {'+'.join(sorted(methods))}"
