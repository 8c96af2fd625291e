"""How a data set lies in its folder: directly, in kohya's folders `N_name/`, or in the split `train/` of a
Hugging Face data set.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from intaglio_train.config import DataConfig
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import (
    TABLES,
    TRAIN_SPLITS,
    Found,
    Reading,
    Sample,
    described,
    entries_of,
    find_samples,
)
from intaglio_train.pictures import SUFFIXES

__all__ = ["samples_of_folder"]

KOHYA_FOLDER: Final = re.compile(r"(\d+)_(.*)")
"""Repeats, and the caption of images that have none, as kohya's `extract_dreambooth_params` reads them. That
function takes a folder `2023` for 2023 repeats; here a name without `_` says nothing of repeats.
"""
TABLES_OF_DATASETS: Final = (".arrow", ".parquet")


def samples_of_folder(data: DataConfig, *, control: bool) -> Found:
    """The samples of `data.folder`; no image is opened. Raises `DataError` naming the file, and a table's
    row.
    """
    reading = Reading(
        control=control,
        control_name=data.control,
        caption_extension=data.caption_extension,
        image_column=data.image_column,
        caption_column=data.caption_column,
    )
    return _samples_of(data.source, reading)


def _samples_of(folder: Path, reading: Reading) -> Found:
    kohya = [path for path in entries_of(folder) if path.is_dir() and _repeats_of(path)]
    if _holds_samples(folder):
        if kohya and not _tables_of(folder):
            raise DataError(
                f"{folder}: holds images, and kohya's folder {kohya[0].name} too;"
                " move the images into such a folder, or the folder elsewhere"
            )
        return find_samples(folder, reading)
    if kohya:
        return _samples_of_kohya(folder, kohya, reading)
    for name in (*TRAIN_SPLITS, "data"):  # where `datasets` looks; the splits may lie in data/
        if (folder / name).is_dir():
            return _samples_of_split(folder, folder / name, reading)
    _refuse_tables_of_datasets(folder)
    return find_samples(folder, reading)


def _samples_of_kohya(folder: Path, subfolders: list[Path], reading: Reading) -> Found:
    samples = []
    notes = []
    passed_over = [described(path, folder) for path in entries_of(folder) if path not in subfolders]
    for path in subfolders:
        found = find_samples(path, replace(reading, repeats=_repeats_of(path), class_caption=_class_of(path)))
        samples += found.samples
        notes.append(_use_of(path, found.samples))
        passed_over += [f"{path.name}/{name}" for name in found.passed_over]
    return Found(samples, passed_over, notes)


def _use_of(folder: Path, samples: list[Sample]) -> str:
    """How often each image of a kohya folder is used, and how many have the folder's caption."""
    use = f"{folder}: {len(samples)} images, {_repeats_of(folder)} repeats"
    captioned = sum(sample.where == str(sample.image) for sample in samples)
    if captioned:
        use += f"; without a caption file, so captioned {_class_of(folder)!r}: {captioned}"
    return use


def _samples_of_split(folder: Path, train: Path, reading: Reading) -> Found:
    found = _samples_of(train, reading)
    others = [path for path in entries_of(folder) if path != train]
    passed_over = [described(path, folder) for path in others] + found.passed_over
    return Found(found.samples, passed_over, found.notes)


def _repeats_of(folder: Path) -> int:
    """Of a folder `N_name`, N; 0 for other folders."""
    found = KOHYA_FOLDER.fullmatch(folder.name)
    return int(found[1]) if found else 0


def _class_of(folder: Path) -> str | None:
    found = KOHYA_FOLDER.fullmatch(folder.name)
    return (found[2] or None) if found else None


def _tables_of(folder: Path) -> list[Path]:
    return [folder / name for name in TABLES if (folder / name).exists()]


def _holds_samples(folder: Path) -> bool:
    return bool(_tables_of(folder)) or any(
        path.suffix.lower() in SUFFIXES and path.is_file() for path in entries_of(folder)
    )


def _refuse_tables_of_datasets(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix in TABLES_OF_DATASETS:
            raise DataError(
                f"{path}: Arrow and Parquet files are not read; write the data set as images with a"
                " metadata.jsonl of file_name and text (Hugging Face's imagefolder)"
            )
