"""DWPose: people in a photograph -> their bodies, hands and faces -> the map of a pose ControlNet.

It runs as IDEA-Research/DWPose (branch onnx) does with `yolox_l.onnx` and `dw-ll_ucoco_384.onnx`, without
torch and mmpose. A keypoint below a confidence of 0.3 is not drawn. Two rules are our own: a person has at
least five keypoints of the body, and the less certain of two readings of one person is dropped.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.detection import Detection
from intaglio.detectors.persons import open_person_finder
from intaglio.detectors.pose import FEWEST_KEYPOINTS, pose_detection
from intaglio.detectors.simcc import SimCC
from intaglio.errors import ConfigError
from intaglio.imaging.coco import (
    COCO_KEYPOINTS,
    COCO_WHOLE_KEYPOINTS,
    distinct_people,
    openpose_from_coco,
    openpose_from_coco_whole,
)
from intaglio.imaging.hands_and_face import FACE_KEYPOINTS, HAND_KEYPOINTS
from intaglio.imaging.openpose import KEYPOINTS

__all__ = ["LEAST_KEYPOINT", "DwposeDetector"]

LEAST_KEYPOINT: Final = 0.3
"""Confidence below which a keypoint counts as not seen."""


class DwposeDetector:
    """The networks of keypoints and, where the deployment names it, of people. Making one opens the files."""

    def __init__(self, source: DetectorSource) -> None:
        """Open the files.

        Raises:
            ConfigError: a file is missing or holds another network, or hands or faces are wanted of one that
                reads bodies alone.
            MissingExtra: ONNX Runtime is not installed.
        """
        file = source.files[0]
        self._simcc = SimCC(file)
        self._hands, self._face = source.hands, source.face
        if (self._hands or self._face) and self._simcc.keypoints != COCO_WHOLE_KEYPOINTS:
            key = "hands" if self._hands else "face"
            right = (
                f"take {key} out, or name a file of {COCO_WHOLE_KEYPOINTS} keypoints (dw-ll_ucoco_384.onnx)"
            )
            raise ConfigError(f"{file}: it reads bodies alone, {self._simcc.keypoints} keypoints; {right}")
        self._finder = None if source.persons is None else open_person_finder(source.persons)

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The people in `photo`, drawn in its size.

        Raises:
            InvalidRequest: there is no person.
            ConfigError: a network fails, or gives numbers that are not finite.
            MissingExtra: OpenCV is not installed, which YOLOX needs.
        """
        return pose_detection(self.people(photo), photo.size, name=name)

    def people(self, photo: Image.Image) -> NDArray[np.float64]:
        """[people, 18, 3] keypoints in pixels, [people, 128, 3] with hands or faces.

        The most confident person comes first. Without a network of people the whole picture is taken for
        one person.
        """
        boxes = [(0.0, 0.0, float(photo.width), float(photo.height))]
        if self._finder is not None:
            boxes = [tuple(box) for box in self._finder.people(photo)[:, :4].tolist()]
        readings = [self._simcc.person(photo, box) for box in boxes]
        found = np.array([one for one in readings if _is_person(one)])
        people = distinct_people(found.reshape(-1, self._simcc.keypoints, 3))
        drawn = self._wanted(people)
        drawn[drawn[..., 2] < LEAST_KEYPOINT] = 0.0
        return drawn

    def _wanted(self, people: NDArray[np.float64]) -> NDArray[np.float64]:
        """[people, K, 3] of the network, in OpenPose's order. What is not wanted counts as not seen."""
        if not (self._hands or self._face):
            return openpose_from_coco(people)
        wanted = openpose_from_coco_whole(people)
        hands_end = KEYPOINTS + 2 * HAND_KEYPOINTS
        if not self._hands:
            wanted[:, KEYPOINTS:hands_end] = 0.0
        if not self._face:
            wanted[:, hands_end : hands_end + FACE_KEYPOINTS] = 0.0
        return wanted


def _is_person(keypoints: NDArray[np.float64]) -> bool:
    return int((keypoints[:COCO_KEYPOINTS, 2] >= LEAST_KEYPOINT).sum()) >= FEWEST_KEYPOINTS
