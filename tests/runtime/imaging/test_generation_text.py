"""Other programs read our pictures: the rules of two readers, stated without our writer, find every value."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from intaglio.contract.schedulers import OWN_SCHEDULE, SCHEDULERS, SCHEDULES
from intaglio.imaging.generation_text import generation_text
from intaglio.imaging.images import encode_image

from ...picture_readers import read_civitai, read_webui

MADE: dict[str, Any] = {
    "prompt": "a füchs 狐, (red:1.2) <lora:dusk:0.5>",
    "added_words": ["moonlight"],
    "negative_prompt": "blurry, text",
    "steps": 20,
    "scheduler": "dpmpp_2m_karras",
    "guidance_scale": 7.5,
    "seed": 2**40 + 1,
    "width": 832,
    "height": 1216,
    "num_images": 1,
    "image_index": 0,
    "loras": [{"id": "mara", "weight": 1.0}, {"id": "night-2", "weight": 0.85}],
    "lora_hashes": {"mara": "0123456789ab", "night-2": "ba9876543210"},
    "model": {"base": "stabilityai/stable-diffusion-xl-base-1.0"},
    "intaglio": "0.1.0",
}
WORDS = "a füchs 狐, (red:1.2), moonlight <lora:mara:1> <lora:night-2:0.85>"


def picture(kind: str, **changes: Any) -> bytes:
    return encode_image(np.zeros((8, 8, 3), np.uint8), output_format=kind, metadata=MADE | changes)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_the_webui_reads_what_was_asked_for(kind: str) -> None:
    assert read_webui(picture(kind)) == {
        "Prompt": WORDS,
        "Negative prompt": "blurry, text",
        "Steps": "20",
        "Sampler": "DPM++ 2M Karras",
        "CFG scale": "7.5",
        "Seed": "1099511627777",
        "Size": "832x1216",
        "Size-1": "832",
        "Size-2": "1216",
        "Model": "stable-diffusion-xl-base-1.0",
        "Lora hashes": "mara: 0123456789ab, night-2: ba9876543210",
        "Version": "intaglio 0.1.0",
    }


def test_skipped_layers_are_counted_from_the_last() -> None:
    assert read_webui(picture("png", clip_skip=1))["Clip skip"] == "3"
    assert "Clip skip" not in read_webui(picture("png", clip_skip=0))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_civitai_reads_what_was_asked_for(kind: str) -> None:
    found = read_civitai(picture(kind))
    assert (found["prompt"], found["negativePrompt"]) == (WORDS, "blurry, text")
    assert (found["steps"], found["sampler"], found["cfgScale"]) == ("20", "DPM++ 2M Karras", "7.5")
    assert (found["seed"], found["Size"]) == ("1099511627777", "832x1216")
    assert found["resources"] == [
        {"type": "lora", "name": "mara", "weight": 1.0, "hash": "0123456789ab"},
        {"type": "lora", "name": "night-2", "weight": 0.85, "hash": "ba9876543210"},
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        "a sign that reads\nNegative prompt: nothing",
        "a sign, Negative prompt: nothing",
        "recipe\nSteps: 3, Sampler: none\nTemplate: x",
        r"the words \<lora:night-2:0.1>",
        "Steps: 3",
        "x\n\n \t Steps: 3, Sampler: none",
        'quotes ", colons: and, commas',
    ],
)
def test_words_that_look_like_the_format_stay_words(prompt: str) -> None:
    """No reader takes a part of the prompt for another field, or for a LoRA."""
    data = picture("png", prompt=prompt, loras=[], lora_hashes={}, added_words=[])
    for negative, steps, resources in (
        (read_webui(data)["Negative prompt"], read_webui(data)["Steps"], []),
        (read_civitai(data)["negativePrompt"], read_civitai(data)["steps"], read_civitai(data)["resources"]),
    ):
        assert (negative, steps, resources) == ("blurry, text", "20", [])


def test_images_of_one_request_have_its_seed_and_their_place() -> None:
    found = [read_webui(picture("png", num_images=8, image_index=index)) for index in range(8)]
    assert {one["Seed"] for one in found} == {str(MADE["seed"])}
    assert [(one["Batch size"], one["Batch pos"]) for one in found] == [
        ("8", str(index)) for index in range(8)
    ]


def test_every_scheduler_has_a_label() -> None:
    for scheduler, names in SCHEDULERS.items():
        assert read_webui(picture("png", scheduler=scheduler))["Sampler"] == names.a1111


def test_every_schedule_has_a_label() -> None:
    for schedule, names in SCHEDULES.items():
        found = read_webui(picture("png", scheduler="dpmpp_2m_sde", schedule=schedule))
        assert (found["Sampler"], found["Schedule type"]) == ("DPM++ 2M SDE", names.a1111)


@pytest.mark.parametrize("scheduler", [name for name, names in SCHEDULERS.items() if names.placed])
def test_a_label_that_means_a_schedule_has_one_beside_it(scheduler: str) -> None:
    """Without "Schedule type" readers take DPM++ 2M for Karras."""
    own = read_webui(picture("png", scheduler=scheduler, schedule=None))
    assert own["Schedule type"] == SCHEDULES[OWN_SCHEDULE].a1111
    for field in ("timesteps", "sigmas"):
        found = read_webui(picture("png", scheduler=scheduler, **{field: [9.0, 1.0]}))
        assert found["Schedule type"] == "Custom"
    assert "Schedule type" not in read_webui(picture("png", scheduler="euler"))


def test_an_absent_negative_prompt_has_no_line() -> None:
    assert read_webui(picture("png", negative_prompt=None))["Negative prompt"] == ""


@pytest.mark.parametrize("text", ["\n", " ", "\n ", "<", "<a", "Negative prompt"])
def test_long_words_take_linear_time(text: str) -> None:
    started = time.process_time()
    assert generation_text(MADE | {"prompt": text * (200_000 // len(text))})
    assert time.process_time() - started < 1


@pytest.mark.parametrize("changes", [{"steps": "many"}, {"loras": 3}, {"prompt": "<lora:"}, {"seed": None}])
def test_what_is_no_requests_metadata_has_no_text(changes: dict[str, Any]) -> None:
    """Any client may call `postprocess`."""
    assert generation_text(MADE | changes) is None
