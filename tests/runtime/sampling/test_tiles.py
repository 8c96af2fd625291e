"""Tiles cover everything, are no larger than asked, and are one picture again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.config import Profiles
from intaglio.sampling.tiles import Tiling, blend_tiles, decoded_sizes, tiling_of


def cut(picture: np.ndarray, tiling: Tiling) -> list[np.ndarray]:
    return [picture[:, top : top + tiling.height, left : left + tiling.width] for top, left in tiling.places]


def test_what_fits_is_one_tile() -> None:
    tiling = tiling_of(128, 96, most=128 * 96)
    assert tiling == Tiling(128, 96, (0,), (0,))
    picture = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    assert blend_tiles(tiling, [picture], shape=(2, 96, 128, 3)) is picture


@pytest.mark.parametrize(
    ("width", "height", "most"),
    [(256, 256, 128 * 192), (160, 90, 100 * 100), (17, 400, 900), (9, 5, 1), (193, 128, 192 * 128)],
)
def test_tiles_cover_the_whole_and_overlap(width: int, height: int, most: int) -> None:
    tiling = tiling_of(width, height, most=most)
    assert tiling.width * tiling.height <= most
    covered = np.zeros((height, width), int)
    for top, left in tiling.places:
        assert top >= 0
        assert left >= 0
        view = covered[top : top + tiling.height, left : left + tiling.width]
        assert view.shape == (tiling.height, tiling.width), "inside the picture"
        view += 1
    assert covered.min() == 1
    for starts, side in ((tiling.lefts, tiling.width), (tiling.tops, tiling.height)):
        if side > 4:
            assert all(before + side - after >= side // 4 - 1 for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize("most", [40 * 40, 24 * 32])
def test_tiles_of_a_picture_are_that_picture(most: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 72, 100, 3), np.uint8)
    tiling = tiling_of(100, 72, most=most)
    assert len(list(tiling.places)) > 3
    np.testing.assert_array_equal(blend_tiles(tiling, cut(picture, tiling), shape=(2, 72, 100, 3)), picture)


def test_a_seam_is_a_slope() -> None:
    """Two tiles that differ in brightness: no step between neighbouring columns is larger than an even
    slope's.
    """
    tiling = tiling_of(70, 8, most=40 * 8)
    dark, bright = (np.full((1, 8, 40, 3), value, np.uint8) for value in (50, 150))
    row = blend_tiles(tiling, [dark, bright], shape=(1, 8, 70, 3))[0, 0, :, 0].astype(int)
    overlap = 2 * 40 - 70
    assert (row[0], row[-1]) == (50, 150)
    assert np.diff(row).max() <= np.ceil(100 / overlap)
    assert (np.diff(row) >= 0).all()


def test_latents_and_pixels_are_cut_alike() -> None:
    assert tiling_of(32, 16, most=304).scaled(8) == Tiling(8 * 19, 8 * 16, (0, 8 * 13), (0,))


def test_sizes_are_decoded_whole_unless_the_configuration_says_otherwise() -> None:
    sizes = ((1024, 1024), (1280, 720), (2048, 2048))
    assert tuple(decoded_sizes(Profiles(sizes=sizes), SDXL_ARCHITECTURE)) == sizes
    first, second, third = decoded_sizes(Profiles(sizes=sizes, decoder_pixels=1536 * 1024), SDXL_ARCHITECTURE)
    assert (first, second) == sizes[:2]
    assert third[0] * third[1] <= 1536 * 1024
    assert not any(side % 8 for side in third)
