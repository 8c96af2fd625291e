"""An autoencoder that overflows in float16, made to stay inside it without changing what it computes."""

from __future__ import annotations

from typing import Any

import torch

from intaglio_export.weights.latents import SDXL_LATENTS, LatentStatistics
from intaglio_export.weights.seeded import Seeded, make_network
from intaglio_export.weights.vae_range import fit_into_float16, largest_activation, real_range_latents


def hot_vae(factor: float) -> Any:
    """Residual streams `factor` times as large, as SDXL's own grow."""
    vae: Any = make_network("vae", Seeded("sdxl-reduced", 0), dtype=torch.float32)
    with torch.no_grad():
        for block in (vae.decoder.up_blocks[2], vae.encoder.down_blocks[1]):
            block.resnets[0].conv2.weight *= factor
    return vae


def test_overflow_is_taken_out_and_nothing_else_changes() -> None:
    latents, pictures = (
        real_range_latents((1, 4, 12, 8), SDXL_LATENTS, seed=3),
        torch.rand(1, 3, 96, 64) * 2 - 1,
    )
    reference = hot_vae(1e6)
    with torch.no_grad():
        decoded, encoded = reference.decode(latents)[0], reference.encode(pictures)[0].parameters
        assert not hot_vae(1e6).half().decode(latents.half())[0].isfinite().all()
        divisors = fit_into_float16(reference)
        assert divisors["decoder"] >= 16
        assert divisors["encoder"] >= 16
        assert largest_activation(reference.decoder, lambda: reference.decode(latents)) < 65504
        assert torch.allclose(reference.decode(latents)[0], decoded, rtol=1e-3, atol=1e-4)
        assert torch.allclose(reference.encode(pictures)[0].parameters, encoded, rtol=1e-3, atol=1e-4)
        half = reference.half().decode(latents.half())[0].float()
    assert half.isfinite().all()
    assert (half - decoded).norm() / decoded.norm() < 0.02


def test_what_fits_is_left_alone() -> None:
    vae = hot_vae(1.0)
    before = {name: values.clone() for name, values in vae.state_dict().items()}
    assert fit_into_float16(vae) == {"decoder": 1, "encoder": 1}
    assert all(torch.equal(values, before[name]) for name, values in vae.state_dict().items())


def test_latents_have_the_range_of_real_ones() -> None:
    latents = real_range_latents((1, 4, 128, 128), SDXL_LATENTS, seed=0)
    assert 6 < latents.std() < 9
    assert latents.shape == (1, 4, 128, 128)


def test_latents_have_the_range_that_the_vae_says() -> None:
    """Playground v2.5's values: each channel has a mean and a standard deviation of its own."""
    statistics = LatentStatistics(0.5, (-1.6574, 1.886, -1.383, 2.5155), (8.4927, 5.9022, 6.5498, 5.2299))
    latents = real_range_latents((8, 4, 128, 128), statistics, seed=0)
    assert torch.allclose(latents.std((0, 2, 3)), torch.tensor(statistics.std) / 0.5, rtol=0.2)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.tensor(statistics.mean), atol=1.5)
