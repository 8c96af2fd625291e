"""Pictures of held-out scenes, drawn by diffusers with the committed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from miniature.architecture import IMAGE_SIZE
from miniature.captions import caption
from miniature.dataset import held_out_scene
from miniature.world import Render, Scene, render

__all__ = [
    "GUIDANCE",
    "HERE",
    "STEPS",
    "Case",
    "Drawing",
    "Images",
    "Painter",
    "cases",
    "held_out_case",
]

HERE: Final = Path(__file__).parent
STEPS: Final = 20
"""Euler steps."""
GUIDANCE: Final = 4.0
_BATCH: Final = 8
_pipelines: Any = diffusers  # partly untyped
_SCHEDULERS: Final[Mapping[str, Any]] = {
    "euler": _pipelines.EulerDiscreteScheduler,
    "lcm": _pipelines.LCMScheduler,
}
Images = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Case:
    """One held-out scene, its rendering and a prompt that names all that is judged."""

    scene: Scene
    rendered: Render
    prompt: str


def held_out_case(index: int) -> Case:
    """Held-out scene number `index`."""
    scene, rng = held_out_scene(index)
    return Case(scene, render(scene), caption(rng, scene, omit=0))


def cases(count: int) -> list[Case]:
    """The first `count` held-out scenes."""
    return [held_out_case(index) for index in range(count)]


@dataclass(frozen=True)
class Drawing:
    """How a picture is drawn."""

    scheduler: str
    """A key of `_SCHEDULERS`."""
    steps: int
    guidance_scale: float


EVALUATED: Final = Drawing("euler", STEPS, GUIDANCE)


class Painter:
    """The diffusers pipelines on the committed weights, in float32."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        """`advance` is called with the number of pictures, whenever some are painted."""
        self.base: Any = _pipelines.StableDiffusionXLPipeline.from_pretrained(
            str(HERE / "model"), torch_dtype=torch.float32
        )
        self.base.set_progress_bar_config(disable=True)
        self.base.unet.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self._schedule = self.base.scheduler.config
        self._advance = advance

    def paint(
        self,
        prompts: list[str],
        *,
        kind: str | None = None,
        maps: Images | None = None,
        drawing: Drawing = EVALUATED,
    ) -> Images:
        """One picture a prompt, seed i for prompt i; with the ControlNet `kind` where maps are given."""
        self.base.scheduler = _SCHEDULERS[drawing.scheduler].from_config(self._schedule)
        pipeline = self._with_control(kind) if kind else self.base
        images: Images = []
        for start in range(0, len(prompts), _BATCH):
            chunk = slice(start, start + _BATCH)
            extra = {}
            if maps:
                extra["image"] = [PillowImage.fromarray(control) for control in maps[chunk]]
            seeds = range(start, start + len(prompts[chunk]))
            painted = pipeline(
                prompts[chunk],
                num_inference_steps=drawing.steps,
                guidance_scale=drawing.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="np",
                width=IMAGE_SIZE,
                height=IMAGE_SIZE,
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

    def with_lora(self, file: str, prompts: list[str], *, weight: float = 1.0, **asked: Any) -> Images:
        """Pictures with one LoRA file at a weight; `asked` is for `paint`."""
        self.base.load_lora_weights(str(HERE / "loras" / file), adapter_name="judged")
        self.base.set_adapters(["judged"], [weight])
        try:
            return self.paint(prompts, **asked)
        finally:
            self.base.unload_lora_weights()
