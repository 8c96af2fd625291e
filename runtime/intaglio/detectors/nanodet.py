"""NanoDet: the boxes of the people in a picture, or of everything that it knows.

A cell of a grid of stride s votes for each of its box's four sides with a distribution over 0..10 strides
(generalized focal loss, arXiv 2006.04388; the code of NanoDet is RangiLyu/nanodet on GitHub). Scores are
probabilities already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network, Shape

__all__ = ["NanoDet", "boxes_from_outputs", "cells_from_outputs", "not_overlapping"]

_STRIDES: Final = (8, 16, 32)
_CLASSES: Final = 80
_PERSON: Final = 0
_BINS: Final = 11
_MEAN: Final = np.array([103.53, 116.28, 123.675], np.float32)
_STD: Final = np.array([57.375, 57.12, 58.395], np.float32)
"""Of blue, green and red, as NanoDet was trained."""
_LEAST_SCORE: Final = 0.35
"""Below it a box is no person. The pose that is read in a box decides finally."""
_LARGEST_OVERLAP: Final = 0.6
"""Intersection over union above which two boxes are of one person: NanoDet's own."""

Boxes = NDArray[np.float64]
"""[boxes, 5]: left, top, right, bottom, score."""
Corners = NDArray[np.float64]
"""[boxes, 4]: left, top, right, bottom."""
Scores = NDArray[np.float64]
"""[boxes, 80]."""
_EXPECTED: Final = "NanoDet with COCO's 80 classes"


class NanoDet:
    """The network and what it is given."""

    def __init__(self, path: Path | Network) -> None:
        """Open the file, or take the network that was opened.

        Raises:
            ConfigError: it is missing, or holds another network.
        """
        self._network = Network(path, expected=_EXPECTED) if isinstance(path, Path) else path
        shape = self._network.input_shape
        side = shape[-1]
        if len(shape) != 4 or shape[1] != 3 or side is None or shape[2] != side or side % max(_STRIDES):
            raise self._network.unlike(f"its input is {list(shape)}")
        self._side = side
        if not self.is_in(self._network):
            raise self._network.unlike(f"its outputs are {list(self._network.output_shapes)}")

    @staticmethod
    def is_in(network: Network) -> bool:
        """Whether the outputs of `network` are those of NanoDet."""
        side = network.input_shape[-1] if network.input_shape else None
        if side is None:
            return False
        wanted: set[Shape] = {cells for stride in _STRIDES for cells in _shapes(side, stride)}
        return wanted == set(network.output_shapes)

    def people(self, picture: Image.Image) -> Boxes:
        """Boxes of the people in RGB `picture`, in its pixels; the most certain comes first.

        Raises:
            ConfigError: the network fails, or gives other shapes or numbers that are not finite.
        """
        outputs, placed = self._outputs(picture)
        boxes = not_overlapping(boxes_from_outputs(outputs, side=self._side))
        boxes[:, :4] = placed.in_picture(boxes[:, :4])
        return boxes

    def cells(self, picture: Image.Image) -> tuple[Scores, Corners]:
        """What every cell says of RGB `picture`: probabilities of the classes, and a box in its pixels."""
        outputs, placed = self._outputs(picture)
        scores, corners = cells_from_outputs(outputs, side=self._side)
        return scores, placed.in_picture(corners)

    def _outputs(self, picture: Image.Image) -> tuple[list[NDArray[np.float32]], _Placed]:
        scale = self._side / max(picture.size)
        width = max(1, round(picture.width * scale))
        height = max(1, round(picture.height * scale))
        left, top = (self._side - width) // 2, (self._side - height) // 2
        padded = Image.new("RGB", (self._side, self._side))
        padded.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        blue_first = np.asarray(padded, np.float32)[..., ::-1]
        outputs = self._network.checked(((blue_first - _MEAN) / _STD).transpose(2, 0, 1)[None])
        return outputs, _Placed(scale, left, top)


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a picture lies in the input."""

    scale: float
    left: int
    top: int

    def in_picture(self, corners: Corners) -> Corners:
        """`corners` in pixels of the picture."""
        shift = np.array([self.left, self.top, self.left, self.top])
        return np.asarray((corners - shift) / self.scale)


def _shapes(side: int, stride: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the outputs of one stride: scores, and distributions of the sides."""
    cells = (side // stride) ** 2
    return (1, cells, _CLASSES), (1, cells, 4 * _BINS)


def boxes_from_outputs(outputs: Sequence[NDArray[np.float32]], *, side: int) -> Boxes:
    """Boxes of people in pixels of the [side, side] input: cells whose likeliest class is a person."""
    scores, corners = cells_from_outputs(outputs, side=side)
    people = (scores.argmax(-1) == _PERSON) & (scores[:, _PERSON] > _LEAST_SCORE)
    boxes: Boxes = np.concatenate([corners, scores[:, _PERSON, None]], axis=-1)
    return np.asarray(boxes[people])


def cells_from_outputs(outputs: Sequence[NDArray[np.float32]], *, side: int) -> tuple[Scores, Corners]:
    """What every cell of every stride says, its box in pixels of the [side, side] input."""
    by_shape = {tuple(output.shape): output[0].astype(np.float64) for output in outputs}
    found = []
    for stride in _STRIDES:
        scores, sides = (by_shape[shape] for shape in _shapes(side, stride))
        votes = np.exp(sides.reshape(-1, 4, _BINS) - sides.reshape(-1, 4, _BINS).max(-1, keepdims=True))
        reach = (votes / votes.sum(-1, keepdims=True)) @ np.arange(_BINS) * stride
        row, column = np.divmod(np.arange(len(scores)), side // stride)
        middle = np.stack([(column + 0.5) * stride, (row + 0.5) * stride], axis=-1)
        corners = np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], axis=-1)
        found.append((scores, corners))
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def not_overlapping(boxes: Boxes) -> Boxes:
    """Non-maximum suppression: `boxes` by score, without those that a better one mostly covers."""
    kept: list[NDArray[np.float64]] = []
    for box in boxes[np.argsort(-boxes[:, 4], kind="stable")]:
        if all(_overlap(box, other) <= _LARGEST_OVERLAP for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 5)


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union."""
    shared = np.minimum(one[2:4], other[2:4]) - np.maximum(one[:2], other[:2])
    intersection = float(np.prod(shared.clip(min=0)))
    areas = [float(np.prod(box[2:4] - box[:2])) for box in (one, other)]
    return intersection / (sum(areas) - intersection)
