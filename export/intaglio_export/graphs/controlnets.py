"""ControlNets of one type and ControlNet-Unions as torch modules with the tensor table's inputs and outputs.

A ControlNet-Union (diffusers' `ControlNetUnionModel`) serves several control types, and several controls in
one pass. The context network runs once for each control and adds up their embeddings; the step network takes
the sum, and which types take part.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from intaglio_export.graphs.attention import attending, context_of, cross_attentions

__all__ = [
    "ControlNetContext",
    "ControlNetStep",
    "UnionContext",
    "UnionStep",
    "model_input",
    "residuals_and_context",
]


class ControlNetContext(nn.Module):
    """The embedding of the control image; the keys and values of the ControlNet's cross-attentions."""

    def __init__(self, controlnet: nn.Module) -> None:
        super().__init__()
        self.controlnet = controlnet

    def forward(self, prompt_embeds: Tensor, control_image: Tensor) -> tuple[Tensor, ...]:
        """`control_image` is [B, H, W, RGB] of bytes; its embedding [B, h, w, c]."""
        embedding = _embedded(self.controlnet, control_image, dtype=prompt_embeds.dtype)
        return embedding.permute(0, 2, 3, 1), *context_of(self.controlnet, prompt_embeds)


class UnionContext(nn.Module):
    """As `ControlNetContext` for one control of a union, whose embedding is added to those before it.

    diffusers' `ControlNetUnionModel.forward` adds to each embedding what a transformer makes of its mean and
    of the control type. This depends on no step and on no other control: in diffusers 0.36 to 0.42 the
    transformer's attention goes over the rows of a pass, and the rows of one control are equal.
    """

    def __init__(self, union: nn.Module) -> None:
        super().__init__()
        self.controlnet = union

    def forward(
        self,
        prompt_embeds: Tensor,
        control_image: Tensor,
        control_mode: Tensor,
        control_weight: Tensor,
        embedding_before: Tensor,
    ) -> tuple[Tensor, ...]:
        """`control_image` is [B, H, W, RGB] of bytes, an embedding [B, h, w, c]. `control_mode` [1] is the
        index of the control type.
        """
        union: Any = self.controlnet
        weight = control_weight.to(prompt_embeds.dtype)
        embedding = _embedded(union, control_image, dtype=prompt_embeds.dtype)
        feature = (embedding.mean((2, 3)) + union.task_embedding.index_select(0, control_mode)) * weight
        for layer in union.transformer_layes:
            feature = _attending_to_equals(layer, feature)
        shift = union.spatial_ch_projs(feature)[:, :, None, None]
        own = embedding * weight + shift * weight
        return embedding_before + own.permute(0, 2, 3, 1), *context_of(union, prompt_embeds)


class ControlNetStep(nn.Module):
    """Residuals so far plus `conditioning_scale` times this ControlNet's own."""

    def __init__(self, controlnet: nn.Module) -> None:
        super().__init__()
        # The context network has computed the embedding of the control image.
        self.controlnet = _with_parts(controlnet, controlnet_cond_embedding=nn.Identity())
        self._layers = cross_attentions(controlnet)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensor table's inputs in its order, see `_chained`."""
        return _chained(self.controlnet, self._layers, inputs)


