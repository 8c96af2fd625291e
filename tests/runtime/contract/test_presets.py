"""The file of presets: what it may hold, and what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.contract.models import SDXL
from intaglio.contract.presets import KINDS, QUALITY_INPUTS, Presets, check_presets, load_presets, with_text
from intaglio.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"


def written(folder: Path, text: str) -> Path:
    path = folder / "presets.yaml"
    path.write_text(text)
    return path


def test_values_are_the_inputs_and_figures_are_not(tmp_path: Path) -> None:
    text = "quality: {draft: {steps: 8, guidance_scale: 7.1, figures: {seconds: 0.6, front: [1, 2]}}}"
    (draft,) = load_presets(written(tmp_path, text)).quality.values()
    assert draft.values == {"steps": 8, "guidance_scale": 7.1}
    assert draft.figures == {"seconds": 0.6, "front": [1, 2]}


def test_as_json_it_is_the_same() -> None:
    for name in ("presets.yaml", "sdxl-presets.yaml"):
        presets = load_presets(CONFIGS / name)
        assert presets.quality
        assert Presets.model_validate_json(presets.model_dump_json(exclude_none=True)) == presets


def test_a_preset_sets_how_to_draw_and_not_what() -> None:
    assert {"steps", "scheduler", "guidance_scale"} <= set(QUALITY_INPUTS)
    assert not {"prompt", "seed", "width", "images", "loras", "output_format", *KINDS} & set(QUALITY_INPUTS)
    assert set(KINDS) < {port.name for port in SDXL.inputs}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quality: {a: {step: 8}}", r"quality\.a: step: no input .*; did you mean steps\?; allowed: steps, "),
        ("quality: {a: {seed: 8}}", r"quality\.a: seed: no input that a quality preset may set"),
        ("quality: {a: {steps: 0}}", r"quality\.a: steps: 0 is out of range; allowed: at least 1"),
        ("quality: {a: {steps: 151}}", r"quality\.a: steps: 151 is out of range"),
        ("quality: {a: {steps: eight}}", r"quality\.a: steps: str; allowed: an integer"),
        ("quality: {a: {guidance_scale: .nan}}", r"quality\.a: guidance_scale: nan is out of range"),
        ("quality: {a: {scheduler: eulr}}", r"quality\.a: scheduler: 'eulr' is unknown; did you mean euler"),
        (
            "quality: {a: {guidance_begin: 0.5, guidance_end: 0.5}}",
            r"quality\.a: guidance_begin: 0\.5 is not",
        ),
        ("quality: {a: {}}", r"quality\.a: sets nothing"),
        ("quality: {A: {steps: 8}}", r"quality has the key .*; allowed: at most 64 lower-case letters"),
        ("styles: {a: {}}", r"styles\.a: says nothing"),
        ("styles: {a: {promt: x}}", r"unknown key styles\.a\.promt; did you mean prompt"),
        ("styles: {a: {prompt: '{prompt} <lora:x'}}", r"styles\.a\.prompt: .*is not closed"),
        ("styles: {a: {negative_prompt: <lora:x>}}", r"styles\.a\.negative_prompt: <lora:x> applies"),
        ("styles: {a: {negative_prompt: 'no {prompt}'}}", r"styles\.a\.negative_prompt: \{prompt\} has no"),
        ("negatives: {a: 'no {prompt}'}", r"negatives\.a: \{prompt\} has no place in a negative prompt"),
        ("negatives: {a: ''}", r"negatives\.a is ''"),
        ("scenes: {a: 5}", r"scenes\.a is 5; allowed: text"),
        ("scene: {a: x}", r"unknown key scene; did you mean scenes"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"presets.yaml: {says}"):
        load_presets(written(tmp_path, text))


def test_a_deployment_bounds_the_values(tmp_path: Path) -> None:
    path = written(tmp_path, "quality: {a: {steps: 60}, b: {guidance_scale: 0}}")
    check_presets(path, most_steps=60, guidance_modes=(True, False))
    with pytest.raises(ConfigError, match=r"quality\.a\.steps 60 is above limits\.steps 59"):
        check_presets(path, most_steps=59, guidance_modes=(True, False))
    with pytest.raises(ConfigError, match=r"quality\.b\.guidance_scale 0 needs a guidance mode"):
        check_presets(path, most_steps=60, guidance_modes=(True,))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a drawing of {prompt}, ink", "a drawing of a {prompt}, ink"),
        ("on a beach", "a {prompt}, on a beach"),
    ],
)
def test_a_template_takes_the_prompt_and_other_texts_follow_it(text: str, shown: str) -> None:
    assert with_text("a {prompt}", text) == shown
