"""The method of a LoRA gives a request its settings, and what contradicts it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from intaglio.contract.methods import METHODS, Method
from intaglio.contract.presets import Presets
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio.request.read import read_request
from intaglio.request.request import Request

PRESETS = Presets.model_validate(
    {"quality": {"high": {"steps": 20}, "late": {"guidance_begin": 0.1}}, "negatives": {"photo": "blurry"}}
)


def served(**chosen: str | None) -> ServedLoras:
    entries = {}
    for lora, method in chosen.items():
        entry = ServedLora(kind="style", bounds=(0, 1), versions=("a" * 64,))
        # Tests name methods that the contract does not have.
        entries[lora] = entry.model_copy(update={"method": method})
    return ServedLoras.model_construct(loras=entries, presets={}, retired={})


@pytest.fixture(autouse=True)
def another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second method of inputs that are there, beside `lcm`."""
    other = Method(
        values={"steps": 8, "scheduler": "ddim", "guidance_scale": 5.0},
        source="here",
        choices={"scheduler": ("euler",)},
    )
    monkeypatch.setitem(METHODS, "other", other)


@pytest.fixture
def read(tiny: Any, request_tensors: Any) -> Any:
    def reading(*asked: str, loras: ServedLoras, manifest: Any = None, **values: Any) -> Request:
        entries = json.dumps([{"id": lora} for lora in asked])
        tensors = request_tensors(prompt="a fox", loras=entries, **values)
        return read_request(tensors, manifest or tiny.manifest, loras, PRESETS)

    return reading


def settings(request: Request) -> tuple[int, str, float]:
    return request.steps, request.scheduler, request.guidance_scale


def test_the_lora_sets_what_is_left_out(read: Any, tiny: Any) -> None:
    loras = served(fast="lcm", plain=None)
    request = read("fast", "plain", loras=loras)
    assert (settings(request), request.warnings) == ((4, "lcm", 1.0), ())
    defaults = tiny.manifest.defaults
    request = read("plain", loras=loras)
    assert settings(request) == (defaults.steps, defaults.scheduler, defaults.guidance_scale)


def test_the_caller_and_a_preset_come_before_the_method(read: Any) -> None:
    request = read("fast", loras=served(fast="lcm"), steps=6, guidance_scale=1.5)
    assert (settings(request), request.warnings) == ((6, "lcm", 1.5), ()), "within what it allows"
    request = read("fast", loras=served(fast="lcm"), preset="high", guidance_scale=5.0)
    assert settings(request) == (20, "lcm", 5.0)
    assert request.warnings == (
        "steps: 20 (from preset high), but lora fast (method lcm) is made for 4 to 8",
        "guidance_scale: 5, but lora fast (method lcm) is made for 0 to 2",
    )


def test_the_deployments_defaults_come_after_the_method(read: Any, tiny: Any) -> None:
    chosen = {"preset": "high", "preset_values": {"steps": 20, "guidance_begin": 0.1}}
    manifest = tiny.manifest.model_copy(update={"defaults": tiny.manifest.defaults.model_copy(update=chosen)})
    request = read("fast", loras=served(fast="lcm"), manifest=manifest)
    assert (request.steps, request.guidance_begin, request.warnings) == (4, 0.1, ())


def test_two_methods_are_refused_by_name(read: Any) -> None:
    says = r"^loras: methods contradict: lora fast has lcm, lora slow has other; allowed: LoRAs of one"
    with pytest.raises(InvalidRequest, match=says):
        read("fast", "slow", loras=served(fast="lcm", slow="other"))
    assert settings(read("fast", "faster", loras=served(fast="lcm", faster="lcm"))) == (4, "lcm", 1.0)


def test_the_build_has_a_method(read: Any, tiny: Any) -> None:
    manifest = tiny.manifest.model_copy(update={"method": "other"})
    request = read(loras=served(), manifest=manifest, scheduler="euler")
    assert (settings(request), request.warnings) == ((8, "euler", 5.0), ())
    assert read(loras=served(), manifest=manifest, scheduler="lcm").warnings == (
        "scheduler: lcm, but the build (method other) is made for ddim or euler",
    )
    with pytest.raises(InvalidRequest, match="the build has other, lora fast has lcm"):
        read("fast", loras=served(fast="lcm"), manifest=manifest)


def test_a_custom_trajectory_of_a_method_gives_way_to_the_callers_steps(read: Any) -> None:
    request = read("fast", loras=served(fast="dmd2"))
    assert (request.timesteps, request.steps, request.warnings) == ((999, 749, 499, 249), 4, ())
    request = read("fast", loras=served(fast="dmd2"), steps=4)
    assert (request.timesteps, request.steps) == (None, 4)
    assert request.warnings == (
        "timesteps: 999, 749, 499, 249, which lora fast (method dmd2) sets, is replaced by what is stated",
    )


def test_the_default_preset_neither_thins_nor_moves_the_steps_of_a_method(read: Any, tiny: Any) -> None:
    for values in ({"steps": 20, "sparse_every": 2}, {"steps": 20, "schedule": "karras"}):
        chosen = {"preset": "high", "preset_values": values}
        defaults = tiny.manifest.defaults.model_copy(update=chosen)
        manifest = tiny.manifest.model_copy(update={"defaults": defaults})
        for method in ("lcm", "lightning-4"):
            request = read("fast", loras=served(fast=method), manifest=manifest)
            expected = METHODS[method].values.get("schedule")
            assert (request.steps, request.sparse_every, request.schedule) == (4, None, expected)


def test_a_solver_that_the_method_admits_keeps_its_schedule(read: Any) -> None:
    request = read("fast", loras=served(fast="hyper-sd-4"), scheduler="tcd")
    assert (request.scheduler, request.schedule, request.warnings) == ("tcd", "trailing", ())
    request = read("fast", loras=served(fast="hyper-sd-4"), scheduler="lcm")
    assert (request.scheduler, request.schedule, len(request.warnings)) == ("lcm", None, 2)


def test_a_negative_prompt_without_guidance_is_told(read: Any) -> None:
    stated = {"negative_prompt": "fog", "negative_preset": "photo"}
    says = "has no effect, because lora fast (method lcm) switches guidance off"
    loras = served(fast="lcm")
    told = read("fast", loras=loras, **stated).warnings
    assert told == (f"negative_prompt: {says}", f"negative_preset: {says}")
    assert read("fast", loras=loras, negative_prompt="").warnings == ()
    assert read("fast", loras=loras, guidance_scale=1.5, **stated).warnings == ()
    assert read("fast", loras=served(fast="hyper-sd-8-cfg"), **stated).warnings == ()
