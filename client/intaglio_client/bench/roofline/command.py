"""`intaglio bench roofline`. Engines belong to another package, which measures them: an entry point of the
group `intaglio.rooflines`.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, IntaglioError, MissingExtra
from intaglio.extras import is_installed

__all__ = ["GROUP", "roofline"]

GROUP: Final = "intaglio.rooflines"
_PACKAGES: Final = (
    "intaglio", "tensorrt-rtx-cu12", "tensorrt", "onnxruntime", "torch", "numpy",
)  # fmt: skip


def roofline(
    config: Annotated[
        Path,
        typer.Argument(
            help="Deployment YAML whose build is measured; or a roofline.json, which is drawn again.",
            show_default=False,
        ),
    ],
    *,
    size: Annotated[
        str | None,
        typer.Option(help="WIDTHxHEIGHT of the picture; by default the build's largest.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; by default out/roofline/NAME.", show_default=False),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time every engine of a build, and compare it with what this machine's card or processor reaches.

    With --quiet only the path of the plot is printed.
    """
    from intaglio.whole_files import write_whole
    from intaglio_client.bench.roofline.figures import HEADER, cells_of, notes_of, read_roofline

    if not is_installed("matplotlib"):
        raise MissingExtra("matplotlib", extra="bench")
    printed = Output(json=json, quiet=quiet)
    if config.suffix == ".json":
        if size is not None:
            raise ConfigError("--size belongs to a measurement; leave it out to draw a roofline.json again")
        data = read_roofline(config)
        folder = out or config.parent
        files = {"data": config, "plot": folder / "roofline.png"}
    else:
        folder = out or Path("out/roofline") / config.stem
        data = _measured(config, size, folder, printed)
        files = {"data": folder / "roofline.json", "plot": folder / "roofline.png"}
    # Only now: what was measured is kept where drawing fails.
    from intaglio_client.bench.roofline.plot import drawn_roofline

    write_whole(files["plot"], drawn_roofline(data))
    printed.result(
        table_of(cells_of(data), header=HEADER, right=range(1, 9)),
        *("", *notes_of(data)),
        *("", *map(str, files.values())),
        data={"files": files, **data},
        brief=str(files["plot"]),
    )


def _measured(config: Path, size: str | None, folder: Path, printed: Output) -> dict[str, Any]:
    """Measure, and write `roofline.json`."""
    from intaglio.builds.manifest import write_json
    from intaglio_client.bench.machine import describe_machine
    from intaglio_client.bench.roofline.figures import SCHEMA, placed

    deployment = load_deployment(config)
    measure = next(iter(entry_points(group=GROUP)), None)
    if measure is None:
        raise IntaglioError(f"nothing is installed that measures ({GROUP}); install intaglio again")
    found = measure.load()(deployment, _size_of(size), started=lambda name: printed.note(f"measuring {name}"))
    data = {
        "schema": SCHEMA,
        "machine": describe_machine(Path(__file__).parent, card=deployment.execution.gpu, packages=_PACKAGES),
        **found,
        "networks": [placed(one, found["ceilings"]) for one in found["networks"]],
    }
    write_json(folder / "roofline.json", data)
    return data


def _size_of(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size is {text!r}; allowed: WIDTHxHEIGHT, such as 1024x1024")
    return int(width), int(height)
