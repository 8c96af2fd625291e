"""The LoRAs that styles and scenes apply, checked as those of a request that names such a preset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import LoraRegistry, ResolvedLora
from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.presets import Presets
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.versions import described_values
from intaglio.request.loras import asked_loras, check_fused, resolved_loras
from intaglio_export.weights.registry import registry_of

__all__ = ["check_preset_loras"]

_ANY_VERSION: Final = "0" * 64


def check_preset_loras(deployment: Deployment, presets: Presets) -> None:
    """Check every LoRA tag of `presets` against the registry, or against the fused set without swapping.

    A LoRA of the registry whose file is not there yet may be named.

    Raises:
        ConfigError: a request that names the preset is refused because of its LoRAs.
    """
    served = _as_served(registry_of(deployment)) if deployment.swaps else None
    fused = [
        ResolvedLora(id=lora, sha256=_ANY_VERSION, weight=weight) for lora, weight in deployment.fused.items()
    ]
    for place, text in _prompts(presets):
        asked = asked_loras(split_lora_tags(text).tags, [])
        try:
            if served is None:
                check_fused(asked, fused)
            else:
                resolved_loras(asked, served, most=deployment.limits.loras)
        except InvalidRequest as error:
            raise ConfigError(f"{deployment.presets}: {place}: {error}") from error


def _prompts(presets: Presets) -> Iterator[tuple[str, str]]:
    """Every text that goes to a prompt, and its place in the file."""
    for style, texts in presets.styles.items():
        if texts.prompt is not None:
            yield f"styles.{style}", texts.prompt
    for scene, text in presets.scenes.items():
        yield f"scenes.{scene}", text


def _as_served(registry: LoraRegistry) -> ServedLoras:
    """`registry` as if the file of every LoRA were published."""
    loras = {
        lora: ServedLora(**described_values(entry), versions=(_ANY_VERSION,))
        for lora, entry in registry.loras.items()
    }
    return ServedLoras(loras=loras, presets=registry.presets)
