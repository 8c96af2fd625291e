"""The same build served on one card and on several of one host: throughput, and latency under load.

    python -m benchmarks.gpus.run configs/sdxl-seeded.yaml --out benchmarks/results/h200_gpus.json
Every count is a part. A run that is cut short, or that was given `--seconds`, is taken up again by the same
command. Ends with 1 where a part failed. A build that the benchmark beside diffusers made is used.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from benchmarks.gpus.configs import available_counts, write_configs
from benchmarks.gpus.page import FIGURES, markdown_of, scaling_of
from benchmarks.measuring.case import load_case
from benchmarks.measuring.figures import figure_rows, show_figures
from benchmarks.measuring.parts import Part, Schedule, run_parts
from benchmarks.measuring.results import describe_machine, read_parts, stand_in
from intaglio.builds.manifest import write_json
from intaglio.engines.card import gpu_count

__all__ = ["gather", "parts_of", "write_results"]

_BUILD: Final = "build"
_LEAST_SECONDS: Final = 60.0


def parts_of(counts: Sequence[int]) -> list[Part]:
    """The build, and a part a count."""
    first = f"case_gpus_{counts[0]}.json"
    parts = [Part(_BUILD, "benchmarks.speed.building", case=first, least_seconds=_LEAST_SECONDS)]
    for count in counts:
        options = ("--part", f"served_{count}", "--count", str(count))
        case = f"case_gpus_{count}.json"
        parts.append(
            Part(f"served_{count}", "benchmarks.gpus.load", options, case, least_seconds=_LEAST_SECONDS)
        )
    return parts


def gather(
    work: Path, case: Mapping[str, Any], machine: Mapping[str, Any], *, note: str = ""
) -> dict[str, Any]:
    """The results file, with every count that was measured in this work folder."""
    names = [_BUILD, *(path.stem for path in sorted(work.glob("served_[0-9]*.json")))]
    parts = read_parts(work, names)
    results: dict[str, Any] = {
        "schema": 1,
        "stand_in": stand_in(),
        "note": note,
        "machine": dict(machine) | {"cards": gpu_count()},
        "case": dict(case),
        "parts": parts,
        "scaling": scaling_of(parts),
    }
    figures = {}
    for figure in FIGURES:
        figures[figure.name] = {"value": figure.value(results), "verdict": figure.verdict(results)}
    return results | {"figures": figures}


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """The file, and its page beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, dict(results))
    out.with_suffix(".md").write_text(markdown_of(results), encoding="utf-8")


def main(  # noqa: PLR0913, PLR0917  (each is one option)
    config: Path,
    out: Annotated[Path, typer.Option(help="Results file to write; a second run adds to it.")],
    work: Annotated[Path, typer.Option(help="Logs of the parts.")] = Path("build/gpus-benchmark"),
    counts: Annotated[str, typer.Option(help="Instances, with commas; those that have cards.")] = "1,2,4",
    again: Annotated[bool, typer.Option("--again", help="Also the parts that are done.")] = False,
    steps: Annotated[int, typer.Option(help="Euler steps.")] = 30,
    images: Annotated[int, typer.Option(help="Pictures of an instance, all asked for at once.")] = 16,
    open_seconds: Annotated[float, typer.Option(help="How long requests come at random times.")] = 75.0,
    seconds: Annotated[
        float, typer.Option(help="Time for everything; a part that does not fit waits for the next run.")
    ] = 1e9,
    note: Annotated[
        str, typer.Option(help="What else the machine did meanwhile; goes into the results.")
    ] = "",
) -> None:
    """Measure; ends with 1 where a part failed or was not begun for lack of time."""
    ends = time.monotonic() + seconds
    work.mkdir(parents=True, exist_ok=True)
    chosen = available_counts(counts)
    case = load_case(config, steps=steps, images=images)
    for count, path in write_configs(config, work / "configs", chosen).items():
        replace(case, config=str(path)).write(work / f"case_gpus_{count}.json")
    machine = describe_machine()
    shown = asdict(case) | {"config": config.name}
    console = Console(highlight=False, soft_wrap=True)

    def options(part: Part, left: float) -> list[str]:
        if part.name == _BUILD:
            return ["--part", _BUILD]
        return ["--images", str(images), "--open-seconds", str(min(open_seconds, max(left - 60, 10)))]

    well = run_parts(
        Schedule(parts_of(chosen), work, ends, again=again),
        options=options,
        keep=lambda: write_results(out, gather(work, shown, machine, note=note)),
        console=console,
    )
    results = gather(work, shown, machine, note=note)
    show_figures(console, results, figure_rows(results, FIGURES, digits=2))
    raise typer.Exit(0 if well else 1)


if __name__ == "__main__":
    typer.run(main)
