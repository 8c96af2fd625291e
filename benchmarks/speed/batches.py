"""The UNet with guidance on 1, 2 and 4 pictures a pass, each built for that number alone: what a batch saves.

    python -m benchmarks.speed.batches CASE.json WORK_FOLDER [--images 1,2,4]
The graph is exported once. A pass of n pictures has 2n rows, because guidance needs two of each.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from benchmarks.speed.graphs import Workbench

__all__ = ["main"]


def main(
    case: Path,
    work: Path,
    images: Annotated[str, typer.Option(help="Pictures a pass, a list with commas.")] = "1,2,4",
) -> None:
    """Build and time each batch for the first size."""
    bench = Workbench(Case.read(case).deployment)
    console = Console(highlight=False)
    folder = work / "batches"
    onnx = bench.export(bench.network(), folder)
    found: dict[str, Any] = {}
    for count in map(int, images.split(",")):
        timed = bench.compile_and_time(onnx, bench.profile_of(count), folder=folder / str(count))
        found[str(count)] = {"pass": timed.passes, "build_seconds": timed.build_seconds}
        write_part(work, "batches", {"runtime": bench.platform.runtime, "images": found})
        each = 1000 * timed.passes["median"] / count
        shutil.rmtree(folder / str(count))  # 5 GB at full size
        console.print(f"{count} a pass: {each:.2f} ms a picture, built in {timed.build_seconds:.0f} s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
