"""From drawn pictures to the files of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import PIL.Image
import pytest
import yaml

from intaglio_client.tune.drawing import Drawing, draw_scenes
from intaglio_client.tune.grid import ANCHORS, REFERENCE, Grid
from intaglio_client.tune.kept import Kept
from intaglio_client.tune.run import Built, Measures, measure_rows, results_of, write_results
from intaglio_client.tune.scenes import Scene

from .drawn import BUILD, Counted, FakeClient
from .rows import setting

SCENES = tuple(Scene(name, name, 32, 32, seed=index) for index, name in enumerate("abc"))
GRID = Grid(REFERENCE, (*ANCHORS, setting(8), setting(12)))


def built(name: str, key: str) -> Built:
    manifest = SimpleNamespace(key=key, runtime="onnxruntime", target="cpu", precision="fp32")
    return Built(cast(Any, SimpleNamespace(name=name)), cast(Any, manifest))


def drawn(folder: Path, made: Built, *settings: Any) -> Drawing:
    key = made.manifest.key
    drawing = Drawing(SCENES, settings, Kept(folder / "pictures" / made.deployment.name, key), made.manifest)
    draw_scenes(drawing, cast(Any, FakeClient(build=key)), Counted())
    return drawing


def test_pictures_become_rows_presets_and_files(tmp_path: Path) -> None:
    one = built("small", BUILD)
    drawing = drawn(tmp_path, one, *GRID.settings, REFERENCE)
    measures = Measures(judge=lambda name, pixels: {"light": float(pixels.mean())})
    rows = measure_rows([one], [drawing], REFERENCE, measures)
    by_name = {row.setting.name: row for row in rows}
    assert list(by_name) == [one.name for one in GRID.settings]
    eight = by_name["dpmpp_2m_karras 8"]
    assert eight.ratio.value == pytest.approx(8 / 30)
    assert eight.judged["light"].value == 128 + 12
    assert eight.judged_gain["light"].value == 12 - 3
    results = results_of(one, SCENES, 0, GRID, rows)
    assert results.presets["standard"].setting.inputs["steps"] == 30  # 12 are 7 levels off, 30 only 2
    written = write_results(results, drawing, REFERENCE, tmp_path, tmp_path / "mine.yaml")
    assert list(yaml.safe_load(written.presets.read_text())["quality"]) == list(results.presets)
    assert "dpmpp_2m_karras 8 | 0.80 |" in written.page.read_text()
    for path in (written.chart, written.sheet):
        PIL.Image.open(path).verify()


def test_another_build_is_listed_apart_and_compared_with_the_first(tmp_path: Path) -> None:
    first, other = built("small", BUILD), built("small-fp16", "c" * 64)
    drawings = [drawn(tmp_path, first, *ANCHORS, REFERENCE), drawn(tmp_path, other, *ANCHORS)]
    rows = measure_rows([first, other], drawings, REFERENCE, Measures())
    assert [row.setting.name for row in rows[3:]] == [f"small-fp16: {one.name}" for one in ANCHORS]
    assert rows[3].setting.apart == "build onnxruntime cpu fp32"
    assert rows[4].ratio.value == pytest.approx(1.0)
    assert rows[5].psnr_gain.value > 0
