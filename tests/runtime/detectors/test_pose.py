"""People in photographs: one, several, none, and figures of the miniature's world."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.pose import PoseDetector
from intaglio.errors import InvalidRequest
from intaglio.imaging.openpose import draw_pose
from miniature import rules
from miniature.skeleton import INDEX
from miniature.world import render, sample_scene

from ...photographs import nobody, one_person, street, two_people

FAMILIES = ("standing", "waving", "cheering", "walking", "balancing", "lunging")


def test_the_map_of_one_person_is_the_drawing_of_the_keypoints(pose_detector: PoseDetector) -> None:
    photo = one_person()
    detection = pose_detector(photo, name="astronaut.png")
    assert detection.people is not None
    assert detection.people.shape == (1, 18, 3)
    drawn = draw_pose(detection.people / np.array([*photo.size, 1.0]), width=512, height=512)
    np.testing.assert_array_equal(detection.map, drawn)
    (person,) = detection.people
    np.testing.assert_allclose(person[1, :2], (person[2, :2] + person[5, :2]) / 2)  # the neck
    assert (person[INDEX["right_ankle"]] == 0).all()  # the photograph ends above it


def test_several_people_are_found_where_they_are(pose_detector: PoseDetector) -> None:
    people = pose_detector.people(two_people())
    noses = sorted(person[0, 0] for person in people)
    assert len(people) == 2
    assert noses[0] < 512 < noses[1]


def test_people_who_are_small_in_the_picture_are_found(pose_detector: PoseDetector) -> None:
    photo = street()
    people = pose_detector.people(photo)
    assert len(people) >= 3
    for person in people:
        seen = person[person[:, 2] > 0]
        assert np.ptp(seen[:, 1]) < 0.6 * photo.height


def test_no_person_is_an_error_that_names_the_picture(pose_detector: PoseDetector) -> None:
    with pytest.raises(InvalidRequest, match=r"coffee\.png: no person was found; allowed: a picture"):
        pose_detector(nobody(), name="coffee.png")
    flat = Image.new("RGB", (300, 200), (120, 130, 140))
    with pytest.raises(InvalidRequest, match="flat: no person was found"):
        pose_detector(flat, name="flat")


def test_keypoints_of_rendered_scenes_agree_with_their_truth(pose_detector: PoseDetector) -> None:
    """PCK@0.1 by the miniature's rules, of families that stand upright.

    MoveNet was never shown such figures. It reads crouching and bowing ones badly (docs/controls.md).
    """
    rng = np.random.default_rng(8)
    right = judged = 0
    while judged < 8 * 8:
        scene = sample_scene(rng)
        if scene.family not in FAMILIES:
            continue
        people = pose_detector.people(Image.fromarray(render(scene).picture))
        found = {}
        if len(people):
            found = {name: people[0, index, :2] for name, index in INDEX.items() if people[0, index, 2] > 0}
        counts = rules.pck(found, scene.keypoints)
        right, judged = right + counts[0], judged + counts[1]
    assert right / judged >= 0.75


def test_a_picture_is_taken_for_one_person_where_no_detector_of_boxes_is_named(
    pose_source: DetectorSource,
) -> None:
    detector = PoseDetector(pose_source.file, None)
    assert len(detector.people(one_person())) == 1
