"""Weights into memory: networks of diffusers and transformers, from files or from a seed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final, get_args

import torch
from diffusers import AutoencoderKL, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    DIFFUSERS_TO_LDM_MAPPING,
    convert_controlnet_checkpoint,
    create_diffusers_clip_model_from_ldm,
)
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from intaglio.contract.tensors import Precision, compute_dtype
from intaglio.errors import BuildError
from intaglio.text_encoder_names import PUBLISHED_NAMES
from intaglio_export.weights.checkpoint_files import PREFIXES, network_files
from intaglio_export.weights.controlnet_files import ORIGINAL_PREFIX
from intaglio_export.weights.seeded import make_network
from intaglio_export.weights.sources import Base, Weights
from intaglio_export.weights.text_encoders import with_published_names
from intaglio_export.weights.vae_range import fit_into_float16

__all__ = ["TORCH_DTYPES", "load_for_precision", "load_network"]

log = logging.getLogger(__name__)

TORCH_DTYPES: Final[Mapping[Precision, torch.dtype]] = {
    precision: getattr(torch, compute_dtype(precision)) for precision in get_args(Precision)
}
"""The contract's dtypes of each precision as torch has them."""
_NO_WEIGHT: Final = "position_ids"
"""End of the name of a tensor that old checkpoints of text encoders hold and that is computed today."""
_CLASSES: Final[Mapping[str, Any]] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "controlnet": ControlNetModel,
    "controlnet_union": ControlNetUnionModel,
}


def load_network(
    component: str, weights: Weights, *, base: Base | None = None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The network in `dtype` on the CPU; `component` is one of `COMPONENTS`, `controlnet` or
    `controlnet_union`, or one of the last two with an id (`controlnet.pose`).

    Raises:
        BuildError: the files do not fit the configuration.
    """
    kind = component.partition(".")[0]
    if weights.seeded is not None:
        return make_network(kind, weights.seeded, dtype=dtype)
    try:
        if weights.derived is not None:
            network = _controlnet_of_file(kind, weights, dtype=dtype).eval()
        elif weights.file is not None:
            network = _from_single_file(kind, weights, base=base, dtype=dtype).eval()
        else:
            network = _from_folder(kind, weights, dtype=dtype).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BuildError(f"{weights.file or weights.folder}: does not load as {kind}: {error}") from error
    return with_published_names(network) if kind.startswith("text_encoder") else network


def _from_single_file(kind: str, weights: Weights, *, base: Base | None, dtype: torch.dtype) -> nn.Module:
    """One component of a file in Stability's layout; only its own tensors are read."""
    assert weights.file is not None
    root = str(weights.folder.parent if base is None else base.root)
    with safe_open(weights.file, framework="pt") as file:
        own = [name for name in file.keys() if name.startswith(PREFIXES[kind])]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in own}
    options: dict[str, Any] = {
        "config": root,
        "subfolder": kind,
        "local_files_only": True,
        "torch_dtype": dtype,
    }
    network: nn.Module
    try:
        if kind in ("unet", "vae"):
            network = _CLASSES[kind].from_single_file(tensors, **options)
        else:
            network = create_diffusers_clip_model_from_ldm(_CLASSES[kind], tensors, **options)  # type: ignore[no-untyped-call]
    except NotImplementedError as error:  # torch's, of a parameter that got no values
        raise ValueError("weights are missing from the file; fetch it again") from error
    return network


def _controlnet_of_file(kind: str, weights: Weights, *, dtype: torch.dtype) -> nn.Module:
    """A ControlNet of a single file, in diffusers' layout or its own."""
    assert weights.file is not None
    with safe_open(weights.file, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "time_embedding.linear_1.weight" not in tensors:
        tensors = _converted_controlnet(tensors, weights.config)
    network: nn.Module = _CLASSES[kind].from_config(dict(weights.config))
    report = network.load_state_dict(tensors, strict=False)
    _refuse_any("the file lacks", report.missing_keys)
    _refuse_any("a ControlNet of this base has no place for", report.unexpected_keys)
    return network.to(dtype)


def _converted_controlnet(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """ControlNet's own layout -> diffusers'."""
    own = {name.removeprefix(ORIGINAL_PREFIX): values for name, values in tensors.items()}
    found: dict[str, Tensor] = convert_controlnet_checkpoint(own, config)  # type: ignore[no-untyped-call]
    # diffusers' function leaves out the embedding of size and pooled prompt, which only SDXL has.
    names: Any = DIFFUSERS_TO_LDM_MAPPING["controlnet"]
    for name, original in names["addition_embed_type"].items():
        if original in own:
            found[name] = own[original]
    return {name: values for name, values in found.items() if values is not None}


def _from_folder(kind: str, weights: Weights, *, dtype: torch.dtype) -> nn.Module:
    options: dict[str, Any] = {
        "use_safetensors": True,
        "local_files_only": True,
        "variant": network_files(weights.folder, kind).variant,
        "torch_dtype": dtype,
        "output_loading_info": True,
    }
    if kind.startswith("text_encoder"):
        options["key_mapping"] = PUBLISHED_NAMES
    network: nn.Module
    network, report = _CLASSES[kind].from_pretrained(weights.folder, **options)
    # The libraries draw missing weights at random and pass over the others, each with a warning.
    _refuse_any("the weights lack", report["missing_keys"])
    _refuse_any("the configuration has no place for", report["unexpected_keys"])
    return network


def _refuse_any(problem: str, names: Collection[str]) -> None:
    named = sorted(name for name in names if not name.endswith(_NO_WEIGHT))
    if named:
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        raise ValueError(f"{problem} {named[0]}{more}")


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
