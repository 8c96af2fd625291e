"""`manifest.json`: what was built, and all that the serving processes need to know.

It is written atomically. Its files are checked, and errors give the reason and the command that rebuilds.
Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from intaglio.contract.config import Defaults, Execution, Limits, Profiles, RegistryId, Swap
from intaglio.contract.sdxl import Architecture
from intaglio.contract.tensors import Precision
from intaglio.errors import EngineMismatch
from intaglio.whole_files import write_whole

__all__ = [
    "MANIFEST_NAME",
    "RUNTIME_CACHE_NAME",
    "BuildManifest",
    "FileDigest",
    "FusedLora",
    "NetworkFile",
    "check_files",
    "content_key",
    "file_digest",
    "read_manifest",
    "write_json",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
RUNTIME_CACHE_NAME = "runtime.cache"
"""Beside an engine: what its library compiled for this card when it was first run; may be missing, never
identifies anything.
"""
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileDigest(_Frozen):
    """Size and sha256 of one file."""

    sha256: _Digest
    size: int = Field(ge=0)


class NetworkFile(_Frozen):
    """One network's engine."""

    path: str
    """The file the engine opens (an ONNX model or a TensorRT plan), relative to the manifest."""
    key: _Digest
    files: dict[str, FileDigest]
    """Every file of the engine, `path` and external weights alike, and `pristine`."""
    pristine: str | None = None
    """Where LoRAs are swapped: the weights they may change, under the engine's names for them."""
    verification: str = "not verified"
    """How it compared with PyTorch, or why it was not compared."""
    activation_bytes: int | None = Field(default=None, ge=0)
    """Activation memory of the largest profile as the engine reports it; None where it has not been opened on
    a card.
    """


class FusedLora(_Frozen):
    """A LoRA inside the weights."""

    id: RegistryId
    weight: float
    sha256: _Digest


class BuildManifest(_Frozen):
    """A deployment as built; the serving processes read nothing else but the files it names."""

    schema_version: Literal[1] = 1
    key: _Digest
    """Content key of the whole build; `model_repository` carries the same one."""
    config_digest: _Digest
    """`Deployment.digest` of the configuration it was built from."""
    rebuild: str
    """The command that makes it again."""
    base: str
    """The candidate that was available."""
    architecture: Architecture
    scheduler: dict[str, Any]
    scaling_factor: float
    latents_mean: tuple[float, ...] | None = None
    """Of the VAE's latents, one number a channel; None where its configuration has none."""
    latents_std: tuple[float, ...] | None = None
    force_zeros_for_empty_prompt: bool
    precision: Precision
    runtime: Literal["onnxruntime", "tensorrt-rtx", "tensorrt"]
    target: str
    """`cpu` or the compute capability, `sm89`."""
    versions: dict[str, str]
    profiles: Profiles
    limits: Limits
    defaults: Defaults
    execution: Execution
    networks: dict[str, NetworkFile]
    """By network name of `intaglio.contract.tensors`: text_encoder, unet, controlnet.<id>, ..."""
    controlnets: dict[RegistryId, RegistryId]
    """Control id -> type of its control image."""
    swap: Swap = "off"
    """Whether requests choose their LoRAs from `loras/registry.json` beside the manifest."""
    loras: tuple[FusedLora, ...]
    tokenizers: tuple[str, str]
    """Folders of both tokenizers."""
    poses: str | None
    """Folder of the pose library."""
    files: dict[str, FileDigest]
    """Tokenizer and pose files."""


_Model = TypeVar("_Model", bound=_Frozen)


def file_digest(path: Path) -> FileDigest:
    """sha256 and size of `path`, read once."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileDigest(sha256=digest.hexdigest(), size=file.tell())


def content_key(inputs: Mapping[str, Any]) -> str:
    """sha256 of `inputs` as canonical JSON; NaN and unknown types are errors, never silently the same."""
    return hashlib.sha256(
        json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` so that a reader sees the old file or the new one, never a part."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_manifest(folder: Path, manifest: BuildManifest) -> None:
    """Write `folder/manifest.json` atomically."""
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))


def read_manifest(folder: Path, *, command: str = "intaglio build configs/NAME.yaml") -> BuildManifest:
    """The build in `folder`; `command` is what an error recommends while no manifest can say it.

    Raises:
        EngineMismatch: no manifest, or one that this version cannot read.
    """
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineMismatch(f"{path}: {error.strerror or error}", command=command) from error
    try:
        return BuildManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise EngineMismatch(
            f"{path}: {where}: {first['msg']} (made by another version?)", command=_rebuild_of(data, command)
        ) from error


def _rebuild_of(data: bytes, otherwise: str) -> str:
    try:
        value = json.loads(data)
    except ValueError:
        return otherwise
    command = value.get("rebuild") if isinstance(value, dict) else None
    return command if isinstance(command, str) else otherwise


def check_files(folder: Path, files: Mapping[str, FileDigest], *, command: str) -> None:
    """Compare size and sha256 of every file with its sidecar.

    Raises:
        EngineMismatch: a missing, outside or changed file, named with the reason.
    """
    root = folder.resolve()
    for name, expected in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(root):
            raise EngineMismatch(f"{name}: lies outside {folder}", command=command)
        if not path.is_file():
            raise EngineMismatch(f"{name}: missing from {folder}", command=command)
        if path.stat().st_size != expected.size:
            raise EngineMismatch(
                f"{name}: {path.stat().st_size} bytes, built with {expected.size}", command=command
            )
        if file_digest(path).sha256 != expected.sha256:
            raise EngineMismatch(
                f"{name}: content changed since it was built (sha256 differs)", command=command
            )
