"""A detection in another size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.models import Resize
from intaglio.detectors.detection import Detection
from intaglio.detectors.sizing import sized
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.resizing import resized

PEOPLE = np.zeros((1, 18, 3))
PEOPLE[0, :8] = [[60 + 10 * n, 30 + 9 * n, 1.0] for n in range(8)]


def test_its_own_size_changes_nothing() -> None:
    detection = Detection(np.zeros((40, 60, 3), np.uint8))
    assert sized(detection, (60, 40), "fit") is detection


def test_a_map_is_resized_as_a_picture() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    found = sized(Detection(pixels), (64, 64), "fit").map
    assert found.shape == (64, 64, 3)
    assert not found[:8].any(), "the border is black"
    expected = resized(Image.fromarray(pixels), (64, 64), "fit", method=Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("how", ["stretch", "fit", "fill"])
@pytest.mark.parametrize("size", [(256, 256), (512, 256), (200, 400)])
def test_people_are_drawn_where_the_resized_map_shows_them(how: Resize, size: tuple[int, int]) -> None:
    photo = (320, 240)
    drawn = draw_pose(PEOPLE / [*photo, 1.0], width=photo[0], height=photo[1])
    found = sized(Detection(drawn, PEOPLE), size, how)
    assert found.people is not None
    moved = np.asarray(resized(Image.fromarray(drawn), size, how, method=Image.Resampling.BOX))
    inside = [one for one in found.people[0] if one[2] > 0 and (one[:2] > 4).all()]
    inside = [one for one in inside if one[0] < size[0] - 4 and one[1] < size[1] - 4]
    assert len(inside) >= 3
    for x, y, _ in inside:
        assert moved[round(y), round(x)].max() > 60, "the resized map has the joint in the same place"
        assert found.map[round(y), round(x)].max() > 60
    assert (found.people[0, 8:] == 0).all(), "what was not seen stays unseen"
