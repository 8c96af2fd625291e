"""Tensors that do not fit each other or the build are refused; windows are those of diffusers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.stages.diffuse.conditioning import (
    check_token_ids,
    read_conditioning,
)

from .inputs import int_tensor

OPTIONAL = ("guidance_window", "guidance_rescale", "clip_skip", "timings")
CONTROL = {"control": "pose", "weight": 1.0, "begin": 0.0, "end": 1.0}


def text(value: Any) -> Array:
    """A tensor of `value` as JSON, or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return np.array([data], object)


def with_nan(values: Array) -> Array:
    changed = values.copy()
    changed.flat[-1] = np.nan
    return changed


def test_what_is_absent_has_defaults(tiny: Any, arrays: dict[str, Array]) -> None:
    without = {name: value for name, value in arrays.items() if name not in OPTIONAL}
    request = read_conditioning(without, tiny.manifest)
    assert (request.begin, request.end, request.steps) == (0, 5, 5)
    assert request.guidance_window == (0, 1)
    assert request.timings == {}
    assert request.guidance
    assert (request.guidance_rescale, request.clip_skip) == (0, 0)
    assert [link.network for link in request.links] == ["controlnet.pose", "controlnet.edges"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"begin": int_tensor(3), "end": int_tensor(2)}, "begin"),
        ({"end": int_tensor(6)}, "begin"),
        ({"state": np.zeros((4, 1, 4, 8, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 3, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((3, 1, 4, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 4, 12, 8), np.float64)}, "state"),
        ({"noise": np.zeros((2, 1, 4, 12, 8), np.float32)}, "noise"),
        ({"input_scale": np.ones(4, np.float32)}, "input_scale"),
        ({"time_ids": np.zeros((1, 6), np.float32)}, "time_ids"),
        ({"token_ids": np.zeros((2, 3, 1, 77), np.int64)}, "token_ids"),
        ({"token_ids": np.zeros((2, 2, 3, 77), np.int64)}, "token_ids"),
        ({"control_maps": np.zeros((1, 96, 64, 3), np.uint8)}, "control_maps"),
        ({"control_maps": np.zeros((2, 8, 8, 3), np.uint8)}, "control_maps"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tiny: Any, arrays: dict[str, Array], change: dict[str, Array], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_conditioning(arrays | change, tiny.manifest)
    assert caught.value.field == field


def test_a_request_has_limits_here_too(tiny: Any, arrays: dict[str, Array]) -> None:
    """`diffuse` is public: whoever skips preprocess must not skip the limits."""
    limits = tiny.manifest.limits
    steps = limits.steps + 1
    images = limits.images + 1
    many_steps = {
        "timesteps": np.ones(steps, np.float32),
        "input_scale": np.ones(steps, np.float32),
        "coefficients": np.zeros((steps, 4, 6), np.float32),
        "noise": arrays["noise"][:1],
    }
    many_images = {"state": np.zeros((4, images, 4, 12, 8), np.float32)}
    no_images = {"state": np.zeros((4, 0, 4, 12, 8), np.float32)}
    no_steps = {"timesteps": np.ones(0, np.float32)}
    many_controls = {"controls": text([CONTROL] * (limits.controls + 1))}
    for change, says in (
        (many_steps, f"timesteps: {steps} is out of range; allowed: 1 to {limits.steps}"),
        (many_images, f"state: {images} is out of range; allowed: 1 to {limits.images}"),
        (no_images, "state: 0 is out of range"),
        (no_steps, "timesteps: 0 is out of range"),
        (many_controls, "controls: 3 is out of range; allowed: 0 to 2"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            read_conditioning(arrays | change, tiny.manifest)
    cheap = limits.model_copy(update={"cost": 64 * 96 * 3 * 5 - 1})
    manifest = tiny.manifest.model_copy(update={"limits": cheap})
    with pytest.raises(InvalidRequest, match=r"timesteps: 5 steps of 18432 pixels .* cost too much"):
        read_conditioning(arrays, manifest)


@pytest.mark.parametrize("name", ["time_ids", "timesteps", "input_scale", "coefficients", "noise", "state"])
def test_values_are_finite(tiny: Any, arrays: dict[str, Array], name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}: a value that is not finite"):
        read_conditioning(arrays | {name: with_nan(arrays[name])}, tiny.manifest)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"guidance_scale": np.array([np.inf], np.float32)}, "guidance_scale: inf is out of range"),
        ({"guidance_scale": np.array([-1], np.float32)}, "guidance_scale: -1.0 is out of range"),
        ({"guidance_rescale": np.array([1.5], np.float32)}, "guidance_rescale: 1.5 is out of range"),
        ({"guidance_rescale": np.array([np.nan], np.float32)}, "guidance_rescale: nan is out of range"),
        ({"clip_skip": int_tensor(2)}, "clip_skip: 2 is out of range; allowed: 0 to 1"),
        ({"clip_skip": int_tensor(-1)}, "clip_skip: -1 is out of range"),
        ({"guidance_window": np.array([0.5, 0.5], np.float32)}, "guidance_window: 0.5 is not before"),
        ({"guidance_window": np.array([np.nan, 1], np.float32)}, "guidance_window: nan is not before"),
        ({"begin": int_tensor(-1)}, "begin: slice -1 to 5"),
        ({"end": int_tensor(-1)}, "begin: slice 0 to -1"),
        ({"controls": text({})}, "controls: "),
        (
            {"controls": text([CONTROL | {"begin": 0.5, "end": 0.25}] * 2)},
            r"controls\[0\]\.begin: 0.5 is not",
        ),
        (
            {"controls": text([CONTROL | {"weight": float("nan")}] * 2)},
            r"controls\[0\]\.weight: nan is not a finite number",
        ),
        (
            {"controls": text([CONTROL | {"every": 0}] * 2)},
            r"controls\[0\]\.every: is 0; allowed: a whole number from 1",
        ),
        ({"controls": text(b"[]")}, r"control_maps: shape \[2, 96, 64, 3\] for 0 controls"),
        ({"timings": text([1])}, "timings: something else"),
        ({"timings": text({"vae": "long"})}, "timings: something else"),
        ({"timings": text(b"{")}, "timings: not JSON"),
        ({"loras": text(b"[" * 70_000)}, "loras: 70000 bytes"),
        (
            {"loras": text([{"id": "a", "sha256": "0" * 64, "weight": 1.0}] * 2)},
            "loras: a file is named twice",
        ),
    ],
)
def test_what_no_stage_writes_is_refused(
    tiny: Any, arrays: dict[str, Array], change: dict[str, Array], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_conditioning(arrays | change, tiny.manifest)


def test_token_weights_are_those_of_prompts(tiny: Any, arrays: dict[str, Array]) -> None:
    for value in (np.nan, 11.0, -11.0):
        weights = arrays["token_weights"].copy()
        weights[0, 0, 0, 3] = value
        with pytest.raises(InvalidRequest, match=r"token_weights: .* allowed: -10 to 10"):
            read_conditioning(arrays | {"token_weights": weights}, tiny.manifest)


def test_more_loras_than_a_request_may_have_are_refused(tiny: Any, arrays: dict[str, Array]) -> None:
    loras = [{"id": f"l{number}", "sha256": f"{number}" * 64, "weight": 1.0} for number in range(5)]
    with pytest.raises(InvalidRequest, match="loras: 5 LoRAs; allowed: at most 4"):
        read_conditioning(arrays | {"loras": text(loras)}, tiny.manifest)


def test_token_ids_are_in_the_vocabulary(tiny: Any, arrays: dict[str, Array]) -> None:
    vocabularies = (49408, 49408)
    check_token_ids(read_conditioning(arrays, tiny.manifest), vocabularies)
    for encoder, value in ((0, -1), (1, 49408), (1, 2**62)):
        ids = arrays["token_ids"].copy()
        ids[encoder, 0, 0, 5] = value
        request = read_conditioning(arrays | {"token_ids": ids}, tiny.manifest)
        with pytest.raises(InvalidRequest, match=f"token_ids: id {value}; allowed: 0 to 49407"):
            check_token_ids(request, vocabularies)


def test_an_unknown_control_is_refused(tiny: Any, arrays: dict[str, Array]) -> None:
    controls = np.array([arrays["controls"][0].replace(b'"pose"', b'"depth"')], object)
    with pytest.raises(
        InvalidRequest, match=r"controls\[0\]\.control: 'depth' is unknown; allowed: pose, edges"
    ):
        read_conditioning(arrays | {"controls": controls}, tiny.manifest)


def test_more_controlnets_than_are_open_at_the_same_time_are_refused(
    tiny: Any, arrays: dict[str, Array]
) -> None:
    """A control of weight 0 takes no part."""
    execution = tiny.manifest.execution.model_copy(update={"resident_controlnets": 1})
    manifest = tiny.manifest.model_copy(update={"execution": execution})
    with pytest.raises(
        InvalidRequest, match=r"controls: 2 ControlNets at once: .*; allowed: at most 1 of the 2"
    ):
        read_conditioning(arrays, manifest)
    without = np.array([arrays["controls"][0].replace(b'"weight": 0.5', b'"weight": 0.0')], object)
    assert read_conditioning(arrays | {"controls": without}, manifest).active_controlnets == [
        "controlnet.pose"
    ]


def test_a_set_of_loras_that_is_not_resolved_is_refused(tiny: Any, arrays: dict[str, Array]) -> None:
    loras = np.array([b'[{"id": "knight"}]'], object)
    with pytest.raises(InvalidRequest, match="loras: not a resolved set"):
        read_conditioning(arrays | {"loras": loras}, tiny.manifest)


def test_a_window_needs_a_build_without_guidance(tiny: Any, arrays: dict[str, Array]) -> None:
    profiles = tiny.manifest.profiles.model_copy(update={"guidance": ("on",)})
    manifest = tiny.manifest.model_copy(update={"profiles": profiles})
    window = {"guidance_window": np.array([0, 0.5], np.float32)}
    with pytest.raises(InvalidRequest, match=r"guidance_window: \[0.0, 0.5\]; allowed: \[0, 1\]"):
        read_conditioning(arrays | window, manifest)


def test_a_window_means_the_decimal_that_was_sent(tiny: Any, arrays: dict[str, Array]) -> None:
    window = {"guidance_window": np.array([0, 0.7], np.float32)}
    assert read_conditioning(arrays | window, tiny.manifest).guidance_window == (0, 0.7)
