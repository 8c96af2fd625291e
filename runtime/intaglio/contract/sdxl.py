"""The networks of an SDXL-shaped pipeline: which there are, their tensors, their axes, their profiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from intaglio.contract.tensors import AxisRange, NetworkSpec, Profile, TensorSpec

if TYPE_CHECKING:  # the client imports this module for its constants
    from intaglio.contract.architecture import Architecture, CrossAttention, Residual

__all__ = [
    "HISTORY",
    "LARGEST_RANK",
    "LARGEST_SIDE",
    "LORA_MERGE",
    "SOLVER_ROWS",
    "UNION_TYPES",
    "axis_sizes",
    "context_keys",
    "context_name",
    "context_values",
    "control_of",
    "controlnet_name",
    "controlnet_networks",
    "down_residual",
    "down_residual_out",
    "network_kind",
    "network_spec",
    "networks_of",
    "opened_networks",
    "profiles",
    "union_name",
    "without_context",
]

HISTORY: Final = 4
"""K: rows of the solver's state; row 0 is the latents x, the others its history."""
SOLVER_ROWS: Final = HISTORY + 2
"""Columns of a step's coefficients: the K state rows, eps, noise."""
LORA_MERGE: Final = "lora_merge"
"""The network that adds LoRAs to a matrix, on the device that runs the engines."""
LARGEST_SIDE: Final = 10240
"""Longest side of a matrix that `lora_merge` takes: SDXL's longest."""
LARGEST_RANK: Final = 1024
"""Highest rank that `lora_merge` takes, summed over all LoRAs of a matrix."""
UNION_TYPES: Final = 32
"""Most control types of a ControlNet-Union. The published ones have 6 and 8."""
MID_RESIDUAL: Final = "mid_residual"
MID_RESIDUAL_OUT: Final = "mid_residual_out"

NetworkKind = Literal[
    "text_encoder",
    "text_encoder_2",
    "unet",
    "unet_context",
    "controlnet",
    "controlnet_context",
    "controlnet_union",
    "controlnet_union_context",
    "vae_decoder",
    "vae_encoder",
    "lora_merge",
]


_CONTROLNET: Final = "controlnet"
_UNION: Final = "controlnet_union"
_CONTEXT: Final = "_context"


def down_residual(index: int) -> str:
    """Name of the down residual going in."""
    return f"down_residual_{index}"


def down_residual_out(index: int) -> str:
    """Name of the down residual coming out of a ControlNet."""
    return f"down_residual_{index}_out"


def context_keys(index: int) -> str:
    """Name of the keys of cross-attention `index`. They include the scale: a query's product with a key is
    its logit.
    """
    return f"keys_{index}"


def context_values(index: int) -> str:
    """Name of the values of cross-attention `index`."""
    return f"values_{index}"


def controlnet_name(control: str) -> str:
    """Network name of the ControlNet of one type with registry id `control`."""
    return f"{_CONTROLNET}.{control}"


def union_name(union: str) -> str:
    """Network name of the ControlNet-Union with registry id `union`."""
    return f"{_UNION}.{union}"


def context_name(network: str) -> str:
    """Name of the network that computes once per image what every step of `network` (`unet` or a ControlNet)
    needs.
    """
    kind, _, control = network.partition(".")
    return kind + _CONTEXT + (f".{control}" if control else "")


def controlnet_networks(network: str) -> tuple[str, str]:
    """Both networks of a ControlNet, of which `network` runs in every step: that one, and its context."""
    return network, context_name(network)


def control_of(network: str) -> str:
    """Id of the ControlNet, in the deployment's `controlnets`, that `network` belongs to; "" without one."""
    return network.partition(".")[2]


def without_context(network: str) -> str:
    """The inverse of `context_name`; a network that is no context is itself."""
    kind, dot, control = network.partition(".")
    return kind.removesuffix(_CONTEXT) + dot + control


