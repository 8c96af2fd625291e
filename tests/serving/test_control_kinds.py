"""Every control type through the real server: as diffusers draws it, and as the map asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import InvalidRequest
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Client, Control
from intaglio_export.build import BuildOptions, build_deployment
from miniature.agreement import agreement
from miniature.architecture import CONTROL_TYPES
from miniature.judging import mean_pck
from miniature.painter import GUIDANCE, Case, Images, cases
from miniature.world import control_map

from ..parity import psnr, scheduler_for
from ..stability_layout import controlnet_tensors
from ..tiny import make_union
from .conftest import REPOSITORY, Silent

pytestmark = pytest.mark.long
STEPS = 8
SCENES = 2
SCENES_OF_PHOTOS = 10
UPRIGHT = ("standing", "waving", "cheering", "dancing", "lunging", "stretching")
"""Families of poses that MoveNet reads well (docs/controls.md)."""
Figure = Callable[[Images], float]


def maps_of(kind: str, judged: list[Case]) -> Images:
    return [control_map(case.scene, case.rendered, kind) for case in judged]


def figure_of(kind: str, judged: list[Case]) -> Figure:
    """How well pictures agree with their maps: PCK, or the mean agreement."""
    if kind == "pose":
        return lambda pictures: mean_pck(pictures, judged)
    maps = maps_of(kind, judged)
    return lambda pictures: float(np.mean(list(map(agreement, [kind] * len(maps), pictures, maps))))


def controlnet(kind: str) -> Any:
    model: Any = diffusers.ControlNetModel
    return model.from_pretrained(str(REPOSITORY / "miniature/controlnets" / kind))


@pytest.fixture(scope="module")
def base() -> Any:
    """diffusers' pipeline on the miniature's weights."""
    made: Any = diffusers.StableDiffusionXLPipeline
    return made.from_pretrained(str(REPOSITORY / "miniature/model"), add_watermarker=False)


def drawn(pipeline: Any, case: Case, seed: int, **call: Any) -> NDArray[np.uint8]:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler_for("euler", pipeline.scheduler.config)
    picture = pipeline(
        case.prompt,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
        **call,
    ).images[0]
    return (picture * 255).round().astype(np.uint8)


def theirs(base: Any, kinds: tuple[str, ...], judged: list[Case]) -> Images:
    pipeline = diffusers.StableDiffusionXLControlNetPipeline(
        **base.components, controlnet=[controlnet(kind) for kind in kinds], add_watermarker=False
    )
    maps = [[Image.fromarray(one) for one in maps_of(kind, judged)] for kind in kinds]
    weights = [1.0] * len(kinds)
    return [
        drawn(pipeline, case, seed, image=list(images), controlnet_conditioning_scale=weights)
        for seed, (case, *images) in enumerate(zip(judged, *maps, strict=True))
    ]


def ours(client: Client, kinds: tuple[str, ...], judged: list[Case]) -> Images:
    pictures = []
    for seed, case in enumerate(judged):
        maps = [control_map(case.scene, case.rendered, kind) for kind in kinds]
        controls = [Control(kind, image=Image.fromarray(one)) for kind, one in zip(kinds, maps, strict=True)]
        asked = {"seed": seed, "steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": "euler"}
        pictures.append(client.generate(case.prompt, controls=controls, **asked).pixels)
    return pictures


@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in CONTROL_TYPES), ("pose", "segmentation")], ids=" + ".join
)
def test_controls_agree_with_their_maps_as_diffusers_does(
    client: Client, base: Any, kinds: tuple[str, ...]
) -> None:
    judged = cases(SCENES)
    made, expected = ours(client, kinds, judged), theirs(base, kinds, judged)
    assert min(map(psnr, made, expected)) >= 40
    for kind in kinds:
        figure = figure_of(kind, judged)
        assert abs(figure(made) - figure(expected)) <= 0.02
        shuffled = figure_of(kind, judged[1:] + judged[:1])
        assert figure(made) >= 1.5 * shuffled(made), kind


def test_pictures_drawn_from_photos_stand_in_the_pose_that_the_photos_show(client: Client) -> None:
    """The photos are rendered scenes of people that stand upright; a detector reads them."""
    upright = [case for case in cases(4 * SCENES_OF_PHOTOS) if case.scene.family in UPRIGHT]
    judged = upright[:SCENES_OF_PHOTOS]
    assert len(judged) == SCENES_OF_PHOTOS
    made = []
    for seed, case in enumerate(judged):
        photo = Control("pose", image=Image.fromarray(case.rendered.picture), preprocess="pose")
        asked = {"seed": seed, "steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": "euler"}
        made.append(client.generate(case.prompt, controls=[photo], **asked).pixels)
    figure = mean_pck(made, judged)
    print(f"PCK@0.1 {figure:.3f}; of other scenes {mean_pck(made, judged[1:] + judged[:1]):.3f}")
    assert figure >= 0.8


UNION = {"figure": {"mode": "openpose", "type": "pose"}, "depth": "depth"}
SIZE = {"width": 264, "height": 152}


@pytest.fixture(scope="module")
def union() -> Any:
    """A union that begins as the pose ControlNet."""
    return make_union(controlnet("pose"), std=0.05)


@pytest.fixture(scope="module")
def united(miniature: Deployment, union: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of one size that is no multiple of 32, of a ControlNet in a single file and of a union."""
    folder = tmp_path_factory.mktemp("united")
    union.save_pretrained(folder / "all")
    save_file(controlnet_tensors(controlnet("segmentation")), folder / "segmentation.safetensors")
    values = {
        "base": [{"folder": str(REPOSITORY / "miniature/model")}],
        "controlnets": {
            "segmentation": {"file": "segmentation.safetensors", "type": "segmentation"},
            "all": {"folder": "all", "union": UNION},
        },
        "profiles": {"sizes": [[SIZE["width"], SIZE["height"]]], "text_chunks": 1},
        "precision": "fp32",
        "runtime": "onnxruntime",
        "build": str(folder / "build"),
    }
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(miniature.build / ".stages")
    path = folder / "united.yaml"
    path.write_text(yaml.safe_dump(values))
    build_deployment(path, BuildOptions(), reporter=Silent())
    with Server(load_deployment(path), endpoints=Endpoints()) as running, Client(running.grpc_url) as client:
        yield client


