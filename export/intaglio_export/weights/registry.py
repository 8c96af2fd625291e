"""Check the user's LoRAs against the base, collect the facts of their files, and publish them to a build."""

# ruff: noqa: PLC0415  (torch is imported only where it is needed)

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.contract.config import Deployment, Swap
from intaglio.contract.lora_registry import LoraEntry, LoraRegistry, load_registry
from intaglio.contract.sources import Source
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.adapters import lora_bytes
from intaglio.loras.files import Component, LayerTable, LoraFile, layer_table, lora_file_from_bytes
from intaglio.loras.sets import ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import SWAPPED
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.loras.versions import check_as_added
from intaglio_export.weights.hub import AbsentError, hub_file
from intaglio_export.weights.missing_lora_files import missing_file
from intaglio_export.weights.sources import Base, find_base
from intaglio_export.weights.swapped_weights import is_swapped

__all__ = [
    "CheckedLora",
    "base_layers",
    "check_entry",
    "check_registry",
    "described",
    "lora_path",
    "publish_registry",
    "registry_of",
]

log = logging.getLogger(__name__)


def base_layers(sources: tuple[Source, ...]) -> LayerTable:
    """Every layer of the available base that a LoRA may change, with its shape.

    Shapes come from the headers of the base's files. For a single file or a seed they come from the
    configurations.
    """
    base = find_base(sources, replaced=("vae",))  # no LoRA changes it, and the base may lack one
    return layer_table({component: _shapes(base, component) for component in SWAPPED})


def _shapes(base: Base, component: Component) -> dict[str, tuple[int, ...]]:
    if base.file is not None or base.seeded is not None:
        return _configured_shapes(base, component)
    found: dict[str, tuple[int, ...]] = {}
    for path in base.weights(component).files:
        if path.suffix == ".safetensors":
            found |= {name: tensor.shape for name, tensor in map_tensor_file(path).tensors.items()}
    if component == "unet":
        return found
    return {_published_name(name): shape for name, shape in found.items()}


def _published_name(name: str) -> str:
    """The usual name of a text encoder's weight: files of transformers 5.6 lack a level of it."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def _configured_shapes(base: Base, component: Component) -> dict[str, tuple[int, ...]]:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from intaglio_export.weights.text_encoders import with_published_names

    config = dict(base.weights(component).config)
    classes: dict[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    with torch.device("meta"):  # shapes without memory
        if component == "unet":
            network: torch.nn.Module = UNet2DConditionModel.from_config(config)  # type: ignore[no-untyped-call]
        else:
            network = with_published_names(classes[component](CLIPTextConfig.from_dict(config)))
    return {name: tuple(values.shape) for name, values in network.named_parameters()}


def lora_path(lora: str, entry: LoraEntry) -> Path:
    """The LoRA's file; a file of the hub is fetched once.

    Raises:
        ConfigError: there is no such file.
    """
    if entry.file is not None:
        if not entry.file.is_file():
            raise ConfigError(f"lora {lora}: {missing_file(entry.file)}")
        return entry.file
    owner, name, path = (entry.hub or "").split("/", 2)
    try:
        return hub_file(f"{owner}/{name}", path)
    except AbsentError as absent:
        raise ConfigError(f"lora {lora}: hub:{entry.hub}: {absent}") from absent


@dataclass(frozen=True, slots=True)
class CheckedLora:
    """A LoRA that the deployment can serve."""

    entry: LoraEntry
    """The registry's entry with the facts of the file."""
    warnings: tuple[str, ...]
    """What its owner should know, although the file can be used."""


def described(lora: str, entry: LoraEntry, *, table: LayerTable, swap: Swap) -> CheckedLora:
    """`entry` with the facts of its file. Every key of the file names a layer of `table` that a deployment
    with `swap` can change.

    Raises:
        LoraRefused: the file is damaged, not for this base, or changes layers that `swap` leaves out.
        ConfigError: there is no such file.
    """
    data = lora_bytes(lora, lora_path(lora, entry))
    file = _servable(lora, data, table=table, swap=swap)
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "format": file.format,
        "rank": file.ranks,
        "targets": file.targets,
    }
    return CheckedLora(entry.model_copy(update=facts), file.warnings)


def check_entry(lora: str, entry: LoraEntry, *, table: LayerTable, swap: Swap) -> CheckedLora:
    """As `described`; the file must still be the one that was added.

    Raises:
        LoraRefused: as `described` does, and where the file changed since it was added.
    """
    found = described(lora, entry, table=table, swap=swap)
    if found.entry.sha256 is not None:
        check_as_added(lora, entry, found.entry.sha256)
    return found


def _servable(lora: str, data: bytes, *, table: LayerTable, swap: Swap) -> LoraFile:
    """The LoRA in `data`; LoraRefused where a deployment with `swap` can never apply it."""
    file = lora_file_from_bytes(lora, data, table=table)
    if swap == "off":
        return file  # such a deployment fuses LoRAs, which can change any layer
    frozen = [place for place in file.layers if not _is_swappable(*place, table=table, swap=swap)]
    if frozen:
        first = ".".join(frozen[0])
        raise LoraRefused(
            lora,
            f"changes {len(frozen)} layers that swap: {swap} leaves out, such as {first};"
            " set swap: all in the configuration",
        )
    return file


def _is_swappable(component: Component, layer: str, *, table: LayerTable, swap: Swap) -> bool:
    wrapper = "unet" if component == "unet" else "network"
    return is_swapped(f"{wrapper}.{layer}.weight", len(table[component][layer]), swap)


def check_registry(deployment: Deployment, folder: Path) -> None:
    """Raise what `publish_registry` would raise, before any work is done, and log the warnings."""
    registry = registry_of(deployment)
    table = base_layers(deployment.base)
    digests = {}
    for lora, path in _present_files(registry).items():
        data = lora_bytes(lora, path)
        for warning in _servable(lora, data, table=table, swap=deployment.swap).warnings:
            log.warning("lora %s: %s", lora, warning)
        digests[lora] = hashlib.sha256(data).hexdigest()
    LoraStore(folder / LORAS_FOLDER).after_build(registry, digests)


def publish_registry(deployment: Deployment, folder: Path) -> ServedLoras:
    """Publish the deployment's registry to the build in `folder`; every file is checked against the base.

    A LoRA whose file is missing stays as it was published. `publication_messages` says so.

    Raises:
        ConfigError, LoraRefused: a LoRA is not on the hub, not the file that was added, or can never be
            applied by the deployment.
        BuildError: the disk has no room.
    """
    registry = registry_of(deployment)
    store = LoraStore(folder / LORAS_FOLDER)
    table = base_layers(deployment.base)
    digests = {}
    for lora, path in _present_files(registry).items():
        digest, data = store.put(lora, path)
        _servable(lora, data, table=table, swap=deployment.swap)
        digests[lora] = digest
    return store.publish_registry(registry, digests)


def registry_of(deployment: Deployment) -> LoraRegistry:
    """The deployment's registry; an empty one where it names none."""
    return LoraRegistry() if deployment.registry is None else load_registry(deployment.registry)


def _present_files(registry: LoraRegistry) -> dict[str, Path]:
    """The files of the registry, but for those that are missing on this machine."""
    found = {}
    for lora, entry in registry.loras.items():
        if entry.file is None or entry.file.is_file():
            found[lora] = lora_path(lora, entry)
    return found
