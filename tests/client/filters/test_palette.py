"""The palette filter knows the miniature's character by her colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from intaglio.contract.filters import filter_from_entry
from intaglio.errors import ConfigError
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.palette import lab_of
from intaglio_client.filters.verdict import Candidate
from miniature import palette
from miniature.dataset import held_out_scene
from miniature.styles import as_mara
from miniature.world import render

MARA = {"hair": palette.MARA_HAIR, "top": palette.MARA_TOP, "bottom": palette.MARA_BOTTOM}
COLOURS = {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in MARA.items()}


def test_lab_is_that_of_scikit_image() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.float32)
    assert np.abs(lab_of(rgb) - rgb2lab(rgb / 255)).max() < 0.01


def test_on_rendered_truth_it_finds_mara_and_nobody_else() -> None:
    """Precision and recall over held-out scenes, each with and without her."""
    spec = filter_from_entry({"kind": "palette", "colours": COLOURS, "least": 0.005})
    found = wrong = 0
    with opened_filters([spec]) as (judge,):
        for index in range(60):
            scene, _ = held_out_scene(index)
            found += judge(Candidate(render(as_mara(scene)).picture, "mara")).accepted
            wrong += judge(Candidate(render(scene).picture, "other")).accepted
    assert found / (found + wrong) >= 0.95
    assert found / 60 >= 0.9


def test_colours_come_from_a_file_and_its_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "palettes.yaml"
    entry = {"kind": "palette", "file": str(path), "character": "mara"}
    path.write_text("characters:\n  mara: {hair: '#0a9687'}\n  nobody: {}\n")
    picture = np.full((8, 8, 3), palette.MARA_HAIR, np.uint8)
    with opened_filters([filter_from_entry(entry)]) as (judge,):
        assert judge(Candidate(picture, "p")).scores == {"hair": 1.0}
        assert judge(Candidate(255 - picture, "p")).reason == "hair fills 0.0000 of it, below 0.01"
    for character, says in (
        ("maria", "no character 'maria'; characters: mara, nobody"),
        ("nobody", "no colour"),
    ):
        spec = filter_from_entry({**entry, "character": character})
        with pytest.raises(ConfigError, match=says), opened_filters([spec]):
            pass
