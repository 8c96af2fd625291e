"""The folder that `intaglio train` and Hugging Face's `datasets` (imagefolder) read.

OUT/train/metadata.jsonl        file_name, text, and for a ControlNet conditioning_image_file_name
OUT/train/NAME.jpg
OUT/train/conditioning/NAME.png
OUT/validation/...              the same; only where a share of the samples is asked for
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio_train.datasets.captions import table_bytes
from intaglio_train.datasets.placed import new_folder, place
from intaglio_train.datasets.sources import Row
from intaglio_train.errors import DataError

__all__ = ["TRAIN", "VALIDATION", "Layout", "largest_group", "split_of", "write_table"]

TRAIN: Final = "train"
VALIDATION: Final = "validation"
_CONDITIONS: Final = "conditioning"
_COLUMNS: Final = ("file_name", "text")
_CONDITION_COLUMN: Final = "conditioning_image_file_name"
"""`datasets` makes a column of images of every `NAME_file_name`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the folder is written."""

    suffix: str = ".jsonl"
    """Of the tables: .jsonl or .csv."""
    validation: float = 0.0
    """The share of samples in the split `validation`."""
    seed: int = 0
    copy: bool = False
    """Copy the pictures; otherwise they are hard links where the file system has them."""


def split_of(name: str, layout: Layout) -> str:
    """The split of a picture. It depends on its name and the seed alone: more pictures move none of them."""
    digest = hashlib.sha256(f"{layout.seed}:{name}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return VALIDATION if share < layout.validation else TRAIN


def largest_group(groups: Mapping[Path, str], layout: Layout) -> str:
    """What is said of a group that alone is more than `validation` is to have; empty without one."""
    count = max(Counter(groups.values()).values(), default=0)
    if count == 1 or count <= layout.validation * len(groups):
        return ""
    share = f"{count} of {len(groups)} samples ({count / len(groups):.0%})"
    return f"{share} are one group of near duplicates, which is in one split"


def write_table(
    rows: Sequence[Row],
    out: Path,
    layout: Layout,
    *,
    groups: Mapping[Path, str],
    done: Callable[[Path], None],
) -> dict[str, int]:
    """Write the folder as a whole; how many samples each split has.

    `groups` names the group of an image that shows nearly what others show. A group is in one split, since
    what is held out must not have been trained on.

    Raises:
        DataError: `out` holds something, or nothing would be left to train on.
    """
    splits: dict[str, list[Row]] = {TRAIN: []}
    if layout.validation:
        splits[VALIDATION] = []  # its count is told where it is 0, too
    for row in rows:
        splits[split_of(groups.get(row.image, row.image.name), layout)].append(row)
    if not rows:
        raise DataError("no sample is left to train on; see what is left out")
    if not splits[TRAIN]:
        raise DataError(_nothing_to_train_on(len(rows), largest_group(groups, layout)))
    with new_folder(out) as folder:
        for split, chosen in splits.items():
            if chosen:
                _write_split(chosen, folder / split, layout, done)
    return {split: len(chosen) for split, chosen in splits.items()}


def _nothing_to_train_on(count: int, group: str) -> str:
    said = f"no sample is left to train on: all {count} fall into the split {VALIDATION}"
    if not group:
        return f"{said}; lower --validation, or give another --seed"
    return (
        f"{said}. {group}; hold out pictures of other scenes in a folder of their own, without --validation"
    )


def _write_split(rows: Sequence[Row], folder: Path, layout: Layout, done: Callable[[Path], None]) -> None:
    cells: list[dict[str, str]] = []
    for row in rows:
        cell = {"file_name": row.image.name, "text": row.text}
        place(row.image, folder / row.image.name, copy=layout.copy)
        if row.condition is not None:
            cell[_CONDITION_COLUMN] = f"{_CONDITIONS}/{row.condition.name}"
            place(row.condition, folder / _CONDITIONS / row.condition.name, copy=layout.copy)
        cells.append(cell)
        done(row.image)
    columns = [*_COLUMNS, *([_CONDITION_COLUMN] if _CONDITION_COLUMN in cells[0] else [])]
    table = folder / f"metadata{layout.suffix}"
    table.write_bytes(table_bytes(table, columns, cells))
