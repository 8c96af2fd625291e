"""Which pictures on disk count."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.loras.sets import ServedLora, ServedLoras
from intaglio_client.parameters import Lora
from intaglio_client.tune.kept import Kept, Taken
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import Setting, named_setting

from .rows import setting

PLAIN = Scene("a", "a fox", 32, 32)
FAST = named_setting({"loras": [{"id": "fast"}]})
TAKEN = Taken(1.0, 2.0)


def served(digit: str, **changes: object) -> ServedLoras:
    entry = {"kind": "style", "bounds": (0.0, 1.0), "versions": (digit * 64,), **changes}
    return ServedLoras(loras={"fast": ServedLora.model_validate(entry)}, presets={"both": {"fast": 0.5}})


@pytest.mark.parametrize(
    ("scene", "inputs"),
    [
        (PLAIN, FAST),
        (Scene("b", "a fox", 32, 32, loras=(Lora("fast"),)), setting(8)),
        (Scene("c", "a fox <lora:fast>", 32, 32), setting(8)),
        (Scene("d", "a fox <lora:both:1>", 32, 32), setting(8)),
    ],
)
def test_a_picture_of_another_version_of_a_lora_does_not_count(
    scene: Scene, inputs: Setting, tmp_path: Path
) -> None:
    Kept(tmp_path, "b", served("1")).keep(scene, inputs, b"png", TAKEN)
    assert Kept(tmp_path, "b", served("1")).taken(scene, inputs) == TAKEN
    for other in (served("2"), served("1", method="lcm"), served("1", weight=0.5)):
        assert Kept(tmp_path, "b", other).taken(scene, inputs) is None


def test_a_picture_without_loras_does_not_depend_on_them(tmp_path: Path) -> None:
    Kept(tmp_path, "b", served("1")).keep(PLAIN, setting(8), b"png", TAKEN)
    assert Kept(tmp_path, "b", served("2")).taken(PLAIN, setting(8)) == TAKEN
