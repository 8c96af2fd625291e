"""The build with the set fused: `python -m benchmarks.loras.fused CASE.json WORK_FOLDER`.

Seconds of its step, and its image beside the swapped one's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.loras.drawing import Drawing, opened
from benchmarks.loras.files import LORAS, LoraCase, config_of, use_in_fused
from benchmarks.loras.swap import SWAPPED_FILE
from benchmarks.measuring.pictures import psnr
from benchmarks.measuring.results import read_part, write_part
from benchmarks.speed.building import measure_build


def main(case: Path, work: Path) -> None:
    """Build, draw, compare."""
    told = LoraCase.read(case)
    if not (read_part(work, "fused") or {}).get("complete"):
        use_in_fused(work, LORAS[0])
        measure_build(config_of(work, "fused"), work, "fused")
    values = read_part(work, "fused") or {}
    # How an earlier attempt ended says nothing of this one.
    for name in ("failed", "wall_seconds"):
        values.pop(name, None)
    with opened(work, "fused") as (_, manifest, drawing):
        values |= {"loras": [lora.id for lora in manifest.loras], "step": drawing.step(told.steps)}
        write_part(work, "fused", values)
        if manifest.loras and (work / SWAPPED_FILE).is_file():
            values |= _compare(drawing, work / SWAPPED_FILE, told.steps)
    write_part(work, "fused", values)


def _compare(drawing: Drawing, swapped_file: Path, steps: int) -> dict[str, Any]:
    """PSNR and relative error of the swapped image to this build's."""
    swapped = np.load(swapped_file)
    fused = drawing(steps, wanted=("state", "pixels"))
    difference = np.linalg.norm(swapped["state"] - fused["state"]) / np.linalg.norm(fused["state"])
    return {
        "swapped_psnr": psnr(swapped["pixels"], fused["pixels"]),
        "swapped_relative_error": float(difference),
    }


if __name__ == "__main__":
    typer.run(main)
