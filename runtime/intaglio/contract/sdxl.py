"""The networks of an SDXL-shaped pipeline: their tensors, their axes, their profiles, their parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from intaglio.contract.tensors import AxisRange, NetworkSpec, Profile, TensorSpec

__all__ = [
    "HISTORY",
    "LARGEST_RANK",
    "LARGEST_SIDE",
    "LORA_MERGE",
    "SOLVER_ROWS",
    "Architecture",
    "CrossAttention",
    "Residual",
    "architecture_from_configs",
    "axis_sizes",
    "context_keys",
    "context_name",
    "context_values",
    "controlnet_name",
    "down_residual",
    "down_residual_out",
    "network_kind",
    "network_spec",
    "profiles",
    "unet_attentions",
    "without_context",
]

HISTORY: Final = 4
"""K: rows of the solver's state; row 0 is the latents x, the others its history."""


SOLVER_ROWS: Final = HISTORY + 2
"""Columns of a step's coefficients: the K state rows, eps, noise."""


LORA_MERGE: Final = "lora_merge"
"""The network that adds LoRAs to a matrix where the engines are."""


LARGEST_SIDE: Final = 10240
"""Of a matrix that it takes: the widest of SDXL's."""


LARGEST_RANK: Final = 1024
"""Of all LoRAs of a matrix together."""


MID_RESIDUAL: Final = "mid_residual"


MID_RESIDUAL_OUT: Final = "mid_residual_out"


NetworkKind = Literal[
    "text_encoder",
    "text_encoder_2",
    "unet",
    "unet_context",
    "controlnet",
    "controlnet_context",
    "vae_decoder",
    "vae_encoder",
    "lora_merge",
]


_CONTROLNET: Final = "controlnet"


_CONTEXT: Final = "_context"


_MID_BLOCK: Final = "UNetMidBlock2DCrossAttn"
"""The middle block that attends to the prompt; SSD-1B's does not."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Residual(_Frozen):
    """One ControlNet residual: [N, h/scale, w/scale, channels]."""

    channels: PositiveInt
    scale: PositiveInt


class CrossAttention(_Frozen):
    """One layer in which the image attends to the prompt."""

    heads: PositiveInt
    width: PositiveInt
    """Of a head."""


class Architecture(_Frozen):
    """The numbers that tell one SDXL-shaped pipeline from another."""

    latent_channels: PositiveInt
    vae_scale: PositiveInt
    tokens: PositiveInt
    text_width: PositiveInt
    text_width_2: PositiveInt
    pooled_width: PositiveInt
    time_ids: PositiveInt
    down_residuals: tuple[Residual, ...]
    mid_residual: Residual
    control_attentions: tuple[CrossAttention, ...]
    """Of a ControlNet, which are the UNet's first ones, in the order in which a pass comes to them."""
    attentions: tuple[CrossAttention, ...]
    """Of the UNet."""

    @property
    def context_width(self) -> int:
        """Both encoders' hidden states side by side."""
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
    residuals, scale = [Residual(channels=channels[0], scale=1)], 1
    for index, (width, count) in enumerate(zip(channels, _layers(unet), strict=True)):
        residuals += [Residual(channels=width, scale=scale)] * count
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
        pooled_width=pooled,
        time_ids=(unet["projection_class_embeddings_input_dim"] - pooled) // unet["addition_time_embed_dim"],
        down_residuals=tuple(residuals),
        mid_residual=Residual(channels=channels[-1], scale=scale),
        control_attentions=_down_attentions(unet),
        attentions=unet_attentions(unet),
    )


def unet_attentions(unet: Mapping[str, Any]) -> tuple[CrossAttention, ...]:
    """Every layer of a UNet that attends to the prompt, in the order in which a pass comes to them."""
    return _down_attentions(unet) + _up_attentions(unet)


def _each(value: Any, *, count: int) -> list[Any]:
    """A value of every block: configurations write one number where all are the same."""
    return [value] * count if isinstance(value, int) else list(value)


def _layers(unet: Mapping[str, Any]) -> list[int]:
    """Layers of each down block."""
    return _each(unet.get("layers_per_block", 2), count=len(unet["block_out_channels"]))


