"""Tensors become a checked request, or the field that is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import InvalidRequest
from intaglio.request.read import read_request


def test_absent_inputs_are_the_deployments_defaults(tiny: Any, request_tensors: Any) -> None:
    request = read_request(request_tensors(prompt="a fox"), tiny.manifest)
    defaults = tiny.manifest.defaults
    assert (request.steps, request.guidance_scale) == (defaults.steps, defaults.guidance_scale)
    assert (request.width, request.height) == tiny.manifest.profiles.sizes[0]
    assert (request.scheduler, request.output_format, request.num_images) == ("euler", "png", 1)
    assert 0 <= request.seed < 2**32
    assert request.negative_prompt is None


def test_floats_are_those_that_were_asked_for(tiny: Any, request_tensors: Any) -> None:
    tensors = request_tensors(prompt="a fox", guidance_scale=7.1, guidance_end=0.7)
    request = read_request(tensors, tiny.manifest)
    assert (request.guidance_scale, request.guidance_end) == (7.1, 0.7)


def test_custom_times_and_sigmas_say_the_number_of_steps(tiny: Any, request_tensors: Any) -> None:
    times = read_request(request_tensors(prompt="a", timesteps=[999, 499]), tiny.manifest)
    assert (times.steps, times.timesteps, times.sigmas) == (2, (999.0, 499.0), None)
    sigmas = read_request(request_tensors(prompt="a", sigmas=[14.6, 0.7, 0.1, 0]), tiny.manifest)
    assert (sigmas.steps, sigmas.sigmas) == (3, (14.6, 0.7, 0.1, 0.0))
    assert sigmas.trajectory.sigmas == sigmas.sigmas


def test_cost_counts_model_calls(tiny: Any, request_tensors: Any) -> None:
    limits = tiny.manifest.limits.model_copy(update={"cost": 64 * 96 * 19})
    manifest = tiny.manifest.model_copy(update={"limits": limits})
    assert read_request(request_tensors(prompt="a", steps=10, scheduler="heun"), manifest).steps == 10
    with pytest.raises(InvalidRequest, match=r"steps: 21 steps of .* cost too much"):
        read_request(request_tensors(prompt="a", steps=11, scheduler="heun"), manifest)
    sparse = request_tensors(prompt="a", steps=25, sparse_every=3)
    assert read_request(sparse, manifest).steps == 25


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 2147483647}, "^steps: 2147483647 is out of range; allowed: 1 to 50"),
        ({"steps": 51, "sparse_every": 2}, "^steps: 51 is out of range; allowed: 1 to 50"),
        ({"timesteps": []}, "^timesteps: 0 values; allowed: 1 to 50 values"),
        ({"timesteps": range(500, 449, -1)}, "^timesteps: 51 values; allowed: 1 to 50 values"),
        ({"sigmas": []}, "^sigmas: 0 values; allowed: 2 to 51 values"),
        ({"sigmas": [9]}, "^sigmas: 1 values; allowed: 2 to 51 values"),
        ({"sigmas": [14.0] * 300_000}, "^sigmas: 300000 values; allowed: 2 to 51 values"),
        ({"timesteps": range(500, 470, -1), "scheduler": "heun"}, "^timesteps: 30 are 59 model calls"),
        ({"timesteps": range(500, 470, -1), "num_images": 2}, "^timesteps: 30 steps of .* cost too much"),
        ({"sigmas": range(9, -1, -1), "num_images": 4}, "^sigmas: 9 steps of .* cost too much"),
    ],
)
def test_the_length_of_a_trajectory_is_checked_before_its_steps(
    tiny: Any, request_tensors: Any, monkeypatch: pytest.MonkeyPatch, values: Any, says: str
) -> None:
    listed = {name: list(value) if isinstance(value, range) else value for name, value in values.items()}
    limits = tiny.manifest.limits.model_copy(update={"cost": 64 * 96 * 30})
    manifest = tiny.manifest.model_copy(update={"limits": limits})
    tensors = request_tensors(prompt="a", **listed)
    if "sigmas" in values and len(values["sigmas"]) > 1000:
        monkeypatch.setattr("intaglio.request.read.shortest_float32", _not_called)
    with pytest.raises(InvalidRequest, match=says):
        read_request(tensors, manifest)


def _not_called(value: float) -> float:
    raise AssertionError("a value was converted before the length was checked")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"timesteps": [5000]}, "^timesteps: 5000; allowed: 999 to 0"),
        ({"sigmas": [500, 0]}, "^sigmas: 500; allowed: 14.* to 0"),
    ],
)
def test_steps_that_the_model_does_not_have_are_refused(
    tiny: Any, request_tensors: Any, values: Any, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_request(request_tensors(prompt="a", **values), tiny.manifest)


def test_tags_are_no_words_and_their_literal_form_is(tiny: Any, request_tensors: Any) -> None:
    fused = (ResolvedLora(id="night", sha256="0" * 64, weight=0.5),)
    manifest = tiny.manifest.model_copy(update={"loras": fused})
    prompt, negative = r"a \<lora:x:1> fox<lora:night:0.5>", r"\<lora:x:1>"
    request = read_request(request_tensors(prompt=prompt, negative_prompt=negative), manifest)
    assert (request.prompt, request.negative_prompt) == (prompt, negative)
    assert (request.full_prompt, request.full_negative_prompt) == ("a <lora:x:1> fox", "<lora:x:1>")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"prompt": " "}, "prompt: empty"),
        ({"prompt": b"\xff"}, "prompt: byte 0 is not UTF-8"),
        ({"prompt": "x" * 2001}, "prompt: 2001 bytes; allowed: at most 2000 bytes"),
        ({"prompt": "a", "scheduler": "plms"}, "scheduler: 'plms' is unknown; allowed: one of euler"),
        ({"prompt": "a", "width": 65}, "width: 65 is not a multiple"),
        ({"prompt": "a", "width": 72}, "height: 72x96 is not built"),
        ({"prompt": "a", "clip_skip": 2}, "clip_skip: 2 is out of range; allowed: 0 to 1"),
        ({"prompt": "a", "clip_skip": -1}, "clip_skip: -1 is out of range; allowed: 0 to 1"),
        ({"prompt": "a", "guidance_rescale": 1.1}, "guidance_rescale: 1.1.* out of range; allowed: 0 to 1"),
        ({"prompt": "a", "control_every": 2}, "control_every: 2, but there are no controls"),
        ({"prompt": "a", "control_every": 0}, "control_every: 0 is out of range; allowed: 1 to 150"),
        ({"prompt": "a", "steps": 51}, "steps: 51 is out of range; allowed: 1 to 50"),
        ({"prompt": "a", "steps": 0, "scheduler": "heun"}, "steps: 0 is out of range; allowed: 1 to 50"),
        (
            {"prompt": "a", "steps": 26, "scheduler": "heun"},
            "26 are 51 model calls with heun; allowed: at most",
        ),
        ({"prompt": "a", "schedule": "karas"}, "schedule: 'karas' is unknown; allowed: one of leading"),
        ({"prompt": "a", "schedule": "karras", "scheduler": "lcm"}, "schedule: 'karras', but lcm steps"),
        ({"prompt": "a", "timesteps": [1, 2]}, r"timesteps: \[1, 2\]; allowed: whole training times"),
        ({"prompt": "a", "timesteps": [999, 499], "steps": 4}, "steps: 4, but timesteps makes 2"),
        ({"prompt": "a", "sigmas": [float("nan"), 0]}, r"sigmas: \[nan, 0\]"),
        ({"prompt": "a", "eta": 0.3}, "eta: euler has none"),
        ({"prompt": "a", "eta": 1.5, "scheduler": "ddim"}, "eta: 1.5 is out of range; allowed: 0 to 1"),
        ({"prompt": "a", "sparse_every": 2, "scheduler": "unipc"}, "sparse_every: unipc uses its last"),
        (
            {"prompt": "a", "steps": 50, "num_images": 4, "guidance_begin": 0.9, "guidance_end": 0.1},
            "guidance_begin",
        ),
        ({"prompt": "a", "loras": "{"}, "loras: not JSON"),
        ({"prompt": "a <lora:night:0.5>"}, "prompt: 'night' is unknown; allowed: absent, or the fused set"),
        ({"prompt": "a <lora:night"}, "prompt: '<lora:night' is not closed"),
        ({"prompt": "<lora:night:0.5> "}, "prompt: empty beside its LoRAs"),
        ({"prompt": "a", "negative_prompt": "<lora:night>"}, "negative_prompt: <lora:night> applies to"),
        (
            {"prompt": "a", "response_format": "url"},
            "response_format: 'url' is unknown; allowed: one of bytes",
        ),
        ({"prompt": "a", "loras": '[{"id": "A"}]'}, r"loras\[0\]\.id"),
        ({"prompt": "a", "controls": '[{"type": "pose", "weight": "1"}]'}, r"controls\[0\]\.weight"),
        ({"prompt": "a", "images": [b""]}, r"images\[0\]: 0 bytes"),
    ],
)
def test_what_is_wrong_is_named(tiny: Any, request_tensors: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_request(request_tensors(**values), tiny.manifest)


def test_cost_counts_images_and_controls(tiny: Any, request_tensors: Any) -> None:
    limits = tiny.manifest.limits.model_copy(update={"cost": 64 * 96 * 10})
    manifest = tiny.manifest.model_copy(update={"limits": limits})
    assert read_request(request_tensors(prompt="a", steps=10), manifest).steps == 10
    with pytest.raises(
        InvalidRequest, match=r"steps: 10 steps of 12288 pixels .* allowed: 1 to 5 with these"
    ):
        read_request(request_tensors(prompt="a", steps=10, num_images=2), manifest)
