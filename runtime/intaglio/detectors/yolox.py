"""YOLOX: the boxes of the people in a picture.

The network reads BGR of 0..255 in the upper left corner of a grey input. It gives [1, N, 5 + C] of C classes.
N are the cells of grids with strides 8, 16 and 32. Each has the middle of a box in strides from the cell's
corner, the logarithm of its size in strides, the probability of an object, and that of each class given an
object.

Sources: Megvii-BaseDetection/YOLOX, demo/ONNXRuntime; thresholds as DWPose takes them for `yolox_l.onnx`
(IDEA-Research/DWPose, branch onnx, annotator/dwpose/onnxdet.py). DWPose gives it RGB; it was trained on BGR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network, Shape
from intaglio.detectors.suppression import not_suppressed

__all__ = ["YoloX", "boxes_from_output", "letterboxed"]

_STRIDES: Final = (8, 16, 32)
_CLASSES: Final = (80, 1)
"""Of COCO, or people alone. People are the first of both."""
_GREY: Final = 114
_LEAST_SCORE: Final = 0.3
"""Below it a box is no person. The pose that is read in a box decides finally."""
_LARGEST_OVERLAP: Final = 0.45
"""Intersection over union above which two boxes are of one person."""

Boxes = NDArray[np.float64]
"""[boxes, 5]: left, top, right, bottom, score."""


class YoloX:
    """The network and what it is given."""

    def __init__(self, path: Path | Network) -> None:
        """Open the file, or take the network that was opened.

        Raises:
            ConfigError: it is missing, or holds another network.
        """
        expected = "YOLOX with COCO's 80 classes"
        self._network = Network(path, expected=expected) if isinstance(path, Path) else path
        self._size = self._network.picture_size
        if any(side % max(_STRIDES) for side in self._size):
            raise self._network.unlike(f"its input is {list(self._network.input_shape)}")
        outputs = self._network.output_shapes
        if len(outputs) != 1 or not self._is_output(outputs[0]):
            raise self._network.unlike(f"its outputs are {', '.join(str(list(one)) for one in outputs)}")

    def _is_output(self, shape: Shape) -> bool:
        if len(shape) != 3:
            return False
        columns = [5 + classes for classes in _CLASSES]
        return shape[1] in (len(_cells(self._size)), None) and shape[2] in (*columns, None)

    def people(self, picture: Image.Image) -> Boxes:
        """Boxes of the people in RGB `picture`, in its pixels; the most certain comes first.

        Raises:
            ConfigError: the network fails, or gives numbers that are not finite.
            MissingExtra: OpenCV is not installed.
        """
        given, scale = letterboxed(picture, self._size)
        (output,) = self._network(given)
        if not self._is_output(output.shape):
            raise self._network.unlike(f"its output is {list(output.shape)}")
        boxes = boxes_from_output(output[0], self._size)
        self._network.check_finite(boxes)
        boxes = boxes[not_suppressed(boxes[:, :4], boxes[:, 4], overlap=_LARGEST_OVERLAP)]
        boxes[:, :4] /= scale
        return boxes


def letterboxed(picture: Image.Image, size: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """[1, 3, H, W] for an input of `size`, width and height; and its pixels for one of RGB `picture`."""
    scale = min(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(1, int(side * scale)) for side in picture.size)
    whole = (0, 0, *picture.size)
    # Pillow's `resize` takes the mean of more than four pixels. OpenCV's, which YOLOX uses, does not.
    small = picture.transform((width, height), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    pixels = np.full((size[1], size[0], 3), _GREY, np.float32)
    pixels[:height, :width] = np.asarray(small)[..., ::-1]
    return pixels.transpose(2, 0, 1)[None], scale


def boxes_from_output(output: NDArray[np.floating[Any]], size: tuple[int, int]) -> Boxes:
    """Boxes of people in pixels of the input of `size`, of the output [N, 5 + C]."""
    values = output.astype(np.float64)
    scores = values[:, 4] * values[:, 5]
    chosen = np.flatnonzero(~(scores <= _LEAST_SCORE))  # what is not a number is chosen, too, and found then
    boxes = values[chosen, :4]
    if not _in_pixels(values[:, :2], size):
        cells = _cells(size)[chosen]
        stride = cells[:, 2:]
        with np.errstate(over="ignore"):
            boxes = np.concatenate(
                [(boxes[:, :2] + cells[:, :2]) * stride, np.exp(boxes[:, 2:]) * stride], axis=1
            )
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([middle - half, middle + half, scores[chosen, None]], axis=1)


def _in_pixels(middles: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether the file was exported with `decode_in_inference`, so that [N, 2] `middles` are pixels already.

    Those of all cells lie about the middle of the input then, and near zero otherwise.
    """
    return bool(np.median(np.abs(middles)) > min(size) / 8)


def _cells(size: tuple[int, int]) -> NDArray[np.float64]:
    """[N, 3] column, row and stride of every cell."""
    found = []
    for stride in _STRIDES:
        columns, rows = size[0] // stride, size[1] // stride
        row, column = np.divmod(np.arange(rows * columns), columns)
        found.append(np.stack([column, row, np.full(rows * columns, stride)], axis=1))
    cells: NDArray[np.float64] = np.concatenate(found).astype(np.float64)
    return cells
