"""What a request gets from presets, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.contract.presets import Presets
from intaglio.errors import InvalidRequest
from intaglio.request.presets import Source, completed
from intaglio.request.read import read_request
from intaglio.request.request import Request

PRESETS = Presets.model_validate(
    {
        "quality": {
            "draft": {"steps": 8, "scheduler": "ddim", "schedule": "trailing", "control_every": 2},
            "late": {"guidance_end": 0.4},
            "custom": {"timesteps": [900, 500], "scheduler": "lcm"},
        },
        "styles": {
            "ink": {"prompt": "ink drawing of {prompt}", "negative_prompt": "colour"},
            "plain": {"negative_prompt": "frame"},
        },
        "negatives": {"photo": "blurry"},
        "scenes": {"beach": "{prompt} on a beach", "night": "at night"},
    }
)


@pytest.fixture
def read(tiny: Any, request_tensors: Any) -> Any:
    def reading(manifest: Any = None, **values: Any) -> Request:
        return read_request(request_tensors(**values), manifest or tiny.manifest, presets=PRESETS)

    return reading


def test_the_caller_comes_before_the_preset_and_it_before_the_defaults(read: Any, tiny: Any) -> None:
    request = read(prompt="a fox", preset="draft")
    assert (request.steps, request.scheduler, request.preset) == (8, "ddim", "draft")
    assert request.guidance_scale == tiny.manifest.defaults.guidance_scale
    assert read(prompt="a fox", preset="draft", steps=5).steps == 5
    assert read(prompt="a fox").preset is None


def test_the_deployment_may_name_a_preset(read: Any, tiny: Any) -> None:
    chosen = {"preset": "late", "preset_values": {"guidance_end": 0.4, "steps": 9}}
    defaults = tiny.manifest.defaults.model_copy(update=chosen)
    manifest = tiny.manifest.model_copy(update={"defaults": defaults})
    request = read(manifest, prompt="a fox")
    assert (request.preset, request.steps, request.guidance_end) == ("late", 9, 0.4)
    request = read(manifest, prompt="a fox", preset="draft")
    assert (request.preset, request.steps, request.guidance_end) == ("draft", 8, 0.4)


def test_no_preset_fills_nothing_in(read: Any, tiny: Any) -> None:
    """A picture's own values are sent again, whatever the defaults and the methods of its LoRAs are now."""
    chosen = {"preset": "late", "preset_values": {"guidance_end": 0.4}}
    defaults = tiny.manifest.defaults.model_copy(update=chosen)
    manifest = tiny.manifest.model_copy(update={"defaults": defaults, "method": "lightning-4"})
    assert read(manifest, prompt="a fox").schedule == "trailing"
    request = read(manifest, prompt="a fox", preset="none", steps=9, style="ink")
    assert (request.schedule, request.guidance_end, request.steps) == (None, 1.0, 9)
    assert request.preset is None, "as in the picture that is repeated"
    assert request.prompt == "ink drawing of a fox"


def test_no_preset_is_no_id_of_a_file() -> None:
    with pytest.raises(ValueError, match="means no preset in a request"):
        Presets.model_validate({"quality": {"none": {"steps": 3}}})


def test_scene_and_style_make_the_prompt(read: Any) -> None:
    request = read(prompt="a fox", style="ink", scene="beach", negative_preset="photo", negative_prompt="fog")
    assert request.prompt == request.full_prompt == "ink drawing of a fox on a beach"
    assert request.negative_prompt == "fog, blurry, colour"
    assert (request.style, request.scene, request.negative_preset) == ("ink", "beach", "photo")
    request = read(prompt="a fox", style="plain", scene="night")
    assert (request.prompt, request.negative_prompt) == ("a fox, at night", "frame")


