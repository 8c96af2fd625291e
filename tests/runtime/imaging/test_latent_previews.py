"""Previews have the right size, and cost next to nothing."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from intaglio.imaging.latent_previews import preview_files, rgb_from_latents


@pytest.mark.parametrize(("shape", "size"), [((16, 24), (96, 64)), ((24, 16), (64, 96)), ((8, 8), (96, 96))])
def test_the_longer_side_is_as_asked(shape: tuple[int, int], size: tuple[int, int]) -> None:
    latents = np.random.default_rng(0).standard_normal((2, 4, *shape)).astype(np.float32)
    files = preview_files(latents, longest=96)
    assert [Image.open(io.BytesIO(data)).size for data in files] == [size] * 2
    assert files[0] != files[1]


def test_colours_are_those_of_sdxls_latents() -> None:
    """The first channel is lightness; without latents there is a grey that is a little warm."""
    latents = np.zeros((3, 4, 1, 1), np.float32)
    latents[1, 0], latents[2, 0] = 2, -5
    none, light, dark = (pixel.tolist() for pixel in rgb_from_latents(latents)[:, 0, 0])
    assert none == [150, 140, 130]
    assert light == [255, 255, 250]
    assert dark == [0, 0, 0]


def test_a_preview_of_a_large_picture_takes_at_most_3_ms() -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 128, 128)).astype(np.float32)
    took = []
    for _ in range(20):
        started = time.perf_counter()
        preview_files(latents, longest=256)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.003
