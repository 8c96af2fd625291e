"""sha256 of files, remembered by path, size and modification time; and what they say of files on the disk.

Hashing 14 GB of weights takes half a minute, and a build with nothing changed must end in seconds.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from intaglio.builds.file_checks import FileDigest, file_digest, files_problem
from intaglio.builds.manifest import content_key, write_json
from intaglio.errors import BuildError

__all__ = ["DigestCache", "check_safetensors"]

_LARGEST_HEADER = 100_000_000
"""Bytes; the safetensors format's own limit."""


class DigestCache:
    """Digests by path; `save` keeps them for the next process."""

    def __init__(self, path: Path, *, reread: bool = False) -> None:
        """With `reread`, nothing that an earlier process remembered counts, so every file is read once."""
        self._path = path
        self._known: dict[str, Any] = {}
        self._changed = False
        if not reread:
            with contextlib.suppress(OSError, ValueError):
                self._known = json.loads(path.read_text(encoding="utf-8"))

    def digest(self, path: Path) -> FileDigest:
        """Digest of a file that a user named. The header of a safetensors file is checked the first time.

        Raises:
            BuildError: the file cannot be read, or is not a whole safetensors file.
        """
        try:
            if path.suffix == ".safetensors" and self._remembered(path) is None:
                check_safetensors(path)
            return self.digest_unchecked(path)
        except OSError as error:
            raise BuildError(f"{path}: {error.strerror or error}") from error

    def digest_unchecked(self, path: Path) -> FileDigest:
        """Digest of a file of ours; OSError where it cannot be read."""
        remembered = self._remembered(path)
        if remembered is not None:
            return remembered
        found = file_digest(path)
        self.remember(path, found)
        return found

    def remember(self, path: Path, digest: FileDigest) -> None:
        """Keep the digest of `path`, which was just read or written."""
        status = path.stat()
        self._known[str(path.resolve())] = {
            "stamp": [status.st_size, status.st_mtime_ns],
            "sha256": digest.sha256,
        }
        self._changed = True

    def _remembered(self, path: Path) -> FileDigest | None:
        known = self._known.get(str(path.resolve()))
        if known is None:
            return None
        status = path.stat()
        if known["stamp"] != [status.st_size, status.st_mtime_ns]:
            return None
        return FileDigest(sha256=known["sha256"], size=status.st_size)

    def damage(self, folder: Path, files: Mapping[str, FileDigest]) -> str | None:
        """The first of `files` that is missing from `folder` or was changed; None when all are as they were.

        A file is read only when its size and time are not the remembered ones.
        """
        return files_problem(folder, files, digest=self.digest_unchecked)

    def combined(self, files: Iterable[Path], *, root: Path) -> str:
        """One digest of several files and their names relative to `root`."""
        return content_key({str(file.relative_to(root)): self.digest(file).sha256 for file in files})

    def forget_missing(self, *, below: Path) -> None:
        """Forget the files in `below` that are gone."""
        root = below.resolve()
        gone = [name for name in self._known if Path(name).is_relative_to(root) and not Path(name).exists()]
        for name in gone:
            del self._known[name]
        self._changed = self._changed or bool(gone)

    def save(self) -> None:
        """Write the cache if anything in it is new."""
        if self._changed:
            write_json(self._path, self._known)
            self._changed = False


def check_safetensors(path: Path) -> None:
    """Compare the file's size with its header.

    Unlike `intaglio.loras.tensor_files`, this admits tensors of every dtype: a base may have some that a LoRA
    cannot have.

    Raises:
        BuildError: it is no safetensors file, or it is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise BuildError(
                f"{path}: not a safetensors file ({size} bytes); weights are read from .safetensors only"
            )
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{path}: damaged safetensors header; fetch the file again") from error
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        raise BuildError(
            f"{path}: {size} bytes, but its header says {expected}; the file is damaged, fetch it again"
        )
