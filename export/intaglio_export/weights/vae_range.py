"""Make an autoencoder's activations small enough for float16 without changing what it computes.

SDXL's own VAE exceeds 65504 in its widest blocks. Every block begins with a group normalisation, which
removes any scale (its epsilon is scaled as well). So everything that feeds a stream may be divided by a power
of two. The result is exact but for float16's own rounding.

Layers of `diffusers.AutoencoderKL`:
    conv_in, resnets {norm1, conv1, norm2, conv2, conv_shortcut}, attentions {group_norm, to_out}, samplers
    {conv}, conv_norm_out
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from intaglio_export.weights.latents import LatentStatistics

__all__ = ["fit_into_float16", "largest_activation", "real_range_latents"]

_MOST: Final = 65504 / 8
"""Largest activation allowed on the inputs tried here; other pictures reach more."""
_TRIED_LATENTS: Final = (24, 32)


def fit_into_float16(vae: Any) -> dict[str, int]:
    """Divide the streams of encoder and decoder (float32) where they need it.

    Returns the divisor of each, which is 1 where nothing was changed.
    """
    divisors = {}
    statistics = LatentStatistics.of(vae.config)
    latents = real_range_latents((1, vae.config.latent_channels, *_TRIED_LATENTS), statistics, seed=0)
    passes = {"decoder": lambda: vae.decode(latents), "encoder": lambda: vae.encode(_picture(vae))}
    for name, run in passes.items():
        half = getattr(vae, name)
        excess = largest_activation(half, run) / _MOST
        divisors[name] = 2 ** max(math.ceil(math.log2(excess)), 0) if excess > 0 else 1
        _divide_streams(half, divisors[name])
    return divisors


def real_range_latents(shape: tuple[int, ...], statistics: LatentStatistics, *, seed: int) -> Tensor:
    """[B, 4, h, w] as a decoder gets them from a trajectory: scaled and moved as `statistics` say."""
    latents = _unit_latents(shape, seed=seed)
    if statistics.mean is not None and statistics.std is not None:
        latents = latents * torch.tensor(statistics.std)[:, None, None]
        return latents / statistics.scaling_factor + torch.tensor(statistics.mean)[:, None, None]
    return latents / statistics.scaling_factor


def _unit_latents(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Flat regions, whose activations are largest, and noise; of a standard deviation of about one."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(*shape[:2], -(-shape[2] // 8), -(-shape[3] // 8), generator=generator)
    regions = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, : shape[2], : shape[3]]
    return 0.9 * regions + 0.4 * torch.randn(shape, generator=generator)


def _picture(vae: Any) -> Tensor:
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    values = _unit_latents((1, vae.config.in_channels, *(scale * size for size in _TRIED_LATENTS)), seed=1)
    return (values / 2).clamp(-1, 1)


def largest_activation(part: nn.Module, run: Any) -> float:
    """Largest magnitude among the outputs of all layers of `part` while `run` runs."""
    found = [0.0]

    def watch(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found.append(float(output.abs().max()))

    handles = [module.register_forward_hook(watch) for module in part.modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return max(found)


def _divide_streams(part: Any, divisor: int) -> None:
    if divisor == 1:
        return
    with torch.no_grad():
        _divide(part.conv_in, divisor)
        for module in part.modules():
            match type(module).__name__:
                case "ResnetBlock2D":
                    _divide(module.conv1, divisor)  # only norm2 reads its output
                    _divide(module.conv2, divisor)
                    # The input of the shortcut is divided already.
                    _divide(module.conv_shortcut, divisor, weight=False)
                    for norm in (module.norm1, module.norm2):
                        norm.eps /= divisor**2
                case "Attention":
                    _divide(module.to_out[0], divisor)
                    module.group_norm.eps /= divisor**2
                case "Upsample2D" | "Downsample2D":
                    _divide(module.conv, divisor, weight=False)
        part.conv_norm_out.eps /= divisor**2


def _divide(layer: Any, divisor: int, *, weight: bool = True) -> None:
    if layer is None:
        return
    if weight:
        layer.weight /= divisor
    if layer.bias is not None:
        layer.bias /= divisor
