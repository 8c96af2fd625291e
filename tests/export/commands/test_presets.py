"""`intaglio presets`: what a deployment has, and whether its build serves it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from intaglio.builds.published_presets import publish_presets
from intaglio.cli import main
from intaglio.contract.presets import load_presets

FILE = """
quality: {draft: {steps: 8, guidance_scale: 7.5, figures: {psnr: 31.0}}}
styles: {beach: {prompt: "sand drawing of {prompt}"}}
scenes: {beach: on a beach}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "presets.yaml").write_text(FILE)
    values = {"base": {"folder": "x"}, "profiles": {"sizes": [[64, 64]]}, "presets": "presets.yaml"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "a.yaml"


def test_list_is_the_file_and_says_whether_it_is_served(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["presets", "list", "--config", str(config)]) == 0
    shown = capsys.readouterr()
    assert re.search(
        "preset +draft +steps 8, guidance_scale 7.5, figures psnr 31|figures psnr 31, steps 8", shown.out
    )
    assert f"run intaglio build {config}" in shown.err
    publish_presets(config.parent / "build/a", load_presets(config.with_name("presets.yaml")))
    assert main(["presets", "list", "--config", str(config), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == yaml.safe_load(FILE) | {"negatives": {}, "served": True}
    assert not shown.err
    assert main(["presets", "list", "--config", str(config), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == ["preset draft", "style beach", "scene beach"]


def test_show_finds_an_id_in_every_part(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "beach", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "id": "beach",
        "styles": {"prompt": "sand drawing of {prompt}"},
        "scenes": "on a beach",
    }
    assert main(["presets", "show", "beach", "--config", str(config), "-q"]) == 0
    assert capsys.readouterr().out.split() == ["style", "scene"]


def test_what_is_unknown_is_answered_with_what_is_near(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["presets", "show", "drat", "--config", str(config)]) == 2
    assert "'drat' is unknown; did you mean draft?; allowed: beach, draft" in capsys.readouterr().err


def test_a_deployment_without_a_file_says_how_to_have_one(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace("presets: presets.yaml\n", ""))
    assert main(["presets", "list", "--config", str(config)]) == 1
    assert "has no presets; add presets: presets.yaml" in capsys.readouterr().err
