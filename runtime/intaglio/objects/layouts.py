"""How networks of the YOLO family write what they find, and which layout an output has.

    yolov8       [1, 4 + C, N]: centre, size, then a probability a class
    yolov5       [1, N, 5 + C]: centre, size, probability of an object, then one a class given an object
    end-to-end   [1, N, 6]: left, top, right, bottom, probability, class; nothing overlaps any more

C classes, N places. Coordinates are pixels of the input. The first two have one place a cell (YOLOv5: three)
of grids with strides 8, 16 and 32; networks for large inputs also have 64, those for small objects 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.objects import Layout
from intaglio.detectors.onnx_network import Shape
from intaglio.objects.found import FoundObjects

__all__ = ["DECODERS", "fitting_layouts"]

_STRIDES: Final = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_END_TO_END: Final = 6

Decoder = Callable[[NDArray[np.float64], float], FoundObjects]
"""(output without its first axis, least confidence) -> objects in pixels of the input."""


def _from_yolov8(output: NDArray[np.float64], least: float) -> FoundObjects:
    places = output.T
    return _likely(places[:, :4], places[:, 4:], least)


def _from_yolov5(output: NDArray[np.float64], least: float) -> FoundObjects:
    return _likely(output[:, :4], output[:, 4:5] * output[:, 5:], least)


def _from_end_to_end(output: NDArray[np.float64], least: float) -> FoundObjects:
    chosen = output[output[:, 4] >= least]
    return FoundObjects(chosen[:, 5].round().astype(np.int64), chosen[:, 4], chosen[:, :4])


def _likely(centred: NDArray[np.float64], scores: NDArray[np.float64], least: float) -> FoundObjects:
    """The places whose likeliest class is likely enough. `centred` is [N, 4]: centre, then size."""
    classes = scores.argmax(axis=1)
    best = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    chosen = np.flatnonzero(best >= least)
    middle, half = centred[chosen, :2], centred[chosen, 2:] / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return FoundObjects(classes[chosen].astype(np.int64), best[chosen], boxes)


DECODERS: Final[Mapping[Layout, Decoder]] = {
    "yolov8": _from_yolov8,
    "yolov5": _from_yolov5,
    "end-to-end": _from_end_to_end,
}


def fitting_layouts(output: Shape, *, given: tuple[int, int] | None, classes: int) -> list[Layout]:
    """The layouts that an output of this shape may have, for an input of `given` height and width. None: the
    number of places says nothing.

    An unknown size fits everything. More than one layout is left where they cannot be told apart, such as
    YOLOv5 and end-to-end with one class and an unknown number of places.
    """
    if len(output) != 3 or output[0] not in (1, None):
        return []
    _, first, second = output
    fits: list[Layout] = []
    single, triple = (_places(given, each) for each in (1, 3))
    if first in (4 + classes, None) and (not single or second in {None, *single}):
        fits.append("yolov8")
    if second in (5 + classes, None) and (not triple or first in {None, *triple}):
        fits.append("yolov5")
    # No grid of the others has as few places.
    if second == _END_TO_END and first not in triple:
        fits.append("end-to-end")
    return fits


def _places(given: tuple[int, int] | None, each: int) -> set[int]:
    """Numbers of places that a network with an input of this height and width may have."""
    if given is None:
        return set()
    height, width = given
    return {each * sum((height // one) * (width // one) for one in strides) for strides in _STRIDES}
