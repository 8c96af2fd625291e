"""Size, sharpness and hashes of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from intaglio.imaging.measures import SMALLEST_SIDE, perceptual_hash, sharpness_of
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import entries_of
from intaglio_train.pictures import SUFFIXES, decode_picture, read_bytes

__all__ = ["SHARPNESS_SIDE", "Measured", "images_below", "measure"]

SHARPNESS_SIDE: Final = 512
"""Pixels of the shorter side at which sharpness is measured, so that images of all sizes compare. Smaller
images are measured as they are.
"""
_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one file."""

    path: Path
    problem: str = ""
    """Why it cannot be read; the figures below are then 0."""
    width: int = 0
    height: int = 0
    sharpness: float = 0.0
    """The variance of the Laplacian of the luma, 0 to 255."""
    sha256: str = ""
    """Of the pixels: the same picture in another file, or with other metadata, has the same."""
    hash: int = 0
    """The perceptual hash, 64 bits."""

    @property
    def aspect(self) -> float:
        """The longer side in shorter ones; 1 of a square."""
        return max(self.width, self.height) / max(1, min(self.width, self.height))


def images_below(folder: Path) -> list[Path]:
    """Every image of the folder and of its subfolders, sorted. Raises `DataError` where there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    found = sorted(_images_below(folder))
    if not found:
        raise DataError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    return found


def _images_below(folder: Path) -> Iterator[Path]:
    for path in entries_of(folder):
        if path.is_dir():
            yield from _images_below(path)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def measure(paths: Sequence[Path], *, done: Callable[[Path], None]) -> list[Measured]:
    """Decode and measure every image; `done` is told of each one."""
    found = []
    # Closing the results cancels what has not begun, so that Ctrl-C waits for no other file.
    with ThreadPoolExecutor(_THREADS) as pool, closing(cast(Any, pool.map(_measured, paths))) as results:
        for one in results:
            done(one.path)
            found.append(one)
    return found


def _measured(path: Path) -> Measured:
    try:
        image = decode_picture(read_bytes(path), path)
    except DataError as error:
        return Measured(path, problem=str(error))
    pixels = np.asarray(image)
    size = b"%dx%d:" % image.size
    return Measured(
        path,
        width=image.width,
        height=image.height,
        sharpness=_sharpness(image),
        sha256=hashlib.sha256(size + pixels.tobytes()).hexdigest(),
        hash=perceptual_hash(pixels),
    )


def _sharpness(image: Image.Image) -> float:
    shorter = min(image.size)
    if shorter > SHARPNESS_SIDE:
        scale = SHARPNESS_SIDE / shorter
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX)
    return sharpness_of(np.asarray(image)) if min(image.size) >= SMALLEST_SIDE else 0.0
