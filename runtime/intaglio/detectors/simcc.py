"""RTMPose and DWPose: the keypoints of the person in a box of a picture.

Axes: K keypoints, 17 of COCO or 133 of COCO-WholeBody; H, W pixels of the input.

The box grows by a quarter around its middle, and then in one direction until it has the shape of the input.
The network reads RGB of 0..255 less ImageNet's mean, divided by its standard deviation; outside the picture
that is black. It gives a row of scores for each keypoint and axis (SimCC), two places a pixel: [1, K, 2 W]
and [1, K, 2 H]. The keypoint is where both are largest, and its confidence is the smaller one of both.

Sources: IDEA-Research/DWPose, branch onnx, annotator/dwpose/onnxpose.py, which is what users of
`dw-ll_ucoco_384.onnx` (K 133, H 384, W 288) run; RTMPose arXiv 2303.07399, SimCC arXiv 2107.03332. rtmlib has
the same but for the confidence, which is the mean there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network, Shape
from intaglio.imaging.coco import COCO_KEYPOINTS, COCO_WHOLE_KEYPOINTS

__all__ = ["SimCC", "keypoints_from_scores", "window_of"]

_PADDING: Final = 1.25
_RATIO: Final = 2
_MEAN: Final = np.array([123.675, 116.28, 103.53])
_STD: Final = np.array([58.395, 57.12, 57.375])
"""Of red, green and blue."""
_KNOWN: Final = (COCO_KEYPOINTS, COCO_WHOLE_KEYPOINTS)
_EXPECTED: Final = (
    "DWPose (dw-ll_ucoco_384.onnx) or of RTMPose: input [1, 3, H, W], outputs simcc_x [1, K, 2 W] and "
    f"simcc_y [1, K, 2 H] of K = {COCO_KEYPOINTS} (COCO) or {COCO_WHOLE_KEYPOINTS} (COCO-WholeBody) keypoints"
)

Keypoints = NDArray[np.float64]
"""[K, 3]: x and y in pixels, confidence."""
Scores = NDArray[np.floating[Any]]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels. The middle of a pixel has whole coordinates, as OpenCV has it."""


class SimCC:
    """The network and what it is given."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ConfigError: it is missing, or holds another network.
            MissingExtra: ONNX Runtime is not installed.
        """
        self._network = Network(path, expected=_EXPECTED)
        self._size = self._network.picture_size
        self.keypoints = self._counted()

    def _counted(self) -> int:
        """How many keypoints it reads. Files of mmdeploy do not state that; then it reads a black picture."""
        shapes = self._network.output_shapes
        if len(shapes) == 2 and any(None in shape[1:] for shape in shapes):
            width, height = self._size
            black = self._network(np.zeros((1, 3, height, width), np.float32))
            shapes = tuple(output.shape for output in black)
        if not self._fits(shapes):
            raise self._network.unlike(f"its outputs are {', '.join(str(list(shape)) for shape in shapes)}")
        count = shapes[0][1]
        assert count is not None
        return count

    def _fits(self, shapes: tuple[Shape, ...]) -> bool:
        width, height = self._size
        if len(shapes) != 2 or any(len(shape) != 3 or shape[0] not in (1, None) for shape in shapes):
            return False
        (_, count, columns), (_, also, rows) = shapes
        return count in _KNOWN and also == count and (columns, rows) == (_RATIO * width, _RATIO * height)

    def person(self, picture: Image.Image, box: Box) -> Keypoints:
        """The person in `box` of RGB `picture`.

        Raises:
            ConfigError: the network fails, or gives numbers that are not finite.
        """
        window = window_of(box, self._size)
        given = (_cut(picture, window, self._size) - _MEAN) / _STD
        simcc_x, simcc_y = self._network.checked(given.transpose(2, 0, 1)[None])
        found = keypoints_from_scores(simcc_x[0], simcc_y[0])
        left, top, right, bottom = window
        scale = np.array([right - left, bottom - top]) / self._size
        found[:, :2] = found[:, :2] * scale + [left, top]
        return found


def window_of(box: Box, size: tuple[int, int]) -> Box:
    """What of a picture is read for a person in `box`; `size` is the width and height of the input."""
    left, top, right, bottom = box
    width, height = _PADDING * max(right - left, 1.0), _PADDING * max(bottom - top, 1.0)
    shape = size[0] / size[1]
    width, height = max(width, height * shape), max(height, width / shape)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _cut(picture: Image.Image, window: Box, size: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W, RGB] of `window`, each pixel between its four neighbours as OpenCV's warpAffine places it."""
    left, top, right, bottom = window
    # Pillow counts from the corner of a pixel, OpenCV from its middle.
    x = left + 0.5 - (right - left) / size[0] / 2
    y = top + 0.5 - (bottom - top) / size[1] / 2
    extent = (x, y, x + right - left, y + bottom - top)
    cut = picture.transform(size, Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
    return np.asarray(cut, dtype=np.uint8)


def keypoints_from_scores(simcc_x: Scores, simcc_y: Scores) -> Keypoints:
    """[K, 3] x and y in pixels of the input, confidence, of the scores [K, 2 W] and [K, 2 H]."""
    places = np.stack([simcc_x.argmax(axis=1), simcc_y.argmax(axis=1)], axis=1) / _RATIO
    confidence = np.minimum(simcc_x.max(axis=1), simcc_y.max(axis=1))
    return np.concatenate([places, confidence[:, None].astype(np.float64)], axis=1)
