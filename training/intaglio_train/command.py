"""`intaglio train lora|lcm|controlnet CONFIG.yaml`."""

from __future__ import annotations

import math
import os
import shutil
import signal
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import intaglio_train
from intaglio.command_output import Json, Output, Quiet, table_of
from intaglio.exit_codes import FAILED, INTERRUPTED, TERMINATED
from intaglio_train.config import (
    ControlNetConfig,
    LoraConfig,
    controlnet_config_from_yaml,
    lora_config_from_yaml,
)
from intaglio_train.errors import TrainingError
from intaglio_train.lcm_config import lcm_config_from_yaml
from intaglio_train.processes import is_first
from intaglio_train.progress import ConsoleReporter, Reporter

if TYPE_CHECKING:
    from intaglio_train.loop import Outcome

__all__ = ["app", "install_weights"]

app = typer.Typer(name="train", add_completion=False)

_CODES: Final[Mapping[int, int]] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
"""With which code an interrupted run ends, by signal."""


class Kind(StrEnum):
    """What can be trained."""

    LORA = "lora"
    LCM = "lcm"
    CONTROLNET = "controlnet"


@app.command(no_args_is_help=True)
def train(  # noqa: PLR0913, PLR0917  (one option a parameter)
    kind: Annotated[
        Kind,
        typer.Argument(
            help="A style, character or background; few steps; or one kind of control image.",
            show_default=False,
        ),
    ],
    config: Annotated[Path, typer.Argument(help="Training YAML; see configs/training/.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="Train on this folder instead of the configuration's.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Train to this step instead of the configuration's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write here instead of to the configuration's folder.")
    ] = None,
    install: Annotated[
        Path | None, typer.Option(help="Copy the finished weights into this folder too.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue from the newest checkpoint, or restart.")
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a LoRA or a ControlNet on SDXL, or distil a LoRA for few steps (lcm).

    Ends with 0 when it is trained, 1 for anything the user can put right, and with a checkpoint and 130 or
    143 when it was interrupted by Ctrl-C (SIGINT) or by SIGTERM. With --quiet only the files are printed. Of
    several processes one speaks.
    """
    printed = Output(json=json, quiet=quiet or not is_first())
    _quiet_libraries()
    overrides = {
        key: value
        for key, value in (("data", data), ("steps", steps), ("output", output))
        if value is not None
    }
    reporter = ConsoleReporter(printed.progress)
    try:
        if kind is Kind.LORA:
            trained = _train_lora(lora_config_from_yaml(config, overrides), resume, reporter)
        elif kind is Kind.LCM:
            trained = _train_lora(lcm_config_from_yaml(config, overrides), resume, reporter)
        else:
            trained = _train_controlnet(controlnet_config_from_yaml(config, overrides), resume, reporter)
    except TrainingError as error:
        printed.problem(f"intaglio train: {error}")
        raise typer.Exit(FAILED) from None
    files = trained.files
    if install is not None and is_first():
        files = tuple(install_weights(path, install) for path in files)
    if is_first():
        _print_trained(trained, files, printed)
    if trained.outcome.signal is not None:
        printed.note(f"stopped at step {trained.outcome.steps}; the same command continues from there")
        raise typer.Exit(_CODES[trained.outcome.signal])


@dataclass(frozen=True)
class _Trained:
    """What a run of either kind left behind; no files where it was interrupted."""

    outcome: Outcome
    losses: Path
    files: tuple[Path, ...]


def _train_lora(config: LoraConfig, resume: bool, reporter: Reporter) -> _Trained:
    result = intaglio_train.train_lora(config, resume=resume, reporter=reporter)
    return _Trained(result.outcome, result.losses, result.files)


def _train_controlnet(config: ControlNetConfig, resume: bool, reporter: Reporter) -> _Trained:
    result = intaglio_train.train_controlnet(config, resume=resume, reporter=reporter)
    files = () if result.folder is None else (result.folder,)
    return _Trained(result.outcome, result.losses, files)


def _print_trained(trained: _Trained, files: Sequence[Path], printed: Output) -> None:
    outcome = trained.outcome
    first, *others = map(str, (*files, trained.losses))
    rows = [(str(outcome.steps), f"{outcome.seconds:.1f}", f"{outcome.last_loss:.4f}", first)]
    rows += [("", "", "", other) for other in others]
    data = {
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "last_loss": outcome.last_loss if math.isfinite(outcome.last_loss) else None,
        "files": files,
        "losses": trained.losses,
        "interrupted": outcome.interrupted,
    }
    table = table_of(rows, header=("steps", "seconds", "last loss", "files"))
    printed.result(table, data=data, brief="\n".join(map(str, files)))


def install_weights(weights: Path, folder: Path) -> Path:
    """Copy a finished file or folder of weights into `folder`, under a temporary name while it is partial."""
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
    """Loading bars and advice of the libraries would tear our own bar. They read these before they are
    imported.
    """
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|peft|accelerate)\.")
    for library in ("diffusers", "transformers"):
        import_module(f"{library}.utils.logging").disable_progress_bar()
