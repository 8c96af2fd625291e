"""Picture files -> pixels of the run's size."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.imaging.containers import Format, ImageRefused
from intaglio.imaging.decoding import decode_rgb
from intaglio_train.buckets import Placement
from intaglio_train.errors import DataError

__all__ = ["FORMATS", "MOST_PIXELS", "SUFFIXES", "Pixels", "cut", "decode_picture", "read_bytes"]

FORMATS: Final[tuple[Format, ...]] = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_PIXELS: Final = 178_956_970
"""Where Pillow too calls a picture a decompression bomb: twice its `MAX_IMAGE_PIXELS`."""

Pixels = NDArray[np.uint8]
"""[..., H, W, 3]"""


def read_bytes(path: Path) -> bytes:
    """The file's content. Raises `DataError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image") from error
    except OSError as error:
        raise DataError(f"{path}: unreadable image ({error.strerror})") from error


def decode_picture(data: bytes, path: Path) -> Image.Image:
    """RGB picture of a file's content, upright; what serving makes of the same file.

    Raises:
        DataError: naming `path`.
    """
    try:
        return decode_rgb(data, formats=FORMATS, most_pixels=MOST_PIXELS)
    except ImageRefused as error:
        raise DataError(
            f"{path}: unreadable image ({error.problem}); use {error.allowed}, or take it out of the data set"
        ) from error


def cut(image: Image.Image, placement: Placement, resampling: Image.Resampling) -> Pixels:
    """Pixels [H,W,3] of the image, scaled and cut as `placement` says."""
    if image.size == placement.resized == placement.size:
        return np.asarray(image)
    top, left = placement.corner
    # Only what stays is resized: of a long strip the covering picture would take gigabytes.
    across = image.width / placement.resized[0]
    down = image.height / placement.resized[1]
    width, height = placement.size
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return np.asarray(image.resize(placement.size, resampling, box=box))
