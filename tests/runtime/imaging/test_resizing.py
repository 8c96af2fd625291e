"""Another size, with or without the shape."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.models import Resize
from intaglio.imaging.resizing import resized, resized_keypoints

NEAREST = Image.Resampling.NEAREST


def test_a_picture_of_that_size_is_not_copied() -> None:
    image = Image.new("RGB", (30, 20))
    assert resized(image, (30, 20), "fill", method=NEAREST) is image


@pytest.mark.parametrize("how", ["stretch", "fit", "fill"])
@pytest.mark.parametrize("size", [(60, 40), (90, 30), (31, 77)])
def test_keypoints_go_where_their_pixels_go(how: Resize, size: tuple[int, int]) -> None:
    """A white block marks the keypoint; its centre is found in the resized picture."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[90:110, 140:160] = 255
    keypoints = np.zeros((1, 18, 3))
    keypoints[0, 0] = (150, 100, 1)
    found = resized_keypoints(keypoints, (300, 200), size, how)[0]
    rows, columns = np.nonzero(
        np.asarray(resized(Image.fromarray(pixels), size, how, method=NEAREST))[..., 0]
    )
    np.testing.assert_allclose(found[0, :2], (columns.mean() + 0.5, rows.mean() + 0.5), atol=1.0)
    assert not found[1:].any()


def test_fill_may_leave_keypoints_outside() -> None:
    keypoints = np.zeros((1, 18, 3))
    keypoints[0, 0] = (0, 100, 1)
    found = resized_keypoints(keypoints, (300, 200), (100, 100), "fill")
    assert found[0, 0].tolist() == [-25, 50, 1]
