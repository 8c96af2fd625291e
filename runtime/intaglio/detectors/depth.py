"""Relative depth of a photograph, by any ONNX network of one image and one plane.

Input [1, 3, H, W] or [1, H, W, 3], float32: RGB / 255, less `mean`, divided by `std`; the photograph is
stretched to H x W. Output: [1, H, W], [1, 1, H, W] or [1, H, W, 1]. The map is the output scaled from its
smallest to its largest value, so that what is near is bright, as MiDaS's maps of controlnet_aux are.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.detection import Detection
from intaglio.detectors.onnx_network import Network
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.resizing import Size

__all__ = ["DepthDetector", "depth_map"]


class DepthDetector:
    """The network, and how it is fed. Making one opens the file."""

    def __init__(self, source: DetectorSource) -> None:
        """Open the file.

        Raises:
            ConfigError: it is missing, holds another network, or its input has no fixed size and `size` is
                absent.
            MissingExtra: ONNX Runtime is not installed.
        """
        self._source = source
        self._file = source.files[0]
        self._network = Network(self._file, expected="a network of relative depth")
        shape = self._network.input_shape
        self._channels_first = len(shape) == 4 and shape[1] == 3
        if not self._channels_first and (len(shape) != 4 or shape[3] != 3):
            raise self._network.unlike(f"its input is {list(shape)}")
        height, width = shape[2:] if self._channels_first else shape[1:3]
        self._size = (self._side(width), self._side(height))

    def _side(self, fixed: int | None) -> int:
        side = fixed or self._source.size
        if side is None:
            raise ConfigError(f"{self._file}: its input has no fixed size; give the detector `size`")
        return side

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The depth of `photo`, in its size.

        Raises:
            InvalidRequest: the depth is the same everywhere.
            ConfigError: the network's output is no plane of its input's size, or holds no finite numbers.
        """
        near = self._source.near
        return Detection(depth_map(self._depth(photo), photo.size, near=near, name=name))

    def _depth(self, photo: Image.Image) -> NDArray[np.float32]:
        """[H, W] output of the network."""
        sized = photo.resize(self._size, Image.Resampling.BICUBIC)
        values = (np.asarray(sized, np.float32) / 255 - self._source.mean) / self._source.std
        if self._channels_first:
            values = values.transpose(2, 0, 1)
        output = self._network(values[None])[0]
        sides = [size for size in output.shape if size != 1]
        if len(sides) != 2 or math.prod(sides) != output.size:
            raise self._network.unlike(f"its output is {list(output.shape)}")
        return output.reshape(sides)


def depth_map(
    depth: NDArray[np.float32], size: Size, *, near: Literal["large", "small"], name: str
) -> NDArray[np.uint8]:
    """[H, W] `depth` as the map of a photograph of `size`, [height, width, RGB]; what is near is bright.

    Raises:
        InvalidRequest: the depth of the photograph, which errors call `name`, is the same everywhere.
    """
    low, high = float(depth.min()), float(depth.max())
    if high <= low:
        raise InvalidRequest(name, "it has the same depth everywhere", allowed="a picture of a scene")
    share = (depth - low) / (high - low)
    if near == "small":
        share = 1 - share
    grey = Image.fromarray(np.rint(share * 255).astype(np.uint8))
    return np.asarray(grey.resize(size, Image.Resampling.BICUBIC).convert("RGB"), dtype=np.uint8)
