"""Fused weights are diffusers' own; files of another model are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from intaglio.builds.file_checks import file_digest
from intaglio.errors import BuildError
from intaglio_export.weights.fuse import FUSABLE, LoraChoice, fuse_loras, lora_set_digest
from intaglio_export.weights.sources import Weights, load_network

from ..conftest import Checkpoint


def choice(checkpoint: Checkpoint, name: str, weight: float) -> LoraChoice:
    return LoraChoice(name, checkpoint.lora(name), weight, file_digest(checkpoint.lora(name)).sha256)


def networks(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: load_network(name, Weights(checkpoint.base / name)) for name in FUSABLE}


@pytest.mark.parametrize("weights", [{"style": 1.0}, {"character": 0.6}, {"style": -0.5, "character": 1.3}])
def test_weights_equal_diffusers(checkpoint: Checkpoint, weights: dict[str, float]) -> None:
    ours, pristine = networks(checkpoint), networks(checkpoint)
    touched = fuse_loras(ours, [choice(checkpoint, name, weight) for name, weight in weights.items()])
    theirs = checkpoint.pipeline()
    for name in weights:
        theirs.load_lora_weights(str(checkpoint.lora(name)), adapter_name=name)
    theirs.set_adapters(list(weights), list(weights.values()))
    theirs.fuse_lora(adapter_names=list(weights))
    theirs.unload_lora_weights()
    assert touched == ({"unet"} if list(weights) == ["style"] else set(FUSABLE))
    for component in FUSABLE:
        expected, before = getattr(theirs, component).state_dict(), pristine[component].state_dict()
        found = ours[component].state_dict()
        assert found.keys() == expected.keys() == before.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert (component in touched) == any(not torch.equal(found[name], before[name]) for name in found)


@pytest.mark.parametrize("layout", ["style", "style-kohya"])
def test_delta_is_the_papers_formula(checkpoint: Checkpoint, layout: str) -> None:
    """W + weight * up @ down (Hu et al., arXiv 2106.09685), independent of diffusers and peft."""
    before, after = networks(checkpoint), networks(checkpoint)
    fuse_loras(after, [choice(checkpoint, layout, 0.5)])
    file = load_file(checkpoint.lora("style"))
    layers = [key.removesuffix(".lora_A.weight") for key in file if key.endswith(".lora_A.weight")]
    assert len(layers) > 50
    for layer in layers:
        delta = 0.5 * file[f"{layer}.lora_B.weight"].float() @ file[f"{layer}.lora_A.weight"].float()
        name = layer.removeprefix("unet.") + ".weight"
        assert torch.allclose(
            after["unet"].state_dict()[name], before["unet"].state_dict()[name] + delta, atol=1e-6
        )


def test_keys_of_another_model_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = load_file(checkpoint.lora("style"))
    state["unet.down_blocks.9.attentions.0.to_q.lora_A.weight"] = torch.zeros(4, 32)
    save_file(state, tmp_path / "foreign.safetensors")
    lora = LoraChoice("foreign", tmp_path / "foreign.safetensors", 1.0, "0" * 64)
    with pytest.raises(
        BuildError, match=r"lora foreign: 1 of \d+ keys do not belong to this base: unet.down_blocks.9"
    ):
        fuse_loras(networks(checkpoint), [lora])


def test_other_shapes_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = {
        name: torch.zeros(*(2 * size for size in values.shape))
        for name, values in load_file(checkpoint.lora("style")).items()
    }
    save_file(state, tmp_path / "wide.safetensors")
    with pytest.raises(BuildError, match="wide"):
        fuse_loras(networks(checkpoint), [LoraChoice("wide", tmp_path / "wide.safetensors", 1.0, "0" * 64)])


@pytest.mark.parametrize(
    "keys", [["transformer.blocks.0.weight"], ["lora_unet_nonsense_to_q.lora_down.weight"]]
)
def test_what_is_no_sdxl_lora_is_an_error(checkpoint: Checkpoint, tmp_path: Path, keys: list[str]) -> None:
    save_file({key: torch.zeros(4, 4) for key in keys}, tmp_path / "x.safetensors")
    with pytest.raises(BuildError, match="lora x"):
        fuse_loras(networks(checkpoint), [LoraChoice("x", tmp_path / "x.safetensors", 1.0, "0" * 64)])


def test_weights_that_are_not_finite_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = load_file(checkpoint.lora("style"))
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(BuildError, match="nan"):
        fuse_loras(networks(checkpoint), [LoraChoice("nan", tmp_path / "nan.safetensors", 1.0, "0" * 64)])


def test_set_digest_depends_on_content_and_weight(checkpoint: Checkpoint) -> None:
    a, b = choice(checkpoint, "style", 1.0), choice(checkpoint, "character", 0.5)
    assert lora_set_digest([a, b]) == lora_set_digest([b, a])
    assert (
        len(
            {
                lora_set_digest(loras)
                for loras in ([], [a], [b], [a, b], [choice(checkpoint, "style", 0.9), b])
            }
        )
        == 5
    )
