"""Fused weights are diffusers' own; files of another model are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from intaglio.builds.file_checks import file_digest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError
from intaglio.loras.targets import SWAPPED
from intaglio_export.weights.fuse import fuse_loras
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights

from ...checkpoint import Checkpoint


def fuse(networks: Any, checkpoint: Checkpoint, weights: dict[str, float]) -> frozenset[str]:
    """Fuse LoRAs of the checkpoint, by name."""
    paths = {name: checkpoint.lora(name) for name in weights}
    loras = [
        ResolvedLora(id=name, sha256=file_digest(path).sha256, weight=weights[name])
        for name, path in paths.items()
    ]
    return fuse_loras(networks, loras, paths=paths)


def fuse_file(networks: Any, path: Path) -> None:
    """Fuse one file, whose name is its id."""
    lora = ResolvedLora(id=path.stem, sha256="0" * 64, weight=1.0)
    fuse_loras(networks, [lora], paths={path.stem: path})


def networks(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: load_network(name, Weights(checkpoint.base / name)) for name in SWAPPED}


@pytest.mark.parametrize("weights", [{"style": 1.0}, {"character": 0.6}, {"style": -0.5, "character": 1.3}])
def test_weights_equal_diffusers(checkpoint: Checkpoint, weights: dict[str, float]) -> None:
    ours, pristine = networks(checkpoint), networks(checkpoint)
    touched = fuse(ours, checkpoint, weights)
    theirs = checkpoint.pipeline()
    for name in weights:
        theirs.load_lora_weights(str(checkpoint.lora(name)), adapter_name=name)
    theirs.set_adapters(list(weights), list(weights.values()))
    theirs.fuse_lora(adapter_names=list(weights))
    theirs.unload_lora_weights()
    assert touched == ({"unet"} if list(weights) == ["style"] else set(SWAPPED))
    for component in SWAPPED:
        expected, before = getattr(theirs, component).state_dict(), pristine[component].state_dict()
        found = ours[component].state_dict()
        assert found.keys() == expected.keys() == before.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert (component in touched) == any(not torch.equal(found[name], before[name]) for name in found)


@pytest.mark.parametrize("layout", ["style", "style-kohya"])
def test_delta_is_the_papers_formula(checkpoint: Checkpoint, layout: str) -> None:
    """W + weight * up @ down (Hu et al., arXiv 2106.09685), independent of diffusers and peft."""
    before, after = networks(checkpoint), networks(checkpoint)
    fuse(after, checkpoint, {layout: 0.5})
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
    with pytest.raises(
        BuildError, match=r"lora foreign: 1 of \d+ keys do not belong to this base: unet.down_blocks.9"
    ):
        fuse_file(networks(checkpoint), tmp_path / "foreign.safetensors")


def test_other_shapes_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = {
        name: torch.zeros(*(2 * size for size in values.shape))
        for name, values in load_file(checkpoint.lora("style")).items()
    }
    save_file(state, tmp_path / "wide.safetensors")
    with pytest.raises(BuildError, match="wide"):
        fuse_file(networks(checkpoint), tmp_path / "wide.safetensors")


@pytest.mark.parametrize(
    "keys", [["transformer.blocks.0.weight"], ["lora_unet_nonsense_to_q.lora_down.weight"]]
)
def test_what_is_no_sdxl_lora_is_an_error(checkpoint: Checkpoint, tmp_path: Path, keys: list[str]) -> None:
    save_file({key: torch.zeros(4, 4) for key in keys}, tmp_path / "x.safetensors")
    with pytest.raises(BuildError, match="lora x"):
        fuse_file(networks(checkpoint), tmp_path / "x.safetensors")


def test_weights_that_are_not_finite_are_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    state = load_file(checkpoint.lora("style"))
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(BuildError, match="nan"):
        fuse_file(networks(checkpoint), tmp_path / "nan.safetensors")
