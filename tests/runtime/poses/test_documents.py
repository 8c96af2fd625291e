"""Poses from other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.openpose import read_pose
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.poses.documents import document_from_json, write_pose

POINTS = np.random.default_rng(5).uniform(1, 200, (18, 3)).round(2)
CANVAS = {"canvas_width": 320, "canvas_height": 240}


def written(folder: Path, value: Any) -> Path:
    path = folder / "given.json"
    path.write_text(json.dumps(value))
    return path


def people(*points: Any) -> dict[str, Any]:
    return {"people": [{"pose_keypoints_2d": np.asarray(one).ravel().tolist()} for one in points]}


@pytest.mark.parametrize("wrapped", [False, True], ids=["OpenPose", "an editor's list"])
def test_a_document_with_its_canvas(tmp_path: Path, wrapped: bool) -> None:
    value: Any = people(POINTS, POINTS) | CANVAS
    document = document_from_json(written(tmp_path, [value] if wrapped else value), canvas=None)
    np.testing.assert_allclose(read_pose(document), [POINTS / [320, 240, 1]] * 2)


def test_openposes_own_output_needs_the_size_of_its_picture(tmp_path: Path) -> None:
    path = written(tmp_path, {"version": 1.3, **people(POINTS)})
    with pytest.raises(InvalidRequest, match=r"canvas: .*given\.json does not say .*--canvas WIDTH HEIGHT"):
        document_from_json(path, canvas=None)
    document = document_from_json(path, canvas=(400, 100))
    np.testing.assert_allclose(read_pose(document), [POINTS / [400, 100, 1]])


def test_body_25_loses_the_middle_of_the_hips_and_the_feet(tmp_path: Path) -> None:
    wide = np.random.default_rng(6).uniform(1, 200, (25, 3))
    document = document_from_json(written(tmp_path, people(wide) | CANVAS), canvas=None)
    (body,) = read_pose(document) * [320, 240, 1]
    np.testing.assert_allclose(body[:8], wide[:8], atol=1e-3)  # nose, neck, arms
    np.testing.assert_allclose(body[8:14], wide[9:15], atol=1e-3)  # legs: 8 is the middle of the hips
    np.testing.assert_allclose(body[14:], wide[15:19], atol=1e-3)  # eyes and ears


@pytest.mark.parametrize(
    "value",
    [[], {"people": []} | CANVAS, people(POINTS[:17]) | CANVAS, {"people": None} | CANVAS, "text", 3],
)
def test_what_is_no_pose_is_refused_by_its_file(tmp_path: Path, value: Any) -> None:
    with pytest.raises((ConfigError, InvalidRequest), match=r"given\.json"):
        document_from_json(written(tmp_path, value), canvas=None)


def test_a_pose_is_written_with_its_tags_and_replaced_only_when_asked(tmp_path: Path) -> None:
    document = {**CANVAS, **people(POINTS)}
    write_pose(tmp_path, "new", document, tags=["photo", "photo"], replace=False)
    assert PoseLibrary(tmp_path).read("new").tags == ("new", "photo")
    before = (tmp_path / "new.json").read_bytes()
    with pytest.raises(
        InvalidRequest, match=r"new\.json exists already; allowed: another name, or --replace"
    ):
        write_pose(tmp_path, "new", document, tags=(), replace=False)
    assert (tmp_path / "new.json").read_bytes() == before
    write_pose(tmp_path, "new", document, tags=(), replace=True)
    assert PoseLibrary(tmp_path).read("new").tags == ("new",)
