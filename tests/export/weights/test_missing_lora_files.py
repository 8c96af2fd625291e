"""A missing LoRA file: the message names the command that trains it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio_export.weights.missing_lora_files import missing_file


def write_training(path: Path, **values: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))


def test_the_training_configuration_that_writes_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_training(tmp_path / "training.yaml", name="neon")
    write_training(tmp_path / "configs/training/other.yaml", name="neon", output="../../elsewhere/neon")
    write_training(tmp_path / "configs/deployment.yaml", base="SDXL")
    (tmp_path / "configs/training/notes.yaml").write_text("[not a configuration")
    found = missing_file(tmp_path / "trained/neon/neon.safetensors")
    problem, command = found.split("; ")
    assert problem == "trained/neon/neon.safetensors: no such file"
    assert command == "train it: intaglio train lora training.yaml"
    assert "configs/training/other.yaml" in missing_file(tmp_path / "elsewhere/neon/neon.safetensors")


def test_other_names_of_the_keys_and_the_home_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_training(tmp_path / "a.yaml", output_name="neon", output_dir="~/out")
    write_training(tmp_path / "b.yaml", name="night", output="out")
    assert missing_file(tmp_path / "out/neon.safetensors").endswith("train it: intaglio train lora a.yaml")
    assert "b.yaml" in missing_file(tmp_path / "out/night_kohya.safetensors")
    assert "correct its path" in missing_file(tmp_path / "out/day.safetensors")


def test_without_one_the_path_is_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "loras/neon.safetensors"
    assert missing_file(path) == f"{path}: no such file; train it or correct its path"
