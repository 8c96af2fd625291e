"""People in a photograph -> their keypoints -> the map that pose ControlNets are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.detectors.detection import Detection
from intaglio.detectors.movenet import MoveNet
from intaglio.detectors.persons import boxes_within, open_person_finder
from intaglio.errors import InvalidRequest
from intaglio.imaging.coco import COCO_KEYPOINTS, distinct_people, openpose_from_coco
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.resizing import Size

__all__ = ["FEWEST_KEYPOINTS", "LEAST_KEYPOINT", "LEAST_PERSON", "PoseDetector", "pose_detection"]

LEAST_KEYPOINT: Final = 0.2
"""Confidence below which a keypoint counts as not seen."""
LEAST_PERSON: Final = 0.25
"""Mean confidence of a person's keypoints in a box below which there is no person."""
LEAST_UNBOXED: Final = 0.4
"""The same where no box was found and the whole picture is read. MoveNet gives up to 0.3 for pictures of
houses; acrobats of the miniature's world, which NanoDet often misses, have 0.6.
"""
FEWEST_KEYPOINTS: Final = 5
"""Seen keypoints that make a person: fewer draw no figure."""


class PoseDetector:
    """MoveNet, and a network of people where the deployment names it. Making one opens the files."""

    def __init__(self, file: Path, persons: Path | None) -> None:
        """Open the files.

        Raises:
            ConfigError: a file is missing, or holds another network.
            MissingExtra: ONNX Runtime is not installed.
        """
        self._movenet = MoveNet(file)
        self._finder = None if persons is None else open_person_finder(persons)

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The people in `photo`, drawn in its size.

        Raises:
            InvalidRequest: there is no person.
        """
        return pose_detection(self.people(photo), photo.size, name=name)

    def people(self, photo: Image.Image) -> NDArray[np.float64]:
        """[people, 18, 3] keypoints in pixels; the most confident person first.

        Where no box is found, the whole picture is taken for one: a person may fill it.
        """
        whole = (0.0, 0.0, float(photo.width), float(photo.height))
        boxes = []
        if self._finder is not None:
            # MoveNet's squares take memory by the sides of a box, and a network may give any box.
            boxes = boxes_within(self._finder.people(photo), photo.size)[:, :4].tolist()
        least = LEAST_PERSON if boxes else LEAST_UNBOXED
        readings = [self._movenet.person(photo, tuple(box)) for box in boxes or [whole]]
        people = np.array([one for one in readings if _is_person(one, least)])
        people = people.reshape(-1, COCO_KEYPOINTS, 3)
        body = openpose_from_coco(distinct_people(people))
        body[body[..., 2] < LEAST_KEYPOINT] = 0.0
        return body


def _is_person(keypoints: NDArray[np.float64], least: float) -> bool:
    confidence = keypoints[:, 2]
    seen = int((confidence >= LEAST_KEYPOINT).sum())
    return bool(confidence.mean() >= least) and seen >= FEWEST_KEYPOINTS


def pose_detection(people: NDArray[np.float64], size: Size, *, name: str) -> Detection:
    """[people, 18 or 128, 3] keypoints in pixels, drawn as the map of a photograph of `size`.

    Errors call the photograph `name`.

    Raises:
        InvalidRequest: there is no person.
    """
    if not len(people):
        allowed = "a picture that shows a person's head, shoulders and arms"
        raise InvalidRequest(name, "no person was found", allowed=allowed)
    width, height = size
    drawn = draw_pose(people / np.array([width, height, 1.0]), width=width, height=height)
    return Detection(drawn, people)
