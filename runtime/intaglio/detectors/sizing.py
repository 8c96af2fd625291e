"""A detection of a photograph -> the control map of a picture of another size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from intaglio.contract.models import Resize
from intaglio.detectors.detection import Detection
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.resizing import Size, resized, resized_keypoints

__all__ = ["sized"]


def sized(detection: Detection, size: Size, how: Resize) -> Detection:
    """`detection` for a picture of `size`. People are drawn again, so their limbs have the usual width."""
    height, width = detection.map.shape[:2]
    if (width, height) == size:
        return detection
    if detection.people is None:
        method = Image.Resampling.NEAREST if detection.classes else Image.Resampling.LANCZOS
        image = resized(Image.fromarray(detection.map), size, how, method=method)
        return Detection(np.asarray(image, dtype=np.uint8), classes=detection.classes)
    people = resized_keypoints(detection.people, (width, height), size, how)
    drawn = draw_pose(people / np.array([*size, 1.0]), width=size[0], height=size[1])
    return Detection(drawn, people)