def asked_of(controls: list[Control], seed: int) -> dict[str, Any]:
    usual = {"steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": "euler"}
    return {"seed": seed, "controls": controls, **usual, **SIZE}


def test_a_size_that_is_no_multiple_of_32_equals_diffusers(united: Client, base: Any) -> None:
    (case,) = cases(1)
    (segmentation,) = maps_of("segmentation", [case])
    image = Image.fromarray(segmentation)
    plain = united.generate(case.prompt, **asked_of([], 3)).pixels
    assert psnr(plain, drawn(base, case, 3, **SIZE)) >= 40
    controlled = united.generate(case.prompt, **asked_of([Control("segmentation", image=image)], 3)).pixels
    pipeline = diffusers.StableDiffusionXLControlNetPipeline(
        **base.components, controlnet=controlnet("segmentation"), add_watermarker=False
    )
    assert psnr(controlled, drawn(pipeline, case, 3, image=image, **SIZE)) >= 40
    assert psnr(controlled, plain) < 30


@pytest.mark.parametrize(
    "controls",
    [[("pose", 0.9, 0.0, 1.0)], [("figure", 0.9, 0.0, 0.6), ("depth", 0.7, 0.2, 1.0)]],
    ids=["one", "two in windows"],
)
def test_controls_of_a_union_equal_diffusers(
    united: Client, base: Any, union: Any, controls: list[tuple[str, float, float, float]]
) -> None:
    (case,) = cases(1)
    kinds = [{"figure": "pose"}.get(name, name) for name, *_ in controls]
    images = [Image.fromarray(*maps_of(kind, [case])) for kind in kinds]
    asked = [
        Control(name, image=image, weight=weight, begin=begin, end=end)
        for image, (name, weight, begin, end) in zip(images, controls, strict=True)
    ]
    made = united.generate(case.prompt, **asked_of(asked, 5)).pixels
    pipeline = diffusers.StableDiffusionXLControlNetUnionPipeline(
        **base.components, controlnet=union, add_watermarker=False
    )
    expected = drawn(
        pipeline,
        case,
        5,
        control_image=images,
        control_mode=[{"pose": 0, "depth": 1}[kind] for kind in kinds],
        controlnet_conditioning_scale=[control.weight for control in asked],
        control_guidance_start=[control.begin for control in asked],
        control_guidance_end=[control.end for control in asked],
        **SIZE,
    )
    assert psnr(made, expected) >= 40
    assert psnr(made, united.generate(case.prompt, **asked_of([], 5)).pixels) < 30


def test_a_weight_of_zero_is_no_control_bit_for_bit(united: Client) -> None:
    (case,) = cases(1)
    image = Image.fromarray(*maps_of("pose", [case]))
    nothing = [Control(kind, image=image, weight=0) for kind in ("figure", "depth", "segmentation")]
    without = united.generate(case.prompt, **asked_of([], 1)).pixels
    np.testing.assert_array_equal(united.generate(case.prompt, **asked_of(nothing, 1)).pixels, without)


def test_a_control_that_no_union_serves_is_refused_by_name(united: Client) -> None:
    image = Image.new("RGB", (64, 64))
    with pytest.raises(
        InvalidRequest, match="'canny' is unknown; allowed: depth, figure, segmentation, pose"
    ):
        united.generate("a person", **asked_of([Control("canny", image=image)], 1))
    assert united.generate("a person", **asked_of([], 1)).pixels.shape == (152, 264, 3)
