"""`intaglio train lora|controlnet CONFIG.yaml`."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import intaglio_train
from intaglio_train.config import controlnet_config_from_yaml, lora_config_from_yaml
from intaglio_train.errors import TrainingError
from intaglio_train.progress import ConsoleReporter

__all__ = ["app", "install_weights"]

app = typer.Typer(name="train", no_args_is_help=True, help="Train LoRAs and ControlNets on SDXL.")

INTERRUPTED = 130  # as a shell reports SIGINT
BAD_INPUT = 2

Config = Annotated[Path, typer.Argument(help="Training YAML; see configs/training/.", show_default=False)]
Steps = Annotated[int | None, typer.Option(help="Train to this step instead of the configuration's.")]
Output = Annotated[Path | None, typer.Option(help="Write here instead of to the configuration's folder.")]
Data = Annotated[Path | None, typer.Option(help="Train on this folder instead of the configuration's.")]
Install = Annotated[Path | None, typer.Option(help="Copy the finished weights into this folder too.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from the newest checkpoint, or train anew.")]


@app.command()
def lora(
    config: Config,
    data: Data = None,
    steps: Steps = None,
    output: Output = None,
    install: Install = None,
    resume: Resume = True,
) -> None:
    """Train a LoRA: a style, a character, a background."""

    def run(reporter: Any) -> tuple[Any, Path, tuple[Path, ...]]:
        read = lora_config_from_yaml(config, _overrides(data=data, steps=steps, output=output))
        result = intaglio_train.train_lora(read, resume=resume, reporter=reporter)
        return result.outcome, result.losses, result.files

    _train(run, install)


@app.command()
def controlnet(
    config: Config,
    data: Data = None,
    steps: Steps = None,
    output: Output = None,
    install: Install = None,
    resume: Resume = True,
) -> None:
    """Train a ControlNet for one kind of control image."""

    def run(reporter: Any) -> tuple[Any, Path, tuple[Path, ...]]:
        read = controlnet_config_from_yaml(config, _overrides(data=data, steps=steps, output=output))
        result = intaglio_train.train_controlnet(read, resume=resume, reporter=reporter)
        return result.outcome, result.losses, (result.folder,) if result.folder else ()

    _train(run, install)


def _overrides(**given: Any) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _train(run: Callable[[Any], tuple[Any, Path, tuple[Path, ...]]], install: Path | None) -> None:
    """Show progress and the closing table; one line and exit code 2 for anything the user can put right."""
    console = Console()
    _quiet_libraries()
    try:
        outcome, losses, files = run(ConsoleReporter(console))
    except TrainingError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
    if install is not None:
        files = tuple(install_weights(path, install) for path in files)
    table = Table("steps", "seconds", "last loss", "files")
    table.add_row(str(outcome.steps), f"{outcome.seconds:.1f}", f"{outcome.last_loss:.4f}", "\n".join(map(str, (*files, losses))))
    console.print(table)
    if outcome.interrupted:
        console.print(f"stopped at step {outcome.steps}; the same command goes on from there")
        raise typer.Exit(INTERRUPTED)


def install_weights(weights: Path, folder: Path) -> Path:
    """Copy a finished file or folder of weights into `folder`, under a temporary name until it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / weights.name
    partial = folder / f".{weights.name}.partial"
    if weights.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(weights, partial)
        shutil.rmtree(final, ignore_errors=True)
    else:
        shutil.copyfile(weights, partial)
    partial.replace(final)
    return final


def _quiet_libraries() -> None:
    """Loading bars and advice of the libraries would tear our own bar. They read these before they are imported."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|peft|accelerate)\.")
    for library in ("diffusers", "transformers"):
        import_module(f"{library}.utils.logging").disable_progress_bar()
