"""The pose library: names, mirrored variants, tags, damaged files, new files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.openpose import mirrored_pose
from intaglio.imaging.pose_library import PoseLibrary


def document(x: float = 20.0, **more: Any) -> dict[str, Any]:
    """One person whose nose alone is seen, at `x` of 200."""
    points = [x, 50.0, 1.0] + [0.0] * 51
    return {"canvas_width": 200, "canvas_height": 100, "people": [{"pose_keypoints_2d": points}], **more}


def write(folder: Path, name: str, value: Any = None) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document() if value is None else value))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"canvas_width": 0},
        {"people": []},
        {"people": [{"pose_keypoints_2d": [1.0] * 53}]},
        {"people": None},
        {"tags": "one"},
        {"canvas_width": float("nan")},
        {"canvas_height": float("inf")},
        {"people": document()["people"] * 33},
        {"notes": "x" * 2**20},
    ],
)
def test_a_damaged_file_is_named_and_does_not_stop_the_others(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, "standing-01", document() | change)
    write(tmp_path, "standing-02")
    library = PoseLibrary(tmp_path)
    with pytest.raises(ConfigError, match=r"pose standing-01: standing-01\.json is not OpenPose JSON"):
        library.load("standing-01")
    assert library.load("standing-02").shape == (1, 18, 3)


def test_a_deeply_nested_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "standing-01.json").write_text("[" * 200_000)
    with pytest.raises(ConfigError, match=r"pose standing-01: .*nested too deeply"):
        PoseLibrary(tmp_path).load("standing-01")


def test_a_pose_of_many_people_is_allowed(tmp_path: Path) -> None:
    write(tmp_path, "crowd-01", document() | {"people": document()["people"] * 32})
    assert PoseLibrary(tmp_path).load("crowd-01").shape == (32, 18, 3)


def test_names_are_ids_only(tmp_path: Path) -> None:
    for name in ("b-01", "a-01", "Not An Id"):
        write(tmp_path, name)
    library = PoseLibrary(tmp_path)
    assert library.names() == ("a-01", "b-01")
    for name in ("Not An Id", "../a-01", "c-01", "c-01-mirrored"):
        with pytest.raises(InvalidRequest, match=r"controls: pose .* is unknown; allowed: a-01, b-01"):
            library.load(name)
    with pytest.raises(InvalidRequest, match="no pose library"):
        PoseLibrary(None).load("a-01")


def test_every_pose_has_a_mirrored_variant_unless_a_file_has_its_name(tmp_path: Path) -> None:
    write(tmp_path, "a-01")
    library = PoseLibrary(tmp_path)
    mirrored = library.load("a-01-mirrored")
    np.testing.assert_array_equal(mirrored, mirrored_pose(library.load("a-01")))
    assert mirrored[0, 0, 0] == pytest.approx(0.9)
    write(tmp_path, "a-01-mirrored", document(100.0))
    assert library.load("a-01-mirrored")[0, 0, 0] == pytest.approx(0.5)


def test_tags_are_the_words_of_the_name_and_those_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "waving-01-lively", document(tags=["from a photo", "waving"]))
    assert PoseLibrary(tmp_path).read("waving-01-lively").tags == ("waving", "lively", "from a photo")
    assert PoseLibrary(tmp_path).read("waving-01-lively-mirrored").tags[-2:] == ("mirrored", "from a photo")


def test_the_first_folder_counts_and_new_files_are_found(tmp_path: Path) -> None:
    built, added = tmp_path / "built", tmp_path / "added"
    library = PoseLibrary(built, added)
    assert library.names() == ()  # neither folder is there yet
    built.mkdir()
    added.mkdir()
    write(built, "a-01", document(100.0))
    write(added, "a-01")
    write(added, "b-01")
    assert library.names() == ("a-01", "b-01")
    assert library.load("a-01")[0, 0, 0] == pytest.approx(0.5)
    assert library.load("b-01")[0, 0, 0] == pytest.approx(0.1)


def test_the_version_changes_with_the_file(tmp_path: Path) -> None:
    library = PoseLibrary(tmp_path)
    assert library.version("a-01") is None
    path = write(tmp_path, "a-01")
    first = library.version("a-01")
    assert first is not None
    assert library.version("a-01") == first
    os.utime(path, ns=(1, 1))
    assert library.version("a-01") != first
