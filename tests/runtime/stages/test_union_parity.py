"""Controls of a ControlNet-Union against diffusers' own pipeline for it, same modules."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from intaglio.builds.file_checks import file_digest
from intaglio.builds.manifest import NetworkFile, UnionPlace
from intaglio.contract.sdxl import context_name
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from ...parity import psnr, scheduler_for
from ...tiny import make_union

NETWORK = "controlnet_union.union"
MODES = {"depth": 1, "normals": 4, "segmentation": 5}
SIZE = {"width": 72, "height": 64}


@pytest.fixture(scope="module")
def united(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny pipeline with a union beside its ControlNets."""
    folder = tmp_path_factory.mktemp("union") / "tiny"
    shutil.copytree(tiny.folder, folder)
    networks = dict(tiny.manifest.networks)
    for name in (NETWORK, context_name(NETWORK)):
        (folder / f"{name}.onnx").write_text(name)
        digest = file_digest(folder / f"{name}.onnx")
        networks[name] = NetworkFile(path=f"{name}.onnx", key="0" * 64, files={f"{name}.onnx": digest})
    changes = {
        "networks": networks,
        "controlnets": tiny.manifest.controlnets | {control: control for control in MODES},
        "unions": {control: UnionPlace(network=NETWORK, mode=mode) for control, mode in MODES.items()},
        "limits": tiny.manifest.limits.model_copy(update={"controls": 3}),
    }
    modules = tiny.modules | {NETWORK: make_union(tiny.modules["controlnet.pose"])}
    return replace(tiny, modules=modules, manifest=tiny.manifest.model_copy(update=changes), folder=folder)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, (64, 72, 3), np.uint8)
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def ours(united: Any, tensors: dict[str, Any]) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Pixels, and the networks that ran."""
    backend = united.backend
    with (
        Preprocess(united.manifest, united.folder) as preprocess,
        Diffuse(united.manifest, united.folder, backend=backend) as diffuse,
    ):
        arrays = preprocess(tensors)
        del arrays["output_format"]
        del arrays["metadata"]
        return diffuse(arrays)["pixels"], backend.runs


def theirs(united: Any, union: Any, controls: list[dict[str, Any]], **call: Any) -> np.ndarray[Any, Any]:
    parts = ("vae", "text_encoder", "text_encoder_2", "unet", "tokenizer", "tokenizer_2")
    pipeline = diffusers.StableDiffusionXLControlNetUnionPipeline(
        **{name: united.modules[name] for name in parts},
        controlnet=union,
        scheduler=scheduler_for("euler", united.manifest.scheduler),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    images: np.ndarray[Any, Any] = pipeline(
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="np",
        control_image=[Image.open(io.BytesIO(png(control["image"]))) for control in controls],
        control_mode=[MODES[control["type"]] for control in controls],
        controlnet_conditioning_scale=[control.get("weight", 1.0) for control in controls],
        control_guidance_start=[control.get("begin", 0.0) for control in controls],
        control_guidance_end=[control.get("end", 1.0) for control in controls],
        **SIZE,
        **call,
    ).images
    return images


DEPTH = {"type": "depth", "image": 0, "weight": 0.7}
SEGMENTATION = {"type": "segmentation", "image": 1, "weight": 1.2}
CASES = {
    "one": [DEPTH],
    "one in a window": [DEPTH | {"begin": 0.25, "end": 0.7}],
    "two": [DEPTH, SEGMENTATION],
    "two in unequal windows": [DEPTH | {"end": 0.6}, SEGMENTATION | {"begin": 0.4}],
    "two in windows with none between": [DEPTH | {"end": 0.3}, SEGMENTATION | {"begin": 0.7, "end": 0.9}],
    "two of one type": [DEPTH, DEPTH | {"image": 1}],
    "three": [DEPTH, SEGMENTATION, {"type": "normals", "image": 2, "weight": 0.5}],
}


@pytest.mark.parametrize("controls", CASES.values(), ids=CASES)
def test_controls_of_a_union_equal_diffusers(united: Any, request_tensors: Any, controls: Any) -> None:
    tensors = request_tensors(
        prompt="a fox",
        negative_prompt="bad",
        seed=5,
        steps=5,
        images=[png(index) for index in range(len(controls))],
        controls=json.dumps(controls),
        num_images=2,
        **SIZE,
    )
    call = {"prompt": "a fox", "negative_prompt": "bad", "num_inference_steps": 5, "num_images_per_prompt": 2}
    expected = theirs(united, united.modules[NETWORK], controls, **call)
    pixels, runs = ours(united, tensors)
    assert psnr(pixels, expected) >= 60
    plain = {name: value for name, value in tensors.items() if name not in ("images", "controls")}
    assert psnr(ours(united, plain)[0], expected) < 52
    assert runs.count(NETWORK) <= 5, "one pass a step, whatever the number of controls"


def test_a_union_and_a_controlnet_add_up(
    united: Any, request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers has no pipeline with both, so a ControlNet is added to what its union gives."""
    pose = {"type": "pose", "image": 2, "weight": 0.8}
    image = Image.open(io.BytesIO(png(2)))
    condition = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    union, controlnet = united.modules[NETWORK], united.modules["controlnet.pose"]
    forward = union.forward

    def summed(sample: Any, timestep: Any, *, encoder_hidden_states: Any, **call: Any) -> Any:
        down, mid = forward(sample, timestep, encoder_hidden_states=encoder_hidden_states, **call)
        more, more_mid = controlnet(
            sample,
            timestep,
            encoder_hidden_states=encoder_hidden_states,
            controlnet_cond=condition.expand(len(sample), -1, -1, -1),
            conditioning_scale=pose["weight"],
            added_cond_kwargs=call["added_cond_kwargs"],
            return_dict=False,
        )
        return [one + other for one, other in zip(down, more, strict=True)], mid + more_mid

    controls = [DEPTH, pose, SEGMENTATION]
    tensors = request_tensors(
        prompt="a fox",
        negative_prompt="bad",
        seed=5,
        steps=4,
        images=[png(index) for index in range(3)],
        controls=json.dumps(controls),
        **SIZE,
    )
    pixels, runs = ours(united, tensors)
    assert runs.count(NETWORK) == runs.count("controlnet.pose") == 4
    monkeypatch.setattr(union, "forward", summed)
    call = {"prompt": "a fox", "negative_prompt": "bad", "num_inference_steps": 4}
    assert psnr(pixels, theirs(united, union, [DEPTH, SEGMENTATION], **call)) >= 60


