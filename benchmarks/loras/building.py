"""The LoRA files and the build that swaps them.

python -m benchmarks.loras.building CASE.json WORK_FOLDER
"""

from __future__ import annotations

from pathlib import Path

import typer

from benchmarks.loras.files import LoraCase, config_of, write_loras
from benchmarks.speed.building import measure_build


def main(case: Path, work: Path) -> None:
    """Make the files, then build."""
    write_loras(LoraCase.read(case), work)
    measure_build(config_of(work, "swap"), work, "build")


if __name__ == "__main__":
    typer.run(main)
