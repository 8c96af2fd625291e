"""The numbers that tell one SDXL-shaped pipeline from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import PositiveInt

from intaglio.contract.yaml_files import Strict

__all__ = [
    "LARGEST_CLIP_SKIP",
    "PARAMETERS",
    "SDXL_ARCHITECTURE",
    "Architecture",
    "CrossAttention",
    "Residual",
    "SeededArchitecture",
    "architecture_from_configs",
    "down_attentions",
    "unet_attentions",
]

LARGEST_CLIP_SKIP: Final = 11
"""Most layers of the text encoders that can be skipped: SDXL's smaller one has 12."""
_MID_BLOCK: Final = "UNetMidBlock2DCrossAttn"
"""The middle block that attends to the prompt; SSD-1B's does not."""


class Residual(Strict):
    """One ControlNet residual: [N, h/scale, w/scale, channels]."""

    channels: PositiveInt
    scale: PositiveInt


class CrossAttention(Strict):
    """One layer in which the image attends to the prompt."""

    heads: PositiveInt
    width: PositiveInt
    """Of a head."""


class Architecture(Strict):
    """Everything that the shapes of a pipeline's tensors depend on."""

    latent_channels: PositiveInt
    vae_scale: PositiveInt
    tokens: PositiveInt
    text_width: PositiveInt
    text_width_2: PositiveInt
    text_layers: PositiveInt
    """Of the text encoder that has fewer."""
    pooled_width: PositiveInt
    time_ids: PositiveInt
    down_residuals: tuple[Residual, ...]
    mid_residual: Residual
    control_attentions: tuple[CrossAttention, ...]
    """Of a ControlNet: the UNet's first ones, in the order in which a pass comes to them."""
    attentions: tuple[CrossAttention, ...]
    """Of the UNet."""

    @property
    def most_clip_skip(self) -> int:
        """The most layers that a request may skip."""
        return min(self.text_layers - 1, LARGEST_CLIP_SKIP)

    @property
    def context_width(self) -> int:
        """Width of both encoders' hidden states side by side."""
        return self.text_width + self.text_width_2


def architecture_from_configs(
    unet: Mapping[str, Any],
    *,
    text_encoder: Mapping[str, Any],
    text_encoder_2: Mapping[str, Any],
    vae: Mapping[str, Any],
) -> Architecture:
    """Architecture of a diffusers SDXL pipeline from its `config.json` values.

    Residuals: `conv_in`, then each down block's layers, then its downsampler (all blocks but the last), as
    `diffusers.ControlNetModel.forward` collects them.
    """
    channels: Sequence[int] = tuple(unet["block_out_channels"])
    scale = 1
    residuals = [Residual(channels=channels[0], scale=scale)]
    for index, (width, layers) in enumerate(zip(channels, _layers(unet), strict=True)):
        residuals += [Residual(channels=width, scale=scale)] * layers
        if index + 1 < len(channels):
            scale *= 2
            residuals.append(Residual(channels=width, scale=scale))
    pooled = text_encoder_2["projection_dim"]
    return Architecture(
        latent_channels=vae["latent_channels"],
        vae_scale=2 ** (len(vae["block_out_channels"]) - 1),
        tokens=text_encoder["max_position_embeddings"],
        text_width=text_encoder["hidden_size"],
        text_width_2=text_encoder_2["hidden_size"],
        text_layers=min(text_encoder["num_hidden_layers"], text_encoder_2["num_hidden_layers"]),
        pooled_width=pooled,
        time_ids=(unet["projection_class_embeddings_input_dim"] - pooled) // unet["addition_time_embed_dim"],
        down_residuals=tuple(residuals),
        mid_residual=Residual(channels=channels[-1], scale=scale),
        control_attentions=down_attentions(unet),
        attentions=unet_attentions(unet),
    )


def unet_attentions(unet: Mapping[str, Any]) -> tuple[CrossAttention, ...]:
    """Every layer of a UNet that attends to the prompt, in the order in which a pass comes to them."""
    return down_attentions(unet) + _up_attentions(unet)


