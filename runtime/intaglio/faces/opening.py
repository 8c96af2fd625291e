"""Which networks read faces, and the key that tells whether two embeddings may be compared."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any, Final

from intaglio.contract.identity import Identity
from intaglio.errors import ConfigError
from intaglio.faces.found import FaceReader
from intaglio.faces.insight import InsightReader
from intaglio.faces.recognition import OnnxReader

__all__ = ["open_reader", "reader_key"]

_CODE: Final = 2
"""Counts the changes of this room's code after which an embedding may differ."""
_SETTINGS: Final = {"kind", "template", "mean", "std", "detector_size"}


def open_reader(setting: Identity) -> FaceReader:
    """The networks of `setting`, opened.

    Raises:
        ConfigError: a file is missing, or holds another network.
        IntaglioError: a library is not installed.
    """
    return InsightReader(setting) if setting.kind == "insightface" else OnnxReader(setting)


def reader_key(setting: Identity) -> str:
    """sha256 of all that an embedding depends on beside the picture.

    Raises:
        ConfigError: a file is missing.
    """
    files = setting.named
    if not files:
        raise ConfigError(f"identity.models: {setting.models}: has no ONNX file")
    values: dict[str, Any] = {
        "code": _CODE,
        **setting.model_dump(mode="json", include=_SETTINGS),
        "files": [(name.partition("/")[0], _digest(path)) for name, path in sorted(files.items())],
    }
    if setting.kind == "insightface":
        values["package"] = _version_of_insightface()
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _version_of_insightface() -> str:
    """The installed version. Where there is none, no face is read either."""
    try:
        return importlib.metadata.version("insightface")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _digest(path: Path) -> str:
    try:
        status = path.stat()
        return _content_digest(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"identity: {path}: {error.strerror or error}; put the ONNX file there") from error


@functools.lru_cache(maxsize=16)
def _content_digest(path: Path, inode: int, size: int, changed: int) -> str:
    """sha256 of the file; it is read again when one of the other values differs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
