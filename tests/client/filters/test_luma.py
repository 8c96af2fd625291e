"""Blank, badly exposed and blurred pictures are told from good ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import pytest
from numpy.typing import NDArray

from intaglio.contract.filters import filter_from_entry
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.verdict import Candidate, Verdict
from miniature.dataset import held_out_scene
from miniature.world import render

PICTURE = render(held_out_scene(0)[0]).picture


def verdict(pixels: NDArray[Any], **entry: Any) -> Verdict:
    with opened_filters([filter_from_entry(entry)]) as (one,):
        return one(Candidate(np.asarray(pixels, np.uint8), "picture"))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_colour_is_blank(value: int) -> None:
    said = verdict(np.full((64, 48, 3), value), kind="blank")
    assert not said.accepted
    assert said.reason == "contrast 0 is below 0.02"
    assert said.scores == {"contrast": 0.0, "one_colour": 1.0}


def test_a_black_picture_with_a_few_other_pixels_is_blank() -> None:
    pixels = np.zeros((100, 100, 3))
    pixels[:1] = 255
    said = verdict(pixels, kind="blank")
    assert not said.accepted
    assert "share of one colour 0.99 is above 0.98" in said.reason


def test_a_drawn_picture_is_not_blank() -> None:
    assert verdict(PICTURE, kind="blank").accepted


def test_blur_lowers_sharpness() -> None:
    blurred = PIL.Image.fromarray(PICTURE).filter(PIL.ImageFilter.GaussianBlur(3))
    sharp = verdict(PICTURE, kind="sharpness").scores["variance"]
    soft = verdict(np.asarray(blurred), kind="sharpness").scores["variance"]
    assert soft < sharp / 20
    assert verdict(PICTURE, kind="sharpness", least=sharp / 2).accepted
    said = verdict(np.asarray(blurred), kind="sharpness", least=sharp / 2)
    assert not said.accepted
    assert said.reason.startswith("variance ")
    assert not verdict(PICTURE, kind="sharpness", most=sharp / 2).accepted


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """Against scipy's."""
    from scipy.ndimage import laplace  # noqa: PLC0415

    luma = PICTURE.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    expected = laplace(luma)[1:-1, 1:-1].var()
    assert verdict(PICTURE, kind="sharpness").scores["variance"] == pytest.approx(expected, rel=1e-4)


def test_a_picture_of_two_pixels_gets_a_verdict() -> None:
    said = verdict(np.zeros((1, 2, 3)), kind="sharpness", least=1)
    assert (said.accepted, said.reason) == (False, "2x1 pixels are too few to judge")


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"least": 0.6}, "mean luma 0.5 is below 0.6"),
        ({"most": 0.4}, "mean luma 0.5 is above 0.4"),
        ({"most_black": 0.2}, "share of black 0.5 is above 0.2"),
        ({"most_white": 0.2}, "share of white 0.5 is above 0.2"),
    ],
)
def test_each_bound_of_exposure_counts(bounds: dict[str, float], reason: str) -> None:
    pixels = np.zeros((10, 10, 3))
    pixels[:5] = 255
    said = verdict(pixels, kind="exposure", **bounds)
    assert (said.accepted, said.reason) == (False, reason)
    assert said.scores == {"mean": 0.5, "black": 0.5, "white": 0.5}
    assert verdict(pixels, kind="exposure").accepted
