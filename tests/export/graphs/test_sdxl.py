"""What the graphs add to the networks themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.activations import GEGLU
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from intaglio_export.graphs.sdxl import VaeDecoder, _rescaling, whole_gates


class Given(torch.nn.Module):
    """An autoencoder whose picture is what it is given."""

    config = SimpleNamespace()

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def decode(self, latents: Any, *, return_dict: bool) -> tuple[Any]:
        return (latents,)


def test_bytes_of_halves_are_those_of_diffusers() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)][: 3 * 144**2].reshape(1, 3, 144, 144)
    sample = torch.from_numpy(finite)
    pixels, magnitude = VaeDecoder(Given(torch.float16))(sample.float())
    expected = VaeImageProcessor().postprocess(sample.float(), output_type="np")
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 144, 144, 3))
    np.testing.assert_array_equal(pixels, (expected * 255).round().astype(np.uint8))
    assert magnitude[0] == pytest.approx(float(np.abs(finite.astype(np.float64)).mean()), rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_seen(value: float) -> None:
    sample = torch.zeros(2, 3, 8, 8)
    sample[1, 2, 7, 7] = value
    _, magnitude = VaeDecoder(Given(torch.float32))(sample)
    assert magnitude.isfinite().tolist() == [True, False]


@torch.no_grad()
def test_a_whole_gate_computes_the_same() -> None:
    torch.manual_seed(0)
    layer = GEGLU(16, 8)
    given = torch.randn(2, 5, 16)
    before = GEGLU.forward
    expected = layer(given)
    with whole_gates():
        assert GEGLU.forward is not before
        assert torch.equal(layer(given), expected)


def test_whole_gates_end_with_the_block() -> None:
    """Verification's reference, which is run later, is diffusers' own."""
    before = GEGLU.forward
    with pytest.raises(ZeroDivisionError), whole_gates():
        raise ZeroDivisionError
    assert GEGLU.forward is before


@pytest.mark.parametrize("rescale", [0.0, 0.3, 0.7, 1.0])
def test_guidance_is_rescaled_as_diffusers_does(rescale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(2, 3, 4, 12, 10, generator=generator)
    guided = negative + 7 * (positive - negative)
    made = guided * _rescaling(guided, positive, torch.tensor([rescale]))
    torch.testing.assert_close(made, rescale_noise_cfg(guided, positive, guidance_rescale=rescale))
    assert torch.equal(made, guided) == (rescale == 0)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_rescaling_is_exactly_one_where_it_has_no_effect(scale: float) -> None:
    """Off, whatever the deviations are; and without guidance, where both tensors are the same."""
    values = scale * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(values, 3.0)
    one = torch.ones(2, 1, 1, 1)
    for guided, positive in ((values, flat), (flat, values), (flat, flat), (values, values)):
        assert torch.equal(_rescaling(guided, positive, torch.zeros(1)), one)
    for same in (values, flat):
        assert torch.equal(_rescaling(same, same, torch.ones(1)), one)
