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

__all__ = ["PersonFinder", "boxes_within", "open_person_finder"]


class PersonFinder(Protocol):
    """Finds the people in a picture."""

    def people(self, picture: Image.Image) -> NDArray[np.float64]:
        """[boxes, 5] left, top, right, bottom in pixels of RGB `picture`, score; the most certain first.

        A box may reach beyond the picture, however far.
        """


def open_person_finder(path: Path) -> PersonFinder:
    """The network in the file.

    Raises:
        ConfigError: it is missing, or holds another network.
        MissingExtra: ONNX Runtime is not installed.
    """
    network = Network(path, expected="NanoDet or YOLOX with COCO's 80 classes")
    return NanoDet(network) if NanoDet.is_in(network) else YoloX(network)


def boxes_within(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """`boxes` [boxes, 5] cut at the edges of a picture of `size`, width and height. One without
    area there is left out.
    """
    limits = np.array([*size, *size], np.float64)
    cut = np.concatenate([boxes[:, :4].clip(0, limits), boxes[:, 4:]], axis=1)
    return np.asarray(cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])])
