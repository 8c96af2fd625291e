"""Options that change the image, measured on a build of random weights; the rules, on rendered truth."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from PIL import Image

from benchmarks import options
from benchmarks.measuring.results import read_json
from benchmarks.options import (
    NO_OPTION,
    SETTINGS,
    SceneCase,
    main,
    markdown_of,
    scene_case,
    summary_of,
)
from intaglio.errors import ConfigError
from miniature import painter
from miniature.world import control_map

from ..tiny import make_modules

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/miniature_options.json"
CONFIG = """
base: [{folder: model}]
controlnets: {skeleton: {folder: skeleton, type: pose}}
profiles: {sizes: [[256, 256]], batch: 1, guidance: ["on", "off"], text_chunks: 1}
precision: fp32
runtime: onnxruntime
build: build
execution: {threads: 1}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, modules = tmp_path_factory.mktemp("options"), make_modules()
    parts = {name: module for name, module in modules.items() if "." not in name}
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(ROOT / "miniature/model/scheduler")
    diffusers.StableDiffusionXLPipeline(**parts, scheduler=scheduler, add_watermarker=False).save_pretrained(
        folder / "model"
    )
    modules["controlnet.pose"].save_pretrained(folder / "skeleton")
    path = folder / "tiny.yaml"
    path.write_text(CONFIG)
    return path


Painted = list[tuple[int, bytes]]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> Painted:
    """Scene and pixels of every picture, in the order in which they are made."""
    made: Painted = []

    def run_image(case: SceneCase, image: int, *rest: Any, **settings: float) -> bytes:
        png = original(case, image, *rest, **settings)
        made.append((image, np.asarray(Image.open(io.BytesIO(png))).tobytes()))
        return png

    original: Callable[..., bytes] = options.run_image
    monkeypatch.setattr(options, "run_image", run_image)
    return made


def test_every_option_paints_every_scene_and_a_second_run_goes_on(
    config: Path, tmp_path: Path, painted: Painted, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "options.json"

    def run(*, images: int) -> dict[str, Any]:
        painted.clear()
        main(config, out, work=tmp_path / "work", images=images, steps=2)
        return read_json(out)

    first = run(images=2)
    each = len(SETTINGS)
    assert [image for image, _ in painted] == [0] * 2 * each + [1] * each, "each once before the clock starts"
    assert len(set(painted[:each])) == len(set(painted[2 * each :])) == each, "every option changes the image"
    assert set(painted[:each]) == set(painted[each : 2 * each]), "and nothing else does"
    assert {found["option"]: found["settings"] for found in first["options"]} == SETTINGS
    for found in first["options"]:
        assert {figure["n"] for figure in found["figures"].values()} == {found["ratio"]["n"]} == {2}
    assert first["options"][0]["ratio"]["median"] == 1.0
    assert out.with_suffix(".md").read_text() == markdown_of(first)
    assert run(images=2)["options"] == first["options"]
    assert painted == []
    run(images=3)
    assert [image for image, _ in painted] == [2] * 2 * each
    monkeypatch.setattr(options, "SETTINGS", {NO_OPTION: {}})
    run(images=2)
    assert [image for image, _ in painted] == [0, 0, 1], "other settings start again"


def test_scenes_are_those_that_the_miniature_is_evaluated_on(config: Path) -> None:
    case, (first, second) = scene_case(config, images=2), painter.cases(2)
    assert (case.steps, case.guidance_scale, case.negative_prompt, case.control) == (
        painter.STEPS,
        painter.GUIDANCE,
        None,
        "skeleton",
    )
    assert [case.prompt_of(image) for image in range(2)] == [first.prompt, second.prompt]
    assert [case.seed_of(image) for image in range(2)] == [0, 1]
    drawn = np.asarray(Image.open(io.BytesIO(case.control_image(1))))
    np.testing.assert_array_equal(drawn, control_map(second.scene, second.rendered, "pose"))


@pytest.mark.parametrize(
    ("said", "instead"),
    [("type: pose", "type: canny"), ("[[256, 256]]", "[[256, 192]]")],
    ids=["no poses", "no such size"],
)
def test_a_deployment_that_cannot_draw_the_scenes_is_refused(tmp_path: Path, said: str, instead: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(CONFIG.replace(said, instead))
    with pytest.raises(
        ConfigError, match=r"wants no fuse, a ControlNet of type pose, and \[256, 256\] in sizes"
    ):
        scene_case(path, images=2)


def test_differences_are_of_pairs() -> None:
    def rows(seconds: float, pck: float) -> dict[str, float]:
        return {"seconds": seconds, "attire": 1.0, "place": 1.0, "pck": pck}

    found = summary_of(
        [{NO_OPTION: rows(2, 0.5), "half": rows(1, 0.25)}, {NO_OPTION: rows(8, 1.0), "half": rows(4, 0.75)}],
        "half",
    )
    assert found["ratio"] == {"median": 0.5, "low": 0.5, "high": 0.5, "n": 2}
    assert found["seconds"]["median"] == 2.5
    pck = found["figures"]["pck"]
    assert (pck["mean"], pck["error"], pck["n"]) == (0.5, pytest.approx(0.25), 2)
    assert pck["difference"] == {"mean": -0.25, "error": 0.0, "n": 2}, (
        "scenes differ by more than the option does"
    )


def test_the_committed_page_is_that_of_the_results() -> None:
    results = read_json(RESULTS)
    assert [found["option"] for found in results["options"]] == list(SETTINGS)
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == markdown_of(results)
