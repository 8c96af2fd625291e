"""Check the user's LoRAs against the base, collect the facts of their files, and publish them to a build."""

# ruff: noqa: PLC0415  (torch and the hub's client are imported only where they are needed)

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import LoraEntry, LoraRegistry, load_registry
from intaglio.contract.sources import Source
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.files import Component, LayerTable, layer_table, lora_file_from_bytes
from intaglio.loras.sets import ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.targets import SWAPPED
from intaglio.loras.tensor_files import map_tensor_file
from intaglio.loras.versions import check_as_added
from intaglio_export.weights.missing_lora_files import missing_file
from intaglio_export.weights.sources import Base, find_base

__all__ = [
    "base_layers",
    "check_entry",
    "check_registry",
    "described",
    "lora_path",
    "publish_registry",
    "registry_of",
]


def base_layers(sources: tuple[Source, ...]) -> LayerTable:
    """Every layer of the available base that a LoRA may name, with its shape.

    Shapes come from the headers of the base's files. For a single file or a seed they come from the
    configurations.
    """
    base = find_base(sources)
    return layer_table({component: _shapes(base, component) for component in SWAPPED})


def _shapes(base: Base, component: Component) -> dict[str, tuple[int, ...]]:
    if base.file is not None or base.seeded is not None:
        return _configured_shapes(base, component)
    found: dict[str, tuple[int, ...]] = {}
    for path in base.weights(component).files:
        if path.suffix == ".safetensors":
            found |= {name: tensor.shape for name, tensor in map_tensor_file(path).tensors.items()}
    return found


def _configured_shapes(base: Base, component: Component) -> dict[str, tuple[int, ...]]:
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = dict(base.weights(component).config)
    classes: dict[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    with torch.device("meta"):  # shapes without memory
        if component == "unet":
            network: torch.nn.Module = UNet2DConditionModel.from_config(config)  # type: ignore[no-untyped-call]
        else:
            network = classes[component](CLIPTextConfig.from_dict(config))
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
    from huggingface_hub import hf_hub_download

    owner, name, path = (entry.hub or "").split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", path))
    except Exception as error:  # httpx, requests, OSError and the hub's own errors share no base class
        raise ConfigError(
            f"lora {lora}: {entry.hub} is not on the hub or not reachable ({type(error).__name__})"
        ) from error


def described(lora: str, entry: LoraEntry, *, table: LayerTable) -> LoraEntry:
    """`entry` with the facts of its file. Every key of the file names a layer of `table`.

    Raises:
        LoraRefused: the file is damaged or not for this base.
        ConfigError: there is no such file.
    """
    data = _read(lora, lora_path(lora, entry))
    file = lora_file_from_bytes(lora, data, table=table)
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "format": file.format,
        "rank": file.ranks,
        "targets": file.targets,
    }
    return entry.model_copy(update=facts)


def check_entry(lora: str, entry: LoraEntry, *, table: LayerTable) -> LoraEntry:
    """As `described`; the file must still be the one that was added.

    Raises:
        LoraRefused: as `described` does, and where the file changed since it was added.
    """
    found = described(lora, entry, table=table)
    if found.sha256 is not None:
        check_as_added(lora, entry, found.sha256)
    return found


def check_registry(deployment: Deployment, folder: Path) -> None:
    """Raise what `publish_registry` would raise, before any work is done."""
    registry = registry_of(deployment)
    table = base_layers(deployment.base)
    digests = {}
    for lora, path in _present_files(registry).items():
        data = _read(lora, path)
        lora_file_from_bytes(lora, data, table=table)
        digests[lora] = hashlib.sha256(data).hexdigest()
    LoraStore(folder / LORAS_FOLDER).after_build(registry, digests)


def publish_registry(deployment: Deployment, folder: Path) -> ServedLoras:
    """Publish the deployment's registry to the build in `folder`; every file is checked against the base.

    A LoRA whose file is missing stays as it was published. `publication_messages` says so.

    Raises:
        ConfigError, LoraRefused: a LoRA is not on the hub, not for this base, or not the file that was added.
        BuildError: the disk has no room.
    """
    registry = registry_of(deployment)
    store = LoraStore(folder / LORAS_FOLDER)
    table = base_layers(deployment.base)
    digests = {}
    for lora, path in _present_files(registry).items():
        digest, data = store.put(lora, path)
        lora_file_from_bytes(lora, data, table=table)
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


def _read(lora: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LoraRefused(lora, f"{path}: {error.strerror or error}") from error
