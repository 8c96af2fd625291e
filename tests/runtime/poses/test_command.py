"""`intaglio poses`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from intaglio.cli import main
from intaglio.contract.config import load_deployment
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.poses.command import app

from ...photographs import nobody, one_person
from ..detectors.graphs import write_simcc

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A deployment with two poses, one damaged file and one whose name is no id."""
    folder = tmp_path / "poses"
    folder.mkdir()
    for name in ("waving-01", "running-02-lively"):
        (folder / f"{name}.json").write_bytes((ROOT / f"configs/poses/{name}.json").read_bytes())
    (folder / "broken.json").write_text('{"people": [')
    (folder / "My Pose.json").write_text("{}")
    detectors = ROOT / "miniature/detectors"
    source = {"kind": "movenet", "file": str(detectors / "movenet-lightning.onnx")}
    values: dict[str, Any] = {
        "base": [{"architecture": "sdxl-reduced", "seed": 0}],
        "profiles": {"sizes": [[64, 64]]},
        "poses": "poses",
        "detectors": {"pose": {**source, "persons": str(detectors / "nanodet.onnx")}},
    }
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(config: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--config", str(config)])


def test_a_damaged_file_is_named_and_the_others_are_listed(config: Path) -> None:
    done = run(config, "list", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert [pose["name"] for pose in told["poses"]] == ["running-02-lively", "waving-01"]
    assert list(told["refused"]) == ["broken"]
    assert "pose broken: broken.json is not OpenPose JSON" in done.stderr


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("wav", ["waving-01"]),
        ("lively RUN", ["running-02-lively"]),
        ("lively wav", []),
        ("01", ["waving-01"]),
    ],
)
def test_search_wants_every_word_in_the_name_or_a_tag(config: Path, search: str, found: list[str]) -> None:
    done = run(config, "list", "--search", search, "--quiet")
    assert done.stdout.split() == found


def test_the_sheet_shows_what_was_searched_for(config: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    run(config, "list", "--search", "waving", "--sheet", sheet)
    one = Image.open(sheet).size
    run(config, "list", "--sheet", sheet)
    two = Image.open(sheet).size
    assert two[0] > one[0]
    assert two[1] == one[1]


@pytest.mark.parametrize("name", ["waving-01", "waving-01-mirrored"])
def test_show_draws_a_pose(config: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "map.png"
    told = json.loads(run(config, "show", name, "-o", out, "--json").stdout)
    keypoints = PoseLibrary(config.parent / "poses").load(name)
    np.testing.assert_array_equal(Image.open(out), draw_pose(keypoints, width=256, height=256))
    assert (told["name"], told["people"], told["width"], told["map"]) == (name, 1, 256.0, str(out))


def test_a_photograph_becomes_a_pose(config: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    one_person().save(photo)
    done = run(config, "add", photo, "--name", "portrait", "--tag", "from a photo", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["name"], told["people"], told["tags"]) == ("portrait", 1, ["portrait", "from a photo"])
    (person,) = PoseLibrary(config.parent / "poses").load("portrait")
    np.testing.assert_allclose(person[0, :2] * 512, (222, 122), atol=15)  # her nose
    assert "portrait" in run(config, "list", "--search", "photo", "--quiet").stdout


def test_a_pose_of_a_photograph_is_the_body_of_a_detector_that_reads_hands_too(
    config: Path, tmp_path: Path
) -> None:
    places = np.arange(133) % 90
    peaks = np.stack([places, np.ones(133), places, np.ones(133)], axis=1)
    file = write_simcc(tmp_path / "simcc.onnx", peaks, (48, 64))
    values = yaml.safe_load(config.read_text())
    values["detectors"] = {"pose": {"kind": "dwpose", "file": str(file), "hands": True}}
    config.write_text(yaml.safe_dump(values))
    photo = tmp_path / "photo.png"
    one_person().save(photo)
    done = run(config, "add", photo, "--name", "line")
    assert done.exit_code == 0, done.output
    kept = json.loads((config.parent / "poses/line.json").read_text())
    assert [list(person) for person in kept["people"]] == [["pose_keypoints_2d"]]
    (person,) = PoseLibrary(config.parent / "poses").load("line")
    np.testing.assert_allclose(
        np.diff(person[2:5, 1]), np.diff([6, 8, 10]) * 640 / 0.75 / 128 / 512, rtol=1e-3
    )


def test_a_document_of_another_program_becomes_a_pose(config: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"people": [{"pose_keypoints_2d": [10.0, 20.0, 1.0] * 18}]}))
    done = run(config, "add", given, "--name", "point", "--canvas", "100", "40")
    assert done.exit_code == 0, done.output
    (person,) = PoseLibrary(config.parent / "poses").load("point")
    np.testing.assert_allclose(person, [[0.1, 0.5, 1.0]] * 18)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("add", "cup.png", "--name", "cup"), "cup.png: no person was found"),
        (("add", "cup.png", "--name", "../cup"), "name: '../cup'; allowed: at most 55"),
        (("add", "cup.png", "--name", "a", "--canvas", "0", "4"), "canvas: 0 4; allowed: two positive"),
        (("add", "gone.png", "--name", "a"), "gone.png: No such file"),
        (("show", "dancing-99"), "pose: pose 'dancing-99' is unknown; allowed: broken, running-02-lively"),
        (("list", "--search", "zzz", "--sheet", "a.png"), "search: no pose matches 'zzz'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    problem: str,
) -> None:
    nobody().save(tmp_path / "cup.png")
    monkeypatch.chdir(tmp_path)
    files = sorted((tmp_path / "poses").iterdir())
    assert main(["poses", *arguments, "--config", str(config)]) != 0
    said = capsys.readouterr().err
    assert problem in said.splitlines()[-1]
    assert sorted((tmp_path / "poses").iterdir()) == files
    assert not (tmp_path / "a.png").exists()


