"""Which column of a table holds what: this trainer's names, Hugging Face's, or the ones that a run names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from intaglio_train.errors import DataError
from intaglio_train.tables import Row

__all__ = ["COLUMNS", "OwnRows", "with_own_columns"]

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image", "file_name", "image_file_name"),
    "caption": ("caption", "text"),
    "control": ("control", "conditioning_image", "conditioning_image_file_name", "control_file_name"),
}
"""What a column holds -> its possible names. `file_name`, and names that end so, are those of `imagefolder`;
`text` and `conditioning_image` those of diffusers' examples.
"""


@dataclass(frozen=True)
class OwnRows:
    """Rows whose cells are named `image`, `caption` and `control`, and the columns that nothing reads."""

    rows: list[Row]
    unused: list[str]


def with_own_columns(rows: Sequence[Row], *, named: Mapping[str, str | None]) -> OwnRows:
    """Rename the columns of a table; `named` are those that the run names itself, by what they hold.

    Raises:
        DataError: two columns may be meant, or the named one is not there.
    """
    present: set[str] = set().union(*(row.cells for row in rows))
    names: dict[str, str] = {}
    for meaning, known in COLUMNS.items():
        name = named.get(meaning)
        if name is not None and name not in present:
            raise DataError(
                f"{rows[0].table}: has no column {name} (data.{meaning}_column);"
                f" it has {', '.join(sorted(present))}"
            )
        found = [name] if name is not None else [name for name in known if name in present]
        if len(found) > 1:
            raise DataError(
                f"{rows[0].table}: has columns {' and '.join(found)}, both for the {meaning};"
                f" keep one of them{_or_name(meaning)}"
            )
        names |= dict.fromkeys(found, meaning)
    renamed = []
    for row in rows:
        cells = {names[name]: value for name, value in row.cells.items() if name in names}
        renamed.append(replace(row, cells=cells))
    return OwnRows(renamed, sorted(present.difference(names)))


def _or_name(meaning: str) -> str:
    """Control images have one known name only, so that no run names another."""
    return "" if meaning == "control" else f", or set data.{meaning}_column"
