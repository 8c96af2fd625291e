"""What verification sees of a network whose output is bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from intaglio.contract.architecture import Architecture, Residual
from intaglio.contract.sdxl import network_spec, profiles
from intaglio.errors import BuildError
from intaglio_export.engines.verify import Check, checked_profiles, expected_outputs, relative_error

ARCHITECTURE = Architecture(
    latent_channels=3,
    vae_scale=1,
    tokens=77,
    text_width=8,
    text_width_2=8,
    text_layers=2,
    pooled_width=8,
    time_ids=6,
    down_residuals=(Residual(channels=8, scale=1),),
    mid_residual=Residual(channels=8, scale=1),
    control_attentions=(),
    attentions=(),
)


class Overflowing(torch.nn.Module):
    """An autoencoder that gives back what it is given, one value of it infinite where `factor` is."""

    config = SimpleNamespace()
    dtype = torch.float32

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def decode(self, latents: Any, *, return_dict: bool) -> tuple[Any]:
        sample = latents.clone()
        sample[0, 0, 0, 0] *= self.factor
        return (sample,)


def test_a_decoder_that_overflows_is_refused() -> None:
    network = network_spec("vae_decoder", ARCHITECTURE)
    tried = profiles(network, ARCHITECTURE, sizes=[(16, 8)], batches=[1], guidance=[True], chunks=1)
    check = Check(network, Path("none"), "fp16", tried, tolerance=0.1)
    (outputs,) = expected_outputs(check, Overflowing(1.0)).values()
    assert outputs["pixels"].shape == (1, 8, 16, 3)
    with pytest.raises(
        BuildError, match=r"vae_decoder: .* is not finite: this VAE overflows in fp16; use one that does not"
    ):
        expected_outputs(check, Overflowing(float("inf")))


def test_relative_error() -> None:
    expected = np.array([3.0, 4.0], np.float32)
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + np.array([0, 0.5], np.float32), expected) == pytest.approx(0.1)
    assert relative_error(np.array([np.nan, 4.0]), expected) == float("inf")
    assert relative_error(expected, np.array([np.inf, 4.0])) == float("inf")


def test_checked_profiles_have_each_batch_and_the_last() -> None:
    network = network_spec("unet", ARCHITECTURE)
    every = profiles(
        network, ARCHITECTURE, sizes=[(16, 8), (8, 16)], batches=[1, 2], guidance=[True, False], chunks=2
    )
    checked = checked_profiles(every)
    rows = {(profile.axes["B"].optimum, profile.axes["N"].optimum) for profile in checked}
    assert rows == {(1, 2), (1, 1), (2, 4), (2, 2)}
    assert checked[-1] is every[-1]
    assert len(checked) == 5
