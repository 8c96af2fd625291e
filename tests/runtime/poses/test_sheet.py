"""The contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from intaglio.imaging.pose_library import PoseLibrary
from intaglio.poses.sheet import CELL, contact_sheet

POSES = Path(__file__).parents[3] / "configs" / "poses"


def test_every_pose_has_its_square_and_its_name_below() -> None:
    library = PoseLibrary(POSES)
    names = library.names()[:11]
    sheet = contact_sheet([library.read(name) for name in names], columns=4)
    across, down = (sheet.shape[1] - 4) // 4, (sheet.shape[0] - 4) // 3
    squares = []
    for index in range(12):
        top, left = 4 + index // 4 * down, 4 + index % 4 * across
        square = sheet[top : top + CELL, left : left + CELL]
        title = sheet[top + CELL : top + down - 4, left : left + CELL]
        if index == 11:
            assert len(np.unique(sheet[top : top + down - 4, left : left + CELL])) == 1
            break
        assert (square.max(axis=-1) > 100).mean() > 0.005  # limbs
        assert (title.min(axis=-1) > 200).any()  # letters
        squares.append(square)
    assert len({square.tobytes() for square in squares}) == len(names)


def test_one_pose_makes_a_narrow_sheet() -> None:
    pose = PoseLibrary(POSES).read("waving-01")
    assert contact_sheet([pose]).shape[1] == CELL + 8
