"""Inputs that a network is traced with and verified on: plausible values, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from intaglio.contract.sdxl import context_keys
from intaglio.contract.tensors import NetworkSpec, Precision, TensorSpec
from intaglio_export.weights.latents import SDXL_LATENTS, LatentStatistics
from intaglio_export.weights.load import TORCH_DTYPES
from intaglio_export.weights.vae_range import real_range_latents

__all__ = ["example_inputs"]

_SCALARS: Final = {
    "timestep": 500.0,
    "input_scale": 0.5,
    "guidance_scale": 5.0,
    "guidance_rescale": 0.7,
    "conditioning_scale": 0.75,
    "control_weight": 0.75,
}
"""Values in the middle of a trajectory."""
_TIME_IDS: Final = (1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0)
"""SDXL's original size, crop and target size."""
_PLAIN_TOKENS: Final = 40000
_START_TOKEN: Final = 49406
_END_TOKEN: Final = 49407
"""CLIP's; pooling looks for the end token."""


def example_inputs(
    network: NetworkSpec,
    sizes: Mapping[str, int],
    *,
    precision: Precision,
    latents: LatentStatistics = SDXL_LATENTS,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Values for every input of `network`; `sizes` has the size of each of its named axes.

    A decoder's input has the range that `latents` give it.
    """
    generator = torch.Generator().manual_seed(seed)
    keys = {context_keys(index) for index in range(len(network.inputs))}
    inputs = {}
    for spec in network.inputs:
        shape = spec.shape(sizes)
        if spec.name == "latent_sample":
            inputs[spec.name] = real_range_latents(shape, latents, seed=seed)
        elif (known := _known_input(spec.name, shape, generator)) is not None:
            inputs[spec.name] = known
        else:
            scale = shape[-1] ** -0.5 if spec.name in keys else _noise_scale(spec)
            dtype = TORCH_DTYPES[precision] if spec.dtype == "compute" else torch.float32
            inputs[spec.name] = (scale * torch.randn(shape, generator=generator)).to(dtype)
    return inputs


def _known_input(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
    """Values of an input that must not be noise; None for all others."""
    if name in _SCALARS:
        return torch.full(shape, _SCALARS[name])
    match name:
        case "state_rows":
            # Nothing is skipped: the hidden states are of the last layer that is computed for them.
            return torch.arange(shape[0])
        case "input_ids":
            tokens = torch.randint(0, _PLAIN_TOKENS, shape, generator=generator)
            tokens[:, 0] = _START_TOKEN
            tokens[:, shape[1] // 2 :] = _END_TOKEN
            return tokens
        case "time_ids":
            return torch.tensor(_TIME_IDS).expand(shape).contiguous()
    return _known_control(name, shape, generator)


def _known_control(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor | None:
    """The same for what a ControlNet alone takes."""
    match name:
        case "control_image":
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        case "control_mode":
            return torch.zeros(shape, dtype=torch.int64)
        case "control_types":
            return (torch.arange(shape[0]) < 2).float()  # two types that every union has
    return None


def _noise_scale(spec: TensorSpec) -> float:
    if spec.name == "coefficients":
        return 0.5
    return 0.1 if "residual" in spec.name else 1.0