def test_without_any_negative_prompt_there_is_none(read: Any) -> None:
    assert read(prompt="a fox", scene="night").negative_prompt is None
    assert read(prompt="a fox", negative_prompt="").negative_prompt == "", "empty is not absent"
    assert read(prompt="a fox", negative_prompt="", style="plain").negative_prompt == "frame"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"preset": "draf"}, r"^preset: 'draf' is unknown; did you mean draft\?; allowed: draft, late, "),
        ({"preset": b"\xff"}, "^preset: byte 0 is not UTF-8"),
        ({"style": ""}, "^style: '' is unknown; allowed: ink, plain"),
        ({"negative_preset": "x"}, "^negative_preset: 'x' is unknown; allowed: photo"),
        ({"scene": "x" * 65}, "^scene: 65 bytes; allowed: at most 64"),
        ({"preset": "late", "guidance_begin": 0.5}, "^guidance_begin: 0.5 is not before end 0.4"),
        ({"prompt": "x" * 1995, "scene": "night"}, "^prompt: 2005 bytes with what its presets add; allowed"),
        ({"negative_prompt": "x" * 1995, "style": "ink"}, "^negative_prompt: 2003 bytes with what its"),
    ],
)
def test_what_is_wrong_is_named(read: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read(**{"prompt": "a", **values})


def test_a_refused_value_is_named_with_the_preset_it_came_from(read: Any, tiny: Any) -> None:
    manifest = tiny.manifest.model_copy(
        update={"limits": tiny.manifest.limits.model_copy(update={"steps": 6})}
    )
    with pytest.raises(
        InvalidRequest, match=r"^steps: 8 is out of range \(from preset draft\); allowed: 1 to 6"
    ):
        read(manifest, prompt="a", preset="draft")


def test_a_deployment_without_presets_says_so(tiny: Any, request_tensors: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"^scene: 'beach' is unknown; allowed: absent: the deployment has"
    ):
        read_request(request_tensors(prompt="a", scene="beach"), tiny.manifest)


def test_the_first_source_counts(request_tensors: Any) -> None:
    sources = [Source("preset a", {"steps": 8}), Source("preset b", {"steps": 9, "guidance_end": 0.5})]
    found, origins = completed(request_tensors(guidance_end=0.1), sources, scheduler="euler")
    assert (found["steps"].item(), found["guidance_end"].item()) == (8, pytest.approx(0.1))
    assert origins == {"steps": "preset a"}


def test_another_scheduler_does_not_get_the_presets_schedule(read: Any) -> None:
    assert read(prompt="a", preset="draft").schedule == "trailing"
    assert read(prompt="a", preset="draft", scheduler="ddim", steps=4).schedule == "trailing"
    assert read(prompt="a", preset="draft", scheduler="euler").schedule is None


def test_a_custom_trajectory_and_a_number_of_steps_exclude_each_other(read: Any) -> None:
    request = read(prompt="a", preset="custom")
    assert (request.timesteps, request.steps, request.scheduler) == ((900, 500), 2, "lcm")
    request = read(prompt="a", preset="custom", steps=4)
    assert (request.timesteps, request.steps, request.scheduler) == (None, 4, "lcm")
    request = read(prompt="a", preset="draft", timesteps=[700, 300, 100])
    assert (request.timesteps, request.steps, request.schedule) == ((700, 300, 100), 3, None)


def test_how_often_controls_run_matters_only_where_there_are_any(read: Any) -> None:
    controls = '[{"type": "pose", "pose": "waving-01"}]'
    assert read(prompt="a", preset="draft", controls=controls).control_every == 2
    assert read(prompt="a", preset="draft").control_every == 1
    for none in (" [] ", "[ ]", "null", " "):
        assert read(prompt="a", preset="draft", controls=none).control_every == 1
    with pytest.raises(InvalidRequest, match=r"^controls: not JSON: .* objects with type, image"):
        read(prompt="a", preset="draft", controls="[")


def test_a_later_source_does_not_thin_the_steps_that_were_stated(read: Any, tiny: Any) -> None:
    chosen = {"preset": "late", "preset_values": {"steps": 30, "sparse_every": 2, "sparse_begin": 0.5}}
    defaults = tiny.manifest.defaults.model_copy(update=chosen)
    manifest = tiny.manifest.model_copy(update={"defaults": defaults})
    whole = read(manifest, prompt="a")
    assert (whole.steps, whole.sparse_every, whole.sparse_begin) == (30, 2, 0.5)
    for values in ({"steps": 8}, {"timesteps": [900, 500]}, {"sigmas": [9, 1, 0]}, {"preset": "draft"}):
        request = read(manifest, prompt="a", **values)
        assert (request.sparse_every, request.sparse_begin) == (None, None)


def test_a_source_without_a_scheduler_is_made_for_the_deployments(read: Any, tiny: Any) -> None:
    chosen = {"preset": "late", "preset_values": {"steps": 20, "schedule": "karras"}}
    defaults = tiny.manifest.defaults.model_copy(update=chosen)
    manifest = tiny.manifest.model_copy(update={"defaults": defaults})
    assert read(manifest, prompt="a").schedule == "karras"
    assert read(manifest, prompt="a", scheduler="euler").schedule == "karras"
    other = read(manifest, prompt="a", scheduler="lcm")
    assert (other.schedule, other.steps) == (None, 20)
