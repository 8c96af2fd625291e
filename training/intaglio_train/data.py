"""Data sets: images, captions and control images, all checked before anything is trained.

`N` samples, `B` of a batch, `H`, `W` pixels. `docs` of the forms on disk: `intaglio_train.config.DataConfig`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from intaglio_train.config import DataConfig
from intaglio_train.errors import DataError

__all__ = ["Dataset", "Watch", "open_dataset"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
Pixels = NDArray[np.uint8]
Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Wraps an iterable to show progress: (items, what, how many) -> items."""


class Dataset(Protocol):
    """Checked samples: reading one cannot fail for a reason that its user could have been told before."""

    @property
    def captions(self) -> list[tuple[str, ...]]:
        """The alternatives of each sample."""

    @property
    def geometry(self) -> NDArray[np.float32]:
        """[N,4]: original height and width, top and left of the crop, in pixels (SDXL's size conditioning)."""

    @property
    def digest(self) -> str:
        """Changes with the contents."""

    def __len__(self) -> int: ...
    def images(self, indices: Sequence[int]) -> Pixels: ...  # [B,H,W,3]
    def controls(self, indices: Sequence[int]) -> Pixels: ...  # [B,H,W,3]


def open_dataset(
    data: DataConfig,
    size: tuple[int, int],
    *,
    resize: bool = False,
    control: bool = False,
    threads: int = 4,
    watch: Watch | None = None,
) -> Dataset:
    """Open and check a data set for `size` = (width, height). Raises `DataError` naming the first file that
    is wrong.
    """
    source = data.source
    if not source.exists():
        raise DataError(
            f"{source}: no such {'folder' if data.folder else 'file'}; data.{'folder' if data.folder else 'arrays'} must exist"
        )
    if data.arrays is not None:
        return _arrays_from_npz(data, size, control)
    if not source.is_dir():
        raise DataError(f"{source}: is a file; data.folder must be a folder (an .npz goes to data.arrays)")
    if (source / "images.npy").exists():
        return _arrays_from_folder(data, size, control)
    samples = _samples_of(source, data.control if control else None, control)[: data.limit]
    return _checked_folder(samples, source, size, resize=resize, threads=threads, watch=watch)


# --- files ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sample:
    image: Path
    captions: tuple[str, ...]
    control: Path | None


@dataclass(frozen=True)
class _Folder:
    samples: list[_Sample]
    size: tuple[int, int]
    captions: list[tuple[str, ...]]
    geometry: NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    def images(self, indices: Sequence[int]) -> Pixels:
        return np.stack(
            [_fit(_read(self.samples[i].image), self.size, Image.Resampling.LANCZOS)[0] for i in indices]
        )

    def controls(self, indices: Sequence[int]) -> Pixels:
        paths = [self.samples[i].control for i in indices]
        return np.stack(
            [_fit(_read(path), self.size, Image.Resampling.BILINEAR)[0] for path in paths if path is not None]
        )


def _samples_of(folder: Path, control_name: str | None, control: bool) -> list[_Sample]:
    for table in (folder / "metadata.csv", folder / "metadata.jsonl"):
        if table.exists():
            return _samples_of_table(table, control)
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DataError(
            f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)}), no images.npy and no metadata.csv or metadata.jsonl"
        )
    controls = _control_folder(folder, control_name) if control else None
    return [
        _Sample(image, _captions_beside(image), None if controls is None else _same_name(image, controls))
        for image in images
    ]


def _samples_of_table(table: Path, control: bool) -> list[_Sample]:
    needed = ("image", "caption", "control") if control else ("image", "caption")
    samples = []
    for number, row in _rows(table):
        missing = [key for key in needed if not row.get(key)]
        if missing:
            raise DataError(f"{table}: row {number} has no {missing[0]}; columns needed: {', '.join(needed)}")
        captions = row["caption"] if isinstance(row["caption"], list) else str(row["caption"]).splitlines()
        samples.append(
            _Sample(
                table.parent / row["image"],
                _nonempty(captions, f"{table}: row {number} has an empty caption"),
                table.parent / row["control"] if control else None,
            )
        )
    if not samples:
        raise DataError(f"{table}: has no rows; one a sample is needed, with columns {', '.join(needed)}")
    return samples