def test_check_names_what_is_refused_and_what_is_not_served(config: Path) -> None:
    done = run(config, "check", "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (told["poses"], told["refused"]) == (2, 1)
    states = {one["name"]: one["state"] for one in told["found"]}
    assert states == {"broken": "refused", "My Pose": "warning"}
    (config.parent / "poses/broken.json").unlink()
    assert run(config, "check").exit_code == 0


def test_check_warns_of_poses_that_draw_little(config: Path) -> None:
    folder = config.parent / "poses"
    canvas = {"canvas_width": 10, "canvas_height": 10}
    unseen = {"people": [{"pose_keypoints_2d": [5.0, 5.0, 0.0] * 18}]}
    outside = {"people": [{"pose_keypoints_2d": [5.0, 25.0, 1.0] * 18}]}
    (folder / "unseen.json").write_text(json.dumps(canvas | unseen))
    (folder / "outside.json").write_text(json.dumps(canvas | outside))
    found = {one["name"]: one["detail"] for one in json.loads(run(config, "check", "--json").stdout)["found"]}
    assert "no keypoint is seen" in found["unseen"]
    assert "18 of 18 keypoints lie outside" in found["outside"]


def test_a_name_leaves_room_for_that_of_its_mirror_image(config: Path) -> None:
    pose = config.parent / "poses/waving-01.json"
    assert run(config, "add", pose, "--name", "a" * 55).exit_code == 0
    PoseLibrary(config.parent / "poses").load("a" * 55 + "-mirrored")
    refused = run(config, "add", pose, "--name", "a" * 56)
    assert "at most 55" in str(refused.exception)


def test_a_replaced_pose_of_a_build_is_noted(config: Path) -> None:
    """A server prefers the build's copy."""
    pose = config.parent / "poses/waving-01.json"
    built = load_deployment(config).build_folder / "poses/0123/waving-01.json"
    built.parent.mkdir(parents=True)
    built.write_bytes(pose.read_bytes())
    note = "serves its own copy until the next build"
    other = config.parent / "poses/running-02-lively.json"
    replaced = run(config, "add", other, "--name", "waving-01", "--replace")
    assert replaced.exit_code == 0
    assert note in replaced.output
    assert note not in run(config, "add", pose, "--name", "running-02-lively", "--replace").output
