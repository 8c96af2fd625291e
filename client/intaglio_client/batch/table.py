"""A CSV table whose rows are pictures and whose columns are inputs. An empty cell says nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type
from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.batch.inputs import SIZE, Axis, Files, own_name, value_of
from intaglio_client.names import ALIASES, CONTROL_ALIASES

__all__ = ["ROWS", "axis_of_table"]

ROWS: Final = "rows"
"""Name of the axis."""
_TEXTS: Final = (SIZE, "pose", "loras", "controls", "timesteps", "sigmas")
"""Inputs that are read from text, whatever their ports hold."""
_BOOLS: Final[Mapping[str, bool]] = {"true": True, "false": False}


def axis_of_table(path: Path, files: Files) -> Axis:
    """The axis whose values are the rows of the table at `path`.

    Raises:
        ConfigError: the file is missing, is no table, or a column or a cell is wrong; it names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as a table in UTF-8: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        columns = _columns(header, path)
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(columns, cells, files, where=f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise ConfigError(f"{path}: has no rows; each row is one picture")
    return Axis(ROWS, rows)


def _columns(header: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in header]
    try:
        columns = [own_name(name) for name in names]
    except InvalidRequest as error:
        raise ConfigError(f"{path}: column {error}") from error
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise ConfigError(f"{path}: two columns are {twice[0]}; one column an input")
    return columns


def _row(columns: list[str], cells: list[str], files: Files, *, where: str) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise ConfigError(f"{where}: has {len(cells)} cells, the header has {len(columns)}")
    found: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        try:
            found |= value_of(column, _value(column, cell.strip()), files)
        except InvalidRequest as error:
            raise ConfigError(f"{where}: {column}: {error.problem}; allowed: {error.allowed}") from error
    return found


def _value(column: str, cell: str) -> Any:
    """The cell as a value of its column's type; None where it is empty."""
    if not cell:
        return None
    if column in _TEXTS:
        return cell
    if column in CONTROL_ALIASES:
        return _number(column, cell, float)
    kind = numpy_type(SDXL.input(ALIASES.get(column, column)).datatype).kind
    if kind == "b":
        if cell.lower() not in _BOOLS:
            raise InvalidRequest(column, f"{cell!r}", allowed="true or false")
        return _BOOLS[cell.lower()]
    if kind in "iu":
        return _number(column, cell, int)
    return _number(column, cell, float) if kind == "f" else cell


def _number(column: str, cell: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(cell)
    except ValueError:
        allowed = "an integer" if kind is int else "a number"
        raise InvalidRequest(column, f"{cell!r}", allowed=allowed) from None
