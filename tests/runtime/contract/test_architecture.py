"""Architectures from the configurations of diffusers."""

from __future__ import annotations

import pytest

from intaglio.contract.architecture import Architecture, CrossAttention, Residual, architecture_from_configs


@pytest.fixture
def sdxl() -> Architecture:
    """SDXL base's numbers, from the configs on its model card."""
    return architecture_from_configs(
        {
            "block_out_channels": [320, 640, 1280],
            "layers_per_block": 2,
            "projection_class_embeddings_input_dim": 2816,
            "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        },
        text_encoder={"hidden_size": 768, "max_position_embeddings": 77},
        text_encoder_2={"hidden_size": 1280, "projection_dim": 1280},
        vae={"latent_channels": 4, "block_out_channels": [128, 256, 512, 512]},
    )


def test_sdxl_architecture(sdxl: Architecture) -> None:
    expected = [(320, 1)] * 3 + [(320, 2)] + [(640, 2)] * 2 + [(640, 4)] + [(1280, 4)] * 2
    assert sdxl.down_residuals == tuple(
        Residual(channels=channels, scale=scale) for channels, scale in expected
    )
    assert sdxl.mid_residual == Residual(channels=1280, scale=4)
    level_1, level_2 = CrossAttention(heads=10, width=64), CrossAttention(heads=20, width=64)
    assert sdxl.control_attentions == (level_1,) * 4 + (level_2,) * 30
    assert sdxl.attentions == sdxl.control_attentions + (level_2,) * 30 + (level_1,) * 6
    assert (sdxl.context_width, sdxl.pooled_width, sdxl.time_ids, sdxl.vae_scale) == (2048, 1280, 6, 8)
    assert Architecture.model_validate_json(sdxl.model_dump_json()) == sdxl
