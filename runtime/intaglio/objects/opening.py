"""From the keys of a deployment or a filter to a network that finds objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from intaglio.contract.objects import ObjectNetwork
from intaglio.detectors.nanodet import NanoDet
from intaglio.detectors.onnx_network import Network
from intaglio.detectors.suppression import not_suppressed
from intaglio.errors import ConfigError
from intaglio.objects.found import FoundObject, FoundObjects, ObjectFinder
from intaglio.objects.names import COCO, names_in_file, names_in_metadata
from intaglio.objects.yolo import Yolo

__all__ = ["finder_key", "open_finder"]

_CODE: Final = 1
"""Counts the changes of this room's code after which something else may be found."""


class _NanoDetFinder:
    """NanoDet for everything that it knows."""

    def __init__(self, network: Network, setting: ObjectNetwork, names: Sequence[str]) -> None:
        self._nanodet = NanoDet(network)
        self._setting = setting
        self.names = tuple(names)
        if len(self.names) != len(COCO):
            raise ConfigError(f"{setting.classes}: {len(self.names)} names; NanoDet has {len(COCO)} classes")

    def __call__(self, picture: Image.Image) -> Sequence[FoundObject]:
        scores, corners = self._nanodet.cells(picture)
        best = scores.max(axis=1)
        likely = np.flatnonzero(best >= self._setting.confidence)
        found = FoundObjects(scores.argmax(axis=1)[likely].astype(np.int64), best[likely], corners[likely])
        kept = not_suppressed(found.boxes, found.scores, overlap=self._setting.overlap, classes=found.classes)
        return list(found.at(kept).within(picture, self.names))


def open_finder(setting: ObjectNetwork) -> ObjectFinder:
    """The network of `setting`, opened, with the names of its classes.

    Raises:
        ConfigError: a file is missing or wrong, or nothing names the classes.
        MissingExtra: ONNX Runtime is not installed.
    """
    network = Network(setting.network, expected="a detector of the YOLO family, or NanoDet")
    names = None if setting.classes is None else names_in_file(setting.classes)
    if setting.layout == "nanodet" or (setting.layout == "auto" and NanoDet.is_in(network)):
        return _NanoDetFinder(network, setting, names or COCO)
    names = names or names_in_metadata(network.metadata, path=setting.network)
    if names is None:
        raise ConfigError(
            f"{setting.network}: nothing says what its classes are called; give a file of classes"
        )
    return Yolo(network, setting, names)


def finder_key(setting: ObjectNetwork) -> str:
    """sha256 of all that the objects depend on beside the picture.

    Raises:
        ConfigError: a file cannot be read.
    """
    values = {"code": _CODE, **setting.model_dump(mode="json", exclude={"network", "classes"})}
    for key in ("network", "classes"):
        path = getattr(setting, key)
        try:
            values[key] = None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
