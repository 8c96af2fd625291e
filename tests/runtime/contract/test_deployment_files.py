"""A deployment with the values of its default preset."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import ConfigError


def loaded(folder: Path, *, presets: str | None = "presets.yaml", **defaults: object) -> Deployment:
    (folder / "presets.yaml").write_text("quality: {draft: {steps: 8, guidance_end: 0.5}}")
    values = {
        "base": {"folder": "weights"},
        "profiles": {"sizes": [[64, 64]]},
        "presets": presets,
        "defaults": defaults,
        "limits": {"steps": 50},
    }
    path = folder / "a.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_deployment(path)


def test_the_default_preset_brings_its_values(tmp_path: Path) -> None:
    deployment = loaded(tmp_path, preset="draft", scheduler="ddim")
    assert deployment.defaults.preset_values == {"steps": 8, "guidance_end": 0.5}
    assert deployment.defaults.scheduler == "ddim"
    assert deployment.digest != loaded(tmp_path, scheduler="ddim").digest, "they are a part of the build"


def test_other_presets_are_no_part_of_the_build(tmp_path: Path) -> None:
    before = loaded(tmp_path).digest
    (tmp_path / "presets.yaml").write_text("scenes: {beach: on a beach}")
    assert load_deployment(tmp_path / "a.yaml").digest == before


@pytest.mark.parametrize(
    ("presets", "defaults", "says"),
    [
        (
            "presets.yaml",
            {"preset": "drat"},
            "'drat' is no quality preset; did you mean draft.*allowed: draft",
        ),
        (None, {"preset": "draft"}, "allowed: none; add presets: presets.yaml"),
        ("presets.yaml", {"preset": "draft", "steps": 8}, r"defaults\.steps: preset draft sets it too"),
        ("presets.yaml", {"preset_values": {}}, "comes from the preset; take the field out"),
        ("gone.yaml", {}, "gone.yaml: no such file"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, presets: str | None, defaults: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded(tmp_path, presets=presets, **defaults)


def test_a_preset_above_the_limits_is_refused_with_its_file(tmp_path: Path) -> None:
    loaded(tmp_path)
    (tmp_path / "presets.yaml").write_text("quality: {ultra: {steps: 60}}")
    with pytest.raises(
        ConfigError, match=r"presets\.yaml: quality\.ultra\.steps 60 is above limits\.steps 50"
    ):
        load_deployment(tmp_path / "a.yaml")
