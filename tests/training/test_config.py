"""Configurations: strict, with errors that say what would be right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio_train import (
    ConfigError,
    LoraConfig,
    controlnet_config_from_yaml,
    lcm_config_from_yaml,
    lora_config_from_yaml,
)
from intaglio_train.config import TrainingConfig
from intaglio_train.data import open_dataset

Keys = Callable[..., dict[str, Any]]
CONFIGS = Path(__file__).parents[2] / "configs" / "training"


def write(path: Path, keys: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rte": 1}, "unknown key learning_rte; did you mean learning_rate?"),
        ({"data": {"folder": "x", "contrl": "pose"}}, "unknown key data.contrl; did you mean control?"),
        ({"data": {}}, "exactly one of data.folder and data.arrays"),
        ({"data": {"folder": "x", "arrays": "y"}}, "exactly one of data.folder and data.arrays"),
        ({"resolution": 100}, "resolution 100 must be a multiple of 8"),
        ({"steps": 0}, "steps is 0; allowed: a whole number of at least 1"),
        ({"mixed_precision": "fp8"}, "mixed_precision is 'fp8'; allowed: no, fp16 or bf16"),
        ({"name": "../up"}, "name is '../up'; allowed: at most 64"),
        ({"cache_text": True, "train_text_encoders": True}, "cannot be used with train_text_encoders"),
        ({"samples": {"prompts": []}}, "samples.prompts is []"),
    ],
)
def test_a_wrong_key_gives_one_line_that_names_it(
    keys: Keys, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "run.yaml", keys(**changes))
    with pytest.raises(ConfigError) as error:
        lora_config_from_yaml(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named(keys: Keys, tmp_path: Path) -> None:
    without = {key: value for key, value in keys().items() if key != "steps"}
    with pytest.raises(ConfigError, match="key steps is missing"):
        lora_config_from_yaml(write(tmp_path / "run.yaml", without))


@pytest.mark.parametrize("text", ["[1, 2", "- a list", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml: (is not YAML|must hold keys)"):
        lora_config_from_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        lora_config_from_yaml(tmp_path / "absent.yaml")


def test_overrides_replace_keys_and_are_checked(keys: Keys, tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", keys(data={"arrays": "a.npz", "control": "pose"}))
    config = lora_config_from_yaml(path, {"steps": 7, "output": Path("elsewhere"), "data": Path("folder")})
    assert (config.steps, config.output, config.data.folder, config.data.arrays) == (
        7,
        Path("elsewhere"),
        Path("folder"),
        None,
    )
    assert config.data.control == "pose"
    with pytest.raises(ConfigError, match="steps is -1"):
        lora_config_from_yaml(path, {"steps": -1})


def test_defaults_follow_other_keys(keys: Keys) -> None:
    config = LoraConfig.model_validate(keys(rank=6, steps=2000, resolution=[128, 64]))
    assert (config.scale_alpha, config.checkpoint_interval, config.size) == (6.0, 200, (128, 64))
    assert LoraConfig.model_validate(keys(steps=20)).checkpoint_interval == 5
    unnamed = {key: value for key, value in keys().items() if key != "output"}
    assert LoraConfig.model_validate(unnamed).output == Path("trained/tiny")


def write_run(folder: Path, keys: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    return write(folder / "run.yaml", keys)


def test_paths_in_a_file_are_relative_to_it(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"data": {"folder": "../pictures"}, "configurations": "sdxl", "model": "../base.safetensors"}
    changed = keys(**paths, prior={"data": {"arrays": "people.npz"}})
    del changed["output"]
    path = write_run(tmp_path / "runs", changed)
    config = lora_config_from_yaml(path)
    assert config.data.folder == tmp_path / "pictures"
    assert config.configurations == tmp_path / "runs/sdxl"
    assert config.model == str(tmp_path / "base.safetensors")
    assert config.output == tmp_path / "runs/trained/tiny"
    assert config.prior is not None
    assert config.prior.data.arrays == tmp_path / "runs/people.npz"
    monkeypatch.chdir(tmp_path)
    seen_from_here = lora_config_from_yaml(path)
    assert seen_from_here.output == Path("runs/trained/tiny"), "short where it lies below"
    assert seen_from_here.model == "./base.safetensors", "never the id of a repository"


def test_a_name_is_a_folder_where_there_is_one_and_otherwise_of_the_hub(keys: Keys, tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs", keys(model="owner/base", init="unet"))
    (tmp_path / "runs/unet").mkdir()
    config = controlnet_config_from_yaml(path)
    assert (config.model, config.init) == ("owner/base", "unet")
    (tmp_path / "runs/owner/base").mkdir(parents=True)
    assert controlnet_config_from_yaml(path).model == str(tmp_path / "runs/owner/base")


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> dict[str, TrainingConfig]:
    """Every example of `configs/training/` by its file's name, as seen from the repository."""
    monkeypatch.chdir(CONFIGS.parents[1])
    found: dict[str, TrainingConfig] = {}
    for path in CONFIGS.glob("*.yaml"):
        if path.name.startswith("controlnet_"):
            found[path.stem] = controlnet_config_from_yaml(path)
        elif path.stem == "lcm":
            found[path.stem] = lcm_config_from_yaml(path)
        else:
            found[path.stem] = lora_config_from_yaml(path)
    return found


def test_the_committed_configurations_are_sound(committed: dict[str, TrainingConfig]) -> None:
    assert len(committed) >= 10
    for name, config in committed.items():
        assert config.name == name.removeprefix("controlnet_")
    models = {config.model for config in committed.values()}
    assert models == {"./miniature/model", "stabilityai/stable-diffusion-xl-base-1.0"}


def removed_by_clean() -> list[Path]:
    """What `make clean` deletes, relative to the repository."""
    recipe = (CONFIGS.parents[1] / "Makefile").read_text().split("\nclean:", 1)[1]
    removed = re.search(r"\trm -rf (.+)", recipe)
    assert removed is not None
    return [Path(name) for name in removed[1].split()]


def followed_folders() -> dict[str, Path]:
    """What the registry of the miniature follows, relative to the repository."""
    registry = yaml.safe_load((CONFIGS.parent / "loras.yaml").read_text())
    folders = {lora: entry.get("checkpoints") for lora, entry in registry["loras"].items()}
    return {
        lora: Path(os.path.normpath(Path("configs", folder))) for lora, folder in folders.items() if folder
    }


def test_no_example_writes_where_make_clean_deletes(committed: dict[str, TrainingConfig]) -> None:
    outputs = [config.output for config in committed.values()]
    outputs += followed_folders().values()
    assert Path("build") in removed_by_clean()
    assert len(outputs) >= 10
    for output in outputs:
        assert not {output, *output.parents} & set(removed_by_clean()), output
    ignored = (CONFIGS.parents[1] / ".gitignore").read_text().splitlines()
    assert {f"{output.parts[0]}/" for output in outputs} <= set(ignored)


def test_what_the_registry_follows_is_what_the_example_writes(committed: dict[str, TrainingConfig]) -> None:
    assert followed_folders()["night"] == committed["night"].output


def test_the_committed_example_trains_as_it_stands(committed: dict[str, TrainingConfig]) -> None:
    """`intaglio train lora configs/training/night.yaml` needs nothing but the repository."""
    config = committed["night"]
    dataset = open_dataset(config.data, config.size)
    assert len(dataset) == 16
    assert all("in moonlight style" in caption for captions in dataset.captions for caption in captions)
