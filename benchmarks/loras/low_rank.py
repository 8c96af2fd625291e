"""A pass of each engine of `low_rank_build`: what a step costs with LoRAs beside the matrices.

python -m benchmarks.loras.low_rank CASE.json WORK_FOLDER
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import typer

from benchmarks.loras.low_rank_build import RANKS, folder_of, workbench
from benchmarks.measuring.results import read_part, write_part


def main(case: Path, work: Path) -> None:
    """Time each rank; the engines, 5 GB each, are removed then."""
    built: dict[str, Any] = (read_part(work, "low_rank_build") or {}).get("ranks", {})
    missing = [rank for rank in map(str, RANKS) if rank not in built or not folder_of(work, rank).is_dir()]
    if missing:
        raise ValueError(f"no engine of rank {', '.join(missing)}: the part low_rank_build comes first")
    bench = workbench(work)
    found: dict[str, Any] = {}
    for rank, values in built.items():
        passes, _ = bench.time(folder_of(work, rank), bench.profile)
        found[rank] = values | {"pass": passes}
        described = {"profile": bench.profile.name, "runtime": bench.platform.runtime, "ranks": found}
        write_part(work, "low_rank", described)
    shutil.rmtree(work / "low_rank")


if __name__ == "__main__":
    typer.run(main)
