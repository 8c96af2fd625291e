"""What in one folder of image files is a sample, what is a mistake, and what is passed over.

Every file of the folder counts. It belongs to a sample, or it is refused as a likely mistake, or it is passed
over and named. Refused are an image without a caption, a caption without an image, an image that the folder's
table does not name (Hugging Face's `imagefolder` refuses it too), and pictures in formats that are not read.
Passed over are subfolders, as in kohya's scripts, rows of other splits than `train/`, and other files. Names
that begin with a dot do not count. A subfolder that a table's rows name counts as the folder itself does, but
what lies beside control images alone is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio_train.captions import alternatives_of, lines_of
from intaglio_train.columns import with_own_columns
from intaglio_train.errors import DataError
from intaglio_train.pictures import FORMATS, SUFFIXES
from intaglio_train.tables import Row, rows_of

__all__ = [
    "CAPTION_SUFFIXES",
    "TABLES",
    "TRAIN_SPLITS",
    "Found",
    "Reading",
    "Sample",
    "described",
    "entries_of",
    "find_samples",
    "names_beside_arrays",
]

TABLES = ("metadata.csv", "metadata.jsonl")
CAPTION_SUFFIXES = (".txt", ".caption")
TRAIN_SPLITS = ("train", "training")
OTHER_SPLITS = ("test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev")
"""Folders that `datasets` takes for the split that is trained on, and for others."""
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
    """Where the captions stand, for messages; the image itself where its folder has one caption for all."""
    repeats: int = 1
    """How often an epoch uses it."""


@dataclass(frozen=True)
class Found:
    """The samples of a folder, the names of what was passed over, and what else its user should know."""

    samples: list[Sample]
    passed_over: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How a folder is read; `intaglio_train.config.DataConfig` explains what it says of it."""

    control: bool = False
    """Whether every sample needs a control image."""
    control_name: str | None = None
    caption_extension: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    class_caption: str | None = None
    """The caption of images that have none."""
    repeats: int = 1

    @property
    def caption_suffixes(self) -> tuple[str, ...]:
        """How names of caption files may end."""
        return CAPTION_SUFFIXES if self.caption_extension is None else (self.caption_extension,)

    @property
    def needed(self) -> tuple[str, ...]:
        """What every row of a table must name."""
        return ("image", "caption", "control") if self.control else ("image", "caption")


def find_samples(folder: Path, reading: Reading) -> Found:
    """The samples of one folder; no image is opened. Raises `DataError` naming the file, and the row."""
    tables = [folder / name for name in TABLES if (folder / name).exists()]
    if len(tables) > 1:
        raise DataError(f"{folder}: holds {' and '.join(TABLES)}; keep one of them")
    if tables:
        return _samples_of_table(tables[0], reading)
    return _samples_of_pairs(folder, reading)


def _samples_of_table(table: Path, reading: Reading) -> Found:
    rows = rows_of(table)
    if not rows:
        needed = ", ".join(reading.needed)
        raise DataError(f"{table}: has no rows; one a sample is needed, with columns {needed}")
    named = {"image": reading.image_column, "caption": reading.caption_column}
    own = with_own_columns(rows, named=named)
    rows = own.rows
    of_train = _rows_of_train(rows)
    samples = [_sample_of_row(row, reading) for row in of_train]
    for sample in samples:
        if not sample.image.is_file():
            raise DataError(f"{sample.image}: no such image; {sample.where} names it")
    passed_over = _passed_over_by(table, rows)
    passed_over += [f"column {name} of {table.name}" for name in own.unused]
    if len(of_train) < len(rows):
        passed_over.append(f"{len(rows) - len(of_train)} rows of other splits than train/")
    return Found(samples, passed_over)


def _rows_of_train(rows: Sequence[Row]) -> list[Row]:
    """Without those of other splits, where the table names images in `train/`."""
    splits = [_split_of(row) for row in rows]
    if not set(TRAIN_SPLITS) & set(splits):
        return list(rows)
    return [row for row, split in zip(rows, splits, strict=True) if split not in OTHER_SPLITS]


def _split_of(row: Row) -> str:
    """The first folder of the image's path."""
    path = row.cells.get("image")
    return Path(path).parts[0] if isinstance(path, str) and len(Path(path).parts) > 1 else ""


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
        for path in entries_of(folder):
            if path in used_folders:
                folders.append(path)
            elif path != top / table.name and path not in used:
                if folder in image_folders:
                    _refuse_unnamed(path, table)
                found.append(described(path, top))
    return found


