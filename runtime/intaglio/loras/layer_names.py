"""The names that LoRA files give to the layers of a base.

The base names its layers as diffusers does. Files use those names, with dots or with underscores, or the
names of Stability's own code (sgm). Each program puts its own prefix before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["component_of_key", "layer_names", "stability_names"]

C = TypeVar("C", bound=str)
"""A component: `unet`, `text_encoder` or `text_encoder_2`."""

_UNDERSCORED_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "unet": ("lora_unet_", "lycoris_"),
    "text_encoder": ("lora_te1_",),
    "text_encoder_2": ("lora_te2_",),
}
"""Of kohya and of LyCORIS, before names with underscores."""
_DOTTED_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "unet": ("unet.", "", "base_model.model."),
    "text_encoder": ("text_encoder.", "text_encoders.clip_l.transformer."),
    "text_encoder_2": ("text_encoder_2.", "text_encoders.clip_g.transformer."),
}
"""Of diffusers, of peft (`base_model.model.`) and of ComfyUI (`text_encoders.`), before diffusers' names."""
_STABILITY_PREFIXES: Final = ("diffusion_model.", "model.diffusion_model.")
"""Of ComfyUI, before Stability's names with dots."""


def layer_names(table: Mapping[C, Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[C, str]]:
    """Every name that a file may give to a layer of `table` -> (component, layer)."""
    names: dict[str, tuple[C, str]] = {}
    for component, layers in table.items():
        stability = stability_names(layers) if component == "unet" else {}
        for layer in layers:
            aliases = [f"{prefix}{layer}" for prefix in _DOTTED_PREFIXES[component]]
            stems = [layer]
            if layer in stability:
                stems.append(stability[layer])
                aliases += [f"{prefix}{stability[layer]}" for prefix in _STABILITY_PREFIXES]
            for prefix in _UNDERSCORED_PREFIXES[component]:
                aliases += [f"{prefix}{stem.replace('.', '_')}" for stem in stems]
            names |= dict.fromkeys(aliases, (component, layer))
    return names


def component_of_key(key: str) -> str:
    """The component that a key of a LoRA file is for, whatever base it belongs to."""
    for component in ("text_encoder", "text_encoder_2"):
        if key.startswith((*_UNDERSCORED_PREFIXES[component], *_DOTTED_PREFIXES[component])):
            return component
    return "unet"


def stability_names(layers: Iterable[str]) -> dict[str, str]:
    """Layer of a UNet -> its name in Stability's code, for the layers that have one there."""
    layers = tuple(layers)
    levels = _Levels.of(layers)
    found = {layer: levels.stability_name(layer) for layer in layers}
    return {layer: name for layer, name in found.items() if name is not None}


@dataclass(frozen=True)
class _Levels:
    """What the numbers of blocks in Stability's code depend on.

    That code numbers the blocks through all levels. `input_blocks.0` is conv_in; then each level has its
    layers (resnet 0, attention 1) and its downsampler. Output levels have one layer more, and the last layer
    of a level carries the upsampler.
    """

    layers: int
    """Resnets of each input level."""
    attention_up: frozenset[str]
    """Output levels that have attention."""

    @classmethod
    def of(cls, layers: Iterable[str]) -> _Levels:
        words = [layer.split(".") for layer in layers]
        first = {found[3] for found in words if found[:3] == ["down_blocks", "0", "resnets"]}
        up = {found[1] for found in words if found[0] == "up_blocks" and found[2:3] == ["attentions"]}
        return cls(len(first), frozenset(up))

    def stability_name(self, layer: str) -> str | None:
        """None for a layer that Stability's code does not have."""
        if layer in _OUTSIDE_BLOCKS:
            return _OUTSIDE_BLOCKS[layer]
        match layer.split("."):
            case ["mid_block", kind, index, *rest]:
                inner = _inner_name(kind, rest)
                place = 2 * int(index) + (kind == "attentions")
                return None if inner is None else f"middle_block.{place}.{inner}"
            case ["down_blocks", level, "downsamplers", _, "conv"]:
                return f"input_blocks.{(int(level) + 1) * (self.layers + 1)}.0.op"
            case ["up_blocks", level, "upsamplers", _, "conv"]:
                block = int(level) * (self.layers + 1) + self.layers
                place = 2 if level in self.attention_up else 1
                return f"output_blocks.{block}.{place}.conv"
            case [("down_blocks" | "up_blocks") as side, level, kind, index, *rest]:
                inner = _inner_name(kind, rest)
                block = int(level) * (self.layers + 1) + int(index)
                stem = f"input_blocks.{block + 1}" if side == "down_blocks" else f"output_blocks.{block}"
                place = 1 if kind == "attentions" else 0
                return None if inner is None else f"{stem}.{place}.{inner}"
            case _:
                return None


def _inner_name(kind: str, rest: list[str]) -> str | None:
    """The name inside of a resnet or of an attention block."""
    name = ".".join(rest)
    return name if kind == "attentions" else _RESNET_LAYERS.get(name)


_RESNET_LAYERS: Final[Mapping[str, str]] = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS: Final[Mapping[str, str]] = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
