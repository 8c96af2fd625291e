"""Weights into memory: networks of diffusers and transformers, from files or from a seed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, get_args

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from intaglio.contract.tensors import Precision, compute_dtype
from intaglio.errors import BuildError
from intaglio_export.weights.seeded import make_network
from intaglio_export.weights.sources import Base, Weights, weight_files
from intaglio_export.weights.vae_range import fit_into_float16

__all__ = ["TORCH_DTYPES", "load_for_precision", "load_network"]

log = logging.getLogger(__name__)

TORCH_DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    precision: getattr(torch, compute_dtype(precision)) for precision in get_args(Precision)
}
"""The contract's dtypes of each precision as torch has them."""
_CLASSES: Final[Mapping[str, Any]] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "controlnet": ControlNetModel,
}


def load_network(
    component: str, weights: Weights, *, base: Base | None = None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The network in `dtype` on the CPU; `component` is one of `COMPONENTS`, `controlnet` or
    `controlnet.<id>`.

    Raises:
        BuildError: the files do not fit the configuration.
    """
    kind = component.partition(".")[0]
    if weights.seeded is not None:
        return make_network(kind, weights.seeded, dtype=dtype)
    try:
        if weights.file is not None:
            return _from_single_file(kind, weights, base=base, dtype=dtype).eval()
        return _from_folder(kind, weights, dtype=dtype).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BuildError(f"{weights.file or weights.folder}: does not load as {kind}: {error}") from error


def _from_single_file(kind: str, weights: Weights, *, base: Base | None, dtype: torch.dtype) -> nn.Module:
    root = weights.folder.parent if base is None else base.root
    pipeline: Any = StableDiffusionXLPipeline.from_single_file(  # type: ignore[no-untyped-call]
        str(weights.file), config=str(root), local_files_only=True, torch_dtype=dtype
    )
    network: nn.Module = getattr(pipeline, kind)
    return network


def _from_folder(kind: str, weights: Weights, *, dtype: torch.dtype) -> nn.Module:
    has_plain = any(".fp16" not in file.name for file in weight_files(weights.folder))
    options: dict[str, Any] = {
        "use_safetensors": True,
        "local_files_only": True,
        "variant": None if has_plain else "fp16",
        "torch_dtype": dtype,
    }
    network: nn.Module = _CLASSES[kind].from_pretrained(weights.folder, **options)
    return network


def load_for_precision(
    component: str, weights: Weights, *, base: Base | None, precision: Precision
) -> nn.Module:
    """As `load_network`, in the dtype of `precision`; a VAE is changed so that float16 holds its activations.

    Raises:
        BuildError: the files do not fit the configuration.
    """
    dtype = TORCH_DTYPES[precision]
    if component != "vae" or dtype != torch.float16:
        return load_network(component, weights, base=base, dtype=dtype)
    vae = load_network(component, weights, base=base)
    divisors = fit_into_float16(vae)
    if max(divisors.values()) > 1:
        log.info("vae: activations divided to stay inside float16: %s", divisors)
    return vae.to(dtype)
