"""A network of the YOLO family: a picture -> objects."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.objects import Layout, ObjectNetwork
from intaglio.detectors.onnx_network import Network
from intaglio.detectors.suppression import not_suppressed
from intaglio.errors import ConfigError, MissingExtra
from intaglio.objects.found import FoundObject
from intaglio.objects.layouts import DECODERS, fitting_layouts

__all__ = ["Yolo"]

_GREY: Final = 114
"""What ultralytics fills borders with."""
_MOST: Final = 300
"""Objects of one picture; ultralytics' own number."""
_UNLESS_SAID: Final = 640


class Yolo:
    """The network and what it is given."""

    def __init__(self, network: Network, setting: ObjectNetwork, names: Sequence[str]) -> None:
        """`names` are those of its classes.

        Raises:
            ConfigError: `network` is another one, or cannot be told from another layout.
        """
        self._network = network
        self._setting = setting
        self.names = tuple(names)
        self._height, self._width = self._input_size()
        self._layout = self._chosen_layout()

    def _input_size(self) -> tuple[int, int]:
        shape = self._network.input_shape
        if len(shape) != 4 or shape[0] not in (1, None) or shape[1] != 3:
            raise self._network.unlike(f"its input is {list(shape)}")
        said = _size_in_metadata(self._network.metadata.get("imgsz"))
        height, width = (
            fixed or self._setting.size or otherwise for fixed, otherwise in zip(shape[2:], said, strict=True)
        )
        if self._setting.size not in (None, height) or self._setting.size not in (None, width):
            raise ConfigError(
                f"{self._setting.network}: its input is {width}x{height}; take size {self._setting.size} out"
            )
        return height, width

    def _chosen_layout(self) -> Layout:
        outputs = self._network.output_shapes
        if len(outputs) != 1:
            raise self._network.unlike(f"it has {len(outputs)} outputs (a network of masks?)")
        given, classes = (self._height, self._width), len(self.names)
        wanted = self._setting.layout
        fits = fitting_layouts(outputs[0], given=given if wanted == "auto" else None, classes=classes)
        if wanted != "auto":
            if wanted not in fits:
                raise self._network.unlike(
                    f"its output {list(outputs[0])} is not {wanted} of {classes} classes"
                )
            return wanted
        if not fits:
            raise self._network.unlike(f"its output is {list(outputs[0])}, with {classes} classes")
        if len(fits) > 1:
            raise ConfigError(
                f"{self._setting.network}: its output {list(outputs[0])} may be {' or '.join(fits)}; "
                "say layout"
            )
        return fits[0]

    def __call__(self, picture: Image.Image) -> Sequence[FoundObject]:
        """The objects in RGB `picture`."""
        scale = min(self._width / picture.width, self._height / picture.height)
        width, height = (max(1, round(length * scale)) for length in picture.size)
        # Half a pixel goes to the right and to the bottom, as ultralytics has it.
        left, top = round((self._width - width) / 2 - 0.1), round((self._height - height) / 2 - 0.1)
        pixels = np.full((self._height, self._width, 3), _GREY, np.uint8)
        pixels[top : top + height, left : left + width] = _resized(picture, (width, height))
        (output,) = self._network(pixels.astype(np.float32).transpose(2, 0, 1)[None] / 255.0)
        found = DECODERS[self._layout](output[0].astype(np.float64), self._setting.confidence)
        if len(found.classes) and not 0 <= found.classes.min() <= found.classes.max() < len(self.names):
            raise self._network.unlike(f"it found a class beyond the {len(self.names)} that have names")
        if self._layout == "end-to-end":
            order = np.argsort(-found.scores, kind="stable")
        else:
            overlap = self._setting.overlap
            order = not_suppressed(found.boxes, found.scores, overlap=overlap, classes=found.classes)
        kept = found.at(order[:_MOST])
        kept.boxes[:] = (kept.boxes - [left, top, left, top]) / scale
        return list(kept.within(picture, self.names))


def _resized(picture: Image.Image, size: tuple[int, int]) -> NDArray[Any]:
    """`picture` of this width and height, as ultralytics makes it."""
    try:
        import cv2  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="serve") from error
    pixels = np.asarray(picture)
    if picture.size == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR))


def _size_in_metadata(text: str | None) -> tuple[int, int]:
    """Height and width of the input that ultralytics wrote into an ONNX file."""
    try:
        height, width = ast.literal_eval(text or "")
        return int(height), int(width)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNLESS_SAID, _UNLESS_SAID
