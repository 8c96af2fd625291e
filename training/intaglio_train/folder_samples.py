"""What in a folder of image files is a sample, what is a mistake, and what is passed over.

Every file of the folder counts. It belongs to a sample, or it is refused as a likely mistake, or it is passed
over and named. Refused are an image without a caption, a caption without an image, an image that the folder's
table does not name (Hugging Face's `imagefolder` refuses it too), and pictures in formats that are not read.
Passed over are subfolders, as in kohya's scripts, and other files. Names that begin with a dot do not count.
A subfolder that a table's rows name counts as the folder itself does, but what lies beside control images
alone is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio_train.captions import alternatives_of, lines_of
from intaglio_train.errors import DataError
from intaglio_train.pictures import FORMATS, SUFFIXES
from intaglio_train.tables import Row, rows_of

__all__ = ["Found", "Sample", "find_samples", "names_beside_arrays"]

TABLES = ("metadata.csv", "metadata.jsonl")
COLUMNS = ("image", "caption", "control")
FOREIGN_SUFFIXES = frozenset(
    {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".tif", ".tiff"}
)
"""Pictures in formats that are not read."""


@dataclass(frozen=True)
class Sample:
    """An image with its captions, and its control image where one is asked for."""

    image: Path
    captions: tuple[str, ...]
    control: Path | None
    where: str
    """Where the captions stand, for messages."""


@dataclass(frozen=True)
class Found:
    """The samples of a folder, and the names of what was passed over."""

    samples: list[Sample]
    passed_over: list[str]


def find_samples(folder: Path, *, control: bool, control_name: str | None) -> Found:
    """The samples of `folder`; no image is opened. Raises `DataError` naming the file, and a table's row."""
    tables = [folder / name for name in TABLES if (folder / name).exists()]
    if len(tables) > 1:
        raise DataError(f"{folder}: holds {' and '.join(TABLES)}; keep one of them")
    if tables:
        return _samples_of_table(tables[0], control)
    return _samples_of_pairs(folder, control, control_name)


def _samples_of_table(table: Path, control: bool) -> Found:
    needed = COLUMNS if control else COLUMNS[:2]
    rows = rows_of(table)
    if not rows:
        raise DataError(f"{table}: has no rows; one a sample is needed, with columns {', '.join(needed)}")
    samples = [_sample_of_row(row, needed) for row in rows]
    for sample in samples:
        if not sample.image.is_file():
            raise DataError(f"{sample.image}: no such image; {sample.where} names it")
    passed_over = _passed_over_by(table, rows)
    columns: set[str] = set().union(*(row.cells for row in rows))
    passed_over += [f"column {name} of {table.name}" for name in sorted(columns.difference(COLUMNS))]
    return Found(samples, passed_over)


def _passed_over_by(table: Path, rows: Sequence[Row]) -> list[str]:
    """What `rows` do not name, in the folder of `table` and in every subfolder that has a file of theirs.

    Raises:
        DataError: an image that no row names lies beside one that a row names.
    """
    images = _paths_of(rows, "image")
    used = images | _paths_of(rows, "control")
    used_folders: set[Path] = set()
    for path in used:
        used_folders.update(path.parents)
    top = Path(os.path.abspath(table.parent))
    image_folders = {top, *(path.parent for path in images)}
    found = []
    folders = [top]
    while folders:
        folder = folders.pop(0)
        for path in _entries(folder):
            if path in used_folders:
                folders.append(path)
            elif path != top / table.name and path not in used:
                if folder in image_folders:
                    _refuse_unnamed(path, table)
                found.append(_described(path, top))
    return found


