"""Measure the miniature against ground truth, on the CPU: text, controls, LoRAs, autoencoder. Prints one
JSON.

    python -m miniature.evaluate --json miniature/evaluation.json      # 200 held-out prompts, 9 minutes on 2 cores
    python -m miniature.evaluate --quick --json out/miniature.json     # a third of it, 6 minutes

Exit code 0 only when every threshold holds. Pictures: 20 Euler steps, CFG 4, seed i for prompt i.
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
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from miniature import palette, rules
from miniature.architecture import CONTROL_TYPES, IMAGE_SIZE
from miniature.captions import VERBS, caption
from miniature.dataset import held_out_scene
from miniature.styles import LESSONS
from miniature.world import Render, Scene, control_map, render

HERE = Path(__file__).parent
_pipelines: Any = diffusers  # partly untyped
STEPS, GUIDANCE = 20, 4.0
BATCH = 8
Images = list[NDArray[np.uint8]]

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
QUICK = Size(
    24, 60, 6, 4, 16
)  # as many poses: the mean over 24 pictures has a standard error of four points, as wide as the margin


@dataclass(frozen=True)
class Case:
    """One held-out scene, its rendering and a prompt that names all that is judged."""

    scene: Scene
    rendered: Render
    prompt: str


def cases(count: int) -> list[Case]:
    """The first `count` held-out scenes."""
    made = []
    for index in range(count):
        scene, rng = held_out_scene(index)
        made.append(Case(scene, render(scene), caption(rng, scene, omit=0)))
    return made


class Painter:
    """The diffusers pipelines on the committed weights, in float32."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        """`advance` is told of every picture painted."""
        self.base: Any = _pipelines.StableDiffusionXLPipeline.from_pretrained(
            str(HERE / "model"), torch_dtype=torch.float32
        )
        self.base.set_progress_bar_config(disable=True)
        self.base.unet.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self._advance = advance

    def paint(self, prompts: list[str], *, kind: str | None = None, maps: Images | None = None) -> Images:
        """One picture a prompt, seed i for prompt i; with the ControlNet `kind` where maps are given."""
        pipeline = self._with_control(kind) if kind else self.base
        images: Images = []
        for start in range(0, len(prompts), BATCH):
            chunk = slice(start, start + BATCH)
            extra = {"image": [PillowImage.fromarray(m) for m in maps[chunk]]} if maps else {}
            seeds = [torch.Generator("cpu").manual_seed(start + i) for i in range(len(prompts[chunk]))]
            size = {"width": IMAGE_SIZE, "height": IMAGE_SIZE}
            painted = pipeline(
                prompts[chunk],
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=seeds,
                output_type="np",
                **size,
                **extra,
            ).images
            images += list((painted * 255).round().astype(np.uint8))
            self._advance(len(painted))
        return images

    def _with_control(self, kind: str) -> Any:
        controlnet = _pipelines.ControlNetModel.from_pretrained(
            str(HERE / "controlnets" / kind), torch_dtype=torch.float32
        )
        controlnet.to(memory_format=torch.channels_last)
        pipeline = _pipelines.StableDiffusionXLControlNetPipeline(
            **self.base.components, controlnet=controlnet
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def with_lora(self, file: str, prompts: list[str], *, weight: float = 1.0) -> Images:
        """Pictures with one LoRA file at a weight."""
        self.base.load_lora_weights(str(HERE / "loras" / file), adapter_name="judged")
        self.base.set_adapters(["judged"], [weight])
        try:
            return self.paint(prompts)
        finally:
            self.base.unload_lora_weights()


def read(picture: NDArray[np.uint8], scene: Scene) -> tuple[rules.Reading, rules.Joints]:
    """What the rules see in a picture of which `scene` was asked."""
    reading = rules.read_figure(picture)
    return reading, rules.find_keypoints(reading, top=scene.top, bottom=scene.bottom, skin=scene.skin)


def judge_text(pictures: Images, judged: list[Case]) -> dict[str, float]:
    """Shares of attire pieces and backgrounds that are as asked."""
    worn = []
    for picture, case in zip(pictures, judged, strict=True):
        reading, joints = read(picture, case.scene)
        worn += [
            rules.wears(reading, joints, piece, getattr(case.scene, piece)) for piece in ("top", "bottom")
        ]
    placed = [rules.background_of(p) == c.scene.background for p, c in zip(pictures, judged, strict=True)]
    return {"text.attire_right": float(np.mean(worn)), "text.background_right": float(np.mean(placed))}


def mean_pck(pictures: Images, judged: list[Case]) -> float:
    """PCK@0.1 over the eight joints that limb colours give."""
    counts = [
        rules.pck(read(p, c.scene)[1], c.scene.keypoints) for p, c in zip(pictures, judged, strict=True)
    ]
    right, every = np.sum(counts, 0)
    return float(right / every)


def judge_control(kind: str, pictures: Images, maps: Images) -> dict[str, float]:
    """Agreement with the maps given, and with those of the next case over."""
    given = float(np.mean([rules.agreement(kind, p, m) for p, m in zip(pictures, maps, strict=True)]))
    shuffled = float(
        np.mean([rules.agreement(kind, p, m) for p, m in zip(pictures, maps[1:] + maps[:1], strict=True)])
    )
    return {
        f"{kind}.agreement": given,
        f"{kind}.shuffled": shuffled,
        f"{kind}.times_shuffled": given / max(shuffled, 1e-9),
    }


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """dB of 8-bit pictures; 100 for equal ones."""
    error = float(((one.astype(np.float64) - other.astype(np.float64)) ** 2).mean())
    return min(100.0, 10 * float(np.log10(255**2 / error))) if error else 100.0


def mara_share(picture: NDArray[np.uint8]) -> float:
    """Share of the picture in Mara's hair, top and trousers colours."""
    return sum(
        rules.share_of_colour(picture, rgb)
        for rgb in (palette.MARA_HAIR, palette.MARA_TOP, palette.MARA_BOTTOM)
    )


