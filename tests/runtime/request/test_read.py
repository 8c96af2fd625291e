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
