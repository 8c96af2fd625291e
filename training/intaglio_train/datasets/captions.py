"""Files of captions: a table with `file_name` and `text`, or a folder with a text file a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.whole_files import write_whole
from intaglio_train.captions import alternatives_of, lines_of
from intaglio_train.columns import with_own_columns
from intaglio_train.datasets.placed import new_folder
from intaglio_train.errors import DataError
from intaglio_train.folder_samples import CAPTION_SUFFIXES, entries_of
from intaglio_train.tables import rows_of

__all__ = ["TABLE_SUFFIXES", "Caption", "captions_in", "table_bytes", "write_captions"]

TABLE_SUFFIXES: Final = (".jsonl", ".csv")


@dataclass(frozen=True, slots=True)
class Caption:
    """One picture's caption."""

    name: str
    """For reports: the picture that a table names, or the caption's file."""
    text: str
    """Alternatives are lines."""


def write_captions(out: Path, captions: Mapping[str, str]) -> None:
    """Write captions by file name: a table where `out` ends so, else a folder of text files.

    A new folder is there as a whole or not at all; in one that exists each file is.
    """
    if out.suffix.lower() in TABLE_SUFFIXES:
        rows = ({"file_name": name, "text": text} for name, text in captions.items())
        write_whole(out, table_bytes(out, ("file_name", "text"), rows))
        return
    texts = {Path(name).with_suffix(".txt").name: f"{text}\n".encode() for name, text in captions.items()}
    if out.is_dir():
        for name, data in texts.items():
            write_whole(out / name, data)
        return
    with new_folder(out) as folder:
        for name, data in texts.items():
            (folder / name).write_bytes(data)


def table_bytes(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A CSV or a JSONL file, as the suffix of `path` says."""
    text = io.StringIO(newline="")
    if path.suffix.lower() == ".csv":
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return text.getvalue().encode()


def captions_in(source: Path) -> dict[str, Caption]:
    """Captions by the stem of their picture's name.

    Raises:
        DataError: unreadable, an empty caption, or two for one name; the message names the file and the row.
    """
    if source.is_dir():
        return _captions_of_folder(source)
    if source.suffix.lower() not in TABLE_SUFFIXES or not source.is_file():
        raise DataError(f"{source}: no such file or folder; captions are a folder, NAME.jsonl or NAME.csv")
    return _captions_of_table(source)


def _captions_of_folder(folder: Path) -> dict[str, Caption]:
    found: dict[str, Caption] = {}
    for path in entries_of(folder):
        if path.suffix.lower() not in CAPTION_SUFFIXES or path.is_dir():
            continue
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: caption cannot be read as UTF-8 text: {error}") from error
        _add(found, path.stem, Caption(path.name, _checked(lines_of(text), str(path))), str(path))
    return found


def _captions_of_table(table: Path) -> dict[str, Caption]:
    rows = rows_of(table)
    if not rows:
        raise DataError(f"{table}: has no rows; needed are the columns file_name and text")
    found: dict[str, Caption] = {}
    for row in with_own_columns(rows, named={}).rows:
        name, text = row.cells.get("image"), row.cells.get("caption")
        if not isinstance(name, str) or not name or not text:
            raise DataError(f"{row.where} has no file_name or no text; both are needed")
        texts = text if isinstance(text, list) else lines_of(text) if isinstance(text, str) else [text]
        _add(found, Path(name).stem, Caption(name, _checked(texts, row.where)), row.where)
    return found


def _checked(texts: list[Any], where: str) -> str:
    return "\n".join(alternatives_of(texts, where))


def _add(found: dict[str, Caption], stem: str, caption: Caption, where: str) -> None:
    if stem in found:
        raise DataError(f"{where}: a second caption for {stem}, beside that of {found[stem].name}; keep one")
    found[stem] = caption
