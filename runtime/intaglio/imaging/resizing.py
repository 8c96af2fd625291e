"""How a picture gets another size and shape, and where its keypoints are then.

`stretch` does not keep the shape, `fit` adds black borders, `fill` cuts at the centre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from intaglio.contract.models import Resize

__all__ = ["Size", "resized", "resized_keypoints"]

Size = tuple[int, int]
"""Width and height in pixels."""


def resized(image: Image.Image, size: Size, how: Resize, *, method: Image.Resampling) -> Image.Image:
    """`image` in `size`; `image` itself where that is its size already."""
    if image.size == size:
        return image
    match how:
        case "stretch":
            return image.resize(size, method)
        case "fit":
            return ImageOps.pad(image, size, method)
        case "fill":
            return ImageOps.fit(image, size, method)


def resized_keypoints(
    people: NDArray[np.float64], size: Size, target: Size, how: Resize
) -> NDArray[np.float64]:
    """[people, keypoints, 3] in pixels of `size`, as pixels of the picture that `resized` makes in `target`.

    `fill` may leave keypoints outside.
    """
    scale = np.array(target) / np.array(size)
    if how == "fit":
        scale = np.repeat(scale.min(), 2)
    elif how == "fill":
        scale = np.repeat(scale.max(), 2)
    margin = (np.array(target) - np.array(size) * scale) / 2
    moved = people.copy()
    seen = people[..., 2] > 0
    moved[seen, :2] = people[seen][:, :2] * scale + margin
    return moved
