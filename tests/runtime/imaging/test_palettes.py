"""Segmentation colours: recognised, checked, translated."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio.contract.models import PaletteName
from intaglio.errors import InvalidRequest
from intaglio.imaging.palettes import PALETTES, in_palette, palette_of

ROAD, CAR, RIDER, TRAIN, TRAILER = (128, 64, 128), (0, 0, 142), (255, 0, 0), (0, 80, 100), (0, 0, 110)
ADE_ROAD, ADE_CAR, ADE_PERSON = (140, 140, 140), (0, 102, 200), (150, 5, 61)
FIELD = "controls[0].image"


def drawn(*colours: tuple[int, int, int]) -> np.ndarray:
    """Stripes of 4 pixels, [8, 4 x colours, RGB]."""
    return np.repeat(np.array([colours], np.uint8), 8, axis=0).repeat(4, axis=1)


def test_tables_have_every_class_once() -> None:
    assert len(PALETTES["ade20k"]) == 150, "150 classes of 149 colours, and unlabelled"
    assert len(PALETTES["bdd100k"]) == 20
    assert PALETTES["bdd100k"].items() <= PALETTES["cityscapes"].items()


@pytest.mark.parametrize(
    ("colours", "palette"),
    [((ROAD, CAR), "cityscapes"), ((ROAD, TRAILER), "cityscapes"), ((ADE_ROAD, ADE_CAR), "ade20k")],
)
def test_a_palette_is_recognised(colours: tuple[tuple[int, int, int], ...], palette: str) -> None:
    assert palette_of(drawn(*colours)) == palette
    assert palette_of(drawn(*colours, (1, 2, 3))) is None


@pytest.mark.parametrize("wanted", ["cityscapes", "bdd100k"])
def test_a_map_in_the_controlnets_colours_stays_as_it_is(wanted: PaletteName) -> None:
    map_ = drawn(ROAD, RIDER, CAR)
    assert np.array_equal(in_palette(map_, wanted, named=None, field=FIELD), map_)


@pytest.mark.parametrize("named", [None, "cityscapes", "bdd100k"])
def test_traffic_is_translated_for_a_controlnet_of_ade20k(named: PaletteName | None) -> None:
    made = in_palette(drawn(ROAD, RIDER, CAR, (0, 0, 0)), "ade20k", named=named, field=FIELD)
    assert np.array_equal(made, drawn(ADE_ROAD, ADE_PERSON, ADE_CAR, (0, 0, 0)))


def test_every_class_of_traffic_but_a_few_has_one_in_ade20k() -> None:
    lost = {}
    for code, name in PALETTES["cityscapes"].items():
        try:
            in_palette(
                drawn((code >> 16, code >> 8 & 255, code & 255)), "ade20k", named="cityscapes", field="x"
            )
        except InvalidRequest as error:
            lost[name] = str(error)
    assert list(lost) == ["train", "rail track", "tunnel"]
    assert "its class train (cityscapes) has no counterpart in ade20k" in lost["train"]


def test_an_unknown_colour_is_named_with_its_place() -> None:
    map_ = drawn(ROAD, CAR)
    map_[3, 5] = (1, 2, 3)
    with pytest.raises(InvalidRequest, match=r"\(1, 2, 3\) at x=5, y=3 is no class of cityscapes; 1 such"):
        in_palette(map_, "cityscapes", named=None, field=FIELD)
    with pytest.raises(InvalidRequest, match=r"\(128, 64, 128\) at x=0, y=0 is no class of ade20k"):
        in_palette(drawn(ROAD, CAR), "cityscapes", named="ade20k", field=FIELD)
