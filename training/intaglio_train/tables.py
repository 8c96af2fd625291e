"""Tables of samples: `metadata.csv` and `metadata.jsonl`, read so that no cell and no row is lost unsaid.

A record ends at LF (in a CSV also at CR or CR LF, outside quotes) and nowhere else. So U+2028, U+0085 and
other characters that Unicode calls separators may stand in a caption.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio_train.errors import DataError

__all__ = ["Row", "rows_of"]


@dataclass(frozen=True)
class Row:
    """One record of `table`."""

    table: Path
    number: int
    """From 1: of a CSV the records below its header, of a JSONL the lines."""
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.table}: row {self.number}"


def rows_of(table: Path) -> list[Row]:
    """Every record of a UTF-8 table, with or without a byte order mark; blank lines are left out.

    Raises:
        DataError: unreadable, a quote that is not closed, a row with more or fewer cells than the header, a
            record that is no JSON object, or a name that is given twice. The message names the row.
    """
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{table}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: cannot be read as UTF-8 text: {error}") from error
    return _csv_rows(table, text) if table.suffix == ".csv" else _jsonl_rows(table, text)


def _csv_rows(table: Path, text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:  # a blank line
                continue
            if header is None:
                header = _checked_header(table, cells)
                continue
            row = Row(table, len(rows) + 1, dict(zip(header, cells, strict=False)))
            if len(cells) != len(header):
                raise DataError(
                    f"{row.where} has {len(cells)} cells; the header has {len(header)}"
                    " (write a cell that holds a comma between double quotes)"
                )
            rows.append(row)
    except csv.Error as error:
        raise DataError(
            f"{table}: row {len(rows) + 1} cannot be read: {error}; close every double quote,"
            ' and write "" for one inside a quoted cell'
        ) from error
    return rows


def _checked_header(table: Path, header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{table}: column {name} is there {names.count(name)} times; give each name once")
    return names


def _jsonl_rows(table: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_object_of)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}: row {number} cannot be read: {error}") from error
        if not isinstance(cells, dict):
            raise DataError(f"{table}: row {number} is not a JSON object with image and caption")
        rows.append(Row(table, number, cells))
    return rows


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` on a name that is given twice: the first value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found
