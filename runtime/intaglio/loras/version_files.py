"""The files of a build's LoRAs: `<sha256>.safetensors`, one a version, which is never written again."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError, LoraRefused
from intaglio.loras.adapters import lora_bytes
from intaglio.whole_files import storage_problem, write_whole

__all__ = ["VersionFiles"]


class VersionFiles:
    """The folder of one build's LoRA files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where a version's file is."""
        return self.folder / f"{sha256}.safetensors"

    def is_whole(self, sha256: str) -> bool:
        """Whether a version's file is here, with the bytes that were published."""
        try:
            with self.path(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

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
        """Copy `source`, with the configuration that peft wrote beside it, into the folder.

        Returns the copy's sha256 and bytes, which later changes of `source` do not affect.

        Raises:
            LoraRefused: `source` cannot be read, or peft's configuration beside it is damaged.
            BuildError: no room, or the folder cannot be written; nothing was changed.
        """
        data = lora_bytes(lora, source)
        digest = hashlib.sha256(data).hexdigest()
        if not self.is_whole(digest):
            self.write_file(digest, data)
        return digest, data

    def write_file(self, sha256: str, data: bytes) -> None:
        """Write a version's file; BuildError where the folder cannot be written."""
        try:
            write_whole(self.path(sha256), data)
        except OSError as error:
            raise BuildError(
                f"{self.folder}: {storage_problem(error)}; what was published before is still served"
            ) from error

    def remove_all_but(self, digests: Collection[str]) -> None:
        """Remove the files of all other versions."""
        named = {self.path(digest) for digest in digests}
        for path in self.folder.glob("*.safetensors"):
            if path not in named:
                path.unlink(missing_ok=True)
