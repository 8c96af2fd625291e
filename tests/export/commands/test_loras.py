"""`intaglio loras`: the registry is written whole, and only with files that fit the base."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from intaglio.contract.config import load_deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.errors import ConfigError, InvalidRequest, LoraRefused
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.loras.tensor_files import with_metadata
from intaglio_export.commands.loras import app
from intaglio_export.weights.registry import publish_registry

from ...checkpoint import Checkpoint
from ..conftest import write_config


@pytest.fixture
def config(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    (tmp_path / "loras.yaml").write_text("# mine\nloras: {}\n")
    return write_config(tmp_path / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml")


def run(*arguments: object, config: Path) -> str:
    """The output of the command; its errors are raised."""
    words = [*map(str, arguments), "--config", str(config)]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{result.exit_code} {result.stdout}"


def test_a_lora_is_added_listed_and_shown(checkpoint: Checkpoint, config: Path) -> None:
    run("add", checkpoint.lora("style"), "--kind", "style", "--weight", 0.8, config=config)
    path = config.with_name("loras.yaml")
    entry = load_registry(path).loras["style"]
    assert (entry.weight, entry.format, entry.rank) == (0.8, "diffusers LoRA", (4,))
    assert path.read_text().startswith("# mine\n")
    run(
        "add", "style", "--trigger", "in my style", "--method", "lcm", config=config
    )  # the facts of its file again
    entry = load_registry(path).loras["style"]
    assert (entry.weight, entry.trigger_words, entry.method) == (0.8, ("in my style",), "lcm")
    assert "in my style" in run("list", config=config)
    assert "diffusers LoRA" in run("show", "style", config=config)
    assert run("show", "style", "--quiet", config=config) == f"0 {entry.file}\n"
    assert run("check", config=config).startswith("0 ok")


def test_the_files_own_word_on_its_method_counts_where_none_is_named(
    checkpoint: Checkpoint, config: Path, tmp_path: Path
) -> None:
    data = checkpoint.lora("style").read_bytes()
    for lora, stated in (("mine", "lcm"), ("other", "lcm"), ("foreign", "something else")):
        (tmp_path / f"{lora}.safetensors").write_bytes(with_metadata(data, {"intaglio.method": stated}))
    run("add", tmp_path / "mine.safetensors", "--kind", "style", config=config)
    run("add", tmp_path / "other.safetensors", "--kind", "style", "--method", "tcd", config=config)
    run("add", tmp_path / "foreign.safetensors", "--kind", "style", config=config)
    loras = load_registry(config.with_name("loras.yaml")).loras
    assert {lora: entry.method for lora, entry in loras.items()} == {
        "mine": "lcm",
        "other": "tcd",
        "foreign": None,
    }


def test_what_cannot_be_added(checkpoint: Checkpoint, config: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--kind"):
        run("add", checkpoint.lora("style"), config=config)
    with pytest.raises(ConfigError, match="no such file"):
        run("add", tmp_path / "nowhere.safetensors", "--kind", "style", config=config)
    with pytest.raises(ConfigError, match="outside bounds"):
        run("add", checkpoint.lora("style"), "--kind", "style", "--weight", 2, config=config)
    assert load_registry(config.with_name("loras.yaml")).loras == {}
    with pytest.raises(InvalidRequest, match="'style' is unknown"):
        run("show", "style", config=config)


def test_a_refused_file_fails_the_check(checkpoint: Checkpoint, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    run("add", path, "--kind", "style", config=config)
    path.write_bytes(path.read_bytes()[:-1])
    assert run("check", config=config).startswith("1 refused")


def test_a_deployment_without_a_registry(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = write_config(tmp_path / "b.yaml", checkpoint, fuse=None, loras=None)
    with pytest.raises(ConfigError, match="has no registry"):
        run("list", config=config)


def test_without_the_default_deployment_the_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["list"])
    assert isinstance(result.exception, ConfigError)
    assert "with --config FILE" in str(result.exception)


@dataclass
class Published:
    """A deployment with swap, whose registry's one LoRA is published as a build does it."""

    config: Path
    file: Path
    checkpoint: Checkpoint

    @property
    def store(self) -> LoraStore:
        return LoraStore(load_deployment(self.config).build_folder / LORAS_FOLDER)

    def build(self) -> str:
        """The version that is served afterwards, as people see it."""
        deployment = load_deployment(self.config)
        return publish_registry(deployment, deployment.build_folder).served.loras["mine"].sha256[:12]

    def train(self, name: str) -> None:
        self.file.write_bytes(self.checkpoint.lora(name).read_bytes())
        run("add", "mine", config=self.config)


