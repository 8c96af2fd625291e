"""COCO's keypoints as OpenPose's."""

from __future__ import annotations

import numpy as np

from intaglio.imaging.coco import (
    COCO_MIRRORED,
    distinct_people,
    openpose_from_coco,
    openpose_from_coco_whole,
)

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
PEOPLE = np.random.default_rng(1).uniform(0.3, 100, (3, 17, 3))


def test_every_keypoint_keeps_its_name() -> None:
    body = openpose_from_coco(PEOPLE)
    for index, name in enumerate(OPENPOSE):
        if name != "neck":
            np.testing.assert_array_equal(body[:, index], PEOPLE[:, COCO.index(name)])


def test_the_neck_is_between_the_shoulders_and_as_certain_as_the_less_certain() -> None:
    people = np.zeros((1, 17, 3))
    people[0, 5], people[0, 6] = (40, 10, 0.9), (20, 30, 0.4)
    assert openpose_from_coco(people)[0, 1].tolist() == [30, 20, 0.4]


def test_mirroring_exchanges_the_sides() -> None:
    for index, other in enumerate(COCO_MIRRORED):
        swapped = COCO[index].replace("left", "?").replace("right", "left").replace("?", "right")
        assert COCO[other] == swapped


def test_two_readings_of_one_person_become_the_more_confident_one() -> None:
    first, second = PEOPLE[0].copy(), PEOPLE[1].copy()
    again = first.copy()
    again[:5, :2] += 60  # a few hidden joints are guessed elsewhere
    again[:, 2] += 10
    kept = distinct_people(np.array([first, second, again]))
    assert len(kept) == 2
    assert any((one == again).all() for one in kept)
    assert any((one == second).all() for one in kept)
    assert distinct_people(PEOPLE[:0]).shape == (0, 17, 3)


def test_hands_and_face_follow_the_body_and_feet_do_not() -> None:
    people = np.random.default_rng(2).uniform(0.3, 100, (2, 133, 3))
    whole = openpose_from_coco_whole(people)
    assert whole.shape == (2, 128, 3)
    np.testing.assert_array_equal(whole[:, :18], openpose_from_coco(people[:, :17]))
    np.testing.assert_array_equal(whole[:, 18:39], people[:, 91:112])  # the left hand
    np.testing.assert_array_equal(whole[:, 39:60], people[:, 112:])
    np.testing.assert_array_equal(whole[:, 60:], people[:, 23:91])


def test_bodies_say_who_is_the_same_whatever_hands_and_faces_are_beside_them() -> None:
    people = np.random.default_rng(2).uniform(0.3, 100, (3, 133, 3))
    people[2, :17] = people[0, :17]
    people[2, 2] += 50  # an eye that is more certain
    assert len(distinct_people(people)) == 2
