"""Which version of a LoRA is served: the rule, as functions of the LoRA's entry in registry.json.

what happens                        what is served afterwards
a build, and the registry's file
  was rejected                      what was served before
  is served already                 the same
  is not the one that was added     the build is refused
  is the one of the last build      what was served before
  is another one                    the registry's file
  is not available                  what was served before
                                    (the build is refused where that is damaged)
watch finds a file                  that file; a rejected one is refused
the server cannot draw with it      the version before
rollback                            the version before; the current one is rejected from now on
somebody asks for a version         that version, which is not rejected any more
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from intaglio.contract.lora_registry import LoraEntry
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.sets import ServedLora

__all__ = [
    "after_build",
    "after_build_without_file",
    "after_failure",
    "after_request",
    "after_rollback",
    "after_watch",
    "check_as_added",
    "described_values",
    "shown_version",
]


def shown_version(digest: str) -> str:
    """A version for people, and for `intaglio loras serve --version`."""
    return digest[:12]


def check_as_added(lora: str, entry: LoraEntry, digest: str) -> None:
    """Raise LoraRefused where the registry's file is not the one that was added."""
    if entry.sha256 not in (None, digest):
        again = f"run intaglio loras add {lora} again if that was meant"
        raise LoraRefused(lora, f"its file changed since it was added; {again}")


def after_build(
    lora: str, entry: LoraEntry, before: ServedLora | None, digest: str, *, there: Collection[str]
) -> ServedLora:
    """The entry that a build publishes. `digest` is the registry's file, and `there` are the versions whose
    files are whole.

    Raises:
        LoraRefused: the file is not the one that was added, or it was rejected and no other version is left.
    """
    if before is None:
        check_as_added(lora, entry, digest)
        return ServedLora(**described_values(entry), versions=(digest,), built=digest)
    kept = tuple(version for version in before.versions if version in there)
    stays = before.sha256 in there
    if digest in before.rejected:
        if not kept:
            again = f"serve it all the same with intaglio loras serve {lora}"
            raise LoraRefused(lora, f"its file was rejected, and no other version is left; {again}")
    elif not (stays and digest == before.sha256):
        check_as_added(lora, entry, digest)
        if not (stays and digest == _last_built(before, digest)):
            kept = _newest(kept, digest)
    return ServedLora(
        **described_values(entry),
        versions=kept[-before.keep :],
        keep=before.keep,
        rejected=before.rejected,
        built=digest,
    )


def after_build_without_file(
    lora: str, entry: LoraEntry, before: ServedLora | None, *, there: Collection[str]
) -> ServedLora | None:
    """The entry that a build publishes where the registry's file is not available; None where nothing was
    published. `there` are the versions whose files are whole.

    Raises:
        LoraRefused: the file of the current version is not whole. Without its entry, the versions before and
            the rejected ones would be forgotten.
    """
    if before is None:
        return None
    if before.sha256 not in there:
        raise LoraRefused(
            lora,
            f"its file is not available, and the copy that is served ({shown_version(before.sha256)}) is"
            f" missing or damaged; put the file back, or stop serving it: intaglio loras remove {lora}",
        )
    return before.model_copy(update=described_values(entry))


def described_values(entry: LoraEntry) -> dict[str, Any]:
    """What a published entry takes from the user's registry."""
    return {
        "kind": entry.kind,
        "trigger_words": entry.trigger_words,
        "weight": entry.weight,
        "bounds": entry.bounds,
        "method": entry.method,
    }


def _last_built(before: ServedLora, digest: str) -> str | None:
    """The registry's file at the last build. Where that was not recorded, it is a kept version."""
    if before.built is None and digest in before.versions:
        return digest
    return before.built


def after_watch(lora: str, before: ServedLora, digest: str, *, keep: int) -> ServedLora:
    """The entry after `intaglio watch` found `digest`; LoraRefused where that was rejected."""
    if digest in before.rejected:
        version = shown_version(digest)
        again = f"intaglio loras serve {lora} --version {version} serves it all the same"
        raise LoraRefused(lora, f"version {version} was rejected by a rollback; {again}")
    versions = _newest(before.versions, digest)[-keep:]
    return before.model_copy(update={"versions": versions, "keep": keep})


def after_failure(now: ServedLora, digest: str, *, before: ServedLora) -> ServedLora:
    """The entry without `digest`, which the server cannot draw with. `before` is the entry that it replaced.

    What others made current since then stays current.
    """
    if now.sha256 == digest:
        return now.model_copy(update={"versions": before.versions, "keep": before.keep})
    others = tuple(version for version in now.versions if version != digest)
    return now.model_copy(update={"versions": others})


def after_rollback(lora: str, before: ServedLora) -> ServedLora:
    """The entry with the version before; ConfigError where none is kept."""
    if len(before.versions) < 2:
        current = shown_version(before.sha256)
        raise ConfigError(f"lora {lora}: no version before the current one ({current}) is kept")
    rejected = _newest(before.rejected, before.sha256)
    return before.model_copy(update={"versions": before.versions[:-1], "rejected": rejected})


def after_request(before: ServedLora, digest: str) -> ServedLora:
    """The entry after somebody asked for `digest` by name."""
    versions = _newest(before.versions, digest)[-before.keep :]
    rejected = tuple(version for version in before.rejected if version != digest)
    return before.model_copy(update={"versions": versions, "rejected": rejected})


def _newest(versions: tuple[str, ...], digest: str) -> tuple[str, ...]:
    """`versions` with `digest` last."""
    return (*(version for version in versions if version != digest), digest)
