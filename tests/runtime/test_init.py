"""`intaglio init`: what it writes is complete, and nothing of the user's is overwritten."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from intaglio.cli import main
from intaglio.contract.config import Deployment, load_deployment
from intaglio.contract.lora_registry import load_registry
from intaglio.init import Example
from intaglio_train import LoraConfig, lora_config_from_yaml

ROOT = Path(__file__).parents[2]


def started(folder: Path, like: str) -> Deployment:
    assert main(["init", str(folder), "--like", like]) == 0
    return load_deployment(folder / f"{like}.yaml")


def named_paths(deployment: Deployment, training: LoraConfig | None) -> list[Path]:
    """Everything on this machine that the written files name."""
    sources = [*deployment.base, *deployment.controlnets.values()]
    paths = [source.folder or source.file for source in sources]
    paths += [deployment.build, deployment.poses, deployment.presets, deployment.registry]
    if deployment.registry is not None:
        for entry in load_registry(deployment.registry).loras.values():
            paths += [entry.file, entry.checkpoints]
    if training is not None:
        paths += [training.data.folder, training.output]
    return [path for path in paths if path is not None]


@pytest.mark.parametrize("like", list(Example))
def test_what_it_writes_is_read_and_names_nothing_outside(tmp_path: Path, like: str) -> None:
    folder = tmp_path / "studio"
    deployment = started(folder, like)
    assert deployment.build == folder / "build"
    assert deployment.poses is not None
    assert len(list(deployment.poses.glob("*.json"))) == len(list((ROOT / "configs/poses").iterdir()))
    training = None
    if (folder / "training.yaml").exists():
        training = lora_config_from_yaml(folder / "training.yaml")
    for path in named_paths(deployment, training):
        assert path.is_relative_to(folder), path
    for path in folder.glob("*.yaml"):
        assert path.read_text().startswith("# "), "commented"
    assert not list(folder.glob(".*")), "nothing is left of the work"


def test_sdxl_comes_with_a_registry_and_a_training_configuration(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path)]) == 0
    deployment = load_deployment(tmp_path / "sdxl.yaml")
    assert deployment.registry is not None
    assert load_registry(deployment.registry).loras == {}
    assert deployment.presets == tmp_path / "sdxl-presets.yaml"
    assert deployment.build_folder == tmp_path / "build/sdxl"
    training = lora_config_from_yaml(tmp_path / "training.yaml")
    assert (training.resolution, training.mixed_precision) == (1024, "bf16")


def test_the_miniature_beside_it_is_all_that_is_missing(tmp_path: Path) -> None:
    deployment = started(tmp_path, "miniature")
    training = lora_config_from_yaml(tmp_path / "training.yaml")
    (tmp_path / "miniature").symlink_to(ROOT / "miniature")
    made_later = {deployment.build, tmp_path / "trained/night"}
    for path in set(named_paths(deployment, training)) - made_later:
        assert path.exists(), path


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "training.yaml").write_text("mine")
    (tmp_path / "poses").mkdir()
    assert main(["init", str(tmp_path)]) == 1
    refusal = capsys.readouterr().err
    assert f"{tmp_path}: has training.yaml, poses already" in refusal
    assert (tmp_path / "training.yaml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poses", "training.yaml"]


def test_a_file_where_the_folder_would_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert main(["init", str(tmp_path / "taken")]) == 1
    assert f"intaglio init: {tmp_path}/taken: " in capsys.readouterr().err


def test_it_ends_with_commands_for_the_files_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my studio"
    deployment = started(folder, "miniature")
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].strip() == f"cd '{folder}'"
    commands = [line.split("#")[0].split() for line in lines if line.strip().startswith("intaglio")]
    assert [command[1] for command in commands] == ["doctor", "build", "serve", "generate", "train"]
    for word in re.findall(r"\S+\.yaml", " ".join(lines)):
        assert (folder / word).is_file()
    assert deployment.poses is not None
    assert (deployment.poses / f"{commands[3][-1]}.json").is_file()


def test_a_script_gets_the_paths_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[studio]"
    assert main(["init", str(folder), "--like", "sdxl-seeded", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{folder}/sdxl-seeded.yaml\n"
    assert main(["init", str(folder / "second"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["deployment"] == told["files"][0] == f"{folder}/second/sdxl.yaml"
    assert all(Path(name).exists() for name in [*told["files"], told["poses"]])
