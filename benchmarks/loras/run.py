"""What changing LoRAs costs: `python -m benchmarks.loras.run configs/sdxl-seeded.yaml --out
benchmarks/results/h200_lora.json`.

    build     from nothing: three random LoRAs, and the build that swaps them
    swap      seconds to put two on; that weights and images are those they should be; seconds of a step
    refit     the engine's share: fixed, and a byte, from each kind of memory
    served    through Triton: a retrained file to its first image; swaps under load
    fused     the same base with the set fused: its step, its image
    rebuild   a changed file to the first image of the build that fuses it
    low_rank  the step with LoRAs beside the matrices instead of in them
Everything is made in the work folder; the configuration gives the base, the first size and the precision.
Every part is a process of its own and is written as soon as it is done: a run that is cut short, or given
`--seconds`, is taken up again by the same command. Ends with 1 where a part failed or a required figure was
missed; `benchmarks.loras.report` prints the table of a file again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from benchmarks.loras.files import LoraCase
from benchmarks.loras.report import FIGURES, markdown_of, show
from benchmarks.measuring.results import describe_machine, read_part
from benchmarks.speed.run import ROOT, STAND_IN, Part, due_parts, run_part, wanted_parts
from intaglio.builds.manifest import write_json
from intaglio.engines.card import read_card_memory

__all__ = ["PARTS", "gather", "write_results"]

PARTS: Final = (
    Part("build", ("benchmarks.loras.parts", "build"), least_seconds=120),
    Part("swap", ("benchmarks.loras.parts", "swap"), least_seconds=150),
    Part("served", ("benchmarks.loras.served",), least_seconds=120),
    Part("refit", ("benchmarks.loras.parts", "refit"), least_seconds=60),
    Part("fused", ("benchmarks.loras.parts", "fused"), least_seconds=180),
    Part("rebuild", ("benchmarks.loras.parts", "rebuild"), least_seconds=120),
    Part("low_rank", ("benchmarks.loras.low_rank",), least_seconds=150),
)
NOT_TRIED: Final = {
    "an engine for every set, all resident": "each would be another copy of the UNet's weights (see build: 4.8 GiB); two do not fit 16 GB",
    "fewer, larger weights": "queries, keys and values in one matrix change the graph that everything else was verified with",
    "A and B as inputs of the engine": "low_rank has them as weights of the graph: inputs cannot be faster in a step",
    "halves of the UNet as engines": "the prompt's keys and values are one already (refit, context); a LoRA over all layers refits all",
}


def gather(
    work: Path, case: LoraCase, machine: Mapping[str, Any], *, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The results file."""
    parts = {part.name: values for part in PARTS if (values := read_part(work, part.name)) is not None}
    results: dict[str, Any] = {
        "schema": 1,
        "stand_in": None if read_card_memory() is not None else STAND_IN,
        "notes": list(notes),
        "machine": dict(machine),
        "case": asdict(case) | {"config": Path(case.config).name},
        "parts": parts,
        "not_tried": NOT_TRIED,
    }
    results["figures"] = {
        figure.name: {"value": figure.value(results), "verdict": figure.verdict(results)}
        for figure in FIGURES
    }
    return results


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
    """Measure; ends with 1 where a part failed or a required figure was missed."""
    ends, console = time.monotonic() + seconds, Console(highlight=False, soft_wrap=True)
    work = work.resolve()
    case = LoraCase(
        str(config.resolve()),
        rank=rank,
        swaps=swaps,
        load_seconds=load_seconds,
        load_swaps=load_swaps,
        staging_mib=staging_mib,
    )
    work.mkdir(parents=True, exist_ok=True)
    case.write(work / "case.json")
    machine, failed = describe_machine(ROOT), False
    for part, left in due_parts(wanted_parts(PARTS, parts), work, ends=ends, again=again, console=console):
        console.print(f"{part.name}: begins, {left:.0f} s left")
        values = run_part(
            Part(part.name, part.arguments[:1]),
            work / "case.json",
            work,
            seconds=left,
            extra=part.arguments[1:],
        )
        failed |= "failed" in values
        console.print(
            f"{part.name}: {values.get('failed', 'done')}, {values['wall_seconds']:.0f} s", markup=False
        )
        write_results(out, gather(work, case, machine, notes=note or ()))
    results = gather(work, case, machine, notes=note or ())
    write_results(out, results)
    raise typer.Exit(0 if show(console, results) and not failed else 1)


if __name__ == "__main__":
    typer.run(main)
