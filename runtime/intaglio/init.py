"""`intaglio init DIR`: write a deployment and what belongs to it into a folder, to start from.

Every file is a copy of an example in `configs/`. Examples name what lies one folder above them
(`../weights`). A copy names the same things beside itself (`weights`), so all that belongs to it stays in
DIR.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from intaglio.command_output import Json, Output, Quiet
from intaglio.errors import ConfigError
from intaglio.package_data import data_path

__all__ = ["Example", "app", "write_example"]

app = typer.Typer(
    name="init",
    add_completion=False,
    help="Write a deployment, a LoRA registry and a training configuration.",
)

POSES: Final = "poses"


class Example(StrEnum):
    """What can be started from."""

    SDXL = "sdxl"
    SDXL_SEEDED = "sdxl-seeded"
    MINIATURE = "miniature"


_FILES: Final[Mapping[Example, Mapping[str, str]]] = {
    Example.SDXL: {
        "sdxl.yaml": "sdxl.yaml",
        "sdxl-loras.yaml": "sdxl-loras.yaml",
        "sdxl-presets.yaml": "sdxl-presets.yaml",
        "training.yaml": "training/watercolour.yaml",
    },
    Example.SDXL_SEEDED: {"sdxl-seeded.yaml": "sdxl-seeded.yaml"},
    Example.MINIATURE: {
        "miniature.yaml": "miniature.yaml",
        "loras.yaml": "loras.yaml",
        "presets.yaml": "presets.yaml",
        "training.yaml": "training/night.yaml",
    },
}
"""Name in DIR -> example in `configs/`, by what is started from. The first is the deployment."""


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder to write into; it is made where it is missing.", show_default=False),
    ],
    *,
    like: Annotated[
        Example,
        typer.Option(
            help="Which example to start from. sdxl-seeded needs no weights: it measures speed and memory."
        ),
    ] = Example.SDXL,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a deployment, a LoRA registry, a training configuration and the poses into FOLDER.

    Nothing is overwritten. With --quiet only the path of the deployment is printed.
    """
    names = write_example(folder, like)
    poses = len(list((folder / POSES).iterdir()))
    deployment = folder / names[0]
    data = {"deployment": deployment, "files": [folder / name for name in names], "poses": folder / POSES}
    lines = [f"{folder}: {', '.join(names)} and {poses} poses are written. Next:"]
    lines += [f"  {line}" for line in _next_commands(folder, like)]
    Output(json=json, quiet=quiet).result(*lines, data=data, brief=str(deployment))


def write_example(folder: Path, like: Example) -> tuple[str, ...]:
    """Write the files of an example and the poses into `folder`; returns the names of the files, the
    deployment first.

    Raises:
        ConfigError: one of them is there already; nothing is written.
    """
    files = _FILES[like]
    if there := [name for name in (*files, POSES) if os.path.lexists(folder / name)]:
        raise ConfigError(
            f"{folder}: has {', '.join(there)} already, and init overwrites nothing; name another folder"
        )
    configs = data_path("configs")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".init-") as work:
        for name, example in files.items():
            text = (configs / example).read_text(encoding="utf-8")
            Path(work, name).write_text(text.replace("../", ""), encoding="utf-8")
        shutil.copytree(configs / POSES, Path(work, POSES))
        for name in (*files, POSES):
            Path(work, name).rename(folder / name)
    return tuple(files)


def _next_commands(folder: Path, like: Example) -> list[str]:
    """What to do with the folder, as lines for a shell."""
    deployment = next(iter(_FILES[like]))
    lines = {f"cd {shlex.quote(str(folder))}": ""}
    if like is Example.MINIATURE:
        lines["cp -r REPOSITORY/miniature ."] = "its weights: only intaglio's repository has them"
    lines |= {
        f"intaglio doctor {deployment}": "what this machine has and what is missing",
        f"intaglio build {deployment}": "run it again after every change",
        f"intaglio serve {deployment}": "until Ctrl-C; then, in another shell:",
        'intaglio generate "a person waving on a beach" --pose waving-01': "",
    }
    if "training.yaml" in _FILES[like]:
        lines["intaglio train lora training.yaml"] = "your own LoRA; name your pictures in the file first"
    width = max(len(command) for command, comment in lines.items() if comment)
    return [f"{command:<{width}}  # {comment}" if comment else command for command, comment in lines.items()]
