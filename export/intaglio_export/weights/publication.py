"""What a build says where the LoRAs that it serves are not those of the user's registry."""

from __future__ import annotations

from intaglio.contract.lora_registry import LoraRegistry
from intaglio.loras.sets import ServedLora
from intaglio.loras.versions import shown_version
from intaglio_export.weights.registry import Publication

__all__ = ["publication_messages"]


def publication_messages(registry: LoraRegistry, publication: Publication, *, config: str) -> tuple[str, ...]:
    """Where `publication`, which a build of `registry` just made, differs from it, and why. `config` is the
    deployment's YAML file, which the commands name that change it.
    """
    found = []
    served = publication.served
    for lora in registry.loras:
        published = served.loras.get(lora)
        if lora in publication.absent:
            found.append(f"lora {lora} {_kept(published)}: {publication.absent[lora]}")
        elif published is not None and published.built != published.sha256:
            found.append(_other_version(lora, published, config))
    for preset in sorted(set(registry.presets) - set(served.presets)):
        found.append(f"preset {preset} is not served, because a LoRA of it is not")
    return tuple(found)


def _kept(published: ServedLora | None) -> str:
    if published is None:
        return "is not served"
    return f"stays as it was published ({shown_version(published.sha256)})"


def _other_version(lora: str, published: ServedLora, config: str) -> str:
    file, current = shown_version(published.built or ""), shown_version(published.sha256)
    reason = "which was published after it"
    if published.built in published.rejected:
        reason = f"because {file} was rejected"
    return (
        f"lora {lora}: the registry's file is {file}, but {current} is served, {reason}; "
        f"to serve the file: intaglio loras serve {lora}{_choice(published)} --config {config}"
    )


def _choice(published: ServedLora) -> str:
    """The option that names the registry's file by its version, where that version is kept.

    With it, the command also serves a file that was trained again and not added again.
    """
    if published.built in (*published.versions, *published.rejected[-1:]):
        return f" --version {shown_version(published.built or '')}"
    return ""
