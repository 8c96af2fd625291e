"""Non-maximum suppression, by OpenCV: of boxes that mostly cover each other the most certain stays."""

# ruff: noqa: PLC0415  (OpenCV is an extra)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import MissingExtra

__all__ = ["not_suppressed"]


def not_suppressed(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    overlap: float,
    classes: NDArray[np.int64] | None = None,
) -> NDArray[np.intp]:
    """Indices of the boxes that stay, by falling score.

    `boxes` are [N, 4]: left, top, right, bottom; `scores` are above 0. A box goes where its intersection over
    union with a better one is above `overlap`; with `classes`, only with one of the same class.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="serve") from error
    if not len(boxes):
        return np.zeros(0, np.intp)
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if classes is None:
        kept = cv2.dnn.NMSBoxes(sized.tolist(), scores.tolist(), 0.0, overlap)
    else:
        kept = cv2.dnn.NMSBoxesBatched(sized.tolist(), scores.tolist(), classes.tolist(), 0.0, overlap)
    found: NDArray[np.intp] = np.asarray(kept, np.intp).reshape(-1)
    order = np.lexsort((found, -scores[found]))
    return np.asarray(found[order])
