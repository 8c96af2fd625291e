"""From drawn pictures to the table, the page, the plot; a folder of references."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest

from intaglio.contract.config import load_deployment
from intaglio.contract.methods import METHODS
from intaglio.errors import ConfigError
from intaglio_client.bench.quality.measures import compared_rows, measures_of, opened_networks
from intaglio_client.bench.quality.options import NO_OPTION, OPTIONS, few_step_settings, possible
from intaglio_client.bench.quality.report import Quality, cells_of, data_of, front_of, header_of, notes_of
from intaglio_client.bench.quality.written import write_quality
from intaglio_client.tune.drawing import Drawing, draw_scenes
from intaglio_client.tune.kept import Kept
from intaglio_client.tune.run import Built, measure_rows
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import named_setting

from ...tune.deployments import deployment
from ...tune.drawn import BUILD, Counted, FakeClient
from .networks import write_extractors

SCENES = tuple(Scene(name, f"a {name}", 32, 32, seed=index) for index, name in enumerate("abc"))
STEPS = named_setting({"steps": 20}, name="no option")
FEWER = named_setting({"steps": 5})
MACHINE = {"card": None, "commit": "", "processor": "a processor", "cores": 2, "versions": {}}


def drawn(folder: Path, name: str, key: str, *settings: Any) -> tuple[Built, Drawing]:
    manifest = cast(Any, SimpleNamespace(key=key, runtime="onnxruntime", target="cpu", precision="fp32"))
    drawing = Drawing(SCENES, settings, Kept(folder / name, key), manifest)
    draw_scenes(drawing, cast(Any, FakeClient(build=key)), Counted())
    return Built(cast(Any, SimpleNamespace(name=name)), manifest), drawing


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Quality, list[Drawing], Path]:
    """Two builds and one option; pictures are flat, the lighter the fewer steps they have."""
    first, drawing = drawn(tmp_path, "small", BUILD, STEPS, FEWER)
    other, second = drawn(tmp_path, "small-fp16", "c" * 64, STEPS)
    references = tmp_path / "references"
    references.mkdir()
    for index in range(3):
        pixels = np.full((40, 40, 3), 130 + index, np.uint8)
        PIL.Image.fromarray(pixels).save(references / f"{index}.png")
    looking = opened_networks(write_extractors(tmp_path), references)
    measures = measures_of(looking, lambda name, pixels: {"dark": 1 - float(pixels.mean()) / 255}, SCENES)
    drawings = [drawing, second]
    rows = measure_rows([first, other], drawings, STEPS, measures)
    reference = compared_rows(looking, drawings, rows)
    quality = Quality("small", first.described, 3, 0, rows, MACHINE, ("left out: x: y",), reference)
    return quality, drawings, tmp_path


def test_rows_are_options_and_builds_beside_no_option(measured: tuple[Quality, list[Drawing], Path]) -> None:
    quality = measured[0]
    names = [row.setting.name for row in quality.rows]
    assert names == ["no option", "5", "small-fp16: no option"]
    plain, fewer, other = quality.rows
    assert plain.psnr.value == 100, "it is compared with itself"
    assert fewer.ratio.value == pytest.approx(5 / 20)
    assert fewer.judged_gain["dark"].value == pytest.approx(-15 / 255), "148 against 133"
    assert other.psnr.value == 100
    assert set(plain.judged) == {"dark", "clip"}, "the score of CLIP is a figure as those of a judge"
    assert front_of(quality.rows, "dark")[0] is fewer
    assert len(front_of(quality.rows, "dark")) == 2


def test_the_table_has_differences_and_distances(measured: tuple[Quality, list[Drawing], Path]) -> None:
    quality = measured[0]
    header = header_of(quality)
    assert header == [
        "setting",
        "seconds",
        "ratio",
        "dark",
        "clip",
        "FID",
        "KID",
        "PSNR dB",
        "SSIM",
        "perceptual",
    ]
    rows = {row[0].removeprefix("* "): dict(zip(header, row, strict=True)) for row in cells_of(quality)}
    assert rows["5"]["dark"].startswith("0.420 (-0.059 ± 0.000)")
    assert rows["no option"]["PSNR dB"] == ""
    assert "small-fp16: no option (onnxruntime cpu fp32)" in rows
    distances = quality.reference["rows"]
    assert distances["5"]["fid"] > distances["no option"]["fid"], "148 is further from 131 than 133"
    notes = "\n".join(notes_of(quality))
    assert "3 pictures of each row beside 3 of" in notes
    assert "FID is too large then" in notes
    assert "left out: x: y" in notes


def test_files_are_written(measured: tuple[Quality, list[Drawing], Path]) -> None:
    quality, _, folder = measured
    files = write_quality(quality, folder / "out")
    assert min(PIL.Image.open(files["plot"]).size) > 300
    page = files["page"].read_text()
    assert "| setting | seconds | ratio | dark | clip |" in page
    assert "![quality.png](quality.png)" in page
    assert data_of(quality)["rows"][1]["judged_gain"]["dark"]["n"] == 3


def test_without_a_judge_the_page_says_what_is_missing(tmp_path: Path) -> None:
    first, drawing = drawn(tmp_path, "small", BUILD, STEPS, FEWER)
    rows = measure_rows([first], [drawing], STEPS, measures_of(opened_networks(None, None), None, SCENES))
    quality = Quality("small", "cpu", 3, 0, rows, MACHINE)
    assert notes_of(quality) == [
        "no judge: whether a changed picture is worse, only a judge can tell (--judge)"
    ]
    write_quality(quality, tmp_path / "out")


def test_a_reference_needs_a_network_and_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--reference needs a network"):
        opened_networks(None, tmp_path)
    extractors = write_extractors(tmp_path)
    with pytest.raises(ConfigError, match="holds no picture"):
        opened_networks(extractors, tmp_path)
    (tmp_path / "one.png").write_bytes(b"no picture")
    (tmp_path / "two.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"one\.png"):
        opened_networks(extractors, tmp_path)


def test_options_that_the_deployment_cannot_draw_are_named(tmp_path: Path) -> None:
    kept, left_out = possible(
        deployment(tmp_path, profiles={"sizes": [[64, 64]], "guidance": ["on"]}), OPTIONS, SCENES
    )
    names = {one.name for one in kept}
    assert {"steps 10", "dpmpp_2m_karras 15"} <= names
    assert "left out: control_every 2: no scene has a control" in left_out
    assert any(line.startswith("left out: guidance_end 0.5: ") for line in left_out)
    assert NO_OPTION.inputs == {}


def test_two_options_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their pictures would have one folder, also where only signs tell the names apart."""
    small = deployment(tmp_path, profiles={"sizes": [[64, 64]], "guidance": ["on"]})
    for name, other in (("fast", "fast"), ("fast+", "fast"), ("no option", "other")):
        options = (named_setting({"steps": 10}, name=name), named_setting({"steps": 15}, name=other))
        with pytest.raises(ConfigError, match="two settings are named"):
            possible(small, options, SCENES)


def test_few_step_loras_are_drawn_with_their_own_guidance() -> None:
    (found,) = few_step_settings(load_deployment(Path(__file__).parents[4] / "configs/miniature.yaml"))
    assert found.inputs == {
        "loras": [{"id": "lcm"}],
        "guidance_scale": METHODS["lcm"].values["guidance_scale"],
    }
