"""The files of a deployment beside its engines: tokenizers, poses, detectors and what reads faces.

Each folder is named by its content, so a server of an earlier build keeps reading its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from intaglio.builds.manifest import content_key
from intaglio.contract.config import Deployment
from intaglio.contract.detectors import DetectorSource
from intaglio.contract.identity import Identity
from intaglio.errors import ConfigError
from intaglio.imaging.pose_library import pose_files
from intaglio.single_files import TOKENIZERS
from intaglio_export.plan.digests import DigestCache
from intaglio_export.weights.detectors import fetched_detector
from intaglio_export.weights.sources import Base

__all__ = ["SupportFiles", "find_support_files", "poses_in"]

_FOLDER_DIGITS: Final = 12
"""Digits of the content's key in a folder's name."""


@dataclass(frozen=True, slots=True)
class SupportFiles:
    """Paths in the build, and where each file comes from."""

    tokenizers: tuple[str, str]
    """Folders of both tokenizers."""
    poses: str | None
    """Folder of the poses; None without any."""
    detectors: dict[str, DetectorSource] = field(default_factory=dict)
    """Detectors by id. Paths of their files are relative to the build, unless one of them is missing."""
    identity: Identity | None = None
    """What reads faces. Paths of its files are relative to the build, unless one of them is missing."""
    sources: dict[str, Path] = field(default_factory=dict)
    """The source of each file by its path in the build."""


def find_support_files(deployment: Deployment, base: Base, digests: DigestCache) -> SupportFiles:
    """The tokenizers of `base`, and the poses, the detectors and what reads faces of `deployment`.

    A detector whose file is missing stops no build: pictures need none. Whoever asks for it is told. The same
    holds for what reads faces.

    Raises:
        ConfigError: there is no folder of poses.
        BuildError: a file cannot be read.
    """
    sources: dict[str, Path] = {}
    files = [path for name in TOKENIZERS for path in _files(base.root / name)]
    key = digests.combined(files, root=base.root)[:_FOLDER_DIGITS]
    for path in files:
        sources[f"tokenizers/{key}/{path.parent.name}/{path.name}"] = path
    first, second = (f"tokenizers/{key}/{name}" for name in TOKENIZERS)
    folder = _find_poses(deployment.poses, digests, sources)
    detectors = {name: _placed(source, digests, sources) for name, source in deployment.detectors.items()}
    identity = _placed_identity(deployment.identity, digests, sources)
    return SupportFiles((first, second), folder, detectors, identity, sources)


def _find_poses(poses: Path | None, digests: DigestCache, sources: dict[str, Path]) -> str | None:
    """Add the files of `poses` to `sources`; returns their folder in the build."""
    if poses is None:
        return None
    files = poses_in(poses)
    folder = f"poses/{digests.combined(files, root=poses)[:_FOLDER_DIGITS]}"
    for path in files:
        sources[f"{folder}/{path.name}"] = path
    return folder


def _placed(source: DetectorSource, digests: DigestCache, sources: dict[str, Path]) -> DetectorSource:
    """Add the files of a detector to `sources`; returns it with their place in the build. One that lacks a
    file stays where it is.
    """
    source = fetched_detector(source)
    if source.hub is not None:
        return source
    place = _place("detectors", source.named, digests, sources)
    return source if place is None else source.placed(place)


def _placed_identity(
    setting: Identity | None, digests: DigestCache, sources: dict[str, Path]
) -> Identity | None:
    """The same of what reads faces. The folder of characters stays where it is."""
    if setting is None:
        return None
    place = _place("faces", setting.named, digests, sources)
    return setting if place is None else setting.placed(place)


def _place(
    part: str, files: Mapping[str, Path], digests: DigestCache, sources: dict[str, Path]
) -> Path | None:
    """Add `files` to `sources`, in a folder of `part` that is named by their content. None, and nothing is
    added, where there are none or one is missing.
    """
    if not files or not all(path.is_file() for path in files.values()):
        return None
    digest = content_key({name: digests.digest(path).sha256 for name, path in files.items()})
    place = Path(part, digest[:_FOLDER_DIGITS])
    sources |= {str(place / name): path for name, path in files.items()}
    return place


def poses_in(folder: Path) -> list[Path]:
    """The poses in `folder`, one file each.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"poses: {folder}: no such folder; correct `poses`, or make the folder")
    return pose_files(folder)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]
