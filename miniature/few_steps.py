"""Judge the LoRA for few steps: 4 steps of LCM without guidance beside 20 Euler steps with it.

    python -m miniature.few_steps --json miniature/few_steps.json

Both draw the same held-out scenes from the same seeds, so their difference is judged scene by scene: its mean
and one standard error of that mean. Prints one JSON. The exit code is 0 only where every share of the few
steps is at most 0.05 below that of the many. It takes two minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from miniature import rules
from miniature.judging import read
from miniature.painter import HERE, Case, Drawing, Images, Painter, cases
from miniature.world import control_map

__all__ = ["FEW", "MANY", "compared", "measure", "missed", "shares"]

MANY: Final = Drawing("euler", steps=20, guidance_scale=5.0)
FEW: Final = Drawing("lcm", steps=4, guidance_scale=1.0)
LORA: Final = HERE / "loras" / "lcm.safetensors"
MOST_LOST: Final = 0.05
_SCENES: Final = 40

Shares = dict[str, NDArray[np.float64]]
Figures = dict[str, dict[str, float]]


def shares(pictures: Images, judged: list[Case]) -> Shares:
    """Of each picture: the share of its attire that is as asked, its place, and the PCK@0.1 of its joints."""
    found: dict[str, list[float]] = {"attire": [], "place": [], "joints": []}
    for picture, case in zip(pictures, judged, strict=True):
        scene = case.scene
        reading, joints = read(picture, scene)
        top = rules.wears(reading, joints, "top", scene.top)
        bottom = rules.wears(reading, joints, "bottom", scene.bottom)
        right, every = rules.pck(joints, scene.keypoints)
        found["attire"].append((top + bottom) / 2)
        found["place"].append(float(rules.background_of(picture) == scene.background))
        found["joints"].append(right / every)
    return {name: np.asarray(values) for name, values in found.items()}


def compared(few: NDArray[np.float64], many: NDArray[np.float64]) -> dict[str, float]:
    """Means, the mean of the differences scene by scene, and one standard error of it."""
    difference = few - many
    return {
        "few_steps": float(few.mean()),
        "many_steps": float(many.mean()),
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
    }


def measure(painter: Painter, judged: list[Case], lora: Path) -> Figures:
    """Attire and place from the text alone, and joints and attire with the pose control."""
    prompts = [case.prompt for case in judged]
    maps = [control_map(case.scene, case.rendered, "pose") for case in judged]
    controls: Mapping[str, Mapping[str, Any]] = {"text": {}, "pose": {"kind": "pose", "maps": maps}}
    figures: Figures = {}
    for kind, control in controls.items():
        many = shares(painter.paint(prompts, drawing=MANY, **control), judged)
        few = shares(painter.with_lora(str(lora.absolute()), prompts, drawing=FEW, **control), judged)
        for name in ("attire", "place") if kind == "text" else ("joints", "attire", "place"):
            figures[f"{kind}.{name}"] = compared(few[name], many[name])
    return figures


def missed(figures: Figures) -> list[str]:
    """The figures that lose more than they may, in words."""
    # Written so that a figure which is not a number does not hold.
    return [
        f"{name} loses {-figure['difference']:.3f}, at most {MOST_LOST} is allowed"
        for name, figure in figures.items()
        if not figure["difference"] >= -MOST_LOST
    ]


def main() -> int:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lora", type=Path, default=LORA, help="judge this file (loras/lcm.safetensors)")
    parser.add_argument("--scenes", type=int, default=_SCENES, help=f"held-out scenes ({_SCENES})")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    started = time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("paint", total=4 * arguments.scenes)
        painter = Painter(lambda painted: progress.advance(bar, painted))
        figures = measure(painter, cases(arguments.scenes), arguments.lora)
    failures = missed(figures)
    result = {
        "passed": not failures,
        "figures": figures,
        "few_steps": asdict(FEW),
        "many_steps": asdict(MANY),
        "scenes": arguments.scenes,
        "sha256": hashlib.sha256(arguments.lora.read_bytes()).hexdigest(),
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.json:
        temporary = arguments.json.with_suffix(".partial")
        temporary.write_text(text)
        temporary.replace(arguments.json)
    sys.stdout.write(text)
    for line in failures:
        Console(stderr=True).print(line, style="red")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
