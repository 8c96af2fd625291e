"""Folders of image files as data sets: every image is checked first and decoded when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio_train.buckets import Placement, Placing
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import Sample
from intaglio_train.pictures import Pixels, cut, decode_picture, read_bytes
from intaglio_train.progress import Watch

__all__ = ["ImageFolder", "check_samples"]


@dataclass(frozen=True)
class ImageFolder:
    """Checked samples; images are decoded when they are asked for."""

    samples: list[Sample]
    placements: list[Placement]
    captions: list[tuple[str, ...]]
    geometry: NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def repeats(self) -> list[int]:
        return [sample.repeats for sample in self.samples]

    def where(self, index: int) -> str:
        return self.samples[index].where

    def folder(self, index: int) -> str:
        return self.samples[index].image.parent.name

    def images(self, indices: Sequence[int]) -> Pixels:
        return np.stack([self._pixels(self.samples[i].image, i, Image.Resampling.LANCZOS) for i in indices])

    def controls(self, indices: Sequence[int]) -> Pixels:
        pixels = []
        for index in indices:
            path = self.samples[index].control
            assert path is not None  # asked for when the samples were found
            pixels.append(self._pixels(path, index, Image.Resampling.BILINEAR))
        return np.stack(pixels)

    def _pixels(self, path: Path, index: int, resampling: Image.Resampling) -> Pixels:
        return cut(decode_picture(read_bytes(path), path), self.placements[index], resampling)


@dataclass(frozen=True)
class _Sound:
    """What checking a sample found."""

    size: tuple[int, int]
    """(width, height) of the image in its file."""
    placement: Placement
    digests: tuple[str, ...]
    """SHA-256 of the image's file and of its control's."""


def check_samples(samples: list[Sample], placing: Placing, *, threads: int, watch: Watch) -> ImageFolder:
    """Decode every image once. Raises `DataError` naming the first that is wrong and counting the others."""
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda sample: _check(sample, placing), samples)
        results = list(watch(checks, "checking images", len(samples)))
    errors = [result for result in results if isinstance(result, DataError)]
    if errors:
        more = f" (and {len(errors) - 1} more such files)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    captions = [sample.captions for sample in samples]
    repeats = [sample.repeats for sample in samples]
    content = hashlib.sha256(repr([*captions, *(result.digests for result in results), repeats]).encode())
    geometry = np.array([_geometry(result) for result in results], np.float32)
    placements = [result.placement for result in results]
    return ImageFolder(samples, placements, captions, geometry, content.hexdigest())


def _geometry(sound: _Sound) -> tuple[int, ...]:
    """As `intaglio_train.data.Dataset.geometry`."""
    return (*reversed(sound.size), *sound.placement.corner, *reversed(sound.placement.size))


def _check(sample: Sample, placing: Placing) -> _Sound | DataError:
    try:
        data = read_bytes(sample.image)
        image = decode_picture(data, sample.image)
        placement = _placement(sample.image, image.size, placing)
        digests = [hashlib.sha256(data).hexdigest()]
        if sample.control is not None:
            data = read_bytes(sample.control)
            control = decode_picture(data, sample.control)
            digests.append(hashlib.sha256(data).hexdigest())
            if control.size != image.size:
                raise DataError(
                    f"{sample.control}: control is {_by(control.size)};"
                    f" its image {sample.image.name} is {_by(image.size)}"
                )
    except DataError as error:
        return error
    return _Sound(image.size, placement, tuple(digests))


def _placement(path: Path, size: tuple[int, int], placing: Placing) -> Placement:
    try:
        return placing.place(size)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
