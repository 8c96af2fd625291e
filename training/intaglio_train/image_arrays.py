"""Data sets as arrays: an `.npz`, or a folder of `images.npy`, `captions.json` and `controls_<name>.npy`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio_train.captions import alternatives_of
from intaglio_train.config import DataConfig
from intaglio_train.errors import DataError
from intaglio_train.pictures import Pixels

__all__ = ["ImageArrays", "arrays_from_folder", "arrays_from_npz"]

HASHED_ROWS = 64
"""Images that are read at a time to tell their content."""


@dataclass(frozen=True)
class ImageArrays:
    """Checked arrays, in memory or mapped."""

    source: Path
    pixels: Pixels
    control_pixels: Pixels | None
    captions: list[tuple[str, ...]]
    geometry: NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def repeats(self) -> list[int]:
        return [1] * len(self.captions)

    def where(self, index: int) -> str:
        return f"{self.source}: image {index}"

    def folder(self, index: int) -> str:
        return self.source.parent.name if self.source.name == "images.npy" else self.source.stem

    def images(self, indices: Sequence[int]) -> Pixels:
        return np.asarray(self.pixels[np.asarray(indices)])

    def controls(self, indices: Sequence[int]) -> Pixels:
        assert self.control_pixels is not None  # open_dataset(control=True)
        return np.asarray(self.control_pixels[np.asarray(indices)])


@dataclass(frozen=True)
class _Unchecked:
    """What a source holds."""

    images: Any
    controls: Any
    captions: list[Any]


def arrays_from_npz(data: DataConfig, size: tuple[int, int], *, control: bool) -> ImageArrays:
    """Read an `.npz`. Raises `DataError` naming the file and the array or image that is wrong."""
    source = data.source
    try:
        with np.load(source, allow_pickle=False) as archive:
            wanted = [name for name in archive.files if control or not name.startswith("controls")]
            arrays = {name: archive[name] for name in wanted}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{source}: is not an .npz of images and captions: {error}") from error
    named = f"controls_{data.control}" if data.control else "controls"
    controls = arrays.get(named, arrays.get("controls"))
    for name in ("images", "captions"):
        if name not in arrays:
            raise DataError(
                f"{source}: has no array {name}; it needs images [N,H,W,3] uint8 and captions [N] or [N,M]"
            )
    if control and controls is None:
        raise DataError(f"{source}: has no array {named}; a ControlNet needs control images [N,H,W,3] uint8")
    found = _Unchecked(arrays["images"], controls, arrays["captions"].tolist())
    return _checked(found, source, size, data.limit)


def arrays_from_folder(data: DataConfig, size: tuple[int, int], *, control: bool) -> ImageArrays:
    """Map the folder's `.npy` files. Raises `DataError` naming the file and the image that is wrong."""
    folder = data.source
    controls = None
    if control:
        name = f"controls_{data.control}" if data.control else "controls"
        controls = _mapped(folder / f"{name}.npy")
    path = folder / "captions.json"
    try:
        captions = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it holds one string, or list of strings, an image"
        ) from error
    if not isinstance(captions, list):
        raise DataError(f"{path}: must be a list with one string, or list of strings, an image")
    found = _Unchecked(_mapped(folder / "images.npy"), controls, captions)
    return _checked(found, folder / "images.npy", size, data.limit)


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a readable .npy ({error}); it holds [N,H,W,3] uint8") from error


def _checked(found: _Unchecked, source: Path, size: tuple[int, int], limit: int | None) -> ImageArrays:
    shape = (len(found.captions), size[1], size[0], 3)
    for what, array in (("images", found.images), ("controls", found.controls)):
        if array is not None and (array.dtype != np.uint8 or array.shape != shape):
            raise DataError(
                f"{source}: {what} is {array.dtype} {list(array.shape)};"
                f" captions and resolution ask for uint8 {list(shape)}"
            )
    if not found.captions:
        raise DataError(f"{source}: holds no images")
    captions = []
    for index, caption in enumerate(found.captions[:limit]):
        texts = caption if isinstance(caption, list) else [caption]
        captions.append(alternatives_of(texts, f"{source}: image {index}"))
    whole = [size[1], size[0], 0, 0, size[1], size[0]]
    geometry = np.tile(np.array(whole, np.float32), (len(captions), 1))
    content = hashlib.sha256(repr([captions, list(shape[1:])]).encode())
    for array in (found.images, found.controls):
        if array is not None:
            _add_content(content, array[:limit])
    return ImageArrays(source, found.images, found.controls, captions, geometry, content.hexdigest())


def _add_content(content: Any, array: Any) -> None:
    """In blocks, so that a mapped file need not fit into memory."""
    for start in range(0, len(array), HASHED_ROWS):
        content.update(np.ascontiguousarray(array[start : start + HASHED_ROWS]).data)
