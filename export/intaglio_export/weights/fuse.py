"""LoRAs into weights: always from the pristine base, in float32, by diffusers' own loader.

Every key of a LoRA file must belong to this model; one that does not is an error, since a LoRA half applied
looks like a bad LoRA.
"""

# ruff: noqa: PLC0415  (torch is imported only when LoRAs are fused)

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from intaglio.builds.manifest import content_key
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FUSABLE", "LoraChoice", "check_lora_keys", "fuse_loras", "lora_set_digest"]

FUSABLE: Final = ("text_encoder", "text_encoder_2", "unet")
"""Components that a LoRA may touch."""
_KEY: Final = re.compile(r"^(.+)\.(lora_A|lora_B|lora_magnitude_vector)(\.weight)?$")


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """One LoRA of the set, in the order of fusing."""

    id: str
    path: Path
    weight: float
    sha256: str

    @property
    def record(self) -> ResolvedLora:
        """As the manifest keeps it."""
        return ResolvedLora(id=self.id, weight=self.weight, sha256=self.sha256)


def lora_set_digest(loras: Sequence[LoraChoice]) -> str:
    """Digest of what is fused: content and weight of every LoRA; names do not matter."""
    return content_key({"loras": sorted([lora.sha256, lora.weight] for lora in loras)})


def fuse_loras(networks: Mapping[str, nn.Module], loras: Sequence[LoraChoice]) -> frozenset[str]:
    """Add `loras` to `networks` (every one of `FUSABLE`, float32, pristine) in place; returns the components
    touched.

    Raises:
        BuildError: a file is not a LoRA for this model (unknown keys, other shapes) or makes weights that are
            not finite.
    """
    pipeline = _pipeline(networks)
    touched: set[str] = set()
    for lora in loras:
        state, *_ = _read_lora(pipeline, lora)
        try:
            touched |= check_lora_keys(lora.id, state, networks=networks)
            pipeline.load_lora_weights(
                str(lora.path.parent), weight_name=lora.path.name, adapter_name=_adapter(lora.id)
            )
        except (RuntimeError, ValueError, KeyError) as error:
            raise BuildError(f"lora {lora.id}: {lora.path.name} does not fit this base: {error}") from error
    try:
        names = [_adapter(lora.id) for lora in loras]
        components = sorted(touched)
        pipeline.set_adapters(names, [lora.weight for lora in loras])
        pipeline.fuse_lora(components=components, adapter_names=names, safe_fusing=True)
    except (RuntimeError, ValueError) as error:
        raise BuildError(f"loras {', '.join(lora.id for lora in loras)}: {error}") from error
    pipeline.unload_lora_weights()
    return frozenset(touched)


def _adapter(lora: str) -> str:
    return f"lora_{lora.replace('-', '_')}"  # peft makes module names of it: no dots, nothing that starts with a digit


def _pipeline(networks: Mapping[str, nn.Module]) -> Any:
    from diffusers import StableDiffusionXLPipeline

    parts: dict[str, Any] = {"vae": None, "tokenizer": None, "tokenizer_2": None, "scheduler": None}
    return StableDiffusionXLPipeline(**parts, **networks, add_watermarker=False)  # type: ignore[no-untyped-call]


def _read_lora(pipeline: Any, lora: LoraChoice) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The file in diffusers' layout (kohya's is converted) and its alphas."""
    try:
        state, alphas, *_ = pipeline.lora_state_dict(
            str(lora.path.parent), weight_name=lora.path.name, unet_config=pipeline.unet.config
        )
    except Exception as error:  # converters raise whatever a foreign layout trips over
        raise BuildError(f"lora {lora.id}: {lora.path.name} is not a LoRA for SDXL: {error}") from error
    return state, alphas or {}


def check_lora_keys(lora: str, state: Mapping[str, Tensor], *, networks: Mapping[str, nn.Module]) -> set[str]:
    """Components that `state` (diffusers' layout) touches; every key must name a layer that the networks
    have.

    Raises:
        BuildError: no keys, or keys of another model, with the first three of them.
    """
    touched, unknown = set(), []
    for component, part in _by_component(state).items():
        layers = {name for name, _ in networks[component].named_modules()} if component else set()
        for key in part:
            match = _KEY.match(key)
            if match is not None and match[1] in layers:
                touched.add(component)
            elif not key.endswith(".alpha"):
                unknown.append(f"{component}.{key}" if component else key)
    if unknown or not touched:
        examples = ", ".join(unknown[:3]) or "the file has no LoRA weights"
        raise BuildError(
            f"lora {lora}: {len(unknown)} of {len(state)} keys do not belong to this base: {examples}"
        )
    return touched


def _by_component(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Keys in peft's names by component, by the converters that diffusers loads with; foreign keys under ""."""
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    parts: dict[str, dict[str, Tensor]] = {}
    for key, values in state.items():
        component, _, name = key.partition(".")
        parts.setdefault(component if component in FUSABLE else "", {})[
            name if component in FUSABLE else key
        ] = values
    for component, part in parts.items():
        if component == "unet":
            parts[component] = convert_unet_state_dict_to_peft(part)  # type: ignore[no-untyped-call]
        elif component and not any(".lora_A." in key for key in part):
            parts[component] = convert_state_dict_to_peft(convert_state_dict_to_diffusers(part))  # type: ignore[no-untyped-call]
    return parts
