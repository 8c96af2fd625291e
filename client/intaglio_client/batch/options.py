"""The options of `intaglio batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intaglio_client.address import URL_VARIABLE

__all__ = [
    "Apart",
    "Deadline",
    "DryRun",
    "InFlight",
    "NewSpec",
    "Out",
    "Spec",
    "Urls",
    "Wait",
]

Spec = Annotated[
    Path,
    typer.Argument(
        help="What to draw: a YAML specification (docs/batches.md), or a CSV table with one picture a row.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the pictures; by default output.folder of the specification, else out/NAME.",
        show_default=False,
    ),
]
Apart = Annotated[
    bool, typer.Option("--apart", help="Folders accepted and rejected for the pictures, as output.apart.")
]
NewSpec = Annotated[
    bool,
    typer.Option(
        "--new-spec",
        help="Take over a folder of another specification: pictures that both ask for are judged again, not "
        "drawn again; the others go into the folder before.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check the specification and say what it draws, without a server."),
]
Urls = Annotated[
    list[str] | None,
    typer.Option(
        envvar=URL_VARIABLE,
        help="host:port of a server's gRPC; repeatable: the servers share the pictures. By default "
        "url of the specification, else 127.0.0.1:8001.",
        show_default=False,
    ),
]
InFlight = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=64,
        help="Pictures that each server has at a time; by default in_flight of the specification, 2.",
        show_default=False,
    ),
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds without any server after which the batch stops.")]
Deadline = Annotated[float, typer.Option(min=0.1, help="Most seconds that one picture may take.")]
