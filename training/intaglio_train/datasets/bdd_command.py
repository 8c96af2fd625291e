"""`intaglio data bdd-captions`. What needs the extra `data` is imported when it runs."""

# ruff: noqa: PLC0415

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.errors import InvalidRequest
from intaglio.exit_codes import TERMINATED
from intaglio.progress import progress_for
from intaglio.stop_signals import stopped_by_signals
from intaglio_train.datasets.reporting import reported
from intaglio_train.errors import DataError

__all__ = ["TEMPLATE", "bdd_captions"]

TEMPLATE: Final = Path(__file__).with_name("bdd_template.txt")
"""The packaged template."""


def bdd_captions(
    labels: Annotated[
        list[Path],
        typer.Argument(help="Label files of BDD100K, or folders of them.", show_default=False),
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="NAME.jsonl or NAME.csv; any other name is a folder of text files.",
            show_default=False,
        ),
    ],
    template: Annotated[
        Path | None,
        typer.Option(help="The caption's template; left out: the packaged one.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite captions that exist.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a caption for every picture of BDD100K: weather, time of day, scene, counted objects.

    With --quiet only the file or the folder is printed.
    """
    from intaglio_train.datasets.bdd import ATTRIBUTES, label_files
    from intaglio_train.datasets.bdd_words import FIELDS
    from intaglio_train.datasets.captions import write_captions
    from intaglio_train.datasets.template import Template

    printed = Output(json=json, quiet=quiet)
    if out.exists() and not force:
        raise InvalidRequest("out", f"{out} exists", allowed="another name, or --force to overwrite")
    with reported("bdd-captions", printed), stopped_by_signals(code=TERMINATED):
        chosen = Template.read(template or TEMPLATE, FIELDS)
        captions, missing = _captions(label_files(labels), chosen, printed)
        write_captions(out, captions)
    rows = [("captions", str(len(captions)))]
    rows += [(f"without {name}", str(missing[name])) for name in (*ATTRIBUTES, "objects")]
    data = {
        "written": out,
        "captions": len(captions),
        "without": {name: missing[name] for name, _ in missing.items()},
    }
    printed.result(table_of(rows, right=(1,)), f"written to {out}", data=data, brief=str(out))


def _captions(files: Sequence[Path], template: Any, printed: Output) -> tuple[dict[str, str], Counter[str]]:
    """Captions by file name, and how many pictures have none of each attribute."""
    from intaglio_train.datasets.bdd import ATTRIBUTES, scenes_of
    from intaglio_train.datasets.bdd_words import fields_of

    captions: dict[str, str] = {}
    stems: set[str] = set()
    missing: Counter[str] = Counter(dict.fromkeys((*ATTRIBUTES, "objects"), 0))
    with progress_for(printed.progress, sum(path.stat().st_size for path in files)) as progress:
        for path in files:
            for scene in scenes_of(path, read=_advance(progress, path)):
                stem = Path(scene.name).stem  # what images and captions are matched by
                if stem in stems:
                    raise DataError(f"{path}: labels {stem} a second time; leave one of the two out")
                stems.add(stem)
                captions[scene.name] = template.caption(fields_of(scene))
                if not captions[scene.name]:
                    raise DataError(
                        f"{path}: the caption of {scene.name} is empty; give the template more text"
                    )
                missing.update(name for name in ATTRIBUTES if name not in scene.attributes)
                missing["objects"] += not scene.objects
    if not captions:
        raise DataError(f"{', '.join(map(str, files))}: label no picture")
    return captions, missing


def _advance(progress: Any, path: Path) -> Callable[[int], None]:
    """Tells `progress` of bytes that are read, from what is read so far."""
    progress.started(path.name)
    before = 0

    def read(so_far: int) -> None:
        nonlocal before
        progress.finished(so_far - before)
        before = so_far

    return read
