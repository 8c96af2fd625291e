"""What a command prints, the same for every command.

The result goes to stdout: a table or lines for people, or JSON with `--json`. Progress, notes and warnings go
to stderr, so that a pipe carries the result alone. With `--quiet` only what a script needs is printed, and
errors. A table is folded to the width of a terminal. In a pipe or a file one row is one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Annotated, Any, Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["Json", "Output", "Quiet", "json_line", "table_of"]

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout; progress stays on stderr.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no progress and no notes; errors are still printed.")
]
_UNFOLDED: Final = 100_000
"""Columns of a pipe or a file."""
_STYLES: Final[Mapping[str, str]] = {
    "ok": "green", "note": "yellow", "warning": "yellow", "missing": "red", "refused": "red",
}  # fmt: skip
"""Colours of the cells that say a state."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command prints, and in which form."""

    json: bool = False
    quiet: bool = False

    @property
    def progress(self) -> Console:
        """The console for progress bars and status lines: stderr. With `--quiet` it prints nothing."""
        return Console(stderr=True, highlight=False, soft_wrap=True, quiet=self.quiet)

    def note(self, text: str, *, style: str = "") -> None:
        """Print a note or a warning on stderr."""
        self.progress.print(text, style=style, markup=False)

    def problem(self, text: str) -> None:
        """Print a failure on stderr, also with `--quiet`."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="red", markup=False)

    def result(self, *shown: RenderableType | str, data: Any, brief: str = "") -> None:
        """Print the result: `shown` for people, `data` as JSON, `brief` with `--quiet` (empty: nothing)."""
        if self.json:
            self.event(data)
            return
        if self.quiet:
            shown = (brief,) if brief else ()
        for one in shown:
            _print(one)

    def event(self, data: Any) -> None:
        """Print `data` as one line of JSON on stdout, immediately: a reader may wait for it."""
        print(json_line(data), flush=True)


def json_line(data: Any) -> str:
    """`data` as JSON without line breaks; paths become text."""
    return json.dumps(data, default=_jsonable, ensure_ascii=False)


def table_of(
    rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), right: Sequence[int] = ()
) -> Table:
    """A table without frames. Cells are plain text; the columns `right` are aligned on the right."""
    rows = list(rows)
    width = max([len(header), *map(len, rows)])
    table = Table(box=None, show_header=bool(header), padding=(0, 2, 0, 0))
    for index in range(width):
        title = header[index] if index < len(header) else ""
        table.add_column(title, overflow="fold")  # a path must be readable as a whole
        if index in right:
            table.columns[index].justify = "right"
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(text: str) -> Text:
    return Text(text, style=_STYLES.get(text, ""))


def _print(shown: RenderableType | str) -> None:
    console = Console(highlight=False)
    if isinstance(shown, str):
        console.print(shown, markup=False, soft_wrap=True)
    elif console.is_terminal:
        console.print(shown)
    else:
        _print_unfolded(shown, sys.stdout)


def _print_unfolded(shown: RenderableType, stream: IO[str]) -> None:
    """One line a row, without the blanks that fill the last column."""
    console = Console(highlight=False, width=_UNFOLDED, file=stream)
    with console.capture() as captured:
        console.print(shown)
    lines = captured.get().removesuffix("\n").split("\n")
    stream.writelines(f"{line.rstrip()}\n" for line in lines)


def _jsonable(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
