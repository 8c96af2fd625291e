"""The LoRAs that a build serves, with their versions.

    build/<name>/loras/<sha256>.safetensors   the file of one version; it is never written again
    build/<name>/loras/registry.json          which version of each LoRA is current; replaced atomically
`intaglio build`, `watch` and `rollback` publish here, and a running server looks at registry.json before each
request. So publishing needs no restart, and no request sees half of a change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from intaglio.builds.manifest import write_json
from intaglio.contract.lora_registry import LoraRegistry, ResolvedLora
from intaglio.errors import BuildError, ConfigError, LoraRefused
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.whole_files import storage_problem, write_whole

__all__ = ["LORAS_FOLDER", "LoraStore"]

LORAS_FOLDER: Final = "loras"
_REGISTRY: Final = "registry.json"
_LOCK: Final = ".lock"


class LoraStore:
    """The folder of one build's LoRAs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp: tuple[int, int, int] | None = None
        self._read = ServedLoras()

    def path(self, sha256: str) -> Path:
        """Where a version's file is."""
        return self.folder / f"{sha256}.safetensors"

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
                self._read = ServedLoras.model_validate_json(path.read_bytes())
                self._stamp = stamp
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}; intaglio build writes it") from error
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise ConfigError(f"{path}: damaged ({problem}); intaglio build writes it again") from error
        return self._read

    def load(self, lora: ResolvedLora) -> bytes:
        """The bytes of a version, exactly as it was published.

        Raises:
            LoraRefused: the file is missing or was changed.
        """
        path = self.path(lora.sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = f"{path.name}: {error.strerror or error}; publish it again (intaglio build)"
            raise LoraRefused(lora.id, reason) from error
        if hashlib.sha256(data).hexdigest() != lora.sha256:
            raise LoraRefused(
                lora.id, "its file was changed after it was published; publish it again (intaglio build)"
            )
        return data

    def put(self, lora: str, source: Path) -> tuple[str, bytes]:
        """Copy `source` into the store. Returns the copy's sha256 and bytes, which later changes of `source`
        do not affect.

        Raises:
            LoraRefused: `source` cannot be read.
            BuildError: no room, or the folder cannot be written; nothing was changed.
        """
        try:
            data = source.read_bytes()
        except OSError as error:
            raise LoraRefused(lora, f"{source}: {error.strerror or error}") from error
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.is_file() or path.stat().st_size != len(data):
            self._write(digest, data)
        return digest, data

    def _write(self, digest: str, data: bytes) -> None:
        try:
            write_whole(self.path(digest), data)
        except OSError as error:
            raise BuildError(
                f"{self.folder}: {storage_problem(error)}; what was published before is still served"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One publisher at a time; readers need no lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write(self, served: ServedLoras) -> None:
        """Publish `served`, then remove the files that neither it nor its predecessor names.

        Requests that are under way may still need the predecessor's files.

        Raises:
            BuildError: it cannot be written; the predecessor is still published.
        """
        before = self._published()
        try:
            write_json(self.folder / _REGISTRY, served.model_dump(mode="json"))
        except OSError as error:
            raise BuildError(
                f"{self.folder}: {storage_problem(error)}; what was published before is still served"
            ) from error
        named = set()
        for entry in (*served.loras.values(), *before.loras.values()):
            named |= {self.path(digest).name for digest in entry.versions}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def publish_version(self, lora: str, digest: str, *, keep: int, data: bytes | None = None) -> ServedLoras:
        """Make `digest` (already `put`) the current version of `lora`, and keep `keep` versions in all.

        Another publisher may have removed the file since then; in that case `data` is written again.

        Raises:
            ConfigError: no such LoRA; BuildError as `write` does, and where the file is gone.
        """
        with self.locked():
            served = self.current()
            entry = _entry(served, lora)
            if data is not None and not self.path(digest).is_file():
                self._write(digest, data)
            self._check_there(lora, digest)
            versions = (*(version for version in entry.versions if version != digest), digest)[-keep:]
            return self._replace(served, lora, entry.model_copy(update={"versions": versions}))

    def roll_back(self, lora: str) -> ServedLoras:
        """Make the previous version of `lora` current again, and forget the one that is current now.

        Raises:
            ConfigError: no such LoRA, or no earlier version; BuildError as `write` does.
        """
        with self.locked():
            served = self.current()
            entry = _entry(served, lora)
            if len(entry.versions) < 2:
                current = entry.sha256[:12]
                raise ConfigError(f"lora {lora}: no version before the current one ({current}) is kept")
            return self._replace(served, lora, entry.model_copy(update={"versions": entry.versions[:-1]}))

    def _replace(self, served: ServedLoras, lora: str, entry: ServedLora) -> ServedLoras:
        changed = served.model_copy(update={"loras": {**served.loras, lora: entry}})
        self.write(changed)
        return changed

    def publish_registry(self, registry: LoraRegistry, digests: Mapping[str, str]) -> ServedLoras:
        """Publish the user's registry; `digests` are its files, already `put`.

        Where the registry's file is among a LoRA's published versions, the current version stays current. So
        a build does not undo what `intaglio watch` or `intaglio rollback` did.
        """
        with self.locked():
            before = self._published()
            loras = {}
            for lora, entry in registry.loras.items():
                self._check_there(lora, digests[lora])
                earlier = before.loras[lora].versions if lora in before.loras else ()
                kept = tuple(version for version in earlier if self.path(version).is_file())
                versions = kept if digests[lora] in kept else (*kept, digests[lora])
                loras[lora] = ServedLora(
                    kind=entry.kind,
                    trigger_words=entry.trigger_words,
                    weight=entry.weight,
                    bounds=entry.bounds,
                    versions=versions,
                )
            served = ServedLoras(loras=loras, presets=registry.presets)
            if served != before or not (self.folder / _REGISTRY).is_file():
                self.write(served)
            return served

    def _check_there(self, lora: str, digest: str) -> None:
        if not self.path(digest).is_file():
            name = self.path(digest).name
            raise BuildError(f"lora {lora}: {name} went away while it was published; do it again")

    def _published(self) -> ServedLoras:
        """What is published; nothing where registry.json is missing or damaged."""
        try:
            return self.current()
        except ConfigError:
            return ServedLoras()


def _entry(served: ServedLoras, lora: str) -> ServedLora:
    if lora not in served.loras:
        raise ConfigError(f"lora {lora}: not served; served are {', '.join(served.loras) or 'none'}")
    return served.loras[lora]