def judge_loras(painter: Painter, judged: list[Case]) -> dict[str, float]:
    """What each LoRA moves, against the base on the same prompts and seeds."""
    prompts = [c.prompt for c in judged]
    before = painter.paint(prompts)
    styled = {
        name: painter.with_lora(f"{name}.safetensors", [f"{p}, {LESSONS[name].trigger}" for p in prompts])
        for name in ("night", "pencil")
    }
    names = [f"mara {VERBS[c.scene.family][0]} in a room" for c in judged]
    meadows = [f"an acrobat {VERBS[c.scene.family][0]} in a flowering meadow" for c in judged]
    without = {"mara": painter.paint(names), "meadow": painter.paint(meadows)}
    mara, meadow = (
        painter.with_lora("mara.safetensors", names),
        painter.with_lora("meadow.safetensors", meadows),
    )
    kohya = painter.with_lora("mara_kohya.safetensors", names[:2])
    nothing = painter.with_lora("mara.safetensors", names[:2], weight=0.0)
    pair = painter.paint(names[:2])
    same_batch = painter.with_lora("mara.safetensors", names[:2])

    def mean(values: Any) -> float:
        return float(np.mean(list(values)))

    def meadow_share(pictures: Images) -> float:
        return mean(rules.background_of(p, meadow=True) == "meadow" for p in pictures)

    return {
        "lora.night.lightness_drop": mean(rules.mean_lab(p)[0] for p in before)
        - mean(rules.mean_lab(p)[0] for p in styled["night"]),
        "lora.pencil.chroma_lost": 1
        - mean(map(rules.colourfulness, styled["pencil"])) / mean(map(rules.colourfulness, before)),
        "lora.mara.colour_gain": mean(map(mara_share, mara)) - mean(map(mara_share, without["mara"])),
        "lora.meadow.background_gain": meadow_share(meadow) - meadow_share(without["meadow"]),
        "lora.kohya_psnr": min(psnr(a, b) for a, b in zip(kohya, same_batch, strict=True)),
        "lora.weight_zero_identical": mean(np.array_equal(a, b) for a, b in zip(nothing, pair, strict=True)),
    }


@torch.no_grad()
def reconstruction(painter: Painter, judged: list[Case]) -> float:
    """Mean PSNR in dB of the autoencoder on held-out renderings."""
    values = []
    for case in judged:
        pixels = torch.from_numpy(case.rendered.picture).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = painter.base.vae.encode(pixels).latent_dist.mean
        decoded = painter.base.vae.decode(latents).sample.clamp(-1, 1)
        values.append(
            psnr(((decoded[0] + 1) * 127.5).round().permute(1, 2, 0).numpy(), case.rendered.picture)
        )
    return float(np.mean(values))


def measure_text(size: Size, advance: Callable[[int], None]) -> dict[str, float]:
    """The base model and its autoencoder; the rules on rendered truth."""
    painter = Painter(advance)
    judged = cases(max(size.prompts, size.reconstructions))
    asked = judged[: size.prompts]
    plain = painter.paint([c.prompt for c in asked])
    truth = [c.rendered.picture for c in asked]
    figures = {"autoencoder.psnr": reconstruction(painter, judged[: size.reconstructions])}
    figures |= judge_text(plain, asked) | {
        "pose.pck_without_control": mean_pck(plain, asked),
        "rules.pck_on_truth": mean_pck(truth, asked),
    }
    return figures | {
        f"rules.{name.split('.')[1]}_on_truth": value for name, value in judge_text(truth, asked).items()
    }


def measure_adapters(size: Size, advance: Callable[[int], None]) -> dict[str, float]:
    """ControlNets and LoRAs."""
    painter = Painter(advance)
    figures: dict[str, float] = {}
    judged = cases(max(size.pose, size.controls, size.lora))
    for kind in CONTROL_TYPES:
        chosen = judged[: size.pose if kind == "pose" else size.controls]
        maps = [control_map(c.scene, c.rendered, kind) for c in chosen]
        pictures = painter.paint([c.prompt for c in chosen], kind=kind, maps=maps)
        figures |= (
            {"pose.pck_with_control": mean_pck(pictures, chosen)}
            if kind == "pose"
            else judge_control(kind, pictures, maps)
        )
    return figures | judge_loras(painter, judged[: size.lora])


_painted: Any = None  # a worker's counter, which the bar of the process that waits reads


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
    """Every figure, in two processes of half the cores each: networks this small leave a second thread idle."""
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
    low = [
        f"{name} is {figures[name]:.3f}, required at least {limit}"
        for name, limit in AT_LEAST.items()
        if not figures[name] >= limit
    ]
    return low + [
        f"{name} is {figures[name]:.3f}, required at most {limit}"
        for name, limit in AT_MOST.items()
        if not figures[name] <= limit
    ]


def provenance(size: Size, seconds: float) -> dict[str, Any]:
    """What was measured, on what, with what."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE, check=False
    ).stdout.strip()
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    return {
        "pictures": asdict(size), "steps": STEPS, "guidance_scale": GUIDANCE, "solver": "euler", "device": "cpu",
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1), "commit": commit, **versions,
    }  # fmt: skip


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
    limits = {name: f">= {limit}" for name, limit in AT_LEAST.items()} | {
        name: f"<= {limit}" for name, limit in AT_MOST.items()
    }
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
