"""What `intaglio data curate` writes: a folder of what is kept, or a table or list alone. Sources stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from intaglio.whole_files import write_whole
from intaglio_train.datasets.captions import TABLE_SUFFIXES, table_bytes
from intaglio_train.datasets.curating import Decision
from intaglio_train.datasets.placed import check_free, new_folder, place
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import CAPTION_SUFFIXES

__all__ = ["LIST_SUFFIX", "REPORT", "check_new", "write_curated"]

REPORT: Final = "curation.csv"
"""Beside the images of a new folder: a row for every image, the ones that are left out among them."""
LIST_SUFFIX: Final = ".txt"
_COLUMNS: Final = ("file_name", "kept", "reason", "detail", "class", "width", "height", "sharpness")


def check_new(out: Path) -> None:
    """Raises `DataError` where `write_curated` would replace something: `out` may be the table of classes."""
    if out.is_file() and out.suffix.lower() in (*TABLE_SUFFIXES, LIST_SUFFIX):
        raise DataError(f"{out}: is there; name a new file")
    check_free(out)


def write_curated(decisions: Sequence[Decision], images: Path, out: Path, *, copy: bool) -> None:
    """Write what `out` asks for by its suffix.

    * `.csv` and `.jsonl`: a table with a row for every image.
    * `.txt`: the paths of what is kept, one a line.
    * else a new folder with what is kept, their caption files, and the table as `curation.csv`.

    Raises:
        DataError: nothing is kept, or the folder is there and not empty.
    """
    kept = [one.image.path for one in decisions if one.reason is None]
    if not kept:
        raise DataError(f"{images}: no image meets the rules, so nothing is written")
    suffix = out.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        write_whole(out, table_bytes(out, _COLUMNS, [_row(one, images) for one in decisions]))
    elif suffix == LIST_SUFFIX:
        write_whole(out, "".join(f"{path}\n" for path in kept).encode())
    else:
        with new_folder(out) as folder:
            files = [file for path in kept for file in (path, *_captions_of(path))]
            for file in dict.fromkeys(files):  # two images may share a caption file
                place(file, folder / file.relative_to(images), copy=copy)
            report = folder / REPORT
            report.write_bytes(table_bytes(report, _COLUMNS, [_row(one, images) for one in decisions]))


def _captions_of(image: Path) -> list[Path]:
    return [path for suffix in CAPTION_SUFFIXES if (path := image.with_suffix(suffix)).is_file()]


def _row(decision: Decision, images: Path) -> dict[str, Any]:
    image = decision.image
    values = (
        image.path.relative_to(images).as_posix(),
        str(decision.reason is None).lower(),
        decision.reason.value if decision.reason else "",
        decision.detail,
        decision.class_name,
        image.width,
        image.height,
        round(image.sharpness, 2),
    )
    return dict(zip(_COLUMNS, values, strict=True))
