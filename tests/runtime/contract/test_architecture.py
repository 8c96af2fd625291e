"""Architectures from the configurations of diffusers."""

from __future__ import annotations

from intaglio.contract.architecture import SDXL_ARCHITECTURE, Architecture, CrossAttention, Residual


def test_the_configurations_of_sdxl_base() -> None:
    sdxl = SDXL_ARCHITECTURE
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
