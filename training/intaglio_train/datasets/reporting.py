"""What the commands of `intaglio data` share: options, problems as one line, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from intaglio.command_output import Output
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.progress import progress_for
from intaglio_train.errors import TrainingError

__all__ = ["Copy", "Seed", "check_numbers", "counted", "reported"]

Copy = Annotated[
    bool,
    typer.Option("--copy", help="Copy the files; left out: hard links where the file system has them."),
]
Seed = Annotated[int, typer.Option(help="Another seed draws other images.")]


def check_numbers(values: Mapping[str, float | None]) -> None:
    """Raises `InvalidRequest` for what is no finite number: the bounds of an option let `inf` pass."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise InvalidRequest(name, f"{value}", allowed="a number")


@contextmanager
def reported(command: str, printed: Output) -> Iterator[None]:
    """What the user can put right becomes one line and the exit code 1."""
    try:
        yield
    except TrainingError as error:
        printed.problem(f"intaglio data {command}: {error}")
        raise typer.Exit(FAILED) from None


@contextmanager
def counted(printed: Output, total: int, work: str) -> Iterator[Callable[[Path], None]]:
    """A bar or lines; the function that is given is told of each file that is done."""
    with progress_for(printed.progress, total) as progress:

        def done(path: Path) -> None:
            progress.started(f"{work} {path.name}")
            progress.finished(1)

        yield done