class UnionStep(nn.Module):
    """As `ControlNetStep` for a union. The first input says which control types take part."""

    def __init__(self, union: nn.Module) -> None:
        super().__init__()
        # The context network has computed what the replaced parts would compute.
        self.controlnet = _with_parts(
            union,
            controlnet_cond_embedding=nn.Identity(),
            transformer_layes=nn.ModuleList(),
            spatial_ch_projs=_Nothing(),
        )
        self._layers = cross_attentions(union)

    def forward(self, control_types: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`control_types` [32] is 1 at the index of every type that takes part. `_chained` says what
        `inputs` are.
        """
        network = functools.partial(_as_one_type, self.controlnet, control_types)
        return _chained(network, self._layers, inputs)


class _Nothing(nn.Module):
    """Gives zeros, whatever it is given."""

    def forward(self, values: Tensor) -> Tensor:
        """[...] -> [1, 1]."""
        return values.new_zeros((1, 1))


def _embedded(controlnet: nn.Module, control_image: Tensor, *, dtype: torch.dtype) -> Tensor:
    """[B, H, W, RGB] of bytes -> [B, c, h, w]."""
    # Cast first: casting is all that TensorRT can do with bytes.
    image = control_image.float().permute(0, 3, 1, 2) / 255
    embedding: Tensor = controlnet.get_submodule("controlnet_cond_embedding")(image.to(dtype))
    return embedding


def _with_parts(network: nn.Module, **parts: nn.Module) -> nn.Module:
    """A shallow copy of `network` with `parts` instead of its own."""
    changed = copy.copy(network)
    changed._modules = {**network._modules, **parts}
    return changed


def _attending_to_equals(layer: Any, feature: Tensor) -> Tensor:
    """[B, c] -> [B, c]: diffusers' `ResidualAttentionBlock` where all B rows are equal.

    Attention to equal rows gives their value, so neither queries nor keys are computed.
    """
    attention = layer.attn
    weight = attention.in_proj_weight.chunk(3)[2]
    bias = attention.in_proj_bias.chunk(3)[2]
    feature = feature + attention.out_proj(nn.functional.linear(layer.ln_1(feature), weight, bias))
    made: Tensor = feature + layer.mlp(layer.ln_2(feature))
    return made


def _as_one_type(
    union: Any,
    control_types: Tensor,
    sample: Tensor,
    timestep: Tensor,
    *,
    controlnet_cond: Tensor,
    **call: Any,
) -> Any:
    """Call `union` as a ControlNet of one type, with the sum of the controls' embeddings."""
    rows = sample.shape[0]
    return union(
        sample,
        timestep,
        controlnet_cond=[controlnet_cond],
        control_type=control_types[: union.config.num_control_type].expand(rows, -1),
        control_type_idx=[0],  # without effect: the transformer that reads it is replaced
        **call,
    )


def _chained(
    network: Callable[..., Any], layers: Sequence[Any], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The residuals among `inputs` plus `conditioning_scale` times those of `network`.

    `control_embedding` is [B, h, w, c]; `rest` is as for the UNet. Residuals have the shapes of those in
    `rest`.
    """
    (
        state,
        pooled_embeds,
        time_ids,
        timestep,
        input_scale,
        control_embedding,
        conditioning_scale,
        *rest,
    ) = inputs  # the tensor table's order
    rows = pooled_embeds.shape[0]
    dtype = pooled_embeds.dtype
    residuals, context = residuals_and_context(rest, layers)
    with attending(layers, context):
        down, mid = network(
            model_input(state, input_scale, rows).to(dtype),
            timestep,
            encoder_hidden_states=None,
            controlnet_cond=_repeated(control_embedding.permute(0, 3, 1, 2), rows),
            added_cond_kwargs={"text_embeds": pooled_embeds, "time_ids": time_ids},
            return_dict=False,
        )
    scale = conditioning_scale.to(dtype)
    sums = (before + scale * own for before, own in zip(residuals, (*down, mid), strict=True))
    return tuple(values.permute(0, 2, 3, 1) for values in sums)


def residuals_and_context(
    rest: Sequence[Tensor], layers: Sequence[Any]
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """`rest` divided into residuals, moved to [N, c, h/s, w/s], and the keys and values of `layers`."""
    end = len(rest) - 2 * len(layers)
    return [values.permute(0, 3, 1, 2) for values in rest[:end]], rest[end:]


def _repeated(values: Tensor, rows: Tensor | int) -> Tensor:
    """[B, ...] -> [N, ...]: twice with guidance, once without."""
    return torch.cat([values, values])[:rows]


def model_input(state: Tensor, input_scale: Tensor, rows: Tensor | int) -> Tensor:
    """[4, B, 4, h, w] -> [N, 4, h, w]: the scaled latents of every row."""
    return _repeated(state[0] * input_scale, rows)