def networks_of(controlnets: Iterable[str], *, swaps: bool) -> tuple[str, ...]:
    """Every network that a build has.

    `controlnets` are names of networks, see `controlnet_name` and `union_name`. `swaps` says whether requests
    choose their LoRAs.
    """
    steps = ("unet", *controlnets)
    names = ["text_encoder", "text_encoder_2"]
    for step in steps:
        names += [step, context_name(step)]
    names += ["vae_decoder", "vae_encoder"]
    if swaps:
        names.append(LORA_MERGE)
    return tuple(names)


def opened_networks(controlnets: Iterable[str], *, merges: bool) -> tuple[str, ...]:
    """Those of `networks_of` that a server opens; `merges` says whether `lora_merge` computes new weights.

    No request brings an image to encode, so the VAE's encoder stays closed.
    """
    return tuple(name for name in networks_of(controlnets, swaps=merges) if name != "vae_encoder")


def network_kind(name: str) -> NetworkKind:
    """Which specification `name` has: `controlnet.pose` is a `controlnet`."""
    kind, _, control = name.partition(".")
    if kind not in _SPECS or kind.startswith(_CONTROLNET) != bool(control):
        known = ", ".join(one for one in _SPECS if not one.startswith(_CONTROLNET))
        raise KeyError(f"unknown network {name!r}; known: {known}, {_CONTROLNET}.<id>, {_UNION}.<id>")
    return kind  # type: ignore[return-value]


def network_spec(name: str, architecture: Architecture) -> NetworkSpec:
    """Inputs and outputs of the network `name`; KeyError when there is none of that name."""
    inputs, outputs = _SPECS[network_kind(name)](architecture)
    return NetworkSpec(name=name, inputs=inputs, outputs=outputs)


_Tensors = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def _tokens(a: Architecture) -> tuple[TensorSpec, ...]:
    return TensorSpec("input_ids", ("C", a.tokens), "int64"), TensorSpec("state_rows", ("C",), "int64")


def _text_encoder(a: Architecture) -> _Tensors:
    # `state_rows` is (layers skipped) C + (chunk). With no layer skipped, `hidden_states` are the output of
    # the last layer but one, which SDXL reads.
    return (
        _tokens(a),
        (TensorSpec("hidden_states", ("C", a.tokens, a.text_width), "compute"),),
    )


