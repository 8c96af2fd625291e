"""The `quality` part of a file of presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.errors import ConfigError
from intaglio_client.tune.presets_file import quality_part, with_quality_part, write_quality_part

from .rows import row, setting

PRESETS = {"standard": row(setting(15), 5.0, [38.04, 38.04])}
STYLES = "# mine\nstyles:\n  ink: {prompt: 'ink of {prompt}'}  # kept\n"
EXPECTED = {
    "standard": {
        "scheduler": "dpmpp_2m_karras",
        "steps": 15,
        "figures": {"seconds": 5.0, "ratio": 0.5, "psnr": 38.0, "error": 3.2, "ssim": 0.9},
    }
}


def test_the_part_has_inputs_and_figures() -> None:
    assert yaml.safe_load(quality_part(PRESETS)) == {"quality": EXPECTED}


def test_the_other_parts_of_a_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "presets.yaml"
    path.write_text("quality:\n  draft: {steps: 3}\n\n# of styles\n" + STYLES)
    write_quality_part(path, PRESETS)
    written = path.read_text()
    assert yaml.safe_load(written) == {
        "quality": EXPECTED,
        "styles": {"ink": {"prompt": "ink of {prompt}"}},
    }
    assert written.endswith(STYLES)


def test_a_file_without_the_part_gets_it_at_its_end() -> None:
    assert with_quality_part("styles: {}", "quality: {}\n") == "styles: {}\nquality: {}\n"


def test_a_new_file_says_where_it_comes_from(tmp_path: Path) -> None:
    write_quality_part(tmp_path / "new.yaml", PRESETS)
    assert (tmp_path / "new.yaml").read_text().startswith("# Chosen by `intaglio tune`")


@pytest.mark.parametrize(
    "before",
    [
        "quality:\n  mine: {steps: 9}\n  standard: {steps: 3}\n",
        '"quality":\n  mine: {steps: 9}\n',
        "quality : {mine: {steps: 9}}\n",
        "quality: {\n  mine: {steps: 9},\n}\n",
        "quality: {\nmine: {steps: 9}\n}\n",
    ],
)
def test_presets_of_the_users_own_stay(before: str, tmp_path: Path) -> None:
    path = tmp_path / "presets.yaml"
    path.write_text(before + STYLES)
    write_quality_part(path, PRESETS)
    written = path.read_text()
    assert yaml.safe_load(written)["quality"] == {"mine": {"steps": 9}, **EXPECTED}
    assert written.endswith(STYLES)


def test_a_preset_that_is_not_chosen_any_more_goes(tmp_path: Path) -> None:
    path = tmp_path / "presets.yaml"
    path.write_text("quality:\n  ultra: {steps: 99}\n")
    write_quality_part(path, PRESETS)
    assert yaml.safe_load(path.read_text()) == {"quality": EXPECTED}


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("{quality: {mine: {steps: 9}}, styles: {}}\n", "not in the outermost braces"),
        ("quality: [\n", "is not YAML"),
        ("- quality\n", "is no mapping"),
        ("quality: 3\n", "quality is no mapping"),
        ("quality: &own\n  mine: {steps: 9}\nlater: *own\n", "anchor"),
    ],
)
def test_a_file_that_cannot_be_edited_is_refused_and_stays(before: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "presets.yaml"
    path.write_text(before)
    with pytest.raises(ConfigError, match=says):
        write_quality_part(path, PRESETS)
    assert path.read_text() == before
