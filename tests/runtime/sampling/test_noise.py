"""Noise against torch's own CPU generator."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.sampling.noise import SEED_RANGE, TorchCpuGenerator, diffusers_noise

TOLERANCE = 1e-6
SEEDS = [
    0,
    1,
    42,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -1,
    -2,
    -(2**31),
    -(2**63),
]


def assert_same_draws(seed: int, shapes: list[tuple[int, ...]]) -> None:
    theirs, ours = torch.Generator("cpu").manual_seed(seed), TorchCpuGenerator(seed)
    for shape in shapes:
        expected, found = torch.randn(shape, generator=theirs).numpy(), ours.randn(shape)
        assert found.dtype == np.float32
        assert found.shape == shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_seed(seed: int) -> None:
    assert_same_draws(seed, [(1, 4, 32, 32), (3,), (17,)])


@pytest.mark.parametrize("size", [*range(34), 127, 1000, 1023])
def test_every_remainder_and_the_draw_after_it(size: int) -> None:
    assert_same_draws(5, [(size,), (1,), (size,), (40,)])


def test_the_kept_normal_outlives_a_large_draw() -> None:
    assert_same_draws(9, [(3,), (64,), (2,), (33,), (1,), (0,), (15,), (16,), (5,)])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(*SEED_RANGE), sizes=st.lists(st.integers(0, 90), min_size=1, max_size=8))
def test_any_sequence_of_draws(seed: int, sizes: list[int]) -> None:
    assert_same_draws(seed, [(size,) for size in sizes])


@pytest.mark.parametrize("seed", range(20))
def test_sdxl_latents(seed: int) -> None:
    expected = randn_tensor((1, 4, 128, 128), generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    np.testing.assert_allclose(diffusers_noise(seed, (1, 4, 128, 128)), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_torch_refuses_is_refused(seed: int) -> None:
    with pytest.raises((RuntimeError, OverflowError, ValueError)):
        torch.Generator("cpu").manual_seed(seed)
    with pytest.raises(ValueError, match="out of range"):
        TorchCpuGenerator(seed)


def test_sdxl_latents_take_milliseconds() -> None:
    """2 ms alone; the bound leaves room for a busy machine."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        diffusers_noise(3, (1, 4, 128, 128))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01
