"""Which weights of a graph LoRAs may replace."""

from __future__ import annotations

import pytest

from intaglio_export.graphs.swapped_weights import is_swapped


@pytest.mark.parametrize(
    ("name", "dimensions", "transformer", "everything"),
    [
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight.T", 2, True, True),
        ("unet.down_blocks.1.attentions.0.proj_in.weight.T", 2, True, True),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.norm1.weight", 1, False, False),
        ("network.text_model.encoder.layers.0.layer_norm1.weight", 1, False, False),
        ("unet.down_blocks.1.resnets.0.conv1.weight", 4, False, True),
        ("unet.time_embedding.linear_1.weight", 2, False, True),
        ("network.text_model.encoder.layers.0.mlp.fc1.weight.T", 2, True, True),
        ("network.text_model.embeddings.token_embedding.weight", 2, False, False),
        ("controlnet.conv_in.weight", 4, False, False),
        ("onnx::Mul_4235", 3, False, False),
    ],
)
def test_which_weights_a_running_server_may_change(
    name: str, dimensions: int, transformer: bool, everything: bool
) -> None:
    assert is_swapped(name, dimensions, "transformer") is transformer
    assert is_swapped(name, dimensions, "all") is everything
    assert not is_swapped(name, dimensions, "off")
