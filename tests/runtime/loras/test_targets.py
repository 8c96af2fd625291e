"""Which weights of a build a LoRA may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from intaglio.builds.file_checks import file_digest
from intaglio.builds.manifest import NetworkFile
from intaglio.errors import EngineMismatch, LoraRefused
from intaglio.loras.targets import (
    SWAPPED,
    SwapLayers,
    Target,
    network_of_weight,
    open_layers,
    other_layers,
    swap_targets,
)
from intaglio.loras.tensor_files import TensorFile

QUERY = "mid_block.attentions.0.attn1.to_q"
KEY = "mid_block.attentions.0.attn2.to_k"
FROZEN = "mid_block.resnets.0.conv1"
PRISTINE = {
    f"unet.{QUERY}.weight.T": np.zeros((6, 4), np.float16),
    f"unet.{KEY}.weight": np.zeros((4, 8), np.float16),
}
METADATA = {"frozen": json.dumps({FROZEN: [4, 4, 3, 3]})}


def pristine() -> TensorFile:
    return TensorFile(save(PRISTINE, METADATA))


def lora(module: str, *, outputs: int, inputs: int) -> bytes:
    return save(
        {
            f"unet.{module}.lora_A.weight": np.ones((2, inputs), np.float32),
            f"unet.{module}.lora_B.weight": np.ones((outputs, 2), np.float32),
        }
    )


def test_targets_are_named_by_their_initializers() -> None:
    targets = swap_targets(pristine())
    assert targets[QUERY] == Target(f"unet.{QUERY}.weight.T", QUERY, transposed=True)
    assert not targets[KEY].transposed


def test_keys_of_the_prompt_are_in_the_context() -> None:
    assert network_of_weight("unet", f"unet.{KEY}.weight") == "unet_context"
    assert network_of_weight("unet", f"unet.{QUERY}.weight.T") == "unet"
    assert network_of_weight("text_encoder", "text_encoder.x.attn2.to_k.weight") == "text_encoder"


def test_a_lora_has_the_shapes_of_the_layers() -> None:
    layers = SwapLayers({"unet": pristine()})
    assert set(layers.read("a", lora(QUERY, outputs=4, inputs=6)).layers) == {("unet", QUERY)}
    with pytest.raises(LoraRefused, match=r"this base's layer is \[4, 6\]"):
        layers.read("a", lora(QUERY, outputs=6, inputs=4))


def test_frozen_layers_are_refused_by_name() -> None:
    assert other_layers(pristine()).frozen == {FROZEN: (4, 4, 3, 3)}
    data = save(
        {
            f"unet.{FROZEN}.lora_A.weight": np.ones((2, 4, 3, 3), np.float32),
            f"unet.{FROZEN}.lora_B.weight": np.ones((4, 2, 1, 1), np.float32),
        }
    )
    with pytest.raises(
        LoraRefused, match=rf"changes 1 layers .* such as unet\.{FROZEN}; build with swap: all"
    ):
        SwapLayers({"unet": pristine()}).read("a", data)


def test_a_build_without_swapping_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match="does not swap LoRAs"):
        open_layers(tiny.manifest, tmp_path)
    save_file(PRISTINE, tmp_path / "pristine.safetensors")
    files = {"pristine.safetensors": file_digest(tmp_path / "pristine.safetensors")}
    network = NetworkFile(path="x", key="0" * 64, files=files, pristine="pristine.safetensors")
    swapping = tiny.manifest.model_copy(
        update={"swap": "transformer", "networks": dict.fromkeys(SWAPPED, network)}
    )
    assert set(open_layers(swapping, tmp_path).targets["unet"]) == {QUERY, KEY}
    (tmp_path / "pristine.safetensors").write_bytes(b"short")
    with pytest.raises(EngineMismatch, match="not a safetensors file"):
        open_layers(swapping, tmp_path)
