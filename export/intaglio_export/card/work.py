"""What a pass of each network computes, counted on networks without weights and without a card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from intaglio_export.card.graphs import KINDS, Kind

__all__ = ["Work", "count_work", "image_work"]

_KIND_OF_OPERATOR: Final[Mapping[str, Kind]] = {
    "addmm": "product",
    "mm": "product",
    "convolution": "convolution",
    "bmm": "attention",
    "baddbmm": "attention",
    "scaled_dot_product": "attention",
}
_ELEMENTWISE: Final = ("group_norm", "layer_norm", "silu", "gelu", "add.", "mul.Tensor", "cat", "clone")
"""Operators that read and write whole feature maps and compute little."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a computation needs at least."""

    operations: Mapping[Kind, float]
    """Floating-point operations; a multiplication and an addition count as two."""
    bytes: float
    """Read and written in float16 by convolutions, matrix products and attention."""
    elementwise_bytes: float
    """Read and written in float16 by normalisations, activations, sums and copies, if none is fused."""

    @property
    def total(self) -> float:
        """Operations of all kinds."""
        return sum(self.operations.values())

    def __add__(self, other: Work) -> Work:
        operations = {kind: self.operations[kind] + other.operations[kind] for kind in KINDS}
        return Work(operations, self.bytes + other.bytes, self.elementwise_bytes + other.elementwise_bytes)

    def times(self, count: float) -> Work:
        """`count` of it."""
        operations = {kind: count * value for kind, value in self.operations.items()}
        return Work(operations, count * self.bytes, count * self.elementwise_bytes)


class _ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of inputs and outputs by operator, two for each value."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, output)) if isinstance(leaf, torch.Tensor)]
        self.bytes[str(function)] += sum(2 * tensor.numel() for tensor in tensors)
        return output


def count_work(network: Any, *arguments: Any, **named: Any) -> Work:
    """Work of one call of `network`; everything may be on the `meta` device."""
    with torch.no_grad(), _ByteCounter() as counter, FlopCounterMode(display=False) as counted:
        network(*arguments, **named)
    operations: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    for operator, count in counted.get_flop_counts().get("Global", {}).items():
        operations[_kind_of(str(operator))] += count
    matrix = sum(size for name, size in counter.bytes.items() if _is_matrix(name))
    elementwise = sum(size for name, size in counter.bytes.items() if _is_elementwise(name))
    return Work(operations, matrix, elementwise)


def _kind_of(operator: str) -> Kind:
    name = operator.removeprefix("aten.").lstrip("_")
    for known, kind in _KIND_OF_OPERATOR.items():
        if name.startswith(known):
            return kind
    raise ValueError(f"operator {operator} is of no known kind: {', '.join(_KIND_OF_OPERATOR)}")


def _is_matrix(operator: str) -> bool:
    return any(name in operator for name in _KIND_OF_OPERATOR)


def _is_elementwise(operator: str) -> bool:
    return any(name in operator for name in _ELEMENTWISE)


def image_work(
    configs: Mapping[str, Mapping[str, Any]], *, width: int, height: int, guidance: bool
) -> dict[str, Work]:
    """Work of one pass of each network that counts, for one image of `width` x `height` pixels.

    `configs` are diffusers' configurations of `unet`, `controlnet`, `vae` and `text_encoder_2`, as
    `intaglio_export.weights.seeded.ARCHITECTURES` has them.
    """
    with init_empty_weights():
        unet: Any = UNet2DConditionModel.from_config(dict(configs["unet"]))  # type: ignore[no-untyped-call]
        controlnet: Any = ControlNetModel.from_config(dict(configs["controlnet"]))  # type: ignore[no-untyped-call]
        vae: Any = AutoencoderKL.from_config(dict(configs["vae"]))  # type: ignore[no-untyped-call]
    rows = 2 if guidance else 1
    pooled = configs["text_encoder_2"]["projection_dim"]

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    given = {
        "sample": empty(rows, 4, height // 8, width // 8),
        "timestep": empty(1),
        "encoder_hidden_states": empty(rows, 77, configs["unet"]["cross_attention_dim"]),
        "added_cond_kwargs": {"text_embeds": empty(rows, pooled), "time_ids": empty(rows, 6)},
    }
    return {
        "unet": count_work(unet, **given),
        "controlnet": count_work(controlnet, **given, controlnet_cond=empty(rows, 3, height, width)),
        "vae_decoder": count_work(vae.decode, empty(1, 4, height // 8, width // 8)),
    }
