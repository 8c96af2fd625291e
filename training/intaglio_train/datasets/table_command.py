"""`intaglio data table`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import TERMINATED
from intaglio.stop_signals import stopped_by_signals
from intaglio_train.datasets.alike import names_of_groups
from intaglio_train.datasets.measured import measure
from intaglio_train.datasets.placed import check_free
from intaglio_train.datasets.reporting import Copy, Seed, check_numbers, counted, reported
from intaglio_train.datasets.sources import REASONS, Row, match
from intaglio_train.datasets.table import Layout, largest_group, write_table
from intaglio_train.errors import DataError

__all__ = ["table"]

_SHOWN: Final = 3
"""Names of a report; `--json` has all."""


class Kind(StrEnum):
    """What the table is for."""

    LORA = "lora"
    CONTROLNET = "controlnet"


class Format(StrEnum):
    """How tables are written."""

    JSONL = "jsonl"
    CSV = "csv"


def table(  # noqa: PLR0913  (one option a choice)
    images: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    *,
    kind: Annotated[
        Kind, typer.Option(help="What is trained; a ControlNet needs --conditions.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.", show_default=False)],
    captions: Annotated[
        Path | None,
        typer.Option(
            help="NAME.jsonl or NAME.csv with file_name and text, or a folder of text files. Left out: those"
            " beside the images.",
            show_default=False,
        ),
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(help="Folder of condition maps with the names of the images.", show_default=False),
    ] = None,
    table_format: Annotated[
        Format, typer.Option("--format", help="How the tables are written.")
    ] = Format.JSONL,
    validation: Annotated[
        float,
        typer.Option(help="Share of the samples in the split `validation`, 0 to 0.9.", min=0.0, max=0.9),
    ] = 0.0,
    seed: Seed = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write nothing where anything is missing.")
    ] = False,
    copy: Copy = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the folder that `intaglio train` and Hugging Face's `datasets` read.

    What has no partner is left out and reported. With --quiet only the folder is printed.
    """
    printed = Output(json=json, quiet=quiet)
    check_numbers({"validation": validation})
    if (kind is Kind.CONTROLNET) != (conditions is not None):
        allowed = "with --kind controlnet, and only with it"
        raise InvalidRequest("conditions", "given" if conditions else "missing", allowed=allowed)
    with reported("table", printed), stopped_by_signals(code=TERMINATED):
        check_free(out)
        with counted(printed, _size_of(images), "reading") as done:
            found = match(images, captions or images, conditions, done=done)
        left_out = {reason: names for reason, names in found.left_out.items() if names}
        _print_left_out(left_out, printed)
        if strict and left_out:
            raise DataError(f"{images}: {sum(map(len, left_out.values()))} files have no partner (--strict)")
        layout = Layout(f".{table_format}", validation, seed, copy)
        groups = _groups_of(found.rows, printed) if validation else {}
        if large := largest_group(groups, layout):
            printed.note(f"{large}: the shares of the splits differ from --validation", style="yellow")
        with counted(printed, len(found.rows), "writing") as done:
            splits = write_table(found.rows, out, layout, groups=groups, done=done)
    rows = [(split, str(count)) for split, count in splits.items()]
    data = {
        "folder": out,
        "kind": kind,
        "splits": splits,
        "sizes": dict(found.sizes),
        "left_out": found.left_out,
    }
    printed.result(table_of(rows, right=(1,)), f"written to {out}", data=data, brief=str(out))


def _groups_of(rows: Sequence[Row], printed: Output) -> dict[Path, str]:
    with counted(printed, len(rows), "comparing") as done:
        images = measure([row.image for row in rows], done=done)
    if problems := [image.problem for image in images if image.problem]:
        printed.note(f"compared with no other: {len(problems)} damaged: {_shortly(problems)}", style="yellow")
    return names_of_groups(images)


def _print_left_out(left_out: dict[str, list[str]], printed: Output) -> None:
    for reason, names in left_out.items():
        printed.note(f"left out: {len(names)} {REASONS[reason]}: {_shortly(names)}", style="yellow")


def _shortly(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _size_of(folder: Path) -> int:
    """About how many images a folder holds; what is wrong with it is said later."""
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
