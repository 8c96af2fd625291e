"""The order of pictures, and going on where a run stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from intaglio.errors import ConfigError, Unavailable
from intaglio_client.tune.drawing import Drawing, draw_scenes, in_turn, missing_weight
from intaglio_client.tune.kept import Kept
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import Setting

from .drawn import BUILD, Counted, FakeClient
from .rows import setting

BASELINE, EIGHT, TWELVE = (setting(steps) for steps in (30, 8, 12))
LORA = Setting("lora fast", {"loras": [{"id": "fast"}], "steps": 4}, "another model", weight=4)
SCENES = tuple(Scene(name, name, 32, 32, seed=index) for index, name in enumerate("ab"))


def drawing(folder: Path, *settings: Setting, build: str = BUILD) -> Drawing:
    manifest = cast(Any, SimpleNamespace(key=build))
    return Drawing(SCENES, settings or (BASELINE, EIGHT, TWELVE), Kept(folder, build), manifest)


def draw(made: Drawing, client: FakeClient) -> float:
    counted = Counted()
    draw_scenes(made, cast(Any, client), counted)
    return counted.weight


def test_another_setting_is_first_at_every_scene_and_the_baseline_always() -> None:
    settings = (BASELINE, LORA, EIGHT, TWELVE)
    assert list(in_turn(settings, 0)) == [BASELINE, EIGHT, TWELVE, LORA]
    assert list(in_turn(settings, 1)) == [BASELINE, TWELVE, EIGHT, LORA]


def test_a_picture_without_a_time_goes_before_each_set_of_loras(tmp_path: Path) -> None:
    """A LoRA's own is asked for as its method draws it: of a single step the server would warn."""
    client = FakeClient()
    draw(drawing(tmp_path, BASELINE, LORA, EIGHT), client)
    assert [steps for prompt, steps in client.steps if prompt == "a"] == [1, 30, 8, 4, 4]


def test_seconds_stand_beside_those_of_the_baseline(tmp_path: Path) -> None:
    made = drawing(tmp_path)
    assert draw(made, FakeClient()) == missing_weight(drawing(tmp_path / "other")) == 2 * 50
    taken = made.kept.taken(SCENES[1], EIGHT)
    assert taken is not None
    assert (taken.seconds, taken.baseline) == (pytest.approx(0.8), pytest.approx(3.0))


def test_a_second_call_goes_on_and_draws_the_baseline_beside_what_is_missing(tmp_path: Path) -> None:
    made = drawing(tmp_path)
    with pytest.raises(Unavailable):
        draw(made, FakeClient(fails_after=7))  # scene a with its single step, and of b that and two pictures
    assert missing_weight(made) == 30 + 8
    second = FakeClient()
    assert draw(made, second) == 38
    assert second.steps == [("b", 1), ("b", 30), ("b", 8)]
    third = FakeClient()
    assert draw(made, third) == 0
    assert third.asked == []


def test_another_build_scene_or_setting_is_drawn_again(tmp_path: Path) -> None:
    made = drawing(tmp_path)
    draw(made, FakeClient())
    assert missing_weight(drawing(tmp_path, build="c" * 64)) == 100
    changed = Setting(EIGHT.name, {**EIGHT.inputs, "guidance_end": 0.8}, weight=8)
    assert missing_weight(drawing(tmp_path, BASELINE, changed)) == 76
    made.kept.picture(SCENES[0], EIGHT).unlink()
    assert missing_weight(made) == 38


def test_a_server_of_another_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serves another build"):
        draw(drawing(tmp_path), FakeClient(build="c" * 64))
    assert missing_weight(drawing(tmp_path)) == 100