@pytest.fixture
def published(checkpoint: Checkpoint, tmp_path: Path) -> Published:
    (tmp_path / "loras.yaml").write_text("loras: {}\n")
    config = write_config(
        tmp_path / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml", swap="all"
    )
    file = tmp_path / "mine.safetensors"
    file.write_bytes(checkpoint.lora("style").read_bytes())
    run("add", file, "--kind", "style", config=config)
    return Published(config, file, checkpoint)


def test_the_list_says_which_version_is_served(published: Published) -> None:
    assert "not served" in run("list", config=published.config)
    first = published.build()
    published.train("character")
    second = published.build()
    listed = run("list", config=published.config)
    assert second in listed
    assert f"kept {first}" in listed
    published.store.roll_back("mine")
    for command in (["list"], ["show", "mine"]):
        assert f"rejected {second}" in run(*command, config=published.config)


def test_a_rejected_version_is_served_again_by_name(published: Published) -> None:
    first = published.build()
    published.train("character")
    second = published.build()
    published.store.roll_back("mine")
    assert published.build() == first, "it stays rejected"
    assert f"mine: {second} is served" in run("serve", "mine", config=published.config)
    assert published.build() == second
    assert f"mine: {first} is" in run("serve", "mine", "--version", first, config=published.config)
    assert published.build() == first, "the registry's file is the one of the last build"
    with pytest.raises(InvalidRequest, match=rf"version: 'zz' is not kept; allowed: .*{second}"):
        run("serve", "mine", "--version", "zz", config=published.config)
    with pytest.raises(InvalidRequest, match="'' is ambiguous"):
        run("serve", "mine", "--version", "", config=published.config)
    published.file.write_bytes(published.file.read_bytes()[:-1])
    with pytest.raises(LoraRefused):
        run("serve", "mine", config=published.config)
    assert published.store.current().loras["mine"].sha256.startswith(first)


def test_a_removed_lora_is_served_no_more(published: Published) -> None:
    published.build()
    path = published.config.with_name("loras.yaml")
    path.write_text(path.read_text() + "presets: {evening: {mine: 1.0}}\n")
    with pytest.raises(ConfigError, match="preset evening names it; run intaglio loras remove evening"):
        run("remove", "mine", config=published.config)
    assert "the next build stops serving it" in run("remove", "evening", config=published.config)
    removed = run("remove", "mine", "--json", config=published.config)
    assert json.loads(removed.removeprefix("0 ")) == {
        "id": "mine",
        "registry": str(path),
        "unpublished": True,
    }
    assert load_registry(path).loras == {}
    assert published.store.current().loras == {}
    assert published.file.is_file()
    deployment = load_deployment(published.config)
    publish_registry(deployment, deployment.build_folder)
    (retired,) = published.store.current().retired["mine"]
    assert list(published.store.folder.glob("*.safetensors")) == [published.store.path(retired)], (
        "for waiting requests"
    )
    with pytest.raises(InvalidRequest, match="'mine' is unknown"):
        run("remove", "mine", config=published.config)
    source = published.checkpoint.lora("character")
    run("add", source, "--kind", "style", "--id", "mine", config=published.config)
    other = published.build()
    (copy,) = published.store.folder.glob("*.safetensors")
    assert copy.name.startswith(other), "the next change of what is served removes the copy"


def test_versions_need_a_build_that_swaps(published: Published) -> None:
    with pytest.raises(ConfigError, match=r"registry.json: No such file.*intaglio build writes it"):
        run("serve", "mine", config=published.config)