def _refuse_unnamed(path: Path, table: Path) -> None:
    _refuse_foreign(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        raise DataError(f"{path}: no row of {table.name} names this image; add one, or take the image out")


def _paths_of(rows: Sequence[Row], column: str) -> set[Path]:
    """Paths of the files that a column names, without `..`."""
    names = [(row.table.parent, row.cells.get(column)) for row in rows]
    return {Path(os.path.abspath(folder / name)) for folder, name in names if name}


def _sample_of_row(row: Row, reading: Reading) -> Sample:
    for name in reading.needed:
        if not row.cells.get(name):
            raise DataError(f"{row.where} has no {name}; columns needed: {', '.join(reading.needed)}")
    for name in ("image", "control"):
        # A control image that is not asked for may be null.
        if not isinstance(row.cells.get(name), str | None):
            raise DataError(f"{row.where}: {name} is {row.cells[name]!r}; it must be a path")
    folder = row.table.parent
    control = None
    if reading.control:
        control = folder / row.cells["control"]
    captions = alternatives_of(_texts_of(row.cells["caption"]), row.where)
    return Sample(folder / row.cells["image"], captions, control, row.where, reading.repeats)


def _texts_of(caption: Any) -> list[Any]:
    if isinstance(caption, list):
        return caption
    if isinstance(caption, str):
        return lines_of(caption)
    return [caption]


def _samples_of_pairs(folder: Path, reading: Reading) -> Found:
    entries = entries_of(folder)
    for path in entries:
        _refuse_foreign(path)
    images = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    passed_over = [described(path, folder) for path in entries if _is_passed_over(path, reading)]
    if not images:
        others = ""
        if passed_over:
            others = f"; it holds {', '.join(passed_over)} (kohya's tools read folders named N_NAME)"
        raise DataError(
            f"{folder}: holds no images ({', '.join(SUFFIXES)}), no images.npy"
            f" and no {' or '.join(TABLES)}{others}"
        )
    stems = {path.with_suffix("") for path in images}
    for path in entries:
        if path.suffix.lower() in reading.caption_suffixes and path.with_suffix("") not in stems:
            raise DataError(
                f"{path}: caption without an image; add the image {path.stem}, or take the text out"
            )
    controls = _control_folder(folder, reading.control_name) if reading.control else None
    samples = [_sample_of_image(image, controls, reading) for image in images]
    if controls is not None:
        partners = {sample.control for sample in samples}
        alone = [path for path in entries_of(controls) if path not in partners]
        passed_over += [f"{controls.name}/{path.name}" for path in alone]
    return Found(samples, passed_over)


def _sample_of_image(image: Path, controls: Path | None, reading: Reading) -> Sample:
    control = None if controls is None else _same_name(image, controls)
    path = _caption_file_of(image, reading)
    if path is None:
        assert reading.class_caption is not None  # _caption_file_of
        captions = alternatives_of([reading.class_caption], str(image))
        return Sample(image, captions, control, str(image), reading.repeats)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: caption cannot be read as UTF-8 text: {error}") from error
    captions = alternatives_of(lines_of(text), str(path))
    return Sample(image, captions, control, str(path), reading.repeats)


def _caption_file_of(image: Path, reading: Reading) -> Path | None:
    """None where the folder has a caption for all."""
    paths = [image.with_suffix(suffix) for suffix in reading.caption_suffixes]
    found = [path for path in paths if path.exists()]
    if len(found) > 1:
        raise DataError(
            f"{image}: has captions in {' and '.join(path.name for path in found)};"
            " keep one, or set data.caption_extension"
        )
    if not found and reading.class_caption is None:
        suffixes = " or ".join(reading.caption_suffixes)
        raise DataError(f"{paths[0]}: missing caption; {image.name} needs a {suffixes} of the same name")
    return found[0] if found else None


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without names that begin with a dot."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _refuse_foreign(path: Path) -> None:
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(
            f"{path}: pictures of this format are not read; convert it to {kinds}, or take it out"
        )


def _is_passed_over(path: Path, reading: Reading) -> bool:
    if path.is_dir():
        return path.name != "control" and not path.name.startswith("control_")
    return path.suffix.lower() not in (*SUFFIXES, *reading.caption_suffixes)


def described(path: Path, folder: Path) -> str:
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
    return [described(path, folder) for path in entries_of(folder) if not _is_array(path)]


def _is_array(path: Path) -> bool:
    is_control = path.name.startswith("controls") and path.suffix == ".npy"
    return is_control or path.name in ("images.npy", "captions.json")