def _text_encoder_2(a: Architecture) -> _Tensors:
    return (
        _tokens(a),
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
        height, width = (_scaled(side, residual.scale) for side in ("h", "w"))
        return TensorSpec(name, ("N", height, width, residual.channels), "compute")

    name = down_residual_out if out else down_residual
    down = tuple(spec(name(index), residual) for index, residual in enumerate(a.down_residuals))
    return (*down, spec(MID_RESIDUAL_OUT if out else MID_RESIDUAL, a.mid_residual))


def _context(attentions: Sequence[CrossAttention]) -> tuple[TensorSpec, ...]:
    specs = []
    for index, attention in enumerate(attentions):
        axes = ("N", attention.heads, "T", attention.width)
        specs.append(TensorSpec(context_keys(index), axes, "compute"))
        specs.append(TensorSpec(context_values(index), axes, "compute"))
    return tuple(specs)


def _prompt(a: Architecture) -> TensorSpec:
    return TensorSpec("prompt_embeds", ("N", "T", a.context_width), "compute")


def _control_embedding(a: Architecture) -> TensorSpec:
    return TensorSpec("control_embedding", ("B", "h", "w", a.down_residuals[0].channels), "compute")


def _unet_context(a: Architecture) -> _Tensors:
    return (_prompt(a),), _context(a.attentions)


def _controlnet_context(a: Architecture) -> _Tensors:
    # The image comes as bytes, a quarter of the size of floats to upload. The card converts it in no time;
    # the host would need several milliseconds.
    image = TensorSpec("control_image", ("B", "H", "W", 3), "uint8")
    return (_prompt(a), image), (_control_embedding(a), *_context(a.control_attentions))


def _unet(a: Architecture) -> _Tensors:
    latents = ("B", a.latent_channels, "h", "w")
    step = (
        TensorSpec("guidance_scale", (1,)),
        TensorSpec("guidance_rescale", (1,)),
        TensorSpec("coefficients", (HISTORY, SOLVER_ROWS)),
        TensorSpec("noise", latents),
    )
    inputs = (*_conditioning(a), *step, *_residuals(a, out=False), *_context(a.attentions))
    return inputs, (TensorSpec("new_state", (HISTORY, *latents)),)


def _controlnet(a: Architecture) -> _Tensors:
    control = (_control_embedding(a), TensorSpec("conditioning_scale", (1,)))
    context = _context(a.control_attentions)
    inputs = (*_conditioning(a), *control, *_residuals(a, out=False), *context)
    return inputs, _residuals(a, out=True)


def _union_context(a: Architecture) -> _Tensors:
    # One run for each control of a pass. `control_mode` is the index of its type; `control_weight` is what
    # its embedding is multiplied by. The sum over the controls comes to `control_embedding`.
    (prompt, image), outputs = _controlnet_context(a)
    embedding = _control_embedding(a)
    control = (
        TensorSpec("control_mode", (1,), "int64"),
        TensorSpec("control_weight", (1,)),
        TensorSpec("embedding_before", embedding.axes, embedding.dtype),
    )
    return (prompt, image, *control), outputs


def _union(a: Architecture) -> _Tensors:
    # `control_types` is 1 at the index of every type that takes part, and 0 elsewhere.
    inputs, outputs = _controlnet(a)
    return (TensorSpec("control_types", (UNION_TYPES,)), *inputs), outputs


def _vae_decoder(a: Architecture) -> _Tensors:
    # The latents are already divided by the scaling factor. The magnitude is the mean of |sample|: it is
    # finite only if every value is.
    return (
        (TensorSpec("latent_sample", ("B", a.latent_channels, "h", "w")),),
        (TensorSpec("pixels", ("B", "H", "W", 3), "uint8"), TensorSpec("magnitude", ("B",))),
    )


def _vae_encoder(a: Architecture) -> _Tensors:
    # The first half of the channels is the mean, the second half the logarithm of the variance; neither is
    # multiplied by the scaling factor yet.
    return (
        (TensorSpec("sample", ("B", 3, "H", "W")),),
        (TensorSpec("latent_parameters", ("B", 2 * a.latent_channels, "h", "w"), "compute"),),
    )


def _lora_merge(_: Architecture) -> _Tensors:
    # merged[i, o] = weight[i, o] + sum over r of strengths[r] left[r, i] right[r, o]
    # The sum is in float32 and is cast once.
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
    _UNION: _union,
    "controlnet_union_context": _union_context,
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
    """The size of every axis in one pass of `images` images of `width` x `height` pixels.

    A prompt has `chunks` chunks; with guidance both prompts are encoded together, so C is twice that.
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
    """Profiles of `network`: one for every combination of size, batch, guidance and number of chunks.

    Equal profiles are left out. Text encoders have one profile with a range of C. `sizes` are (width, height)
    in pixels; `chunks` is the most chunks that a prompt may have.
    """
    names = network.axis_names
    if names == ("C",):
        most = 2 * chunks
        return (Profile(f"C1-{most}", {"C": AxisRange(1, min(2, most), most)}),)
    if names == ("i", "o", "r"):
        side, rank = AxisRange(1, 1280, LARGEST_SIDE), AxisRange(1, 128, LARGEST_RANK)
        return (Profile("matrices", {"i": side, "o": side, "r": rank}),)
    found: dict[tuple[int, ...], Profile] = {}
    combinations = itertools.product(sizes, batches, guidance, range(1, chunks + 1))
    for (width, height), images, mode, count in combinations:
        every = axis_sizes(
            architecture, width=width, height=height, images=images, guidance=mode, chunks=count
        )
        own = {name: every[name] for name in names}
        counts = "".join(f"-{axis}{own[axis]}" for axis in ("B", "N", "T") if axis in own)
        axes = {name: AxisRange(size, size, size) for name, size in own.items()}
        found.setdefault(tuple(own.values()), Profile(f"{width}x{height}{counts}", axes))
    return tuple(found.values())
