"""Aligned faces: a similarity moves the points of a face to where the recognition network expects them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.errors import MissingExtra

__all__ = ["TEMPLATES", "aligned", "similarity"]

Points = NDArray[np.float64]
"""[points, 2]: x, y."""
TEMPLATES: Final[dict[str, tuple[int, Points]]] = {
    "arcface": (
        112,
        np.array(
            [
                [38.2946, 51.6963],
                [73.5318, 51.5014],
                [56.0252, 71.7366],
                [41.5493, 92.3655],
                [70.7299, 92.2041],
            ]
        ),
    ),
    "dlib": (
        150,
        np.array([[47.3, 35.9], [101.2, 35.7], [70.3, 71.8], [50.7, 94.6], [101.4, 94.6]]),
    ),
}
"""The side of a square in pixels, and both eyes, nose and corners of the mouth in it.

`arcface` is insightface's (`utils/face_align.py`). `dlib` is where these points lie in dlib's face chips of
150 pixels with a padding of 0.25; it was fitted to photographs.
"""


def similarity(points: Points, target: Points) -> NDArray[np.float64]:
    """The [2, 3] rotation, scale and shift that moves `points` nearest to `target` (least squares; Umeyama,
    IEEE PAMI 13(4), 1991).

    In the complex plane it is z -> a z + b, so that it never mirrors.
    """
    source, wanted = (values @ np.array([1, 1j]) for values in (points, target))
    centred = source - source.mean()
    spread = float((np.abs(centred) ** 2).sum())
    turn = np.vdot(centred, wanted - wanted.mean()) / spread if spread else 1.0 + 0j
    shift = wanted.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def aligned(picture: Image.Image, points: Points, *, template: str, side: int) -> NDArray[np.uint8]:
    """The face of RGB `picture` as [side, side, 3]; what lies outside the picture is black.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    whole, target = TEMPLATES[template]
    if len(points) == len(target) - 1:  # the middle of the mouth instead of its corners
        target = np.concatenate([target[:3], target[3:].mean(axis=0, keepdims=True)])
    matrix = similarity(points, target * (side / whole))
    cv2 = _opencv()
    warped: NDArray[np.uint8] = cv2.warpAffine(np.asarray(picture), matrix, (side, side))
    return warped


def _opencv() -> Any:
    try:
        import cv2  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="serve") from error
    return cv2
