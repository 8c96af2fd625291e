"""Check the user's LoRAs against the base, collect the facts of their files, and publish them to a build."""

# ruff: noqa: PLC0415  (torch is imported only where it is needed)

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.contract.config import Deployment, Swap
from intaglio.contract.lora_registry import LoraEntry, LoraRegistry, load_registry
from intaglio.contract.sources import Source
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.adapters import lora_bytes
from intaglio.loras.files import (
    Component,
    LayerTable,
    LoraFile,
    layer_table,
    lora_file_from_bytes,
    named_components,
)
from intaglio.loras.sets import ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import SWAPPED
from intaglio.loras.tensor_files import TensorFile, map_tensor_file
from intaglio.loras.versions import check_as_added
from intaglio.text_encoder_names import published_name
from intaglio_export.weights.hub import AbsentError, hub_file
from intaglio_export.weights.missing_lora_files import missing_file
from intaglio_export.weights.sources import Base, find_base
from intaglio_export.weights.swapped_weights import is_swapped

__all__ = [
    "CheckedLora",
    "Publication",
    "base_layers",
    "check_entry",
    "check_file",
    "check_publication",
    "check_registry",
    "described",
    "layers_of",
    "lora_path",
    "publish_registry",
    "registry_of",
]

log = logging.getLogger(__name__)


def base_layers(sources: tuple[Source, ...]) -> LayerTable:
    """`layers_of` the first of `sources` that is available."""
    return layers_of(find_base(sources, replaced=("vae",)))  # no LoRA changes it, and the base may lack one


def layers_of(base: Base) -> LayerTable:
    """Every layer of `base` that a LoRA may change, with its shape.

    Shapes come from the headers of the base's files. For a single file or a seed they come from the
    configurations.
    """
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
    return {published_name(name): shape for name, shape in found.items()}


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
    try:
        return _path_of(entry)
    except AbsentError as absent:
        raise ConfigError(f"lora {lora}: {absent}") from absent


def _path_of(entry: LoraEntry, *, fetch: bool = True) -> Path:
    """The entry's file; AbsentError where there is none, NotFetchedError where it would be downloaded."""
    if entry.file is not None:
        if not entry.file.is_file():
            raise AbsentError(missing_file(entry.file))
        return entry.file
    owner, name, path = (entry.hub or "").split("/", 2)
    try:
        return hub_file(f"{owner}/{name}", path, fetch=fetch)
    except AbsentError as absent:
        raise AbsentError(f"hub:{entry.hub}: {absent}") from absent


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


def check_file(lora: str, path: Path, *, table: LayerTable | None, swap: Swap) -> str:
    """The sha256 of `path`, which a deployment with `swap` can apply. `table` is None where the base is not
    here: the file is then compared with what any SDXL has. Warnings are logged.

    Raises:
        LoraRefused: the file is damaged, not for this base, or changes layers that `swap` leaves out.
    """
    data = lora_bytes(lora, path)
    if table is None:
        _check_readable(lora, data)
    else:
        for warning in _servable(lora, data, table=table, swap=swap).warnings:
            log.warning("lora %s: %s", lora, warning)
    return hashlib.sha256(data).hexdigest()


def _check_readable(lora: str, data: bytes) -> None:
    try:
        keys = TensorFile(data).tensors
    except ValueError as error:
        raise LoraRefused(lora, f"{error}; copy the file again") from error
    named_components(lora, keys)


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


@dataclass(frozen=True, slots=True)
class Publication:
    """What a build publishes of a registry."""

    served: ServedLoras
    absent: Mapping[str, str]
    """Why a LoRA's file is not available, by LoRA. Such a LoRA stays as it was published."""


def check_registry(deployment: Deployment, folder: Path) -> None:
    """Raise what `publish_registry` would raise, before any work is done, and log the warnings."""
    check_publication(
        registry_of(deployment),
        LoraStore(folder / LORAS_FOLDER),
        table=base_layers(deployment.base),
        swap=deployment.swap,
    )


def check_publication(
    registry: LoraRegistry, store: LoraStore, *, table: LayerTable | None, swap: Swap, fetch: bool = True
) -> Publication:
    """What a build of `registry` would publish to `store`; `table` as in `check_file`.

    Raises:
        ConfigError, LoraRefused: as `publish_registry` does.
        NotFetchedError: without `fetch`, a file would be downloaded.
    """
    files, absent = _available(registry, fetch=fetch)
    digests = {lora: check_file(lora, path, table=table, swap=swap) for lora, path in files.items()}
    _check_absent(registry, store.published(), absent)
    return Publication(store.after_build(registry, digests), absent)


def publish_registry(deployment: Deployment, folder: Path) -> Publication:
    """Publish the deployment's registry to the build in `folder`; every file is checked against the base.

    A LoRA whose file is not available stays as it was published. `publication_messages` says so.

    Raises:
        ConfigError, LoraRefused: a LoRA of the hub is out of reach and was never published, a file is not the
            one that was added, or the deployment can never apply it; or registry.json is damaged.
        BuildError: the disk has no room.
    """
    registry = registry_of(deployment)
    store = LoraStore(folder / LORAS_FOLDER)
    table = base_layers(deployment.base)
    files, absent = _available(registry)
    digests = {}
    for lora, path in files.items():
        digest, data = store.put(lora, path)
        _servable(lora, data, table=table, swap=deployment.swap)
        digests[lora] = digest
    _check_absent(registry, store.published(), absent)
    return Publication(store.publish_registry(registry, digests), absent)


def _check_absent(registry: LoraRegistry, published: ServedLoras, absent: Mapping[str, str]) -> None:
    """Refuse to leave out a LoRA of the hub. A file of this machine may be left out, since it may be trained
    later.
    """
    for lora, reason in absent.items():
        if registry.loras[lora].hub is not None and lora not in published.loras:
            raise ConfigError(
                f"lora {lora}: {reason}, and no version of it is published; build again with the hub in reach"
            )


def registry_of(deployment: Deployment) -> LoraRegistry:
    """The deployment's registry; an empty one where it names none."""
    return LoraRegistry() if deployment.registry is None else load_registry(deployment.registry)


def _available(registry: LoraRegistry, *, fetch: bool = True) -> tuple[dict[str, Path], dict[str, str]]:
    """The files of the registry that are available, and why the others are not."""
    found: dict[str, Path] = {}
    absent: dict[str, str] = {}
    for lora, entry in registry.loras.items():
        try:
            found[lora] = _path_of(entry, fetch=fetch)
        except AbsentError as error:
            absent[lora] = str(error)
    return found, absent
