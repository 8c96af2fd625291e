"""Measure the miniature against ground truth, on the CPU: text, controls, LoRAs, autoencoder.

    python -m miniature.evaluate --json miniature/evaluation.json      # 200 held-out prompts
    python -m miniature.evaluate --quick --json out/miniature.json     # a third of it

The first takes 9 minutes on 2 cores, the second 6. Prints one JSON. The exit code is 0 only where every
threshold holds. Pictures have 20 Euler steps, CFG 4, and seed i for prompt i.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from miniature.architecture import CONTROL_TYPES
from miniature.judging import judge_control, judge_loras, judge_text, mean_pck, reconstruction
from miniature.painter import GUIDANCE, HERE, STEPS, Painter, cases
from miniature.world import control_map

AT_LEAST = {
    "text.attire_right": 0.90,
    "text.background_right": 0.95,
    "pose.pck_with_control": 0.85,
    "canny.times_shuffled": 2.0,
    "depth.times_shuffled": 2.0,
    "segmentation.times_shuffled": 2.0,
    "normals.times_shuffled": 2.0,
    "lora.night.lightness_drop": 8.0,  # Lab L units of the mean
    "lora.pencil.chroma_lost": 0.5,  # share of the mean chroma
    "lora.mara.colour_gain": 0.02,  # share of the picture in her three colours
    "lora.meadow.background_gain": 0.6,  # share of pictures classed as meadow
    "lora.kohya_psnr": 40.0,
    "lora.weight_zero_identical": 1.0,
    "autoencoder.psnr": 28.0,
}
AT_MOST = {"pose.pck_without_control": 0.45}


@dataclass(frozen=True)
class Size:
    """How many pictures each part takes."""

    prompts: int
    pose: int
    controls: int
    lora: int
    reconstructions: int


FULL = Size(200, 60, 12, 6, 32)
# As many poses: over 24 pictures a mean has a standard error of four points, which is as wide as the margin.
QUICK = Size(24, 60, 6, 4, 16)


def measure_text(size: Size, advance: Callable[[int], None]) -> dict[str, float]:
    """The base model and its autoencoder; the rules on rendered truth."""
    painter = Painter(advance)
    judged = cases(max(size.prompts, size.reconstructions))
    asked = judged[: size.prompts]
    plain = painter.paint([case.prompt for case in asked])
    truth = [case.rendered.picture for case in asked]
    figures = {"autoencoder.psnr": reconstruction(painter, judged[: size.reconstructions])}
    figures |= judge_text(plain, asked)
    figures["pose.pck_without_control"] = mean_pck(plain, asked)
    figures["rules.pck_on_truth"] = mean_pck(truth, asked)
    for name, value in judge_text(truth, asked).items():
        figures[f"rules.{name.split('.')[1]}_on_truth"] = value
    return figures


def measure_adapters(size: Size, advance: Callable[[int], None]) -> dict[str, float]:
    """ControlNets and LoRAs."""
    painter = Painter(advance)
    figures: dict[str, float] = {}
    judged = cases(max(size.pose, size.controls, size.lora))
    for kind in CONTROL_TYPES:
        chosen = judged[: size.pose if kind == "pose" else size.controls]
        maps = [control_map(case.scene, case.rendered, kind) for case in chosen]
        pictures = painter.paint([case.prompt for case in chosen], kind=kind, maps=maps)
        if kind == "pose":
            figures["pose.pck_with_control"] = mean_pck(pictures, chosen)
        else:
            figures |= judge_control(kind, pictures, maps)
    return figures | judge_loras(painter, judged[: size.lora])


_painted: Any = None
"""A worker's counter of pictures. The process that waits reads it for its progress bar."""


def _begin(painted: Any, threads: int) -> None:
    global _painted  # noqa: PLW0603  (shared memory reaches a worker only when it begins)
    _painted = painted
    torch.set_num_threads(threads)


def _count(pictures: int) -> None:
    with _painted.get_lock():
        _painted.value += pictures


def _measure_part(
    part: Callable[[Size, Callable[[int], None]], dict[str, float]], size: Size
) -> dict[str, float]:
    return part(size, _count)


def measure(size: Size, progress: Progress) -> dict[str, float]:
    """Every figure, in two processes of half the cores each: small networks do not fill two threads."""
    context = multiprocessing.get_context("spawn")
    painted = context.Value("i", 0)
    bar = progress.add_task("paint", total=size.prompts + size.pose + 4 * size.controls + 7 * size.lora + 8)
    begin = (painted, max((os.cpu_count() or 1) // 2, 1))
    with ProcessPoolExecutor(2, context, initializer=_begin, initargs=begin) as pool:
        parts = [pool.submit(_measure_part, part, size) for part in (measure_text, measure_adapters)]
        while wait(parts, timeout=1, return_when=FIRST_EXCEPTION).not_done:
            progress.update(bar, completed=painted.value)
            if any(part.done() and part.exception() for part in parts):
                pool.shutdown(wait=False, cancel_futures=True)
                break
        return {name: value for part in parts for name, value in part.result().items()}


def missed(figures: dict[str, float]) -> list[str]:
    """The thresholds that do not hold, in words."""
    lines = []
    # Written so that a figure which is not a number does not hold.
    for name, limit in AT_LEAST.items():
        if not figures[name] >= limit:
            lines.append(f"{name} is {figures[name]:.3f}, required at least {limit}")
    for name, limit in AT_MOST.items():
        if not figures[name] <= limit:
            lines.append(f"{name} is {figures[name]:.3f}, required at most {limit}")
    return lines


def provenance(size: Size, seconds: float) -> dict[str, Any]:
    """What was measured, on what, with what."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, cwd=HERE, check=False).stdout.strip()
    return {
        "pictures": asdict(size),
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "solver": "euler",
        "device": "cpu",
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1),
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }


def main() -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a third of the pictures")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    start = time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        figures = measure(size, progress)
    failures = missed(figures)
    limits = {name: f">= {limit}" for name, limit in AT_LEAST.items()}
    limits |= {name: f"<= {limit}" for name, limit in AT_MOST.items()}
    result = {
        "passed": not failures,
        "figures": figures,
        "required": limits,
        "measured_with": provenance(size, time.monotonic() - start),
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        temporary = arguments.json.with_suffix(".partial")
        temporary.write_text(text)
        temporary.replace(arguments.json)
    sys.stdout.write(text)
    table = Table("figure", "measured", "required")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}", limits.get(name, ""))
    Console(stderr=True).print(table)
    for line in failures:
        Console(stderr=True).print(line, style="red")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
