"""The LoRAs that a build serves, with their versions.

    build/<name>/loras/<sha256>.safetensors   the file of one version; it is never written again
    build/<name>/loras/registry.json          which version of each LoRA is current; replaced atomically
`intaglio build`, `watch`, `rollback` and `loras` publish here, and a running server looks at registry.json
before each request. So publishing needs no restart, and no request sees half of a change.
`intaglio.loras.versions` says which version is current.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from intaglio.builds.manifest import write_json
from intaglio.contract.lora_registry import LoraEntry, LoraRegistry
from intaglio.errors import BuildError, ConfigError
from intaglio.loras import versions
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.loras.version_files import VersionFiles
from intaglio.stored_versions import version_problem
from intaglio.validation_errors import problems_text
from intaglio.whole_files import storage_problem

__all__ = ["LORAS_FOLDER", "LoraStore"]

LORAS_FOLDER: Final = "loras"
_REGISTRY: Final = "registry.json"
_LOCK: Final = ".lock"


class LoraStore(VersionFiles):
    """The folder of one build's LoRAs, and which versions in it are current."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._stamp: tuple[int, int, int] | None = None
        self._read = ServedLoras()

    def current(self) -> ServedLoras:
        """What is published now. The file is read again only after it was replaced.

        Raises:
            ConfigError: registry.json is missing or damaged.
        """
        path = self.folder / _REGISTRY
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                data = path.read_bytes()
                self._read = ServedLoras.model_validate_json(data)
                self._stamp = stamp
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}; intaglio build writes it") from error
        except ValidationError as error:
            problem = version_problem(data) or f"damaged ({problems_text(error, ServedLoras)})"
            raise ConfigError(
                f"{path}: {problem}; restore it from a copy, or remove it and run intaglio build,"
                " which then knows neither earlier versions nor rejected ones"
            ) from error
        return self._read

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One publisher at a time; readers need no lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write(self, served: ServedLoras) -> ServedLoras:
        """Publish `served`, then remove the files that neither it nor its predecessor needs.

        Requests that are under way may still need the predecessor's versions. So what is published names them
        as retired.

        Returns: what is published now.

        Raises:
            BuildError: it cannot be written; the predecessor is still published.
        """
        retired = _retired(self.published(), by=served)
        served = served.model_copy(update={"retired": retired})
        try:
            write_json(self.folder / _REGISTRY, served.model_dump(mode="json"))
        except OSError as error:
            raise BuildError(
                f"{self.folder}: {storage_problem(error)}; what was published before is still served"
            ) from error
        self.remove_all_but(_needed(served))
        return served

    def publish_version(self, lora: str, digest: str, *, keep: int, data: bytes | None = None) -> ServedLoras:
        """Make `digest` (already `put`) the current version of `lora`, and keep `keep` versions in all.

        Another publisher may have removed the file since then; in that case `data` is written again.

        Raises:
            ConfigError: no such LoRA; BuildError as `write` does, and where the file is gone.
            LoraRefused: the version was rejected by a rollback.
        """
        return self._publish(
            lora, digest, lambda before: versions.after_watch(lora, before, digest, keep=keep), data=data
        )

    def serve_version(self, lora: str, digest: str, *, data: bytes | None = None) -> ServedLoras:
        """Make `digest` the current version of `lora` because somebody asked for it, whether it was rejected
        or not. Raises what `publish_version` does, but does not refuse.
        """
        return self._publish(lora, digest, lambda before: versions.after_request(before, digest), data=data)

    def _publish(
        self, lora: str, digest: str, after: Callable[[ServedLora], ServedLora], *, data: bytes | None
    ) -> ServedLoras:
        with self.locked():
            changed = after(_entry(self.current(), lora))
            if data is not None and not self.path(digest).is_file():
                self.write_file(digest, data)
            self._check_there(lora, digest)
            return self._replace(lora, changed)

    def take_back(self, lora: str, digest: str, *, before: ServedLora) -> ServedLoras:
        """Serve `before` again instead of `digest`, which a server could not draw with. What others made
        current meanwhile stays current.

        Raises:
            ConfigError: no such LoRA; BuildError as `write` does.
        """
        with self.locked():
            changed = versions.after_failure(_entry(self.current(), lora), digest, before=before)
            return self._replace(lora, changed)

    def roll_back(self, lora: str) -> ServedLoras:
        """Make the previous version of `lora` current again, and reject the one that is current now.

        Raises:
            ConfigError: no such LoRA, or no earlier version; BuildError as `write` does.
        """
        with self.locked():
            entry = _entry(self.current(), lora)
            there = tuple(version for version in entry.versions[:-1] if self.path(version).is_file())
            entry = entry.model_copy(update={"versions": (*there, entry.sha256)})
            return self._replace(lora, versions.after_rollback(lora, entry))

    def _replace(self, lora: str, entry: ServedLora) -> ServedLoras:
        served = self.current()
        return self.write(served.model_copy(update={"loras": {**served.loras, lora: entry}}))

    def remove(self, lora: str) -> bool:
        """Stop serving `lora` and every preset that names it; False where it is not served.

        Raises:
            BuildError: as `write` does.
        """
        with self.locked():
            served = self.published()
            if lora not in served.loras:
                return False
            loras = {name: entry for name, entry in served.loras.items() if name != lora}
            self.write(ServedLoras(loras=loras, presets=_complete_presets(served.presets, loras)))
            return True

    def after_build(self, registry: LoraRegistry, digests: Mapping[str, str]) -> ServedLoras:
        """What a build of the user's registry would publish; `digests` are its files.

        A LoRA without a file stays as it was published; where it never was, it is left out, and so are the
        presets that name it.

        Raises:
            LoraRefused: a file is not the one that was added, nothing is left that was not rejected, or a
                LoRA without a file has no whole version.
            ConfigError: registry.json is damaged.
        """
        before = self.published()
        loras = {}
        for lora, entry in registry.loras.items():
            changed = self._after_build(lora, entry, before.loras.get(lora), digests.get(lora))
            if changed is not None:
                loras[lora] = changed
        return ServedLoras(loras=loras, presets=_complete_presets(registry.presets, loras))

    def _after_build(
        self, lora: str, entry: LoraEntry, before: ServedLora | None, digest: str | None
    ) -> ServedLora | None:
        there: set[str] = set()
        if before is not None:
            there.update(version for version in before.versions[:-1] if self.path(version).is_file())
            if before.sha256 == digest or self.is_whole(before.sha256):
                there.add(before.sha256)
        if digest is not None:
            return versions.after_build(lora, entry, before, digest, there=there)
        return versions.after_build_without_file(lora, entry, before, there=there)

    def publish_registry(self, registry: LoraRegistry, digests: Mapping[str, str]) -> ServedLoras:
        """Publish the user's registry; `digests` are its files, already `put`.

        Raises:
            ConfigError, LoraRefused: as `after_build` does.
            BuildError: as `write` does, and where a file is gone.
        """
        with self.locked():
            before = self.published()
            for lora, digest in digests.items():
                self._check_there(lora, digest)
            served = self.after_build(registry, digests)
            unchanged = (served.loras, served.presets) == (before.loras, before.presets)
            if unchanged and (self.folder / _REGISTRY).is_file():
                # What this build copied here and does not serve goes; requests may still need the rest.
                self.remove_all_but(_needed(before))
                return before
            return self.write(served)

    def _check_there(self, lora: str, digest: str) -> None:
        if not self.path(digest).is_file():
            name = self.path(digest).name
            raise BuildError(f"lora {lora}: {name} went away while it was published; do it again")

    def published(self) -> ServedLoras:
        """What is published; nothing where registry.json is missing.

        Raises:
            ConfigError: registry.json is damaged. A build that replaced it would serve what was rejected.
        """
        if not (self.folder / _REGISTRY).is_file():
            return ServedLoras()
        return self.current()


