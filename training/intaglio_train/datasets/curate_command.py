"""`intaglio data curate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import TERMINATED
from intaglio.stop_signals import stopped_by_signals
from intaglio_train.datasets.curated import check_new, write_curated
from intaglio_train.datasets.curating import Duplicates, Quotas, Reason, Rules, classes_in, decide
from intaglio_train.datasets.measured import images_below, measure
from intaglio_train.datasets.reporting import Copy, Seed, check_numbers, counted, reported

__all__ = ["curate"]


def curate(  # noqa: PLR0913  (one option a rule)
    images: Annotated[Path, typer.Argument(help="Folder of images; subfolders count.", show_default=False)],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="A new folder; NAME.csv or NAME.jsonl for a table of all decisions, NAME.txt for a list of"
            " what is kept.",
            show_default=False,
        ),
    ],
    min_side: Annotated[int, typer.Option(help="Pixels of the shorter side.", min=0)] = 0,
    max_aspect: Annotated[
        float | None,
        typer.Option(help="The longer side in shorter ones: 2 allows 2:1.", min=1.0, show_default=False),
    ] = None,
    min_sharpness: Annotated[
        float, typer.Option(help="Variance of the Laplacian with a shorter side of 512 pixels.", min=0.0)
    ] = 0.0,
    duplicates: Annotated[Duplicates, typer.Option(help="Which images count as the same.")] = Duplicates.NEAR,
    distance: Annotated[
        int, typer.Option(help="Bits of 64 in which hashes of near duplicates differ.", min=0, max=32)
    ] = 4,
    classes: Annotated[
        Path | None, typer.Option(help="Table with the columns file and class.", show_default=False)
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            help="Images of every class (200), or of one (realism=100); repeatable.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    copy: Copy = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose images to train on. The source stays as it is.

    With --quiet only what is written is printed.
    """
    printed = Output(json=json, quiet=quiet)
    check_numbers({"max-aspect": max_aspect, "min-sharpness": min_sharpness})
    with reported("curate", printed), stopped_by_signals(code=TERMINATED):
        check_new(out)
        quotas = _quotas(classes, quota or [])
        rules = Rules(min_side, max_aspect, min_sharpness, duplicates, distance, quotas, seed)
        paths = images_below(images)
        with counted(printed, len(paths), "measuring") as done:
            measured = measure(paths, done=done)
        decisions = decide(measured, rules, images)
        write_curated(decisions, images, out, copy=copy)
    reasons = Counter(one.reason for one in decisions)
    kept = reasons.pop(None)
    by_reason = {reason.value: reasons[reason] for reason in Reason if reasons[reason]}
    by_class = dict(
        sorted(Counter(one.class_name for one in decisions if not one.reason and one.class_name).items())
    )
    rows = [("kept", str(kept)), *((f"  {name}", str(count)) for name, count in by_class.items())]
    rows += [(name, str(count)) for name, count in by_reason.items()]
    data = {"written": out, "images": len(paths), "kept": kept, "left_out": by_reason, "classes": by_class}
    printed.result(table_of(rows, right=(1,)), f"written to {out}", data=data, brief=str(out))


def _quotas(classes: Path | None, texts: Sequence[str]) -> Quotas | None:
    if classes is None:
        if texts:
            raise InvalidRequest("quota", f"{texts[0]} without classes", allowed="with --classes TABLE")
        return None
    every: int | None = None
    by_class: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdecimal():
            raise InvalidRequest("quota", repr(text), allowed="a number, or CLASS=NUMBER")
        if name in by_class or (not name and every is not None):
            raise InvalidRequest("quota", f"{text} after another one", allowed="one of each class")
        if name:
            by_class[name] = int(number)
        else:
            every = int(number)
    return Quotas(classes_in(classes), every, by_class)
