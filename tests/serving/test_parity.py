"""Pictures from the real server against diffusers' own pipelines: the same weights, prompt, seed, solver,
control and LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image, ImageDraw

from intaglio.contract.config import Deployment
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.serving.server import Server
from intaglio_client import Client, Control

from ..parity import psnr, scheduler_for

pytestmark = pytest.mark.slow
SOLVERS = ("euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm")
CASES = tuple(  # (LoRA, solver, control), each with a prompt of its own
    (lora, solver, control)
    for number, (lora, solver) in enumerate(product((True, False), SOLVERS))
    for control in (None, ("pose", "canny")[number % 2])
)
PROMPTS = tuple(
    f"mara {doing} {place}"
    for place in ("on a beach", "in the snow", "in a forest", "in a city street")
    for doing in ("waving hello", "dancing", "jumping", "sitting", "running", "bowing")
)
STEPS = 6
PLACED: tuple[dict[str, Any], ...] = (
    {"scheduler": "heun", "schedule": "karras"},
    {"scheduler": "dpmpp_2m_sde", "schedule": "trailing"},
    {"scheduler": "tcd", "eta": 0.3},
)
"""One request of each family of solvers that `CASES` leaves out."""
Pipeline = Callable[..., Any]


def source_of(deployment: Deployment) -> Path:
    """The base's folder."""
    folder = deployment.base[0].folder
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def pipeline(miniature: Deployment) -> Pipeline:
    """(LoRA?, ControlNet or None) -> diffusers' pipeline on the deployment's weights."""

    @cache
    def base(lora: bool) -> Any:
        made: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(
            str(source_of(miniature)), add_watermarker=False
        )
        if lora:
            made.load_lora_weights(str(miniature.loras["mara"].path))
            made.fuse_lora()
        return made

    @cache
    def with_control(lora: bool, control: str | None) -> Any:
        made = base(lora)
        if control is not None:
            net: Any = diffusers.ControlNetModel
            controlnet = net.from_pretrained(str(miniature.controlnets[control].folder))
            made = diffusers.StableDiffusionXLControlNetPipeline(
                **made.components, controlnet=controlnet, add_watermarker=False
            )
        made.set_progress_bar_config(disable=True)
        return made

    return with_control


def edges() -> Image.Image:
    """A map for canny; of another size than the picture, so that both sides resize it."""
    image = Image.new("RGB", (300, 220))
    ImageDraw.Draw(image).ellipse((90, 40, 200, 180), outline="white", width=2)
    return image


@pytest.mark.parametrize("index", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_a_picture_equals_diffusers(
    miniature: Deployment, server: Server, pipeline: Pipeline, index: int
) -> None:
    lora, solver, control = CASES[index]
    width, height = miniature.profiles.sizes[1 + index % 2]
    guidance, negative, seed = (
        1.0 if solver == "lcm" else 3.0 + index / 8,
        "blurry" if index % 3 else None,
        2**31 + 97 * index,
    )
    controls, conditions = [], {}
    if control is not None:
        assert miniature.poses is not None
        library = PoseLibrary(miniature.poses)
        pose = library.names()[7 * index]
        controls = [
            Control("pose", pose=pose, weight=0.9)
            if control == "pose"
            else Control("canny", image=edges(), weight=0.9)
        ]
        drawn = Image.fromarray(draw_pose(library.load(pose), width=width, height=height))
        conditions = {"image": drawn if control == "pose" else edges(), "controlnet_conditioning_scale": 0.9}
    with Client(server.grpc_url) as client:
        ours = client.generate(
            PROMPTS[index],
            negative_prompt=negative,
            seed=seed,
            width=width,
            height=height,
            steps=STEPS,
            guidance_scale=guidance,
            scheduler=solver,
            controls=controls,
            loras=[("mara", 1.0)] if lora else [],
        )
    assert bool(ours.metadata["loras"]) == lora
    painter = pipeline(lora, control)
    painter.scheduler = scheduler_for(
        solver, json.loads((source_of(miniature) / "scheduler/scheduler_config.json").read_text())
    )
    theirs = painter(
        PROMPTS[index],
        negative_prompt=negative,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        width=width,
        height=height,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
        **conditions,
    ).images[0]
    assert psnr(ours.pixels, theirs) >= 40


@pytest.mark.parametrize("asked", PLACED, ids=[one["scheduler"] for one in PLACED])
def test_a_placed_picture_equals_diffusers(
    miniature: Deployment, server: Server, pipeline: Pipeline, asked: dict[str, Any]
) -> None:
    width, height = miniature.profiles.sizes[1]
    painter = pipeline(False, None)
    config = json.loads((source_of(miniature) / "scheduler/scheduler_config.json").read_text())
    painter.scheduler = scheduler_for(asked["scheduler"], config, schedule=asked.get("schedule"))
    call = {"width": width, "height": height, "guidance_scale": 3.0}
    with Client(server.grpc_url) as client:
        ours = client.generate(PROMPTS[0], seed=7, steps=STEPS, **asked, **call)
    theirs = painter(
        PROMPTS[0],
        num_inference_steps=STEPS,
        eta=asked.get("eta", 0.0),
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
        **call,
    ).images[0]
    assert psnr(ours.pixels, theirs) >= 40