@pytest.mark.parametrize("controls", [[DEPTH], [DEPTH, SEGMENTATION]], ids=["one", "two"])
def test_a_weight_of_zero_is_no_control_bit_for_bit(
    united: Any, request_tensors: Any, controls: list[dict[str, Any]]
) -> None:
    nothing = {"type": "normals", "image": 0, "weight": 0}
    images = [png(index) for index in range(len(controls))]
    asked = {"prompt": "a fox", "seed": 5, "steps": 3, "images": images, **SIZE}
    without, _ = ours(united, request_tensors(controls=json.dumps(controls), **asked))
    beside, _ = ours(united, request_tensors(controls=json.dumps([*controls, nothing]), **asked))
    np.testing.assert_array_equal(beside, without)
    all_zero = [control | {"weight": 0} for control in controls]
    none, runs = ours(united, request_tensors(controls=json.dumps(all_zero), **asked))
    plain = {name: value for name, value in asked.items() if name != "images"}
    np.testing.assert_array_equal(none, ours(united, request_tensors(**plain))[0])
    assert NETWORK not in runs
    assert not np.array_equal(none, without)


def test_kept_residuals_follow_the_controls_that_are_present(united: Any, request_tensors: Any) -> None:
    """In 6 steps: 0, 2 and 4 are due, and 3 is where segmentation begins."""
    controls = [DEPTH, SEGMENTATION | {"begin": 0.5}]
    tensors = request_tensors(
        prompt="a fox",
        seed=5,
        steps=6,
        guidance_scale=1.0,
        images=[png(0), png(1)],
        controls=json.dumps(controls),
        control_every=2,
        **SIZE,
    )
    _, runs = ours(united, tensors)
    assert runs.count(NETWORK) == 4
    assert runs.count(context_name(NETWORK)) == 3, "depth alone, then depth and segmentation"


def test_slices_of_a_union_compose(united: Any, request_tensors: Any) -> None:
    """Also a slice in which no control is present."""
    controls = [DEPTH | {"end": 0.3}, SEGMENTATION | {"begin": 0.75}]
    tensors = request_tensors(
        prompt="a fox", seed=5, steps=4, images=[png(0), png(1)], controls=json.dumps(controls), **SIZE
    )
    with (
        Preprocess(united.manifest, united.folder) as preprocess,
        Diffuse(united.manifest, united.folder, backend=united.backend) as diffuse,
    ):
        arrays = preprocess(tensors)
        del arrays["output_format"]
        del arrays["metadata"]
        whole = diffuse(arrays)["state"]
        state = arrays["state"]
        for begin, end in ((0, 1), (1, 3), (3, 4)):
            cut = {"state": state, "begin": np.array([begin], np.int32), "end": np.array([end], np.int32)}
            state = diffuse(arrays | cut, wanted=["state"])["state"]
        np.testing.assert_array_equal(state, whole)
