"""diffusers (eager, compiled, at its strongest), intaglio's engines, intaglio over gRPC: one run on one card.

    python -m benchmarks.speed.run configs/sdxl-seeded.yaml --out benchmarks/results/h200.json
All get the same seeds and steps. The first size is compared. Then all sizes are built, served and soaked.
Markdown and a chart are written beside the JSON. A run that is cut short, or that was given `--seconds`, is
taken up again by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console

from benchmarks.measuring.case import Case, load_case, write_case_configs
from benchmarks.measuring.parts import Part, Schedule, run_parts, wanted_parts
from benchmarks.measuring.pictures import psnr
from benchmarks.measuring.results import describe_machine, read_parts, stand_in
from benchmarks.speed.chart import chart_of
from benchmarks.speed.page import markdown_of
from intaglio.builds.manifest import write_json

__all__ = ["PARTS", "agreement", "gather", "write_results"]

_FIRST_SIZE: Final = "case.json"
_EVERY_SIZE: Final = "case_every_size.json"
PARTS: Final = (
    Part("build", "benchmarks.speed.building", ballast=True, least_seconds=120),
    Part("served", "benchmarks.speed.served", ballast=True, least_seconds=60),
    Part("matched", "benchmarks.speed.matched", least_seconds=60),
    Part("controls", "benchmarks.speed.controls", ballast=True, least_seconds=180),
    Part("stream", "benchmarks.speed.stream", least_seconds=45),
    Part("engines", "benchmarks.speed.engines", least_seconds=45),
    Part("eager", "benchmarks.speed.eager", least_seconds=45),
    Part("compiled", "benchmarks.speed.eager", ("--peer", "compiled"), least_seconds=150),
    Part("strongest", "benchmarks.speed.eager", ("--peer", "strongest"), least_seconds=240),
    Part(
        "build_sizes",
        "benchmarks.speed.building",
        ("--part", "build_sizes"),
        case=_EVERY_SIZE,
        ballast=True,
        least_seconds=240,
    ),
    Part(
        "served_sizes",
        "benchmarks.speed.served",
        ("--part", "served_sizes"),
        case=_EVERY_SIZE,
        ballast=True,
        least_seconds=120,
    ),
    Part("soak", "benchmarks.speed.soak", case=_EVERY_SIZE, least_seconds=90),
    Part("variants", "benchmarks.speed.variants", least_seconds=150),
    Part("batches", "benchmarks.speed.batches", least_seconds=240),
)
_COMPARED: Final = ("compiled", "strongest", "engines", "served", "served_sizes")


def agreement(work: Path, case: Case) -> dict[str, list[float]]:
    """PSNR in dB of every contender's images to eager's."""
    found: dict[str, list[float]] = {}
    for name in _COMPARED:
        values = []
        for image in range(case.images):
            ours = work / name / f"{image}.npy"
            theirs = work / "eager" / f"{image}.npy"
            if ours.is_file() and theirs.is_file():
                values.append(round(psnr(np.load(ours), np.load(theirs)), 2))
        if values:
            found[name] = values
    return found


def gather(work: Path, case: Case, machine: Mapping[str, Any], *, note: str = "") -> dict[str, Any]:
    """The results file; `note` is what a reader must know beside the figures."""
    return {
        "schema": 1,
        "stand_in": stand_in(),
        "note": note,
        "machine": dict(machine),
        "case": asdict(case) | {"config": Path(case.config).name},
        "parts": read_parts(work, [part.name for part in PARTS]),
        "psnr": agreement(work, case),
    }


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """JSON, Markdown and chart."""
    write_json(out, results)
    out.with_suffix(".md").write_text(markdown_of(results), encoding="utf-8")
    out.with_suffix(".svg").write_text(chart_of(results), encoding="utf-8")


def main(  # noqa: PLR0913, PLR0917  (each is one option)
    config: Path,
    out: Annotated[Path, typer.Option(help="Results file to write; a second run adds to it.")],
    work: Annotated[Path, typer.Option(help="Images and logs of the parts.")] = Path("build/benchmark"),
    parts: Annotated[str, typer.Option(help="Parts in a list with commas, or all.")] = "all",
    again: Annotated[bool, typer.Option("--again", help="Also the parts that are done.")] = False,
    steps: Annotated[int, typer.Option(help="Euler steps.")] = 30,
    images: Annotated[int, typer.Option(help="Images measured for each contender.")] = 5,
    each: Annotated[int, typer.Option(help="Images of every size in the part served_sizes.")] = 10,
    soak: Annotated[int, typer.Option(help="Images of the soak.")] = 300,
    free_gib: Annotated[
        float, typer.Option(help="What a ballast leaves free for build and server; 0 for no ballast.")
    ] = 15.5,
    seconds: Annotated[
        float, typer.Option(help="Time for everything; a part that does not fit waits for the next run.")
    ] = 1e9,
    note: Annotated[
        str, typer.Option(help="What else the machine did meanwhile; goes into the results.")
    ] = "",
) -> None:
    """Measure; ends with 1 where a part failed or was not begun for lack of time."""
    ends = time.monotonic() + seconds
    case = load_case(config, steps=steps, images=images)
    first, every = write_case_configs(config, work / "configs")
    replace(case, config=str(first)).write(work / _FIRST_SIZE)
    replace(case, config=str(every)).write(work / _EVERY_SIZE)
    machine = describe_machine()

    def options(part: Part, left: float) -> list[str]:
        if part.name == "served_sizes":
            return ["--each", str(each)]
        if part.name == "soak":
            return ["--images", str(soak), "--seconds", str(max(left - 20, 10))]
        return []

    well = run_parts(
        Schedule(wanted_parts(PARTS, parts), work, ends, again=again, free_gib=free_gib or None),
        options=options,
        keep=lambda: write_results(out, gather(work, case, machine, note=note)),
        console=Console(highlight=False, soft_wrap=True),
    )
    raise typer.Exit(0 if well else 1)


if __name__ == "__main__":
    typer.run(main)
