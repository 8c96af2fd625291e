"""The names of layers in Stability's code, for full SDXL, against the converter that diffusers loads single
files with.
"""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from intaglio.loras.files import layer_table
from intaglio.loras.foreign import family_by_keys
from intaglio.loras.layer_names import layer_names, stability_names

FULL_SDXL: Any = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 2,
    "projection_class_embeddings_input_dim": 2816,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
"""stabilityai/stable-diffusion-xl-base-1.0, unet/config.json."""


@pytest.fixture(scope="module")
def unet() -> Any:
    with torch.device("meta"):
        return diffusers.UNet2DConditionModel(**FULL_SDXL)


@pytest.fixture(scope="module")
def layers(unet: Any) -> tuple[str, ...]:
    shapes = {name: tuple(values.shape) for name, values in unet.named_parameters()}
    return tuple(layer_table({"unet": shapes})["unet"])


def test_stability_names_of_full_sdxl_are_those_that_diffusers_reads(
    unet: Any, layers: tuple[str, ...]
) -> None:
    names = stability_names(layers)
    assert names.keys() == set(layers)
    assert sum("block" in layer for layer in layers) == 788
    checkpoint: dict[str, str | None] = {}
    for layer, name in names.items():
        checkpoint[f"model.diffusion_model.{name}.weight"] = layer
        checkpoint[f"model.diffusion_model.{name}.bias"] = None  # which the converter asks for
    assert len(checkpoint) == 2 * len(layers) == 2 * 794
    theirs = convert_ldm_unet_checkpoint(checkpoint, unet.config)  # type: ignore[no-untyped-call]
    found = {name: layer for name, layer in theirs.items() if layer is not None}
    assert found == {f"{layer}.weight": layer for layer in layers}


def test_no_name_means_two_layers(layers: tuple[str, ...]) -> None:
    """What `dict` would hide: a name that a later layer took from an earlier one."""
    names, stability = layer_names({"unet": dict.fromkeys(layers, (1, 1))}), stability_names(layers)
    for layer in layers:
        forms = (layer, f"unet.{layer}", f"lora_unet_{layer}", f"lycoris_{layer}")
        forms += (f"diffusion_model.{stability[layer]}", f"lora_unet_{stability[layer]}")
        for form in forms:
            found = form.replace(".", "_") if form.startswith(("lora_", "lycoris_")) else form
            assert names[found] == ("unet", layer)


def test_a_layer_that_stability_does_not_have() -> None:
    assert stability_names(["something.else", "mid_block.resnets.0.other", "conv_in"]) == {
        "conv_in": "input_blocks.0.0"
    }


def test_no_name_of_a_layer_is_one_of_another_model(layers: tuple[str, ...]) -> None:
    for name in layer_names({"unet": dict.fromkeys(layers, (1, 1))}):
        assert family_by_keys([f"{name}.lora_down.weight"]) is None, name
