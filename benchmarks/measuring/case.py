"""The workload that every contender is given: configuration, size, prompts, seeds and control images."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import yaml
from PIL import Image

from benchmarks.measuring.pictures import png_from_pixels
from benchmarks.measuring.watches import CARD
from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import ConfigError
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.whole_files import write_whole
from intaglio_client import Control, Parameters

__all__ = ["Case", "deployment_values", "load_case", "write_case_configs"]

_NOT_COMPARED = ("name", "folder", "loras", "fuse", "registry", "swap", "presets")
"""Fields of a deployment that belong to its file or to its LoRAs, which presets may name."""


@dataclass(frozen=True)
class Case:
    """One workload, the same for all contenders.

    Image i has a prompt, a seed and a control image of its own, so that no cache of prompts or pictures helps
    anybody. Image -1 is the one that is not measured.
    """

    config: str
    width: int
    height: int
    steps: int = 30
    guidance_scale: float = 5.0
    images: int = 5
    """How many are measured, after the one that is not."""
    control: str | None = None
    """Id of the ControlNet that is used on all steps; None for none."""
    prompt: str = "a person waving on a beach in the evening sun, photograph"
    negative_prompt: str | None = "blurry, low quality"
    seed: int = 1000

    @classmethod
    def read(cls, path: Path) -> Self:
        """The case in a JSON file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write it for the processes of the parts, which another run may be starting in the same folder."""
        write_whole(path, json.dumps(asdict(self)).encode())

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
        """The control of image `image` as a PNG of the case's size.

        It is a drawn pose where the ControlNet takes poses, otherwise a smooth picture.
        """
        deployment = self.deployment
        kind = None if self.control is None else deployment.controlnets[self.control].type
        if deployment.poses is not None and kind == "pose":
            return _pose(deployment.poses, self.width, self.height, image)
        return _picture(self.width, self.height, self.seed_of(image))

    def draw_controls(self, images: int) -> None:
        """Draw the controls of `images` images now: a client's drawing is not the server's time."""
        if self.control is not None:
            for image in range(-1, images):
                self.control_image(image)

    def parameters_of(self, image: int, *, control_end: float = 1.0, **options: Any) -> Parameters:
        """What a client asks for image `image`; `options` are further parameters of the request."""
        controls = []
        if self.control is not None:
            controls = [Control(self.control, image=self.control_image(image), end=control_end)]
        asked: dict[str, Any] = {
            "negative_prompt": self.negative_prompt,
            "seed": self.seed_of(image),
            "width": self.width,
            "height": self.height,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "scheduler": "euler",
            "controls": controls,
            **options,
        }
        return cast(Parameters, asked)

    def at(self, width: int, height: int) -> Case:
        """The same case at another size."""
        return replace(self, width=width, height=height)


@functools.cache  # an image asks for its control while it is timed
def _deployment(config: str) -> Deployment:
    return load_deployment(Path(config))


@functools.cache
def _pose(folder: Path, width: int, height: int, number: int) -> bytes:
    library = PoseLibrary(folder)
    every = library.names()
    keypoints = library.load(every[number % len(every)], field="pose")
    return png_from_pixels(draw_pose(keypoints, width=width, height=height))


@functools.cache
def _picture(width: int, height: int, seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 32, width // 32, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return png_from_pixels(np.asarray(smooth))


def load_case(config: Path, *, steps: int, images: int) -> Case:
    """The first size of a deployment with its first ControlNet.

    Raises:
        ConfigError: it fuses LoRAs, which diffusers beside it would not have.
    """
    deployment = load_deployment(config)
    if deployment.fuse:
        fused = ", ".join(deployment.fuse)
        raise ConfigError(f"{config}: fuses {fused}; a comparison wants the base alone: fuse: {{}}")
    width, height = deployment.profiles.sizes[0]
    return Case(
        str(config.resolve()),
        width,
        height,
        steps=steps,
        images=images,
        control=next(iter(deployment.controlnets), None),
        guidance_scale=deployment.defaults.guidance_scale,
    )


def deployment_values(deployment: Deployment) -> dict[str, Any]:
    """The values of a YAML file that describes `deployment` without its LoRAs, for any folder.

    Raises:
        ConfigError: it chooses a card that no benchmark measures.
    """
    if deployment.execution.gpu != CARD:
        raise ConfigError(
            f"execution.gpu: {deployment.execution.gpu}: benchmarks measure the first card that CUDA sees; "
            f"choose it with CUDA_VISIBLE_DEVICES and leave execution.gpu at {CARD}"
        )
    values: dict[str, Any] = deployment.model_dump(mode="json", exclude_none=True)
    for name in _NOT_COMPARED:
        values.pop(name, None)
    for name in ("preset", "preset_values"):  # a preset may draw less, and the others draw everything
        values["defaults"].pop(name, None)
    return values


def write_case_configs(config: Path, folder: Path) -> tuple[Path, Path]:
    """Write `config` without its LoRAs into `folder` twice: with its first size only, and with every size.

    Each has a name of its own and therefore a build of its own.
    """
    deployment = load_deployment(config)
    values = deployment_values(deployment)
    every = folder / f"{deployment.name}-every-size.yaml"
    write_whole(every, yaml.safe_dump(values, sort_keys=False).encode())
    values["profiles"]["sizes"] = values["profiles"]["sizes"][:1]
    first = folder / f"{deployment.name}-first-size.yaml"
    write_whole(first, yaml.safe_dump(values, sort_keys=False).encode())
    return first.resolve(), every.resolve()
