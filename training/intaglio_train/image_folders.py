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

from intaglio_train.errors import DataError
from intaglio_train.folder_samples import Sample
from intaglio_train.pictures import Pixels, decode_picture, fit, read_bytes
from intaglio_train.progress import Watch

__all__ = ["ImageFolder", "check_samples"]


@dataclass(frozen=True)
class ImageFolder:
    """Checked samples; images are decoded when they are asked for."""

    samples: list[Sample]
    size: tuple[int, int]
    captions: list[tuple[str, ...]]
    geometry: NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    def where(self, index: int) -> str:
        return self.samples[index].where

    def images(self, indices: Sequence[int]) -> Pixels:
        return np.stack([self._pixels(self.samples[i].image, Image.Resampling.LANCZOS) for i in indices])

    def controls(self, indices: Sequence[int]) -> Pixels:
        paths = [path for path in (self.samples[i].control for i in indices) if path is not None]
        return np.stack([self._pixels(path, Image.Resampling.BILINEAR) for path in paths])

    def _pixels(self, path: Path, resampling: Image.Resampling) -> Pixels:
        return fit(decode_picture(read_bytes(path), path), self.size, resampling)[0]


@dataclass(frozen=True)
class _Sound:
    """What checking a sample found."""

    geometry: tuple[int, int, int, int]
    """Height, width, top and left, as `intaglio_train.data.Dataset.geometry`."""
    digests: tuple[str, ...]
    """SHA-256 of the image's file and of its control's."""


def check_samples(
    samples: list[Sample], size: tuple[int, int], *, resize: bool, threads: int, watch: Watch
) -> ImageFolder:
    """Decode every image once. Raises `DataError` naming the first that is wrong and counting the others."""
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda sample: _check(sample, size, resize), samples)
        results = list(watch(checks, "checking images", len(samples)))
    errors = [result for result in results if isinstance(result, DataError)]
    if errors:
        more = f" (and {len(errors) - 1} more such files)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    captions = [sample.captions for sample in samples]
    content = hashlib.sha256(repr([*captions, *(result.digests for result in results)]).encode())
    geometry = np.array([result.geometry for result in results], np.float32)
    return ImageFolder(samples, size, captions, geometry, content.hexdigest())


def _check(sample: Sample, size: tuple[int, int], resize: bool) -> _Sound | DataError:
    try:
        data = read_bytes(sample.image)
        image = decode_picture(data, sample.image)
        if image.size != size and not resize:
            raise DataError(
                f"{sample.image}: is {_by(image.size)}; resolution asks for {_by(size)} (or set resize: true)"
            )
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
    cut = fit(image, size, Image.Resampling.NEAREST)[1]
    return _Sound((image.height, image.width, *cut), tuple(digests))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