def _refuse_unnamed(path: Path, table: Path) -> None:
    _refuse_foreign(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        raise DataError(f"{path}: no row of {table.name} names this image; add one, or take the image out")


def _paths_of(rows: Sequence[Row], column: str) -> set[Path]:
    """Paths of the files that a column names, without `..`."""
    names = [(row.table.parent, row.cells.get(column)) for row in rows]
    return {Path(os.path.abspath(folder / name)) for folder, name in names if name}


def _sample_of_row(row: Row, needed: Sequence[str]) -> Sample:
    for name in needed:
        if not row.cells.get(name):
            raise DataError(f"{row.where} has no {name}; columns needed: {', '.join(needed)}")
    for name in ("image", "control"):
        # A control image that is not asked for may be null.
        if not isinstance(row.cells.get(name), str | None):
            raise DataError(f"{row.where}: {name} is {row.cells[name]!r}; it must be a path")
    folder = row.table.parent
    control = None
    if "control" in needed:
        control = folder / row.cells["control"]
    captions = alternatives_of(_texts_of(row.cells["caption"]), row.where)
    return Sample(folder / row.cells["image"], captions, control, row.where)


def _texts_of(caption: Any) -> list[Any]:
    if isinstance(caption, list):
        return caption
    if isinstance(caption, str):
        return lines_of(caption)
    return [caption]


def _samples_of_pairs(folder: Path, control: bool, control_name: str | None) -> Found:
    entries = _entries(folder)
    for path in entries:
        _refuse_foreign(path)
    images = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    passed_over = [_described(path, folder) for path in entries if _is_passed_over(path)]
    if not images:
        others = f"; it holds {', '.join(passed_over)}" if passed_over else ""
        raise DataError(
            f"{folder}: holds no images ({', '.join(SUFFIXES)}), no images.npy"
            f" and no {' or '.join(TABLES)}{others}"
        )
    with_image = {path.with_suffix(".txt") for path in images}
    for path in entries:
        if path.suffix.lower() == ".txt" and path not in with_image:
            raise DataError(
                f"{path}: caption without an image; add the image {path.stem}, or take the text out"
            )
    controls = _control_folder(folder, control_name) if control else None
    samples = [_sample_of_image(image, controls) for image in images]
    if controls is not None:
        partners = {sample.control for sample in samples}
        alone = [path for path in _entries(controls) if path not in partners]
        passed_over += [f"{controls.name}/{path.name}" for path in alone]
    return Found(samples, passed_over)


def _sample_of_image(image: Path, controls: Path | None) -> Sample:
    path = image.with_suffix(".txt")
    if not path.exists():
        raise DataError(f"{path}: missing caption; {image.name} needs a .txt of the same name")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: caption cannot be read as UTF-8 text: {error}") from error
    control = None if controls is None else _same_name(image, controls)
    return Sample(image, alternatives_of(lines_of(text), str(path)), control, str(path))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _refuse_foreign(path: Path) -> None:
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(
            f"{path}: pictures of this format are not read; convert it to {kinds}, or take it out"
        )


def _is_passed_over(path: Path) -> bool:
    if path.is_dir():
        return path.name != "control" and not path.name.startswith("control_")
    return path.suffix.lower() not in (*SUFFIXES, ".txt")


def _described(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, with the number of images where it is a folder itself."""
    name = path.relative_to(folder).as_posix()
    if not path.is_dir():
        return name
    count = sum(inner.suffix.lower() in SUFFIXES for inner in path.rglob("*"))
    return f"{name}/ ({count} images)"


def _control_folder(folder: Path, name: str | None) -> Path:
    choices = [folder / "control"]
    if name:
        choices.insert(0, folder / f"control_{name}")
    for choice in choices:
        if choice.is_dir():
            return choice
    raise DataError(f"{choices[0]}: missing folder of control images; each image needs one of the same name")


def _same_name(image: Path, folder: Path) -> Path:
    for suffix in dict.fromkeys((image.suffix, *SUFFIXES)):
        path = folder / (image.stem + suffix)
        if path.exists():
            return path
    raise DataError(f"{folder / image.name}: missing control image of {image.name}")


def names_beside_arrays(folder: Path) -> list[str]:
    """What a folder of arrays holds besides them."""
    return [_described(path, folder) for path in _entries(folder) if not _is_array(path)]


def _is_array(path: Path) -> bool:
    is_control = path.name.startswith("controls") and path.suffix == ".npy"
    return is_control or path.name in ("images.npy", "captions.json")
