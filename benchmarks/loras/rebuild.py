"""A changed LoRA file and the build that fuses it.

    python -m benchmarks.loras.rebuild CASE.json WORK_FOLDER
Seconds from the file to the first image, in this process, with engines that are opened again.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import typer
from safetensors.numpy import load_file, save_file

from benchmarks.loras.drawing import opened
from benchmarks.loras.files import LORAS, RETRAINED, config_of, use_in_fused
from benchmarks.measuring.results import read_part, write_part
from benchmarks.speed.building import measure_build
from intaglio.contract.config import load_deployment


def main(case: Path, work: Path) -> None:
    """Change the file, build, draw."""
    deployment = load_deployment(config_of(work, "fused"))
    if not deployment.fuse:
        write_part(work, "rebuild", {"not_measured": "no peft here: nothing can be fused"})
        return
    use_in_fused(work, RETRAINED)
    started = time.perf_counter()
    make_new(deployment.loras[LORAS[0]].path)
    measure_build(config_of(work, "fused"), work, "rebuild")
    built = time.perf_counter() - started
    with opened(work, "fused") as (_, manifest, drawing):
        drawing(manifest.defaults.steps, wanted=("pixels",))
    values = read_part(work, "rebuild") or {}
    values |= {"built_seconds": built, "file_to_first_image_seconds": time.perf_counter() - started}
    write_part(work, "rebuild", values)


def make_new(path: Path) -> None:
    """Change one value of a LoRA file, so that no build before has fused it."""
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name].copy()
    tensors[name][0, 0] = np.float16((time.time() % 1000) / 1e5)
    save_file(tensors, path)


if __name__ == "__main__":
    typer.run(main)
