"""What every contender is given, and how results are put into numbers.

A contender is a process of its own: its memory is its own, its start is cold, and it ends when it is done.
"""

from __future__ import annotations

import functools
import io
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import ConfigError
from intaglio.imaging.openpose import draw_pose, load_pose

__all__ = [
    "PASSES",
    "Case",
    "Stopwatch",
    "deployment_values",
    "end_orderly_on_terminate",
    "load_case",
    "png_from_pixels",
    "psnr",
    "spread",
    "time_passes",
    "write_case_configs",
]

Pixels = NDArray[np.uint8]
_SAMPLES: Final = 7
_RUNS: Final = 5
"""Passes a sample: enqueued together, waited for once."""
PASSES: Final = (_SAMPLES + 1) * _RUNS
"""How often `time_passes` runs a pass."""


@dataclass(frozen=True)
class Case:
    """One workload, the same for all: image i has prompt i, seed i and picture i, so that no cache of prompts
    or pictures helps anybody.

    Image -1 is the one that is not measured.
    """

    config: str
    width: int
    height: int
    steps: int = 30
    guidance_scale: float = 5.0
    images: int = 5
    """Measured, after one that is not."""
    control: str | None = None
    """Id of the ControlNet on all steps; None for none."""
    prompt: str = "a person waving on a beach in the evening sun, photograph"
    negative_prompt: str | None = "blurry, low quality"
    seed: int = 1000

    @classmethod
    def read(cls, path: Path) -> Self:
        """The case in a JSON file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Keep it for the contenders' processes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def deployment(self) -> Deployment:
        """The configuration that is measured."""
        return _deployment(self.config)

    def prompt_of(self, image: int) -> str:
        """Prompt of image `image`."""
        return f"{self.prompt}, take {image + 1}"

    def seed_of(self, image: int) -> int:
        """Seed of image `image`."""
        return self.seed + image

    def control_image(self, image: int) -> bytes:
        """Image `image`'s control as PNG, of the size asked for: a drawn pose where the ControlNet takes
        poses, else a smooth picture.
        """
        deployment = self.deployment
        if (
            deployment.poses is not None
            and self.control is not None
            and deployment.controlnets[self.control].type == "pose"
        ):
            return _pose(deployment.poses, self.width, self.height, image)
        return _picture(self.width, self.height, self.seed_of(image))

    def draw_controls(self, images: int) -> None:
        """Make the pictures of `images` images now: what a client spends on its picture is not the server's
        time.
        """
        if self.control is not None:
            for image in range(-1, images):
                self.control_image(image)

    def at(self, width: int, height: int) -> Case:
        """The same at another size."""
        return replace(self, width=width, height=height)


@functools.cache
def _deployment(config: str) -> Deployment:
    """Read once: an image asks for its control while it is timed."""
    return load_deployment(Path(config))


@functools.cache
def _pose(folder: Path, width: int, height: int, number: int) -> bytes:
    every = sorted(path.stem for path in folder.glob("*.json"))
    keypoints = load_pose(folder, every[number % len(every)], field="pose")
    return png_from_pixels(draw_pose(keypoints, width=width, height=height))


@functools.cache
def _picture(width: int, height: int, seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 32, width // 32, 3), np.uint8)
    return png_from_pixels(
        np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    )


def png_from_pixels(pixels: Pixels) -> bytes:
    """[H, W, RGB] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def load_case(config: Path, *, steps: int, images: int) -> Case:
    """The first size of a deployment with its first ControlNet.

    Raises:
        ConfigError: it fuses LoRAs, which diffusers beside it would not have.
    """
    deployment = load_deployment(config)
    if deployment.fuse:
        raise ConfigError(
            f"{config}: fuses {', '.join(deployment.fuse)}; a comparison wants the base alone: fuse: {{}}"
        )
    width, height = deployment.profiles.sizes[0]
    control = next(iter(deployment.controlnets), None)
    scale = deployment.defaults.guidance_scale
    return Case(
        str(config.resolve()),
        width,
        height,
        steps=steps,
        images=images,
        control=control,
        guidance_scale=scale,
    )


def deployment_values(deployment: Deployment) -> dict[str, Any]:
    """What a YAML file of `deployment` without its LoRAs says, wherever it lies."""
    values: dict[str, Any] = deployment.model_dump(mode="json", exclude_none=True)
    for name in ("name", "folder", "loras", "fuse", "registry", "swap"):
        values.pop(name, None)
    return values


def write_case_configs(config: Path, folder: Path) -> tuple[Path, Path]:
    """`config` without its LoRAs, in `folder` under names of their own: one of its first size only, one of
    every size.
    """
    deployment = load_deployment(config)
    values = deployment_values(deployment)
    folder.mkdir(parents=True, exist_ok=True)
    first, every = (folder / f"{deployment.name}-{which}.yaml" for which in ("first-size", "every-size"))
    every.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    values["profiles"]["sizes"] = values["profiles"]["sizes"][:1]
    first.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return first.resolve(), every.resolve()


def end_orderly_on_terminate() -> None:
    """Turn SIGTERM into an exit that leaves `with` blocks as they should be left: a server must not outlive
    its part.
    """
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of seconds, and how many there were."""
    if not values:
        raise ValueError("nothing was measured")
    low, middle, high = (
        (values[0],) * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")
    )
    return {"median": middle, "low": low, "high": high, "n": len(values)}


def time_passes(run: Callable[[], object], synchronize: Callable[[], object]) -> dict[str, float]:
    """Seconds of one pass, one after another; `run` enqueues a pass. The first sample is thrown away: it sets
    everything up.
    """
    samples = []
    for _ in range(_SAMPLES + 1):
        started = time.perf_counter()
        for _ in range(_RUNS):
            run()
        synchronize()
        samples.append((time.perf_counter() - started) / _RUNS)
    return spread(samples[1:])


def psnr(found: Pixels, expected: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of 0..255; 100 where they are equal."""
    if found.shape != expected.shape:
        raise ValueError(f"pictures of {found.shape} and {expected.shape} cannot be compared")
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


@dataclass
class Stopwatch:
    """Seconds by name, every lap kept."""

    laps: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        started = time.perf_counter()
        yield
        self.laps.setdefault(name, []).append(time.perf_counter() - started)

    def spreads(self) -> dict[str, Any]:
        """`spread` of every name."""
        return {name: spread(values) for name, values in self.laps.items()}
