"""The versions of LoRAs that a deployment's build publishes: shown, and served on request."""

from __future__ import annotations

from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import LoraEntry
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.versions import shown_version
from intaglio_export.weights.registry import base_layers, check_entry, lora_path

__all__ = ["published_loras", "serve_file", "serve_version", "versions_text"]


def published_loras(deployment: Deployment) -> ServedLoras:
    """What is published; nothing where the deployment is not built or fuses its LoRAs.

    Raises:
        ConfigError: registry.json is damaged.
    """
    return _store(deployment).published() if deployment.swaps else ServedLoras()


def versions_text(served: ServedLora | None) -> str:
    """The current version, then those that are kept and those that were rejected, the latest first."""
    if served is None:
        return "not served"
    lines = [shown_version(served.sha256)]
    for what, versions in (("kept", served.versions[:-1]), ("rejected", served.rejected)):
        if versions:
            shown = (shown_version(version) for version in reversed(versions))
            lines.append(f"{what} {', '.join(shown)}")
    return "\n".join(lines)


def serve_file(deployment: Deployment, lora: str, entry: LoraEntry) -> ServedLora:
    """Serve the registry's file of `lora`, also where it was rejected.

    Raises:
        LoraRefused: the file is not for this base, or not the one that was added.
        ConfigError: there is no such file, or the build has no such LoRA.
    """
    store = _swapping_store(deployment)
    check_entry(lora, entry, table=base_layers(deployment.base), swap=deployment.swap)
    digest, data = store.put(lora, lora_path(lora, entry))
    return store.serve_version(lora, digest, data=data).loras[lora]


def serve_version(deployment: Deployment, lora: str, version: str) -> ServedLora:
    """Serve the version of `lora` whose sha256 begins with `version`, also where it was rejected.

    Raises:
        ConfigError: the build has no such LoRA.
        InvalidRequest: no version that is kept begins so, or several do.
    """
    store = _swapping_store(deployment)
    served = store.current().loras
    if lora not in served:
        raise ConfigError(f"lora {lora}: not served; served are {', '.join(served) or 'none'}")
    kept = (*served[lora].versions, *served[lora].rejected[-1:])
    found = [digest for digest in kept if digest.startswith(version) and store.path(digest).is_file()]
    if len(found) != 1:
        problem = f"{version!r} is {'ambiguous' if found else 'not kept'}"
        shown = ", ".join(shown_version(digest) for digest in kept)
        raise InvalidRequest("version", problem, allowed=f"the beginning of one of {shown}")
    return store.serve_version(lora, found[0]).loras[lora]


def _swapping_store(deployment: Deployment) -> LoraStore:
    """The LoRAs of the deployment's build; ConfigError where it fuses its LoRAs or is not built."""
    if not deployment.swaps:
        raise ConfigError(f"{deployment.name}: serves no versions; add swap: all to its configuration")
    store = _store(deployment)
    store.current()
    return store


def _store(deployment: Deployment) -> LoraStore:
    return LoraStore(deployment.build_folder / LORAS_FOLDER)
