"""Poses: the library, its files in configs/poses, mirroring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from intaglio.imaging.openpose import read_pose
from intaglio.imaging.pose_library import PoseLibrary
from miniature.captions import VERBS
from miniature.skeleton import (
    CANVAS,
    FAMILIES,
    INDEX,
    Pose,
    keypoints_from_pose,
    library,
    library_files,
    place,
    write_library,
)

POSES = Path(__file__).parents[2] / "configs" / "poses"


def test_the_library_is_large_and_every_family_is_in_it() -> None:
    poses = library()
    assert len(poses) >= 160
    assert {family for family, _ in poses.values()} == set(FAMILIES) == set(VERBS)
    assert len({pose for _, pose in poses.values()}) >= 160


def test_committed_poses_are_the_library() -> None:
    written = {path.name: json.loads(path.read_text()) for path in POSES.iterdir()}
    assert written == {name: json.loads(text) for name, text in library_files()}


def test_write_library_makes_the_folder_that_the_server_lists(tmp_path: Path) -> None:
    assert write_library(tmp_path / "poses") == len(library())
    assert set(PoseLibrary(tmp_path / "poses").names()) == set(library())


@pytest.mark.parametrize("name", ["standing-01", "sitting-03-mirrored", "jumping-02-lively"])
def test_the_server_reads_back_the_keypoints(name: str) -> None:
    expected = place(library()[name][1], scale=1.15, centre_x=CANVAS / 2, floor_y=224.0)
    read = PoseLibrary(POSES).load(name)
    assert read.shape == (1, 18, 3)
    np.testing.assert_allclose(read[0, :, :2] * CANVAS, expected, atol=0.01)
    assert (read[0, :, 2] == 1).all()


def test_every_file_is_openpose_json_inside_the_canvas() -> None:
    for name, text in library_files():
        people = read_pose(json.loads(text))
        assert people[..., :2].min() >= 0, name
        assert people[..., :2].max() <= 1, name


def test_mirrored_twice_is_the_same_pose() -> None:
    for _, pose in library().values():
        assert pose.mirrored().mirrored() == pose


def test_mirroring_turns_the_keypoints_about_the_hips() -> None:
    swap = [INDEX[name.replace("left", "?").replace("right", "left").replace("?", "right")] for name in INDEX]
    for _, pose in library().values():
        turned = keypoints_from_pose(pose)[swap] * (-1, 1)
        np.testing.assert_allclose(keypoints_from_pose(pose.mirrored()), turned, atol=1e-9)


def test_the_lowest_ankle_stands_on_the_floor_and_a_jump_does_not() -> None:
    ankles = [INDEX["right_ankle"], INDEX["left_ankle"]]
    floor, air = (
        place(Pose(lift=lift), scale=1.0, centre_x=128, floor_y=230)[ankles, 1].max() for lift in (0.0, 0.5)
    )
    assert floor == pytest.approx(230)
    assert air == pytest.approx(230 - 0.5 * 66)


def test_jitter_is_a_function_of_the_generator() -> None:
    one, same, other = (Pose().jittered(np.random.default_rng(seed), 7.0) for seed in (1, 1, 2))
    assert one == same != other