def _entry(served: ServedLoras, lora: str) -> ServedLora:
    if lora not in served.loras:
        raise ConfigError(f"lora {lora}: not served; served are {', '.join(served.loras) or 'none'}")
    return served.loras[lora]


def _needed(served: ServedLoras) -> set[str]:
    """The versions whose files are kept: those that are served or retired, and the one that was rejected
    last, so that a rollback can be undone.
    """
    found: set[str] = set()
    for entry in served.loras.values():
        found.update(entry.versions, entry.rejected[-1:])
    for versions_of_one in served.retired.values():
        found.update(versions_of_one)
    return found


def _retired(before: ServedLoras, *, by: ServedLoras) -> dict[str, tuple[str, ...]]:
    """By LoRA, the versions that `before` serves and `by` does not."""
    found: dict[str, tuple[str, ...]] = {}
    for lora, entry in before.loras.items():
        kept = by.loras[lora].versions if lora in by.loras else ()
        gone = tuple(version for version in entry.versions if version not in kept)
        if gone:
            found[lora] = gone
    return found


def _complete_presets(
    presets: Mapping[str, dict[str, float]], loras: Mapping[str, ServedLora]
) -> dict[str, dict[str, float]]:
    """The presets all of whose LoRAs are served."""
    return {preset: members for preset, members in presets.items() if set(members) <= set(loras)}
