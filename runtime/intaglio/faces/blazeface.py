"""BlazeFace: faces with six points each (arXiv 1907.05047).

Each cell of two grids has anchors at its centre: 2 a cell in the fine grid, 6 in the coarse one. An anchor
answers with a logit and 16 numbers, relative to it in pixels of the input: the box's centre and size, then
both eyes, nose, the middle of the mouth and both ears.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.onnx_network import Network, Shape
from intaglio.detectors.suppression import not_suppressed
from intaglio.faces.found import FoundFace

__all__ = ["BlazeFace"]

_GRIDS: Final = ((16, 2), (8, 6))
"""Cells a side, and anchors a cell."""
_VALUES: Final = 16
_POINTS: Final = 4
"""Eyes, nose and mouth; the ears are often hidden."""
_LARGEST_OVERLAP: Final = 0.3
"""That of MediaPipe's graphs."""
_LARGEST_LOGIT: Final = 100.0


class BlazeFace:
    """The network and what it is given."""

    def __init__(self, network: Network, *, confidence: float) -> None:
        """Faces are found from `confidence` on; ConfigError where `network` is another one."""
        self._network = network
        self._confidence = confidence
        shape = network.input_shape
        side = shape[-2] if len(shape) == 4 else None
        if side is None or shape != (1, side, side, 3):
            raise network.unlike(f"its input is {list(shape)}")
        if not self.is_in(network):
            raise network.unlike(f"its outputs are {list(network.output_shapes)}")
        self._side = side
        self._anchors = _anchors()

    @staticmethod
    def is_in(network: Network) -> bool:
        """Whether the outputs of `network` are those of BlazeFace."""
        return set(network.output_shapes) == {shape for grid in _GRIDS for shape in _shapes(*grid)}

    def __call__(self, picture: Image.Image) -> Sequence[FoundFace]:
        """The faces in RGB `picture`."""
        scale = self._side / max(picture.size)
        width, height = (max(1, round(length * scale)) for length in picture.size)
        left, top = (self._side - width) // 2, (self._side - height) // 2
        padded = Image.new("RGB", (self._side, self._side))
        padded.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        outputs = self._network(np.asarray(padded, np.float32)[None] / 127.5 - 1.0)
        by_shape: dict[Shape, NDArray[np.float64]] = {
            tuple(output.shape): output[0].astype(np.float64) for output in outputs
        }
        scores, values = (
            np.concatenate([by_shape[_shapes(*grid)[index]] for grid in _GRIDS]) for index in (0, 1)
        )
        faces = self._faces(scores[:, 0], values.reshape(-1, _VALUES // 2, 2))
        shift = np.array([left, top])
        return [
            FoundFace(
                box=(face.box.reshape(2, 2) - shift).ravel() / scale,
                points=(face.points - shift) / scale,
                confidence=face.confidence,
            )
            for face in faces
        ]

    def _faces(self, logits: NDArray[np.float64], values: NDArray[np.float64]) -> list[FoundFace]:
        """Faces in pixels of the input."""
        scores = 1.0 / (1.0 + np.exp(-logits.clip(-_LARGEST_LOGIT, _LARGEST_LOGIT)))
        likely = np.flatnonzero(scores >= self._confidence)
        centres = self._anchors[likely] * self._side
        middles, sizes = values[likely, 0] + centres, values[likely, 1]
        boxes = np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)
        points = values[likely, 2 : 2 + _POINTS] + centres[:, None]
        kept = not_suppressed(boxes, scores[likely], overlap=_LARGEST_OVERLAP)
        return [FoundFace(boxes[index], points[index], float(scores[likely[index]])) for index in kept]


def _shapes(cells: int, anchors: int) -> tuple[Shape, Shape]:
    """Shapes of the logits and of the values of one grid."""
    count = cells * cells * anchors
    return (1, count, 1), (1, count, _VALUES)


def _anchors() -> NDArray[np.float64]:
    """[anchors, 2]: centres as fractions of the input."""
    found = []
    for cells, anchors in _GRIDS:
        row, column = np.divmod(np.arange(cells * cells), cells)
        centres = (np.stack([column, row], axis=1) + 0.5) / cells
        found.append(np.repeat(centres, anchors, axis=0))
    return np.concatenate(found)
