"""Retrain the whole miniature from fixed seeds, in stages that can be run one by one.

    python -m miniature.train                       # everything
    python -m miniature.train data autoencoder      # some stages

A stage does not run again where its output is there and not older than what the stage before left. One that
was stopped goes on from its last checkpoint. Autoencoder, text encoders and UNet are trained here, on the
miniature's world only; ControlNets and LoRAs by `intaglio train`. Work files lie in build/miniature.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from miniature import dataset
from miniature.training.adapters import adapter_files, train_controlnets_and_loras
from miniature.training.assemble import assemble
from miniature.training.autoencoder import train_autoencoder, train_decoder
from miniature.training.base import refine_base, train_base
from miniature.training.settings import MODEL, Settings

__all__ = ["STAGES", "Stage", "is_done", "make_data"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the training, and the files that it leaves."""

    run: Callable[[Settings], None]
    outputs: Callable[[Settings], Sequence[Path]]


def make_data(settings: Settings) -> None:
    """Render every training set."""
    data = settings.work / "data"
    dataset.write_arrays(data / "base", settings.counts["base"], labels=True)
    dataset.write_arrays(data / "controls", settings.counts["controls"], controls=True)
    dataset.write_lessons(data, settings.counts["lessons"])


def _captions(settings: Settings) -> list[Path]:
    return [settings.work / "data" / name / "captions.json" for name in ("base", "controls", "meadow")]


STAGES: Final[Mapping[str, Stage]] = {
    "data": Stage(make_data, _captions),
    "autoencoder": Stage(train_autoencoder, lambda settings: [settings.weights("autoencoder")]),
    "base": Stage(train_base, lambda settings: [settings.weights("base")]),
    "refine": Stage(refine_base, lambda settings: [settings.weights("refine")]),
    "decoder": Stage(train_decoder, lambda settings: [settings.weights("decoder")]),
    "assemble": Stage(assemble, lambda _: [MODEL / "unet" / "diffusion_pytorch_model.safetensors"]),
    "adapters": Stage(train_controlnets_and_loras, lambda _: adapter_files()),
}
"""In the order in which they run."""


def is_done(name: str, settings: Settings, stages: Mapping[str, Stage] = STAGES) -> bool:
    """Whether a stage's outputs are all there and none is older than what the stage before left.

    The committed weights are older than that at first.
    """
    order = list(stages)
    newest = 0.0
    if name != order[0]:
        inputs = stages[order[order.index(name) - 1]].outputs(settings)
        newest = max((path.stat().st_mtime for path in inputs if path.exists()), default=0.0)
    outputs = stages[name].outputs(settings)
    return all(path.exists() and path.stat().st_mtime >= newest for path in outputs)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help=f"any of {', '.join(STAGES)}; all of them when none is named",
    )
    parser.add_argument("--steps", type=int, help="train this many steps instead (a trial)")
    parser.add_argument(
        "--again", action="store_true", help="run the stages even where their output is there"
    )
    parser.add_argument("--eager", action="store_true", help="do without torch.compile")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"unknown stage {', '.join(sorted(unknown))}: choose from {', '.join(STAGES)}")
    settings = Settings()
    if arguments.eager:
        settings = replace(settings, compile=False)
    if arguments.steps:
        options = ("--steps", str(arguments.steps))
        steps = dict.fromkeys(settings.steps, arguments.steps)
        settings = replace(settings, steps=steps, adapter_options=options)
    run_stages(arguments.stages or list(STAGES), settings, again=arguments.again)


def run_stages(names: Sequence[str], settings: Settings, *, again: bool) -> None:
    """Run what is due of these stages; print where the time went."""
    table = Table("stage", "seconds", "outcome")
    for name in names:
        if is_done(name, settings) and not again:
            table.add_row(name, "0", "already there")
            continue
        start = time.monotonic()
        STAGES[name].run(settings)
        table.add_row(name, f"{time.monotonic() - start:.0f}", "done")
    Console().print(table)


if __name__ == "__main__":
    main()
