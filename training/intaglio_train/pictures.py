"""Picture files -> pixels of the run's size."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.imaging.containers import Format, ImageRefused
from intaglio.imaging.decoding import decode_rgb
from intaglio_train.errors import DataError

__all__ = ["FORMATS", "SUFFIXES", "Pixels", "decode_picture", "fit", "read_bytes"]

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


def fit(
    image: Image.Image, size: tuple[int, int], resampling: Image.Resampling
) -> tuple[Pixels, tuple[int, int]]:
    """Pixels [H,W,3] of `size`, scaled to cover it and cut at the centre, and the cut's (top, left)."""
    if image.size == size:
        return np.asarray(image), (0, 0)
    scale = max(wanted / given for wanted, given in zip(size, image.size, strict=True))
    width, height = (
        max(wanted, round(given * scale)) for wanted, given in zip(size, image.size, strict=True)
    )
    left = (width - size[0]) // 2
    top = (height - size[1]) // 2
    # Only what stays is resized: of a long strip the covering picture would take gigabytes.
    across = image.width / width
    down = image.height / height
    box = (left * across, top * down, (left + size[0]) * across, (top + size[1]) * down)
    return np.asarray(image.resize(size, resampling, box=box)), (top, left)
