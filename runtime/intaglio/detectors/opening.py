"""Which detector a control type means, and its version, which needs no network to be opened."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.contract.detectors import CANNY, DetectorKind, DetectorSource, detector_named
from intaglio.detectors.canny import CannyDetector
from intaglio.detectors.checkpoint import CheckpointDetector
from intaglio.detectors.controlnet_aux import AuxMapDetector, AuxPoseDetector
from intaglio.detectors.depth import DepthDetector
from intaglio.detectors.detection import Detector
from intaglio.detectors.dwpose import DwposeDetector
from intaglio.detectors.hub_cache import cached_detector
from intaglio.detectors.pose import PoseDetector
from intaglio.errors import ConfigError

__all__ = ["ChosenDetector", "choose_detector"]

_CODE: Final = 1
"""Counts the changes of this room's code after which a map may differ."""
_PACKAGES: Final[frozenset[DetectorKind]] = frozenset({"controlnet-aux", "transformers"})
"""Kinds whose maps are made by the package of the same name. Another version of it may make other maps."""


@dataclass(frozen=True, slots=True)
class ChosenDetector:
    """A detector that is not open yet."""

    name: str
    """Its id in the deployment, or `canny`."""
    type: str
    """The type of its maps."""
    version: str
    """sha256 of all that its maps depend on beside the photograph."""
    source: DetectorSource | None
    """None: `canny`."""

    def open(self) -> Detector:
        """Read the networks.

        Raises:
            ConfigError: a file is missing, or holds another network.
            MissingExtra: ONNX Runtime is not installed.
        """
        source = self.source
        if source is None:
            return CannyDetector()
        match source.kind:
            case "movenet":
                return PoseDetector(source.files[0], source.persons)
            case "dwpose":
                return DwposeDetector(source)
            case "depth":
                return DepthDetector(source)
            case "controlnet-aux":
                return AuxPoseDetector(source) if source.detector == "openpose" else AuxMapDetector(source)
            case "transformers":
                return CheckpointDetector(source)


def choose_detector(
    wanted: str, detectors: Mapping[str, DetectorSource], *, field: str = "type"
) -> ChosenDetector:
    """The detector that `detector_named` finds, with the version of its files.

    Raises:
        InvalidRequest: there is none; it names `field`.
        ConfigError: a file of it cannot be read.
    """
    types = {name: source.type for name, source in detectors.items()}
    name = detector_named(wanted, types, field=field)
    if name not in detectors:
        return ChosenDetector(CANNY, CANNY, _digest({"code": _CODE}), None)
    source = cached_detector(name, detectors[name])
    return ChosenDetector(name, source.type, _version_of(name, source), source)


def _version_of(name: str, source: DetectorSource) -> str:
    settings = source.model_dump(mode="json", exclude={"file", "persons", "folder"})
    if source.kind in _PACKAGES:
        settings["package"] = _package_version(source.kind)
    return _digest({"code": _CODE, **settings, "files": [_file_digest(name, path) for path in source.files]})


@functools.lru_cache
def _package_version(package: str) -> str:
    """The installed version. Where there is none, no map is made either."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _file_digest(name: str, path: Path) -> str:
    try:
        status = path.stat()
        return _content_digest(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise ConfigError(f"detectors.{name}: {path}: no such file; put the file there") from error
    except OSError as error:
        raise ConfigError(f"detectors.{name}: {path}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=64)
def _content_digest(path: Path, inode: int, size: int, changed: int) -> str:
    """sha256 of the file; it is read again when one of the other values differs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
