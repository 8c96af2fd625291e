"""Who finds the people whose poses are then read: NanoDet or YOLOX, told apart by what the file gives."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.nanodet import NanoDet
from intaglio.detectors.onnx_network import Network
from intaglio.detectors.yolox import YoloX

__all__ = ["PersonFinder", "open_person_finder"]


class PersonFinder(Protocol):
    """Finds the people in a picture."""

    def people(self, picture: Image.Image) -> NDArray[np.float64]:
        """[boxes, 5] left, top, right, bottom in pixels of RGB `picture`, score; the most certain first."""


def open_person_finder(path: Path) -> PersonFinder:
    """The network in the file.

    Raises:
        ConfigError: it is missing, or holds another network.
        MissingExtra: ONNX Runtime is not installed.
    """
    network = Network(path, expected="NanoDet or YOLOX with COCO's 80 classes")
    return NanoDet(network) if NanoDet.is_in(network) else YoloX(network)