def _rows(table: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
        if table.suffix == ".csv":
            return list(enumerate(csv.DictReader(text.splitlines(keepends=True)), start=1))
        rows = [
            (number, json.loads(line))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error
    for number, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{table}: row {number} is not a JSON object with image and caption")
    return rows


def _captions_beside(image: Path) -> tuple[str, ...]:
    path = image.with_suffix(".txt")
    if not path.exists():
        raise DataError(f"{path}: missing caption; {image.name} needs a .txt of the same name")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: caption cannot be read as UTF-8 text: {error}") from error
    return _nonempty(text.splitlines(), f"{path}: empty caption")


def _nonempty(captions: Iterable[Any], problem: str) -> tuple[str, ...]:
    kept = tuple(text for text in (str(caption).strip() for caption in captions) if text)
    if not kept:
        raise DataError(f"{problem}; write what the image shows, one alternative a line")
    return kept


def _control_folder(folder: Path, name: str | None) -> Path:
    choices = [*([folder / f"control_{name}"] if name else []), folder / "control"]
    for choice in choices:
        if choice.is_dir():
            return choice
    raise DataError(f"{choices[0]}: missing folder of control images; each image needs one of the same name")


def _same_name(image: Path, folder: Path) -> Path:
    for suffix in dict.fromkeys((image.suffix, *IMAGE_SUFFIXES)):
        path = folder / (image.stem + suffix)
        if path.exists():
            return path
    raise DataError(f"{folder / image.name}: missing control image of {image.name}")


def _read(path: Path) -> Image.Image:
    """Decoded RGB image, upright. Raises `DataError`."""
    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: unreadable image ({error}); replace it or take it out of the data set"
        ) from error


def _fit(
    image: Image.Image, size: tuple[int, int], resampling: Image.Resampling
) -> tuple[Pixels, tuple[int, int]]:
    """Pixels [H,W,3] of `size`, scaled to cover it and cut at the centre, and the cut's (top, left)."""
    if image.size == size:
        return np.asarray(image), (0, 0)
    scale = max(wanted / given for wanted, given in zip(size, image.size, strict=True))
    covering = tuple(
        max(wanted, round(given * scale)) for wanted, given in zip(size, image.size, strict=True)
    )
    left, top = ((given - wanted) // 2 for given, wanted in zip(covering, size, strict=True))
    resized = image.resize((covering[0], covering[1]), resampling)
    return np.asarray(resized.crop((left, top, left + size[0], top + size[1]))), (top, left)


def _check(sample: _Sample, size: tuple[int, int], resize: bool) -> tuple[int, int, int, int] | DataError:
    """(height, width, top, left) of a sound sample, or what is wrong with it."""
    try:
        image = _read(sample.image)
        if image.size != size and not resize:
            raise DataError(
                f"{sample.image}: is {_by(image.size)}; resolution asks for {_by(size)} (or set resize: true)"
            )
        if sample.control is not None:
            control = _read(sample.control)
            if control.size != image.size:
                raise DataError(
                    f"{sample.control}: control is {_by(control.size)}; its image {sample.image.name} is {_by(image.size)}"
                )
    except DataError as error:
        return error
    return (image.height, image.width, *_fit(image, size, Image.Resampling.NEAREST)[1])


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _checked_folder(
    samples: list[_Sample],
    folder: Path,
    size: tuple[int, int],
    *,
    resize: bool,
    threads: int,
    watch: Watch | None,
) -> _Folder:
    with ThreadPoolExecutor(threads) as pool:
        checks: Iterable[Any] = pool.map(lambda sample: _check(sample, size, resize), samples)
        results = list(checks if watch is None else watch(checks, "checking images", len(samples)))
    errors = [result for result in results if isinstance(result, DataError)]
    if errors:
        raise DataError(
            f"{errors[0]}" + (f" (and {len(errors) - 1} more such files)" if len(errors) > 1 else "")
        )
    files = [
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for sample in samples
        for path in (sample.image, sample.control)
        if path is not None
    ]
    captions = [sample.captions for sample in samples]
    return _Folder(samples, size, captions, np.array(results, np.float32), _digest(files, captions))


# --- arrays --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arrays:
    pixels: Pixels
    control_pixels: Pixels | None
    captions: list[tuple[str, ...]]
    geometry: NDArray[np.float32]
    digest: str

    def __len__(self) -> int:
        return len(self.captions)

    def images(self, indices: Sequence[int]) -> Pixels:
        return np.asarray(self.pixels[np.asarray(indices)])

    def controls(self, indices: Sequence[int]) -> Pixels:
        assert self.control_pixels is not None  # open_dataset(control=True)
        return np.asarray(self.control_pixels[np.asarray(indices)])


def _arrays_from_npz(data: DataConfig, size: tuple[int, int], control: bool) -> _Arrays:
    source = data.source
    try:
        with np.load(source, allow_pickle=False) as archive:
            arrays = {
                name: archive[name] for name in archive.files if control or not name.startswith("controls")
            }
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{source}: is not an .npz of images and captions: {error}") from error
    named = f"controls_{data.control}"
    controls = arrays.get(named, arrays.get("controls")) if control else None
    for name in ("images", "captions"):
        if name not in arrays:
            raise DataError(
                f"{source}: has no array {name}; it needs images [N,H,W,3] uint8 and captions [N] or [N,M]"
            )
    if control and controls is None:
        raise DataError(
            f"{source}: has no array {named if data.control else 'controls'}; a ControlNet needs control images [N,H,W,3] uint8"
        )
    return _checked_arrays(source, arrays["images"], controls, arrays["captions"].tolist(), size, data.limit)


def _arrays_from_folder(data: DataConfig, size: tuple[int, int], control: bool) -> _Arrays:
    folder = data.source
    controls = None
    if control:
        controls = _mapped(folder / (f"controls_{data.control}.npy" if data.control else "controls.npy"))
    path = folder / "captions.json"
    try:
        captions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); it holds one string, or list of strings, an image"
        ) from error
    if not isinstance(captions, list):
        raise DataError(f"{path}: must be a list with one string, or list of strings, an image")
    return _checked_arrays(
        folder / "images.npy", _mapped(folder / "images.npy"), controls, captions, size, data.limit
    )


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is not a readable .npy ({error}); it holds [N,H,W,3] uint8") from error


def _checked_arrays(
    source: Path, images: Any, controls: Any, captions: list[Any], size: tuple[int, int], limit: int | None
) -> _Arrays:
    pixel_shape = (len(captions), size[1], size[0], 3)
    for what, array in (("images", images), ("controls", controls)):
        if array is not None and (array.dtype != np.uint8 or array.shape != pixel_shape):
            raise DataError(
                f"{source}: {what} is {array.dtype} {list(array.shape)}; captions and resolution ask for uint8 {list(pixel_shape)}"
            )
    if not captions:
        raise DataError(f"{source}: holds no images")
    alternatives = [
        _nonempty(
            caption if isinstance(caption, list) else [caption],
            f"{source}: image {index} has an empty caption",
        )
        for index, caption in enumerate(captions[:limit])
    ]
    geometry = np.tile(np.array([size[1], size[0], 0, 0], np.float32), (len(alternatives), 1))
    edges = [
        hashlib.sha256(array[[0, -1]].tobytes()).hexdigest()
        for array in (images, controls)
        if array is not None
    ]
    return _Arrays(
        images, controls, alternatives, geometry, _digest([*edges, list(pixel_shape)], alternatives)
    )


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
