"""Which detector a control type means, and its version, which needs no network to be opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.canny import CannyDetector
from intaglio.detectors.depth import DepthDetector
from intaglio.detectors.detection import Detector
from intaglio.detectors.pose import PoseDetector
from intaglio.errors import ConfigError, InvalidRequest

__all__ = ["CANNY", "ChosenDetector", "choose_detector"]

CANNY: Final = "canny"
"""The one detector that no deployment has to name."""
_CODE: Final = 1
"""Counts the changes of this room's code after which a map may differ."""


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
                return PoseDetector(source.file, source.persons)
            case "depth":
                return DepthDetector(source)


def choose_detector(wanted: str, detectors: Mapping[str, DetectorSource]) -> ChosenDetector:
    """The detector whose id is `wanted`, else the first that makes maps of that type.

    Raises:
        InvalidRequest: there is none.
        ConfigError: a file of it cannot be read.
    """
    of_type = [name for name, source in detectors.items() if source.type == wanted]
    name = wanted if wanted in detectors else next(iter(of_type), None)
    if name is not None:
        source = detectors[name]
        return ChosenDetector(name, source.type, _version_of(name, source), source)
    if wanted == CANNY:
        return ChosenDetector(CANNY, CANNY, _digest({"code": _CODE}), None)
    known = dict.fromkeys([CANNY, *detectors, *(source.type for source in detectors.values())])
    raise InvalidRequest(
        "type",
        f"this deployment has no detector {wanted!r}",
        allowed=f"{', '.join(known)}; its key `detectors` names more",
    )


def _version_of(name: str, source: DetectorSource) -> str:
    settings = source.model_dump(mode="json", exclude={"file", "persons"})
    return _digest({"code": _CODE, **settings, "files": [_file_digest(name, path) for path in source.files]})


def _file_digest(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ConfigError(f"detectors.{name}: {path}: no such file; put the ONNX file there") from error
    except OSError as error:
        raise ConfigError(f"detectors.{name}: {path}: {error.strerror or error}") from error


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
