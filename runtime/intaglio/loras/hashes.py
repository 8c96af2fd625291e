"""The hash by which other programs know a LoRA: of its tensors, so that new metadata do not change it.

kohya's trainers write it into their files as `sshs_model_hash`, the webui writes its first 12 digits into
pictures, and civitai finds a LoRA by them (there it is called AutoV3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.version_files import VersionFiles
from intaglio.recently_used import RecentlyUsed

__all__ = ["ShortHashes", "short_hash"]

_DIGITS: Final = 12
_KEPT: Final = 256
_LENGTH_BYTES: Final = 8
"""A safetensors file begins with the length of its header (github.com/huggingface/safetensors, "Format")."""


def short_hash(path: Path) -> str:
    """The first 12 hexadecimal digits of sha256 of what follows the header of the safetensors file `path`.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        file.seek(_LENGTH_BYTES + header)
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


class ShortHashes:
    """Short hashes of the LoRAs of a build, each computed once."""

    def __init__(self, files: VersionFiles) -> None:
        self._files = files
        self._kept: RecentlyUsed[str] = RecentlyUsed(_KEPT)

    def of(self, loras: Iterable[ResolvedLora]) -> dict[str, str]:
        """By id. A LoRA whose file is gone is left out: `diffuse`, which needs the file, says so."""
        found: dict[str, str] = {}
        for lora in loras:
            digest = self._kept.get(lora.sha256)
            if digest is None:
                try:
                    digest = short_hash(self._files.path(lora.sha256))
                except OSError:
                    continue
                self._kept.put(lora.sha256, digest)
            found[lora.id] = digest
        return found
