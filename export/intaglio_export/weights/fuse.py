"""Fuse LoRAs into weights: always from the pristine base, in float32, with diffusers' own loader.

Every key of a LoRA file must belong to this model. A key that does not is an error, because a LoRA that is
only half applied looks like a bad LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from diffusers import StableDiffusionXLPipeline
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor, nn

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError
from intaglio.loras.targets import SWAPPED

__all__ = ["check_lora_keys", "fuse_loras"]

_KEY: Final = re.compile(r"^(.+)\.(lora_A|lora_B|lora_magnitude_vector)(\.weight)?$")


def fuse_loras(
    networks: Mapping[str, nn.Module], loras: Sequence[ResolvedLora], *, paths: Mapping[str, Path]
) -> frozenset[str]:
    """Add `loras` to `networks` in place, in their order; returns the components that they changed.

    `networks` are all components that a LoRA may change, pristine and in float32. `paths` are the files by
    id.

    Raises:
        BuildError: a file is no LoRA for this model (unknown keys, other shapes), or the fused weights would
            not
            be finite.
    """
    pipeline = _pipeline(networks)
    changed: set[str] = set()
    for lora in loras:
        path = paths[lora.id]
        state = _read_lora(pipeline, lora.id, path)
        try:
            changed |= check_lora_keys(lora.id, state, networks=networks)
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=_adapter(lora.id)
            )
        except (RuntimeError, ValueError, KeyError) as error:
            raise BuildError(f"lora {lora.id}: {path.name} does not fit this base: {error}") from error
    names = [_adapter(lora.id) for lora in loras]
    try:
        pipeline.set_adapters(names, [lora.weight for lora in loras])
        pipeline.fuse_lora(components=sorted(changed), adapter_names=names, safe_fusing=True)
    except (RuntimeError, ValueError) as error:
        raise BuildError(f"loras {', '.join(lora.id for lora in loras)}: {error}") from error
    pipeline.unload_lora_weights()
    return frozenset(changed)


def _adapter(lora: str) -> str:
    # peft makes module names of it, which have no dots and do not start with a digit.
    return f"lora_{lora.replace('-', '_')}"


def _pipeline(networks: Mapping[str, nn.Module]) -> Any:
    others: dict[str, Any] = {"vae": None, "tokenizer": None, "tokenizer_2": None, "scheduler": None}
    return StableDiffusionXLPipeline(**others, **networks, add_watermarker=False)  # type: ignore[no-untyped-call]


def _read_lora(pipeline: Any, lora: str, path: Path) -> Mapping[str, Tensor]:
    """The file's tensors in diffusers' layout; kohya's layout is converted."""
    try:
        state, *_ = pipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, unet_config=pipeline.unet.config
        )
    except Exception as error:  # the converters raise many types of errors for a foreign layout
        raise BuildError(f"lora {lora}: {path.name} is not a LoRA for SDXL: {error}") from error
    found: Mapping[str, Tensor] = state
    return found


def check_lora_keys(lora: str, state: Mapping[str, Tensor], *, networks: Mapping[str, nn.Module]) -> set[str]:
    """Components that `state` (diffusers' layout) changes; every key must name a layer of `networks`.

    Raises:
        BuildError: no keys, or keys of another model; the message shows the first three of them.
    """
    changed: set[str] = set()
    unknown: list[str] = []
    for component, own in _by_component(state).items():
        layers = {name for name, _ in networks[component].named_modules()} if component else set()
        for key in own:
            match = _KEY.match(key)
            if match is not None and match[1] in layers:
                changed.add(component)
            elif not key.endswith(".alpha"):
                unknown.append(f"{component}.{key}" if component else key)
    if unknown or not changed:
        examples = ", ".join(unknown[:3]) or "the file has no LoRA weights"
        raise BuildError(
            f"lora {lora}: {len(unknown)} of {len(state)} keys do not belong to this base: {examples}"
        )
    return changed


def _by_component(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by component under peft's names; keys of no component are under "".

    The converters are those that diffusers loads with.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, values in state.items():
        component, _, name = key.partition(".")
        if component in SWAPPED:
            found.setdefault(component, {})[name] = values
        else:
            found.setdefault("", {})[key] = values
    for component, own in found.items():
        if component == "unet":
            found[component] = convert_unet_state_dict_to_peft(own)  # type: ignore[no-untyped-call]
        elif component and not any(".lora_A." in key for key in own):
            diffusers_keys = convert_state_dict_to_diffusers(own)  # type: ignore[no-untyped-call]
            found[component] = convert_state_dict_to_peft(diffusers_keys)  # type: ignore[no-untyped-call]
    return found
