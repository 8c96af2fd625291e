"""Inputs that networks are traced with: of the table's shapes and dtypes, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.sdxl import axis_sizes, network_spec
from intaglio_export.graphs.examples import example_inputs

MATRIX = {"i": 6, "o": 10, "r": 4}
NETWORKS = (
    "text_encoder",
    "unet",
    "unet_context",
    "controlnet.pose",
    "controlnet_context.pose",
    "lora_merge",
)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*NETWORKS, "vae_decoder", "vae_encoder"])
def test_shapes_and_dtypes_are_the_tables(name: str, precision: str) -> None:
    spec = network_spec(name, SDXL_ARCHITECTURE)
    sizes = MATRIX | axis_sizes(SDXL_ARCHITECTURE, width=64, height=72)
    inputs = example_inputs(spec, sizes, precision=precision)  # type: ignore[arg-type]
    assert list(inputs) == [tensor.name for tensor in spec.inputs]
    for tensor in spec.inputs:
        found = inputs[tensor.name]
        assert tuple(found.shape) == tensor.shape(sizes)
        assert str(found.dtype) == f"torch.{tensor.numpy_dtype(precision)}"  # type: ignore[arg-type]
        assert found.to(torch.float64).isfinite().all()


def test_the_seed_decides() -> None:
    spec = network_spec("unet_context", SDXL_ARCHITECTURE)
    sizes = axis_sizes(SDXL_ARCHITECTURE, width=64, height=64)
    first, same, other = (
        example_inputs(spec, sizes, precision="fp32", seed=seed)["prompt_embeds"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_every_prompt_has_an_end_token() -> None:
    """CLIP pools at it."""
    spec = network_spec("text_encoder_2", SDXL_ARCHITECTURE)
    tokens = example_inputs(spec, {"C": 3}, precision="fp32")["input_ids"]
    assert (tokens[:, 0] == 49406).all()
    assert (tokens == 49407).any(dim=1).all()
