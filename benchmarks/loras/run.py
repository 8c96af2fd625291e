"""What changing LoRAs costs.

    python -m benchmarks.loras.run configs/sdxl-seeded.yaml --out benchmarks/results/h200_lora.json

    build     from nothing: random LoRAs, and the build that swaps them
    low_rank_build    the UNet with LoRAs beside the matrices instead of in them
    swap      seconds to apply two; that weights and images are what they should be; seconds of a step
    served    through Triton: a retrained file to its first image; swaps under load
    refit     the engine's share: its fixed part and its part a byte, from each kind of memory
    low_rank  a pass of each engine of low_rank_build
    fused     the same base with the set fused: its step, its image
    rebuild   a changed file to the first image of the build that fuses it
The configuration gives the base, the first size and the precision. Everything is made in the work folder. A
run that is cut short, or that was given `--seconds`, is taken up again by the same command. Ends with 1 where
a part failed or a required figure was missed; `benchmarks.loras.report` prints the table of a file again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from benchmarks.loras.files import LoraCase, write_configs
from benchmarks.loras.page import markdown_of
from benchmarks.loras.report import FIGURES, show
from benchmarks.measuring.parts import Part, Schedule, run_parts, wanted_parts
from benchmarks.measuring.results import describe_machine, read_parts, stand_in
from intaglio.builds.manifest import write_json

__all__ = ["PARTS", "gather", "write_results"]

PARTS: Final = (
    Part("build", "benchmarks.loras.building", least_seconds=120),
    Part("low_rank_build", "benchmarks.loras.low_rank_build", least_seconds=150),
    Part("swap", "benchmarks.loras.swap", least_seconds=150),
    Part("served", "benchmarks.loras.served", least_seconds=120),
    Part("refit", "benchmarks.loras.refit", least_seconds=60),
    Part("low_rank", "benchmarks.loras.low_rank", least_seconds=60),
    Part("fused", "benchmarks.loras.fused", least_seconds=180),
    Part("rebuild", "benchmarks.loras.rebuild", least_seconds=120),
)
NOT_TRIED: Final = {
    "an engine for every set, all resident": (
        "each would be another copy of the UNet's weights (see build: 4.8 GiB); two do not fit 16 GB"
    ),
    "fewer, larger weights": (
        "queries, keys and values in one matrix change the graph that everything else was verified with"
    ),
    "A and B as inputs of the engine": (
        "low_rank has them as weights of the graph: inputs cannot be faster in a step"
    ),
    "halves of the UNet as engines": (
        "the prompt's keys and values are one already (refit, context); a LoRA over all layers refits all"
    ),
}
"""Other ways, and why each was left out."""


def gather(
    work: Path, case: LoraCase, machine: Mapping[str, Any], *, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The results file; `notes` are what a reader must know beside the figures."""
    results: dict[str, Any] = {
        "schema": 1,
        "stand_in": stand_in(),
        "notes": list(notes),
        "machine": dict(machine),
        "case": asdict(case) | {"config": Path(case.config).name},
        "parts": read_parts(work, [part.name for part in PARTS]),
        "not_tried": NOT_TRIED,
    }
    figures = {}
    for figure in FIGURES:
        figures[figure.name] = {"value": figure.value(results), "verdict": figure.verdict(results)}
    return results | {"figures": figures}


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """The file, and its page beside it."""
    write_json(out, dict(results))
    out.with_suffix(".md").write_text(markdown_of(results), encoding="utf-8")


def main(  # noqa: PLR0913, PLR0917  (each is one option)
    config: Path,
    out: Annotated[Path, typer.Option(help="Results file to write; a second run adds to it.")],
    work: Annotated[Path, typer.Option(help="LoRAs, builds and logs of the parts.")] = Path(
        "build/lora-benchmark"
    ),
    parts: Annotated[str, typer.Option(help="Parts in a list with commas, or all.")] = "all",
    again: Annotated[bool, typer.Option("--again", help="Also the parts that are done.")] = False,
    rank: Annotated[int, typer.Option(help="Of the random LoRAs.")] = 64,
    swaps: Annotated[int, typer.Option(help="Swaps of each kind.")] = 6,
    load_seconds: Annotated[float, typer.Option(help="How long clients ask, at least.")] = 60.0,
    load_swaps: Annotated[int, typer.Option(help="How many swaps that must bring.")] = 50,
    staging_mib: Annotated[
        int | None, typer.Option(help="execution.lora_staging_mib; build again to change it.")
    ] = None,
    note: Annotated[
        list[str] | None,
        typer.Option(help="What a reader must know of this run, such as who shared the machine."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Time for everything; a part that does not fit waits for the next run.")
    ] = 1e9,
) -> None:
    """Measure; ends with 1 where a part failed or was not begun, or a required figure was missed."""
    ends = time.monotonic() + seconds
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    case = LoraCase(
        str(config.resolve()),
        rank=rank,
        swaps=swaps,
        load_seconds=load_seconds,
        load_swaps=load_swaps,
        staging_mib=staging_mib,
    )
    case.write(work / "case.json")
    write_configs(case, work)
    machine = describe_machine()
    notes = note or []
    console = Console(highlight=False, soft_wrap=True)
    well = run_parts(
        Schedule(wanted_parts(PARTS, parts), work, ends, again=again),
        options=lambda _part, _left: (),
        keep=lambda: write_results(out, gather(work, case, machine, notes=notes)),
        console=console,
    )
    reached = show(console, gather(work, case, machine, notes=notes))
    raise typer.Exit(0 if reached and well else 1)


if __name__ == "__main__":
    typer.run(main)
