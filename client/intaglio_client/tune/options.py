"""The options of `intaglio tune`, each a type that typer reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intaglio_client.address import URL_VARIABLE

__all__ = [
    "Configs",
    "Deadline",
    "ExtractorFile",
    "Grid",
    "Judge",
    "Loras",
    "Out",
    "PresetsFile",
    "Prompts",
    "Scenes",
    "Seed",
    "Small",
    "Url",
]

Configs = Annotated[
    list[Path],
    typer.Argument(
        help="Deployment YAML, built with `intaglio build`; further ones are other builds of the same "
        "model, such as one of another precision.",
        show_default=False,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(help="Scenes to draw: YAML or JSON lines (docs/tuning.md); by default 16 of our own."),
]
Grid = Annotated[
    Path | None, typer.Option(help="YAML file of settings to try instead of ours (docs/tuning.md).")
]
Small = Annotated[bool, typer.Option("--quick", help="A small grid and 6 scenes.")]
Scenes = Annotated[int | None, typer.Option(min=2, help="Draw only the first N scenes.", show_default=False)]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the first scene; the next scenes have the next seeds.")
]
Loras = Annotated[list[str] | None, typer.Option(help="ID or ID:WEIGHT, a LoRA of every scene; repeatable.")]
Judge = Annotated[
    str | None,
    typer.Option(
        help="MODULE:FUNCTION that gives figures of a picture, or a YAML file of filters (docs/tuning.md)."
    ),
]
ExtractorFile = Annotated[
    Path | None, typer.Option(help="ONNX network from a picture to features, for a perceptual distance.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures and reports; by default out/tune/NAME.", show_default=False),
]
PresetsFile = Annotated[
    Path | None,
    typer.Option(help="YAML file whose `quality` part is written; by default presets.yaml in the folder."),
]
Url = Annotated[
    str | None,
    typer.Option(
        envvar=URL_VARIABLE,
        help="host:port of a server's gRPC; by default one of this build that you run here, else one "
        "that is started for the run.",
    ),
]
Deadline = Annotated[float, typer.Option(min=1, help="Seconds that one picture may take.")]