def _attention_kinds(unet: Mapping[str, Any]) -> list[CrossAttention]:
    """The cross-attention that each down block would have."""
    channels = unet["block_out_channels"]
    # diffusers calls the number of heads `attention_head_dim`.
    heads = _each(unet.get("num_attention_heads") or unet["attention_head_dim"], count=len(channels))
    return [
        CrossAttention(heads=count, width=width // count)
        for count, width in zip(heads, channels, strict=True)
    ]


def _depths(unet: Mapping[str, Any]) -> list[Any]:
    """Transformer layers of each down block: one number, or one for each layer of the block (SSD-1B)."""
    return _each(unet.get("transformer_layers_per_block", 1), count=len(unet["block_out_channels"]))


def _down_attentions(unet: Mapping[str, Any]) -> tuple[CrossAttention, ...]:
    """Those of the down blocks and the middle, as `diffusers.UNet2DConditionModel` builds them."""
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


def down_residual(index: int) -> str:
    """Name of the down residual going in."""
    return f"down_residual_{index}"


def down_residual_out(index: int) -> str:
    """Name of the down residual coming out of a ControlNet."""
    return f"down_residual_{index}_out"


def context_keys(index: int) -> str:
    """Name of the keys of cross-attention `index`: a query's product with one of them is its logit, scale
    included.
    """
    return f"keys_{index}"


def context_values(index: int) -> str:
    """Name of the values of cross-attention `index`."""
    return f"values_{index}"


def controlnet_name(control: str) -> str:
    """Network name of the ControlNet with registry id `control`."""
    return f"{_CONTROLNET}.{control}"


def context_name(network: str) -> str:
    """Name of the network that makes what `network` (`unet` or a ControlNet) needs once an image."""
    kind, _, control = network.partition(".")
    return kind + _CONTEXT + (f".{control}" if control else "")


def without_context(network: str) -> str:
    """The network whose steps `network` serves: itself, or what `context_name` was asked for."""
    kind, dot, control = network.partition(".")
    return kind.removesuffix(_CONTEXT) + dot + control


def network_kind(name: str) -> NetworkKind:
    """Which specification `name` has: `controlnet.pose` is a `controlnet`."""
    kind, _, control = name.partition(".")
    if kind not in _SPECS or kind.startswith(_CONTROLNET) != bool(control):
        raise KeyError(
            f"unknown network {name!r}; known: {', '.join(one for one in _SPECS if not one.startswith(_CONTROLNET))}, controlnet.<id>"
        )
    return kind  # type: ignore[return-value]


def network_spec(name: str, architecture: Architecture) -> NetworkSpec:
    """The table's row for `name` (`text_encoder`, `text_encoder_2`, `unet`, `controlnet.<id>`, `vae_decoder`,
    ...).
    """
    inputs, outputs = _SPECS[network_kind(name)](architecture)
    return NetworkSpec(name=name, inputs=inputs, outputs=outputs)


_Tensors = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def _text_encoder(a: Architecture) -> _Tensors:
    # hidden_states is the penultimate layer's output (SDXL reads that one; optimum calls it
    # hidden_states.<layers - 1>).
    return (
        (TensorSpec("input_ids", ("C", a.tokens), "int64"),),
        (TensorSpec("hidden_states", ("C", a.tokens, a.text_width), "compute"),),
    )


def _text_encoder_2(a: Architecture) -> _Tensors:
    return (
        (TensorSpec("input_ids", ("C", a.tokens), "int64"),),
        (
            TensorSpec("hidden_states", ("C", a.tokens, a.text_width_2), "compute"),
            TensorSpec("text_embeds", ("C", a.pooled_width), "compute"),
        ),
    )


def _conditioning(a: Architecture) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("state", (HISTORY, "B", a.latent_channels, "h", "w")),
        TensorSpec("pooled_embeds", ("N", a.pooled_width), "compute"),
        TensorSpec("time_ids", ("N", a.time_ids)),
        TensorSpec("timestep", (1,)),
        TensorSpec("input_scale", (1,)),
    )


def _residuals(a: Architecture, *, out: bool) -> tuple[TensorSpec, ...]:
    def spec(name: str, residual: Residual) -> TensorSpec:
        return TensorSpec(
            name,
            ("N", _scaled("h", residual.scale), _scaled("w", residual.scale), residual.channels),
            "compute",
        )

    name = down_residual_out if out else down_residual
    down = tuple(spec(name(index), residual) for index, residual in enumerate(a.down_residuals))
    return (*down, spec(MID_RESIDUAL_OUT if out else MID_RESIDUAL, a.mid_residual))


def _context(attentions: Sequence[CrossAttention]) -> tuple[TensorSpec, ...]:
    def specs(index: int, attention: CrossAttention) -> tuple[TensorSpec, TensorSpec]:
        axes = ("N", attention.heads, "T", attention.width)
        return TensorSpec(context_keys(index), axes, "compute"), TensorSpec(
            context_values(index), axes, "compute"
        )

    return tuple(spec for index, attention in enumerate(attentions) for spec in specs(index, attention))


def _prompt(a: Architecture) -> TensorSpec:
    return TensorSpec("prompt_embeds", ("N", "T", a.context_width), "compute")


def _control_embedding(a: Architecture) -> TensorSpec:
    return TensorSpec("control_embedding", ("B", "h", "w", a.down_residuals[0].channels), "compute")


def _unet_context(a: Architecture) -> _Tensors:
    return (_prompt(a),), _context(a.attentions)


def _controlnet_context(a: Architecture) -> _Tensors:
    # As bytes: what the card makes of them in no time takes the host several milliseconds, four times as much
    # to upload.
    return (_prompt(a), TensorSpec("control_image", ("B", "H", "W", 3), "uint8")), (
        _control_embedding(a),
        *_context(a.control_attentions),
    )


