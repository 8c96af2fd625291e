"""Scenes for `intaglio tune` and `bench quality`, and what the rules say of their own renderings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from miniature import palette
from miniature.painter import held_out_case
from miniature.tuning import judge, write_scenes


def test_scenes_of_mara_stand_beside_held_out_ones(tmp_path: Path) -> None:
    entries = yaml.safe_load(write_scenes(tmp_path, 2, mara=1).read_text())
    assert [entry["name"] for entry in entries] == ["held-out-000", "mara-000", "held-out-001"]
    assert entries[1]["prompt"].startswith("mara ")
    assert entries[1]["loras"] == {"mara": None}
    assert all((tmp_path / entry["controls"][0]["image"]).is_file() for entry in entries)


def test_a_rendering_is_as_its_scene_asks() -> None:
    found = judge("held-out-000", held_out_case(0).rendered.picture)
    assert found["attire"] == found["place"] == 1.0
    assert found["pck"] > 0.8


def test_identity_is_the_share_of_maras_colours() -> None:
    picture = np.full((64, 64, 3), 128, np.uint8)
    assert judge("mara-000", picture) == {"identity": 0.0}
    picture[:16] = palette.MARA_TOP
    assert abs(judge("mara-000", picture)["identity"] - 0.25) < 0.01


def test_other_scenes_have_no_figures() -> None:
    assert judge("beach", np.zeros((8, 8, 3), np.uint8)) == {}
