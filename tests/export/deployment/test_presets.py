"""A build publishes presets that a request to it may name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.builds.published_presets import PublishedPresets
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.presets import Presets
from intaglio.errors import ConfigError
from intaglio_export.build import BuildOptions, BuildResult, build_deployment
from intaglio_export.deployment.presets import checked_presets

from ...checkpoint import Checkpoint
from ..conftest import Watcher, done, run_build, write_config


def deployment(folder: Path, presets: str | None) -> Deployment:
    if presets is not None:
        (folder / "presets.yaml").write_text(presets)
    named = None if presets is None else "presets.yaml"
    values = {"base": {"folder": "x"}, "profiles": {"sizes": [[64, 64]]}, "presets": named}
    (folder / "a.yaml").write_text(yaml.safe_dump(values))
    return load_deployment(folder / "a.yaml")


Built = tuple[Path, BuildResult]


def test_without_a_file_there_are_none(tmp_path: Path, built: Built) -> None:
    assert checked_presets(deployment(tmp_path, None), built[1].manifest) == Presets()


def test_each_preset_is_read_as_a_request(tmp_path: Path, built: Built) -> None:
    manifest = built[1].manifest
    asked = deployment(tmp_path, "quality: {a: {steps: 8}}")
    assert set(checked_presets(asked, manifest).quality) == {"a"}
    cheap = manifest.model_copy(update={"limits": manifest.limits.model_copy(update={"cost": 64 * 64})})
    with pytest.raises(ConfigError, match=r"presets\.yaml: quality\.a: steps: 8 steps .* cost too much"):
        checked_presets(asked, cheap)


def test_presets_that_do_not_fit_are_refused_before_any_stage(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "presets.yaml").write_text("quality: {a: {steps: 40}}")
    limits = {"cost": 64 * 64 * 30}
    config = write_config(tmp_path / "plate.yaml", checkpoint, presets="presets.yaml", limits=limits)
    watcher = Watcher()
    with pytest.raises(ConfigError, match=r"quality\.a: steps: 40 steps .* cost too much"):
        build_deployment(config, BuildOptions(), reporter=watcher)
    assert watcher.begun == []
    assert not (tmp_path / "build/plate").exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("{scheduler: lcm, steps: 60}", "steps: 60 is out of range for lcm"),
        ("{timesteps: [5000]}", "timesteps: 5000"),
        ("{sigmas: [500, 0]}", "sigmas: 500"),
    ],
)
def test_a_preset_whose_steps_the_model_does_not_have_is_not_published(
    tmp_path: Path, built: Built, values: str, says: str
) -> None:
    manifest = built[1].manifest
    roomy = manifest.model_copy(update={"limits": manifest.limits.model_copy(update={"steps": 100})})
    with pytest.raises(ConfigError, match=rf"presets\.yaml: quality\.p: {says}.*from preset p"):
        checked_presets(deployment(tmp_path, f"quality: {{p: {values}}}"), roomy)


def test_new_presets_are_published_and_rebuild_nothing(copied: Path, checkpoint: Checkpoint) -> None:
    write_config(copied, checkpoint, presets="presets.yaml")
    published = PublishedPresets(copied.parent / "build/plate")
    for scene in ("beach", "snow"):
        copied.with_name("presets.yaml").write_text(f"scenes: {{{scene}: there}}")
        _, watcher = run_build(copied)
        assert published.current().scenes == {scene: "there"}
    assert done(watcher) == {}
    copied.with_name("presets.yaml").write_text("quality: {a: {steps: 8, guidance_end: 0}}")
    with pytest.raises(ConfigError, match=r"quality\.a: guidance_begin"):
        run_build(copied)
    assert (published.current().scenes, published.problem) == ({"snow": "there"}, None)
