"""A ControlNet in a single file loads as its folder does, or one line says what the file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file

from intaglio.contract.sources import ControlNetSource
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights, find_model

from ...stability_layout import controlnet_tensors
from ...tiny import make_union

MINIATURE = Path(__file__).parents[3] / "miniature"
POSE = MINIATURE / "controlnets/pose"
UNET = json.loads((MINIATURE / "model/unet/config.json").read_text())
UNION = {"pose": "openpose", "depth": "depth", "sketch": {"mode": 2, "type": "canny"}}


@pytest.fixture(scope="module")
def pose() -> Any:
    return ControlNetModel.from_pretrained(POSE)


@pytest.fixture(scope="module")
def union(pose: Any) -> Any:
    return make_union(pose)


def found(path: Path, **changes: Any) -> Weights:
    source = ControlNetSource.model_validate({"file": str(path), "type": "pose"} | changes)
    return find_model(source, component=source.component, unet=UNET)


def written(path: Path, tensors: dict[str, Any]) -> Path:
    save_file({name: values.clone().contiguous() for name, values in tensors.items()}, path)
    return path


def same_weights(loaded: Any, expected: Any) -> bool:
    ours, theirs = loaded.state_dict(), expected.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("prefix", [None, "", "control_model."])
def test_every_layout_loads_tensor_for_tensor_as_the_folder(
    pose: Any, tmp_path: Path, prefix: str | None
) -> None:
    if prefix is None:
        tensors = pose.state_dict()
    else:
        tensors = {prefix + name: values for name, values in controlnet_tensors(pose).items()}
    weights = found(written(tmp_path / "pose.safetensors", tensors))
    loaded: Any = load_network("controlnet", weights)
    assert same_weights(loaded, pose)
    ignored = ("_name_or_path", "_diffusers_version", "_class_name", "_use_default_values")
    ours, theirs = (
        {key: one.config[key] for key in one.config if key not in ignored} for one in (loaded, pose)
    )
    assert json.loads(json.dumps(ours)) == json.loads(json.dumps(theirs))


def test_a_union_loads_with_its_number_of_types(union: Any, tmp_path: Path) -> None:
    weights = found(written(tmp_path / "all.safetensors", union.state_dict()), type=None, union=UNION)
    assert weights.config["num_control_type"] == 6
    assert same_weights(load_network("controlnet_union", weights), union)
    with pytest.raises(
        ConfigError, match=r"union says tile has mode 6, but it has 6 control types; .*0 to 5"
    ):
        found(tmp_path / "all.safetensors", type=None, union={"tile": "tile"})


def test_a_union_in_shards_is_recognised(union: Any, tmp_path: Path) -> None:
    union.save_pretrained(tmp_path / "all", max_shard_size="500KB")
    source = {"file": None, "folder": str(tmp_path / "all")}
    with pytest.raises(ConfigError, match=r"a ControlNet-Union \(it has .*\); instead of `type` say"):
        found(tmp_path, **source)
    assert same_weights(
        load_network("controlnet_union", found(tmp_path, **source, type=None, union=UNION)), union
    )


def test_one_type_said_to_be_a_union_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no ControlNet-Union .*say what its image shows \(type: pose\)"):
        found(POSE / "diffusion_pytorch_model.safetensors", type=None, union=UNION)


OTHERS = {
    "lora_controlnet": "this is a Control-LoRA",
    "lllite_unet_input_blocks_1.conditioning1.0.weight": "this is a ControlNet-LLLite",
    "adapter.body.0.resnets.0.block1.weight": "this is a T2I-Adapter",
    "image_proj.proj.weight": "this is an IP-Adapter",
    "lora_unet_down_blocks_1.lora_up.weight": "this is a LoRA",
    "model.diffusion_model.input_blocks.0.0.weight": "this is a whole checkpoint",
    "up_blocks.0.resnets.0.conv1.weight": "this is a UNet",
    "weight": "no ControlNet: it has neither",
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_controlnet_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "x.safetensors", {name: torch.zeros(4, 4)})
    with pytest.raises(
        BuildError, match=f"x.safetensors: {OTHERS[name]}.*; take a ControlNet of SDXL"
    ) as error:
        found(path)
    assert "\n" not in str(error.value)


def changed(tmp_path: Path, tensors: dict[str, Any]) -> Path:
    return written(
        tmp_path / "x.safetensors", load_file(POSE / "diffusion_pytorch_model.safetensors") | tensors
    )


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("add_embedding.linear_1.weight", (128, 2816), "projection_class_embeddings_input_dim is 2816"),
        ("conv_in.weight", (320, 4, 3, 3), "block_out_channels is 320, the base has 32"),
        ("more.attn2.to_k.weight", (64, 96), r"attends to the prompt in \d+ layers"),
    ],
)
def test_a_controlnet_of_another_base_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(BuildError, match=f"made for another base: .*{problem}.*; take a ControlNet of this"):
        found(changed(tmp_path, {name: torch.zeros(shape)}))


def test_one_of_an_older_model_is_refused(pose: Any, tmp_path: Path) -> None:
    tensors = {name: one for name, one in pose.state_dict().items() if not name.startswith("add_embedding")}
    with pytest.raises(BuildError, match="a ControlNet of Stable Diffusion 1 or 2, not of SDXL"):
        found(written(tmp_path / "x.safetensors", tensors))


def test_tensors_that_lack_or_have_no_place_are_named_when_it_is_loaded(pose: Any, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a ControlNet of this base has no place for foreign"):
        load_network("controlnet", found(changed(tmp_path, {"foreign": torch.zeros(2)})))
    tensors = {name: one for name, one in pose.state_dict().items() if name != "conv_in.bias"}
    with pytest.raises(BuildError, match=r"the file lacks conv_in.bias"):
        load_network("controlnet", found(written(tmp_path / "y.safetensors", tensors)))


def test_an_absent_file_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"controlnet .*absent.safetensors: no such file"):
        found(tmp_path / "absent.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(BuildError, match=r"x.safetensors: .*; fetch the file again"):
        found(tmp_path / "x.safetensors")
