"""`intaglio annotate`: pictures -> labels of what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import track

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.objects import Layout, ObjectNetwork, ObjectRules
from intaglio.contract.yaml_files import read_yaml, validated
from intaglio.detectors.command import photographs
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.exit_codes import FAILED
from intaglio.objects.annotating import Labelled, Labeller
from intaglio.objects.labelled_folder import LabelledFolder

__all__ = ["app"]

app = typer.Typer(name="annotate", add_completion=False, help="Label what is in pictures.")

_OPTIONS: Final = Path("options")
"""Stands for the command line where a file would be named."""


@app.command()
def annotate(  # noqa: PLR0913  (one option a parameter)
    folder: Annotated[Path, typer.Argument(help="Folder of PNG, JPEG and WEBP files.", show_default=False)],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the labels; the same folder goes on after a stop.")
    ],
    network: Annotated[
        Path,
        typer.Option(help="ONNX file of a detector: of the YOLO family, or NanoDet.", show_default=False),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="Names of its classes, one a line or as data.yaml. Left out: the ONNX file's own."),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="How the network writes what it finds; auto sees it from its outputs.")
    ] = "auto",
    size: Annotated[
        int | None, typer.Option(help="Side of its input in pixels, where its file does not fix one.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Least confidence of what counts as found.")] = 0.25,
    overlap: Annotated[
        float, typer.Option(help="Overlap above which the less certain of two boxes goes.")
    ] = 0.45,
    rules: Annotated[
        Path | None,
        typer.Option(help="YAML file with `require` and `forbid`; pictures that break a rule get no label."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the pictures from images/ instead of copying them.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label every picture of a folder, for the trainers of the YOLO family and for your eyes.

    A picture that cannot be read does not stop the others; the exit code is then 1. What was labelled before,
    with the same network and the same rules, is kept. With --quiet only the labels' files are printed.
    """
    printed = Output(json=json, quiet=quiet)
    pictures = _pictures(folder)
    values = {
        "network": network, "classes": classes, "layout": layout, "size": size, "confidence": confidence,
        "overlap": overlap,
    }  # fmt: skip
    target = LabelledFolder(out, link=link)
    target.check(pictures)
    labeller = Labeller(validated(ObjectNetwork, values, _OPTIONS), _rules(rules))
    console = printed.progress
    with target.locked():
        shown = track(pictures, folder.name, console=console, transient=True, disable=not console.is_terminal)
        done = list(labeller(shown, target))
    refused = [one for one in done if one.state == "refused"]
    for one in refused:
        printed.problem(f"intaglio annotate: {one.detail}")
    rows = [(one.state, str(one.picture), _detail(one)) for one in done if one.state != "refused"]
    accepted = [one for one in done if one.state == "ok"]
    labels = [str(out / f"labels/{one.picture.stem}.txt") for one in accepted]
    printed.result(
        table_of(rows),
        f"{len(done)} pictures: {len(accepted)} labelled in {out}, "
        f"{len(done) - len(accepted) - len(refused)} rejected, {len(refused)} refused",
        data={"out": out, "classes": list(labeller.names), "pictures": [_values(one) for one in done]},
        brief="\n".join(labels),
    )
    raise typer.Exit(FAILED if refused else 0)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of `folder`, whose labels would all have names of their own.

    Raises:
        ConfigError: there is no such folder, or no picture in it.
        InvalidRequest: two would get the same label, or a name cannot be written into JSON.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name a folder of pictures")
    pictures = photographs([folder])
    stems: dict[str, Path] = {}
    for picture in pictures:
        if not picture.name.isprintable():
            problem = f"the name {picture.name!a} cannot be shown"
            raise InvalidRequest("folder", problem, allowed="names in UTF-8 without control characters")
        other = stems.setdefault(picture.stem, picture)
        if other is not picture:
            problem = f"{other.name} and {picture.name} would both get {picture.stem}.txt"
            raise InvalidRequest("folder", problem, allowed="names that differ in more than the suffix")
    return pictures


def _rules(path: Path | None) -> ObjectRules:
    return ObjectRules() if path is None else validated(ObjectRules, read_yaml(path), path)


def _detail(one: Labelled) -> str:
    return f"{one.detail}, labelled before" if one.kept else one.detail


def _values(one: Labelled) -> dict[str, Any]:
    """What `--json` says of a picture."""
    if one.record is None:
        return {"picture": one.picture, "error": one.detail}
    record = one.record
    keys = ("accepted", "reason", "width", "height", "objects")
    return {"picture": one.picture, **{key: record[key] for key in keys}, "labelled_before": one.kept}
