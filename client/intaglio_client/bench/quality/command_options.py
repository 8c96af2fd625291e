"""The options that `intaglio bench quality` and `intaglio bench parity` add to those of `intaglio tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Extractors", "Options", "Out", "Reference"]

Extractors = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of networks for a perceptual distance, CLIP score and --reference "
        "(docs/benchmarking.md).",
        show_default=False,
    ),
]
Options = Annotated[
    Path | None,
    typer.Option(
        "--options",
        help="YAML file of settings to try instead of ours, as `intaglio tune --grid` takes it.",
        show_default=False,
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="Folder of pictures, or a batch, that what is drawn is compared with: FID and KID.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures and reports; by default out/quality/NAME.", show_default=False),
]
