"""SCRFD, insightface's detector of faces with five points (arXiv 2105.04714).

For each of three strides it answers with a probability, the distances from an anchor to the sides of the box,
and to the points, in strides. Two anchors lie at the upper left corner of each cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network
from intaglio.detectors.suppression import not_suppressed
from intaglio.faces.found import FoundFace

__all__ = ["Scrfd"]

_STRIDES: Final = (8, 16, 32)
_ANCHORS: Final = 2
_WIDTHS: Final = (1, 4, 10)
"""Numbers an anchor: probability, sides of the box, points. The outputs come in this order, three of each."""
_LARGEST_OVERLAP: Final = 0.4
"""insightface's."""
_MEAN: Final = 127.5
_STD: Final = 128.0


class Scrfd:
    """The network and what it is given."""

    def __init__(self, network: Network, *, size: int, confidence: float) -> None:
        """Faces are found from `confidence` on. `size` is the width and the height of the input, where the
        file does not fix them.

        Raises:
            ConfigError: `network` is another one.
        """
        self._network = network
        self._confidence = confidence
        shape = network.input_shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise network.unlike(f"its input is {list(shape)}")
        self._side = shape[3] or size
        if not self.is_in(network) or self._side % max(_STRIDES):
            raise network.unlike(f"its outputs are {list(network.output_shapes)}")

    @staticmethod
    def is_in(network: Network) -> bool:
        """Whether the outputs of `network` are those of SCRFD with points."""
        widths = tuple(shape[-1] for shape in network.output_shapes if shape)
        return widths == tuple(width for width in _WIDTHS for _ in _STRIDES)

    def __call__(self, picture: Image.Image) -> Sequence[FoundFace]:
        """The faces in RGB `picture`. It lies in the upper left corner of the input, as in insightface."""
        scale = self._side / max(picture.size)
        width, height = (max(1, length * self._side // max(picture.size)) for length in picture.size)
        padded = Image.new("RGB", (self._side, self._side))
        padded.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (0, 0))
        values = (np.asarray(padded, np.float32) - _MEAN) / _STD
        outputs = self._network(values.transpose(2, 0, 1)[None])
        found = list(self._of_strides([output.astype(np.float64) for output in outputs]))
        scores, boxes, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = not_suppressed(boxes, scores, overlap=_LARGEST_OVERLAP)
        return [
            FoundFace(boxes[index] / scale, points[index] / scale, float(scores[index])) for index in kept
        ]

    def _of_strides(
        self, outputs: list[NDArray[np.float64]]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
        """Scores, boxes and points of the likely faces of each stride, in pixels of the input."""
        for index, stride in enumerate(_STRIDES):
            scores, sides, points = (
                outputs[index + len(_STRIDES) * kind].reshape(-1, width) for kind, width in enumerate(_WIDTHS)
            )
            likely = np.flatnonzero(scores[:, 0] >= self._confidence)
            row, column = np.divmod(likely // _ANCHORS, self._side // stride)
            centres = np.stack([column, row], axis=1) * float(stride)
            reach = sides[likely] * stride
            boxes = np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], axis=1)
            offsets = points[likely].reshape(-1, 5, 2) * stride
            yield scores[likely, 0], boxes, centres[:, None] + offsets
