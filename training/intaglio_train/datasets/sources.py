"""Images, captions and condition maps that belong together by name, and what is missing on each side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from intaglio.imaging.containers import ImageRefused, still_from_bytes
from intaglio.imaging.decoding import upright_size
from intaglio_train.datasets.captions import Caption, captions_in
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import entries_of
from intaglio_train.pictures import FORMATS, MOST_PIXELS, SUFFIXES, read_bytes

__all__ = ["REASONS", "Matched", "Row", "match"]

REASONS: Final[Mapping[str, str]] = {
    "images_without_caption": "images without a caption",
    "captions_without_image": "captions without an image",
    "images_without_condition": "images without a condition map",
    "conditions_without_image": "condition maps without an image",
    "other_sizes": "condition maps of another size than their image",
    "damaged": "files that are no picture that can be read",
    "subfolders": "subfolders, which are not searched",
}
"""Why something is left out, for people."""
_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One sample."""

    image: Path
    text: str
    condition: Path | None
    size: tuple[int, int]
    """Width and height of the image."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What fits together, in the order of names, and what does not."""

    rows: list[Row]
    left_out: dict[str, list[str]] = field(default_factory=lambda: {reason: [] for reason in REASONS})
    """By reason, the names."""

    @property
    def sizes(self) -> Counter[str]:
        """How many images there are of each size."""
        return Counter(f"{width}x{height}" for width, height in (row.size for row in self.rows))


def match(images: Path, captions: Path, conditions: Path | None, *, done: Callable[[Path], None]) -> Matched:
    """Match by the stem of the names: `a.jpg`, the caption of `a`, `a.png` among the condition maps.

    Of each picture the header is read; `done` is told of each image. Subfolders are not searched, but named.

    Raises:
        DataError: a folder is not there, or two files of it have one stem.
    """
    pictures = _pictures_in(images)
    texts = captions_in(captions)
    maps = None if conditions is None else _pictures_in(conditions)
    found = Matched([])
    _note_strays(found, pictures, texts, maps)
    used = [folder.resolve() for folder in (captions, conditions) if folder is not None]
    inside = [path for path in entries_of(images) if path.is_dir() and path.resolve() not in used]
    found.left_out["subfolders"] += [path.name for path in inside]
    complete = [stem for stem in pictures if stem in texts and (maps is None or stem in maps)]
    parts = [(pictures[stem], texts[stem], maps[stem] if maps else None) for stem in complete]
    # Closing the results cancels what has not begun, so that Ctrl-C waits for no other file.
    with ThreadPoolExecutor(_THREADS) as pool, closing(cast(Any, pool.map(_row_of, parts))) as checked:
        for stem, result in zip(complete, checked, strict=True):
            done(pictures[stem])
            if isinstance(result, Row):
                found.rows.append(result)
            else:
                reason, name = result
                found.left_out[reason].append(name)
    return found


def _pictures_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pictures")
    found: dict[str, Path] = {}
    for path in entries_of(folder):
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        if path.stem in found:
            raise DataError(
                f"{path}: has the stem of {found[path.stem].name}; names must differ before the dot"
            )
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)})")
    return found


def _note_strays(
    found: Matched,
    pictures: Mapping[str, Path],
    texts: Mapping[str, Caption],
    maps: Mapping[str, Path] | None,
) -> None:
    left_out = found.left_out
    left_out["images_without_caption"] += [path.name for stem, path in pictures.items() if stem not in texts]
    left_out["captions_without_image"] += [one.name for stem, one in texts.items() if stem not in pictures]
    if maps is not None:
        without = [path.name for stem, path in pictures.items() if stem not in maps]
        left_out["images_without_condition"] += without
        left_out["conditions_without_image"] += [p.name for stem, p in maps.items() if stem not in pictures]


def _row_of(parts: tuple[Path, Caption, Path | None]) -> Row | tuple[str, str]:
    """The sample of an image, a caption and a condition map, or why it is left out, with a name."""
    image, caption, condition = parts
    try:
        size = _size_of(image)
        other = size if condition is None else _size_of(condition)
    except DataError as error:
        return "damaged", str(error)
    if other != size:
        return "other_sizes", f"{condition} is {other[0]}x{other[1]}, {image.name} {size[0]}x{size[1]}"
    return Row(image, caption.text, condition, size)


def _size_of(path: Path) -> tuple[int, int]:
    try:
        return upright_size(still_from_bytes(read_bytes(path), formats=FORMATS, most_pixels=MOST_PIXELS))
    except ImageRefused as error:
        raise DataError(f"{path}: {error.problem}") from error
