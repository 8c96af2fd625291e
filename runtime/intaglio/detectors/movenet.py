"""MoveNet SinglePose: the 17 COCO keypoints of the person in a square of a picture.

The network reads RGB 0..255 of whole numbers and gives y, x and confidence, as fractions of its input
(tfhub.dev/google/movenet/singlepose).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network
from intaglio.imaging.coco import COCO_KEYPOINTS, COCO_MIRRORED

__all__ = ["MARGINS", "MoveNet"]

MARGINS: Final = (1.25, 1.6)
"""Sides of the squares that are read, as multiples of a box's longer side. MoveNet's own tracker takes 1.2 to
1.9 (TensorFlow's MoveNet tutorial, `determine_crop_region`).
"""

Keypoints = NDArray[np.float64]
"""[17, 3]: x and y in pixels of the picture, confidence."""


class MoveNet:
    """The network and the squares that it reads."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ConfigError: it is missing, or holds another network.
        """
        self._network = Network(path, expected="MoveNet SinglePose (Lightning or Thunder)")
        shape = self._network.input_shape
        side = shape[1] if len(shape) == 4 else None
        if side is None or shape != (1, side, side, 3):
            raise self._network.unlike(f"its input is {list(shape)}")
        if (1, 1, COCO_KEYPOINTS, 3) not in self._network.output_shapes:
            raise self._network.unlike(f"its outputs are {list(self._network.output_shapes)}")
        self._side = side

    def person(self, picture: Image.Image, box: tuple[float, float, float, float]) -> Keypoints:
        """The person in `box` (left, top, right, bottom in pixels) of RGB `picture`.

        Two squares around the box are read, each as it is and mirrored. The most confident reading counts:
        on renderings of the miniature's world that places 82 of 100 joints, one reading places 77.
        """
        longer = max(box[2] - box[0], box[3] - box[1])
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        readings = []
        for margin in MARGINS:
            side = max(1, round(longer * margin))
            corner = (round(middle[0] - side / 2), round(middle[1] - side / 2))
            readings += self._readings(picture, corner, side)
        return max(readings, key=lambda keypoints: float(keypoints[:, 2].mean()))

    def _readings(self, picture: Image.Image, corner: tuple[int, int], side: int) -> list[Keypoints]:
        """The keypoints in one square, read as it is and mirrored. Outside the picture it is black."""
        left, top = corner
        square = picture.crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((self._side, self._side), Image.Resampling.BILINEAR))
        plain = self.keypoints(pixels)
        mirrored = self.keypoints(pixels[:, ::-1])[list(COCO_MIRRORED)]
        mirrored[:, 0] = 1 - mirrored[:, 0]
        for reading in (plain, mirrored):
            reading[:, :2] = reading[:, :2] * side + [left, top]
        return [plain, mirrored]

    def keypoints(self, pixels: NDArray[np.uint8]) -> Keypoints:
        """[17, 3] x, y, confidence as fractions of the network's input `pixels`.

        Raises:
            ConfigError: the network fails, or gives another shape or numbers that are not finite.
        """
        outputs = self._network.checked(pixels[None])
        output = next(one for one in outputs if one.size == 3 * COCO_KEYPOINTS)
        return output.reshape(COCO_KEYPOINTS, 3)[:, (1, 0, 2)].astype(np.float64)
