"""What LoRA files say of themselves, read as A1111, civitai and ModelSpec's validators do."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file

from intaglio.loras.files import LoraFile, layer_table, lora_file_from_bytes
from intaglio_train import DataConfig, LoraConfig, train_lora
from intaglio_train.data import open_dataset
from intaglio_train.lora_metadata import SDXL_UNET, Trained, lora_metadata, name_of_base

Keys = Callable[..., dict[str, Any]]


def header_of(path: Path) -> tuple[dict[str, str], bytes]:
    """Metadata of a safetensors file, and everything behind its header."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"], data[8 + length :]


def write_kohyas(folder: Path) -> Path:
    """Images of two aspects for kohya's tools."""
    subfolder = folder / "3_mara woman"
    subfolder.mkdir(parents=True)
    for index, size in enumerate([(80, 80), (96, 48), (64, 64)]):
        Image.new("RGB", size, (80 * index, 0, 90)).save(subfolder / f"{index}.jpg")
    (subfolder / "0.caption").write_text("mara, smiling, Outdoors")
    (subfolder / "1.caption").write_text("mara, smiling")
    return folder


def write_datasets(folder: Path) -> Path:
    """A data set as `datasets` reads it."""
    train = folder / "train"
    train.mkdir(parents=True)
    rows = []
    for index in range(3):
        Image.new("RGB", (80, 60), (80 * index, 0, 90)).save(train / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": f"mara, {index} birds"}))
    (train / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("write", [write_kohyas, write_datasets])
def test_a_folder_made_for_others_trains_and_its_lora_loads_in_diffusers(
    keys: Keys, model: Path, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    data = {"folder": str(write(tmp_path / "data"))}
    changes = {"bucket_reso_steps": 16, "targets": ["attention", "conv"], "alpha": 8, "rank": 4}
    result = train_lora(LoraConfig.model_validate(keys(data=data, trigger_words=["mara"], **changes)))
    (file,) = result.files
    metadata, content = header_of(file)

    pipeline = StableDiffusionXLPipeline.from_pretrained(str(model), add_watermarker=False)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    assert pipeline.get_active_adapters() == ["default_0"]
    assert any(name.startswith("lora_unet_input_blocks_") for name in load_file(str(file)))
    assert any(name.endswith(".alpha") for name in load_file(str(file)))

    # ModelSpec 1.0.1: what must be there, and the hash of all tensors
    required = {"sai_model_spec", "architecture", "implementation", "title", "resolution"}
    assert all(metadata[f"modelspec.{key}"] for key in required | {"date", "prediction_type"})
    assert metadata["modelspec.hash_sha256"] == f"0x{hashlib.sha256(content).hexdigest()}"
    assert metadata["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert (metadata["modelspec.title"], metadata["modelspec.resolution"]) == ("tiny", "64x64")
    # A1111's `NetworkOnDisk` and its page of a LoRA; civitai's trigger words
    assert metadata["sshs_model_hash"] == hashlib.sha256(content).hexdigest()
    assert len(metadata["sshs_legacy_hash"]) == 8
    assert (metadata["ss_output_name"], metadata["ss_sd_model_name"]) == ("tiny", "model")
    assert (metadata["ss_network_module"], metadata["ss_network_dim"]) == ("networks.lora", "4")
    assert float(metadata["ss_network_alpha"]) == 8
    assert metadata["modelspec.trigger_phrase"] == "mara"
    tags = json.loads(metadata["ss_tag_frequency"])
    folders = json.loads(metadata["ss_dataset_dirs"])
    if write is write_kohyas:
        assert tags == {"3_mara woman": {"mara": 2, "smiling": 2, "outdoors": 1, "mara woman": 1}}
        assert folders == {"3_mara woman": {"n_repeats": 3, "img_count": 3}}
        assert metadata["ss_num_train_images"] == "9"
    else:
        assert tags["train"]["mara"] == 3
        assert folders == {"train": {"n_repeats": 1, "img_count": 3}}


def test_the_miniature_does_not_call_itself_sdxl(keys: Keys) -> None:
    result = train_lora(LoraConfig.model_validate(keys(steps=1, base_name="intaglio-miniature")))
    metadata, _ = header_of(result.files[0])
    assert metadata["modelspec.architecture"] == "intaglio-miniature/lora"
    assert metadata["ss_base_model_version"] == metadata["ss_sd_model_name"] == "intaglio-miniature"


@pytest.mark.parametrize(("prediction", "said"), [("epsilon", "epsilon"), ("v_prediction", "v")])
def test_sdxl_is_named_as_kohya_names_it(keys: Keys, arrays: Path, prediction: str, said: str) -> None:
    config = LoraConfig.model_validate(keys(model="stabilityai/stable-diffusion-xl-base-1.0"))
    base: Any = SimpleNamespace(unet=SimpleNamespace(config=SDXL_UNET))
    dataset = open_dataset(DataConfig(folder=arrays), (64, 64))
    trained = Trained(config, base, prediction, dataset, prior=None, steps=2, processes=1, date="2026-01-02")
    metadata = lora_metadata(trained, kohya=True)
    assert metadata["ss_base_model_version"].startswith("sdxl_"), "A1111 takes it for SDXL by this start"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.prediction_type"] == said
    assert metadata["ss_sd_model_name"] == "stabilityai/stable-diffusion-xl-base-1.0"


def test_bases_are_named_by_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "juggernaut_v9.safetensors"
    file.touch()
    assert name_of_base(str(file), None) == "juggernaut_v9"
    assert name_of_base(str(tmp_path), None) == tmp_path.name
    assert name_of_base("owner/name", None) == "owner/name"
    assert name_of_base("owner/name", "mine") == "mine"


def read_by_serving(file: Path, model: Path) -> LoraFile:
    shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
    names = {"unet": "diffusion_pytorch_model", "text_encoder": "model", "text_encoder_2": "model"}
    for component, name in names.items():
        weights = load_file(str(model / component / f"{name}.safetensors"))
        shapes[component] = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    return lora_file_from_bytes(file.stem, file.read_bytes(), table=layer_table(shapes))


def test_both_layouts_are_one_lora_to_serving(keys: Keys, model: Path) -> None:
    changes = {"format": "both", "targets": ["attention", "conv"], "train_text_encoders": True}
    result = train_lora(LoraConfig.model_validate(keys(steps=1, rank=4, alpha=2, **changes)))
    assert [path.name for path in result.files] == ["tiny.safetensors", "tiny_kohya.safetensors"]
    diffusers, kohya = (read_by_serving(path, model) for path in result.files)
    assert (diffusers.format, kohya.format) == ("diffusers LoCon+LoRA", "kohya LoCon+LoRA")
    assert diffusers.layers.keys() == kohya.layers.keys()
    assert diffusers.warnings == kohya.warnings == ()


def test_the_date_is_in_the_file_and_in_no_hash(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    config = LoraConfig.model_validate(keys(steps=1))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    found.append(header_of(train_lora(config).files[0])[0])
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    found.append(header_of(train_lora(config).files[0])[0])  # nothing is trained again
    found.append(
        header_of(train_lora(LoraConfig.model_validate(keys(steps=1, date="2026-03-04"))).files[0])[0]
    )
    dates = [metadata.pop("modelspec.date") for metadata in found]
    assert dates == ["1970-01-02", "1970-01-02", "2026-03-04"]
    assert found[0] == found[1] == found[2]
