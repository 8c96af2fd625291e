"""A model in one file trains offline: its weights are the folder's, the rest comes from a named folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from intaglio_train import ConfigError
from intaglio_train.base_model import ModelSource, load_base_model
from intaglio_train.command import app
from intaglio_train.loss import noise_schedule_of

from ..stability_layout import stability_tensors
from .conftest import whole_tokenizers

Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def single(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model in Stability's layout."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(model), torch_dtype=torch.float16)
    path = tmp_path_factory.mktemp("single") / "base.safetensors"
    save_file(stability_tensors(pipeline.components), path)
    return path


@pytest.fixture(scope="module")
def configurations(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder without weights."""
    folder = tmp_path_factory.mktemp("configurations") / "sdxl"
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def unreachable(*_: Any, **__: Any) -> str:
    """The hub, where nothing is cached."""
    raise OSError("no network")


def load(name: Path, configurations: Path | None = None) -> Any:
    source = ModelSource(str(name), configurations=configurations)
    return load_base_model(source, device=torch.device("cpu"), dtype=torch.float16)


def weights_of(base: Any) -> dict[str, torch.Tensor]:
    parts = {"unet": base.unet, "vae": base.vae, "1": base.text_encoders[0], "2": base.text_encoders[1]}
    return {
        f"{part}.{name}": tensor
        for part, network in parts.items()
        for name, tensor in network.state_dict().items()
    }


def test_the_file_loads_as_the_folder(model: Path, single: Path, configurations: Path) -> None:
    expected = weights_of(load(model))
    found = weights_of(load(single, configurations))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_configurations_beside_the_file_are_found(single: Path, configurations: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    shutil.copytree(configurations, folder)
    base = load(Path(shutil.copy(single, folder)))
    assert base.unet.config.addition_embed_type == "text_time"


def test_configurations_may_have_tokenizers_in_one_file(
    single: Path, configurations: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(configurations, tmp_path / "whole"))
    whole_tokenizers(folder)
    expected = load(single, configurations).tokenizers
    found = load(single, folder).tokenizers
    for ours, theirs in zip(found, expected, strict=True):
        assert ours("a person waving").input_ids == theirs("a person waving").input_ids


def test_it_trains_offline(
    keys: Keys, single: Path, configurations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cache and no hub: everything is read from the file and the named folder."""
    monkeypatch.setattr("intaglio_train.single_file.snapshot_download", unreachable)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys(model=str(single), configurations=str(configurations), steps=1)))
    result = CliRunner().invoke(app, ["lora", str(config)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "tiny.safetensors").exists()


def test_without_configurations_the_message_says_what_to_set(
    single: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio_train.single_file.snapshot_download", unreachable)
    with pytest.raises(ConfigError, match="set configurations: to a diffusers SDXL folder"):
        load(single)


def test_configurations_that_are_none_are_named(single: Path, configurations: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(configurations, partial)
    for name in ("vocab.json", "tokenizer.json"):
        (partial / "tokenizer_2" / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"has no tokenizer_2/vocab\.json"):
        load(single, partial)


def test_configurations_for_a_folder_are_refused(model: Path, configurations: Path) -> None:
    with pytest.raises(ConfigError, match="has its own"):
        load(model, configurations)


def test_a_file_that_predicts_in_edms_form_is_refused(
    single: Path, configurations: Path, tmp_path: Path
) -> None:
    save_file(load_file(single) | {"edm_vpred.sigma_max": torch.zeros(4)}, tmp_path / "other.safetensors")
    says = "its tensor edm_vpred.sigma_max says.*that predicts noise or velocity"
    with pytest.raises(ConfigError, match=says):
        load(tmp_path / "other.safetensors", configurations)


def test_a_files_own_word_on_its_prediction_stands_above_its_configurations(
    single: Path, configurations: Path, tmp_path: Path
) -> None:
    marks = {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}
    save_file(load_file(single) | marks, tmp_path / "other.safetensors")
    base = load(tmp_path / "other.safetensors", configurations)
    schedule = noise_schedule_of(base.scheduler, torch.device("cpu"))
    assert schedule.prediction == "v_prediction"
    assert schedule.alphas[-1] < 1e-6


@pytest.mark.parametrize("suffix", [".ckpt", ".bin"])
def test_pickled_weights_are_never_read(configurations: Path, tmp_path: Path, suffix: str) -> None:
    class Opened:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "opened",))

    torch.save(Opened(), tmp_path / f"base{suffix}")
    with pytest.raises(ConfigError, match=r"pickled weights are never read.*; convert the file to \.safe"):
        load(tmp_path / f"base{suffix}", configurations)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_file_that_is_no_sdxl_is_refused(
    single: Path, configurations: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "bad.safetensors"
    if damage == "truncated":
        path.write_bytes(single.read_bytes()[:100_000])
    else:
        save_file({"weight": torch.zeros(4)}, path)
    with pytest.raises(ConfigError, match=r"is not a whole \.safetensors|does not load as SDXL"):
        load(path, configurations)