def _each(value: Any, *, count: int) -> list[Any]:
    """A value of every block: configurations write one number where all are the same."""
    return [value] * count if isinstance(value, int) else list(value)


def _attention_kinds(unet: Mapping[str, Any]) -> list[CrossAttention]:
    """The cross-attention that each down block would have."""
    channels = unet["block_out_channels"]
    # diffusers calls the number of heads `attention_head_dim`.
    heads = _each(unet.get("num_attention_heads") or unet["attention_head_dim"], count=len(channels))
    return [
        CrossAttention(heads=count, width=width // count)
        for count, width in zip(heads, channels, strict=True)
    ]


def _layers(unet: Mapping[str, Any]) -> list[int]:
    """Layers of each down block."""
    return _each(unet.get("layers_per_block", 2), count=len(unet["block_out_channels"]))


def _depths(unet: Mapping[str, Any]) -> list[Any]:
    """Transformer layers of each down block: one number, or one for each layer of the block (SSD-1B)."""
    return _each(unet.get("transformer_layers_per_block", 1), count=len(unet["block_out_channels"]))


def down_attentions(unet: Mapping[str, Any]) -> tuple[CrossAttention, ...]:
    """Those of the down blocks and the middle, as `diffusers.UNet2DConditionModel` builds them. A ControlNet
    has the same.
    """
    kinds = _attention_kinds(unet)
    depths = _depths(unet)
    found: list[CrossAttention] = []
    for kind, depth, count, block in zip(kinds, depths, _layers(unet), unet["down_block_types"], strict=True):
        if block.startswith("CrossAttn"):
            found += [kind] * sum(_each(depth, count=count)[:count])
    if unet.get("mid_block_type", _MID_BLOCK) == _MID_BLOCK:
        found += [kinds[-1]] * _each(depths[-1], count=1)[0]
    return tuple(found)


def _up_attentions(unet: Mapping[str, Any]) -> tuple[CrossAttention, ...]:
    """Those of the up blocks, which have one layer more than the down blocks."""
    kinds = _attention_kinds(unet)[::-1]
    depths = unet.get("reverse_transformer_layers_per_block") or _depths(unet)[::-1]
    layers = [count + 1 for count in _layers(unet)[::-1]]
    found: list[CrossAttention] = []
    for kind, depth, count, block in zip(kinds, depths, layers, unet["up_block_types"], strict=True):
        if block.startswith("CrossAttn"):
            found += [kind] * sum(_each(depth, count=count)[:count])
    return tuple(found)


SDXL_ARCHITECTURE: Final = architecture_from_configs(
    {
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "projection_class_embeddings_input_dim": 2816,
        "addition_time_embed_dim": 256,
    },
    text_encoder={"max_position_embeddings": 77, "hidden_size": 768, "num_hidden_layers": 12},
    text_encoder_2={"hidden_size": 1280, "num_hidden_layers": 32, "projection_dim": 1280},
    vae={"latent_channels": 4, "block_out_channels": (128, 256, 512, 512)},
)
"""SDXL base 1.0, from the `config.json` files of stabilityai/stable-diffusion-xl-base-1.0."""

SeededArchitecture = Literal["sdxl-base-1.0", "sdxl-reduced"]
"""Architectures whose weights can be drawn from a seed."""
PARAMETERS: Final[Mapping[SeededArchitecture, Mapping[str, int]]] = {
    "sdxl-base-1.0": {
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "unet": 2_226_676_484,
        "unet_context": 340_787_200,
        "controlnet": 1_082_155_520,
        "controlnet_context": 168_858_640,
        "vae_decoder": 49_490_199,
    },
    "sdxl-reduced": {
        "text_encoder": 3_267_584,
        "text_encoder_2": 3_271_680,
        "unet": 30_928_004,
        "unet_context": 950_272,
        "controlnet": 14_323_968,
        "controlnet_context": 955_152,
        "vae_decoder": 633_719,
    },
}
"""Parameters by architecture and kind of network, of what a server opens; `lora_merge` has none."""