def _unet(a: Architecture) -> _Tensors:
    latents = ("B", a.latent_channels, "h", "w")
    step = (
        TensorSpec("guidance_scale", (1,)),
        TensorSpec("coefficients", (HISTORY, SOLVER_ROWS)),
        TensorSpec("noise", latents),
    )
    inputs = (*_conditioning(a), *step, *_residuals(a, out=False), *_context(a.attentions))
    return inputs, (TensorSpec("new_state", (HISTORY, *latents)),)


def _controlnet(a: Architecture) -> _Tensors:
    control = (_control_embedding(a), TensorSpec("conditioning_scale", (1,)))
    return (
        *_conditioning(a),
        *control,
        *_residuals(a, out=False),
        *_context(a.control_attentions),
    ), _residuals(a, out=True)


def _vae_decoder(a: Architecture) -> _Tensors:
    # latents already divided by the scaling factor; magnitude is the mean of |sample|, which is finite where
    # every value is
    return (
        (TensorSpec("latent_sample", ("B", a.latent_channels, "h", "w")),),
        (TensorSpec("pixels", ("B", "H", "W", 3), "uint8"), TensorSpec("magnitude", ("B",))),
    )


def _vae_encoder(a: Architecture) -> _Tensors:
    # mean and log variance, channels first half and second half; not yet multiplied by the scaling factor
    return (
        (TensorSpec("sample", ("B", 3, "H", "W")),),
        (TensorSpec("latent_parameters", ("B", 2 * a.latent_channels, "h", "w"), "compute"),),
    )


def _lora_merge(_: Architecture) -> _Tensors:
    # merged[i, o] = weight[i, o] + sum over r of strengths[r] left[r, i] right[r, o]; summed in float32, cast
    # once
    return (
        (
            TensorSpec("weight", ("i", "o"), "compute"),
            TensorSpec("left", ("r", "i")),
            TensorSpec("right", ("r", "o")),
            TensorSpec("strengths", ("r",)),
        ),
        (TensorSpec("merged", ("i", "o"), "compute"),),
    )


_SPECS = {
    "text_encoder": _text_encoder,
    "text_encoder_2": _text_encoder_2,
    "unet": _unet,
    "unet_context": _unet_context,
    "controlnet": _controlnet,
    "controlnet_context": _controlnet_context,
    "vae_decoder": _vae_decoder,
    "vae_encoder": _vae_encoder,
    LORA_MERGE: _lora_merge,
}


def _scaled(axis: str, scale: int) -> str:
    return axis if scale == 1 else f"{axis}/{scale}"


def axis_sizes(
    architecture: Architecture,
    *,
    width: int,
    height: int,
    images: int = 1,
    guidance: bool = True,
    chunks: int = 1,
) -> dict[str, int]:
    """Every axis' size for one pass of `images` images of `width` x `height` pixels; `chunks` per prompt.

    `C` is one pass over both prompts: 2 x chunks with guidance.
    """
    rows = 2 if guidance else 1
    sizes = {
        "B": images,
        "N": rows * images,
        "C": rows * chunks,
        "T": architecture.tokens * chunks,
        "H": height,
        "W": width,
    }
    for name, pixels in (("h", height), ("w", width)):
        latent = pixels // architecture.vae_scale
        sizes[name] = latent
        scale = 2
        while scale <= architecture.mid_residual.scale:
            latent = -(-latent // 2)
            sizes[_scaled(name, scale)] = latent
            scale *= 2
    return sizes


def profiles(
    network: NetworkSpec,
    architecture: Architecture,
    *,
    sizes: Iterable[tuple[int, int]],
    batches: Iterable[int],
    guidance: Iterable[bool],
    chunks: int,
) -> tuple[Profile, ...]:
    """Profiles of `network`: every (size x batch x guidance x chunk count), duplicates left out; a range of C
    for text encoders.

    `sizes` are (width, height) pixels; `chunks` is the most chunks a prompt may have.
    """
    names = network.axis_names
    if names == ("C",):
        most = 2 * chunks
        return (Profile(f"C1-{most}", {"C": AxisRange(1, min(2, most), most)}),)
    if names == ("i", "o", "r"):
        side, rank = AxisRange(1, 1280, LARGEST_SIDE), AxisRange(1, 128, LARGEST_RANK)
        return (Profile("matrices", {"i": side, "o": side, "r": rank}),)
    found: dict[tuple[int, ...], Profile] = {}
    modes, counts = tuple(guidance), tuple(batches)
    for width, height in sizes:
        for images in counts:
            for mode in modes:
                for count in range(1, chunks + 1):
                    every = axis_sizes(
                        architecture, width=width, height=height, images=images, guidance=mode, chunks=count
                    )
                    key = tuple(every[name] for name in names)
                    label = f"{width}x{height}" + "".join(
                        f"-{axis}{every[axis]}" for axis in ("B", "N", "T") if axis in names
                    )
                    axes = {name: AxisRange(every[name], every[name], every[name]) for name in names}
                    found.setdefault(key, Profile(label, axes))
    return tuple(found.values())
