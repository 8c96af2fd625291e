"""`intaglio control`."""

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
from intaglio.detectors.command import app
from intaglio.errors import InvalidRequest
from intaglio.imaging.openpose import draw_pose, read_pose

from ...photographs import nobody, one_person, two_people
from .conftest import FILES


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    values: dict[str, Any] = {
        "base": [{"architecture": "sdxl-reduced", "seed": 0}],
        "profiles": {"sizes": [[64, 64]]},
        "detectors": {
            "pose": {
                "kind": "movenet",
                "file": str(FILES / "movenet-lightning.onnx"),
                "persons": str(FILES / "nanodet.onnx"),
            },
            "midas": {"kind": "depth", "file": "midas.onnx"},
        },
    }
    path = folder / "a.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    one_person().save(folder / "one.png")
    two_people().save(folder / "two.jpg", quality=95)
    nobody().save(folder / "none.webp", lossless=True)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(config: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--config", str(config)])


def test_one_photograph_becomes_one_map(config: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "map.png"
    done = run(config, photos / "one.png", "-o", out, "--json")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)["maps"]
    drawn = draw_pose(read_pose(told["openpose"]), width=512, height=512)
    difference = np.abs(np.asarray(Image.open(out)).astype(int) - drawn)
    assert (difference > 8).mean() < 0.001  # keypoints are printed with three decimals
    assert (told["map"], told["width"], told["height"]) == (str(out), 512, 512)


def test_no_map_overwrites_a_photograph(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    one_person().save(folder / "one.png")
    (tmp_path / "link").symlink_to(folder)
    before = (folder / "one.png").read_bytes()
    for photo, out in (
        (folder, folder),
        (folder, tmp_path / "link"),
        (folder / "one.png", folder / "one.png"),
        (folder / "one.png", folder),
    ):
        done = run(config, photo, "-o", out)
        assert isinstance(done.exception, InvalidRequest)
        assert "one.png is one of the photographs" in str(done.exception)
    assert (folder / "one.png").read_bytes() == before


def test_a_folder_becomes_a_folder_and_who_is_refused_stops_nobody(
    config: Path, photos: Path, tmp_path: Path
) -> None:
    done = run(config, photos, "-o", tmp_path / "maps", "--json")
    assert done.exit_code == 1
    told = {Path(one["photo"]).name: one for one in json.loads(done.stdout)["maps"]}
    assert set(told) == {"none.webp", "one.png", "two.jpg"}
    assert "none.webp: no person was found" in told["none.webp"]["error"]
    assert "none.webp: no person was found" in done.stderr
    assert len(told["two.jpg"]["openpose"]["people"]) == 2
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["one.png", "two.png"]


def test_what_was_seen_before_is_told(config: Path, photos: Path, tmp_path: Path) -> None:
    first = run(config, photos / "one.png", "-o", tmp_path / "a.png", "--type", "canny")
    again = run(config, photos / "one.png", "-o", tmp_path / "b.png", "--type", "canny")
    assert "seen before" not in first.stdout
    assert "seen before" in again.stdout
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    quiet = run(config, photos / "one.png", "-o", tmp_path / "c.png", "--type", "canny", "--quiet")
    assert quiet.stdout == f"{tmp_path / 'c.png'}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("one.png", "-o", "map.jpg"), "out: 'map.jpg'; allowed: a file NAME.png"),
        (("one.png", "two.jpg", "-o", "map.png"), "out: 'map.png' for several maps; allowed: a folder"),
        (("one.png", "one.png", "-o", "maps"), "photos: two of them would become maps/one.png"),
        (("gone.png", "-o", "map.png"), "gone.png: no such file or folder"),
        (
            ("one.png", "-o", "map.png", "--type", "depth"),
            "midas.onnx: no such file; put the file there",
        ),
        (
            ("one.png", "-o", "map.png", "--type", "hed"),
            "no detector 'hed'; allowed: canny, midas, pose, depth",
        ),
        (("empty", "-o", "maps"), "empty: holds no picture"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    config: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    problem: str,
) -> None:
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir(exist_ok=True)
    assert main(["control", *arguments, "--config", str(config)]) != 0
    said = capsys.readouterr().err
    assert problem in said
    assert len(said.splitlines()) == 1
    assert not (photos / "maps").exists()
    (photos / "empty").rmdir()
