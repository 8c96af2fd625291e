"""`intaglio data curate`: which images are kept, why the others are not, and that nothing else changes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from intaglio.cli import main
from intaglio.exit_codes import FAILED, USAGE

PHOTOGRAPHS = ("astronaut", "coffee", "cat", "rocket", "brick", "grass", "gravel", "camera")


def photograph(name: str, size: tuple[int, int] = (320, 320)) -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB").resize(size, Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs, and one image for each reason."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    for name in PHOTOGRAPHS:
        place = folder / ("more" if name > "d" else ".")
        photograph(name).save(place / f"{name}.png")
    (folder / "cat.txt").write_text("a cat")
    photograph("coffee").save(folder / "x-again.webp", lossless=True)
    photograph("cat", (400, 400)).save(folder / "x-larger.jpg", quality=90)
    photograph("astronaut", (90, 90)).save(folder / "small.png")
    photograph("astronaut", (900, 300)).save(folder / "long.png")
    photograph("rocket").filter(ImageFilter.GaussianBlur(6)).save(folder / "blurred.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


RULES = ("--min-side", 256, "--max-aspect", 2, "--min-sharpness", 20)


def run(*words: object) -> int:
    return main(["data", "curate", *map(str, words)])


def made(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def files_in(folder: Path) -> dict[str, int]:
    """Name -> inode of every file."""
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_every_rule_has_its_reason(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    said = made(capsys, images, "-o", tmp_path / "kept", *RULES)
    assert said["images"] == 14
    assert said["left_out"] == {
        "damaged": 1, "too small": 1, "too long": 1, "blurred": 1, "duplicate": 1, "near duplicate": 1,
    }  # fmt: skip
    assert said["kept"] == 8
    with (tmp_path / "kept/curation.csv").open(newline="") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 14
    reasons = {name: row["reason"] for name, row in rows.items() if row["kept"] == "false"}
    assert reasons == {
        "broken.jpg": "damaged",
        "small.png": "too small",
        "long.png": "too long",
        "blurred.png": "blurred",
        "x-again.webp": "duplicate",
        "cat.png": "near duplicate",
    }
    assert rows["cat.png"]["detail"].endswith("x-larger.jpg"), "the one with the most pixels is kept"
    assert float(rows["blurred.png"]["sharpness"]) < 20 < float(rows["more/rocket.png"]["sharpness"])
    kept = {name for name, row in rows.items() if row["kept"] == "true"}
    assert set(files_in(tmp_path / "kept")) == kept | {"curation.csv"}
    assert before == {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}


def test_a_second_run_writes_the_same(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        made(capsys, images, "-o", tmp_path / f"{name}.csv", *RULES)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_exact_duplicates_alone_and_captions_that_go_along(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = made(capsys, images, "-o", tmp_path / "kept", *RULES, "--duplicates", "exact", "--copy")
    assert said["left_out"].keys() == {"damaged", "too small", "too long", "blurred", "duplicate"}
    files = files_in(tmp_path / "kept")
    assert {"cat.png", "cat.txt", "x-larger.jpg"} <= set(files)
    assert files["cat.png"] != os.stat(images / "cat.png").st_ino


def test_quotas_of_classes(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = {"astronaut": "people", "camera": "people", "coffee": "things", "rocket": "things"}
    classes |= dict.fromkeys(("brick", "grass", "gravel"), "textures")
    rows = [f"{name}.png,{kind}" for name, kind in classes.items()]
    (tmp_path / "classes.csv").write_text("file,class\n" + "\n".join(rows) + "\n")
    table = ("--classes", tmp_path / "classes.csv")
    words = (images, "-o", tmp_path / "list.txt", *RULES, *table)
    said = made(capsys, *words, "--quota", 1, "--quota", "textures=2")
    assert said["classes"] == {"people": 1, "textures": 2, "things": 1}
    assert said["left_out"]["quota"] == 3
    assert said["left_out"]["no class"] == 1, "x-larger.jpg, the cat"
    listed = (tmp_path / "list.txt").read_text().splitlines()
    assert len(listed) == said["kept"] == 4
    assert all(Path(path).is_file() for path in listed)
    (tmp_path / "list.txt").unlink()
    assert run(*words, "--quota", "birds=3") == FAILED
    assert (
        "quota of birds: no image has this class; classes are people, textures, things"
        in capsys.readouterr().err
    )


def test_what_cannot_be_is_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "two.csv").write_text("file,class\na.png,x\na.png,y\n")
    (tmp_path / "none.csv").write_text("name,kind\na.png,x\n")
    out = tmp_path / "out.csv"
    for words, code, said in (
        ((tmp_path / "absent", "-o", out), FAILED, "no such folder of images"),
        ((images, "-o", out, "--min-side", 5000), FAILED, "no image meets the rules, so nothing is written"),
        ((images, "-o", tmp_path / "full"), FAILED, "is there and not empty; name a new folder"),
        ((images, "-o", out, "--quota", 3), USAGE, "quota: 3 without classes; allowed: with --classes TABLE"),
        (
            (images, "-o", out, "--classes", tmp_path / "two.csv"),
            FAILED,
            "row 2: a.png is y here and x above",
        ),
        ((images, "-o", out, "--classes", tmp_path / "none.csv"), FAILED, "row 1 has no file or no class"),
        (
            (images, "-o", out, "--classes", tmp_path / "two.csv", "--quota", "x=many"),
            USAGE,
            "quota: 'x=many'; allowed: a number, or CLASS=NUMBER",
        ),
        (
            (images, "-o", out, "--classes", tmp_path / "two.csv", "--quota", 1, "--quota", 2),
            USAGE,
            "quota: 2 after another one; allowed: one of each class",
        ),
    ):
        assert run(*words) == code
        assert said in capsys.readouterr().err
    assert not out.exists()
    assert os.listdir(tmp_path / "full") == ["mine.txt"]


def test_near_duplicates_among_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise of which some is drawn again, a little brighter."""
    random = np.random.default_rng(0)
    for number in range(60):
        pixels = random.integers(0, 200, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
        if number % 6 == 0:
            Image.fromarray(pixels + 20).save(tmp_path / f"{number:02d}-brighter.png")
    said = made(capsys, tmp_path, "-o", tmp_path / "kept.txt")
    assert said["left_out"] == {"near duplicate": 10}
    assert said["kept"] == 60


def test_two_images_may_share_a_caption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, suffix in (("brick", "png"), ("cat", "jpg")):
        (tmp_path / "images").mkdir(exist_ok=True)
        photograph(name).save(tmp_path / f"images/a.{suffix}")
    (tmp_path / "images/a.txt").write_text("both")
    said = made(capsys, tmp_path / "images", "-o", tmp_path / "kept")
    assert said["kept"] == 2
    assert (tmp_path / "images/a.txt").read_text() == (tmp_path / "kept/a.txt").read_text() == "both"
    assert run(tmp_path / "images", "-o", tmp_path / "b.csv", "--max-aspect", "inf") == USAGE
    assert "max-aspect: inf; allowed: a number" in capsys.readouterr().err


@pytest.fixture
def classed(tmp_path: Path) -> Path:
    """Two images of one name in two folders, and one whose name occurs once."""
    for name, file in (("cat", "old/1.png"), ("coffee", "new/1.png"), ("rocket", "new/2.png")):
        (tmp_path / "classed" / file).parent.mkdir(parents=True, exist_ok=True)
        photograph(name, (64, 64)).save(tmp_path / "classed" / file)
    return tmp_path / "classed"


def classes_of(out: Path) -> dict[str, str]:
    with out.open(newline="") as file:
        return {row["file_name"]: row["class"] or row["reason"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("old/1.png,a", {"old/1.png": "a", "new/1.png": "no class", "new/2.png": "no class"}),
        ("old/1.png,a\nnew/1.png,b\n2.png,c", {"old/1.png": "a", "new/1.png": "b", "new/2.png": "c"}),
        ("x/old/1.png,a\nx/new/1.png,b", {"old/1.png": "a", "new/1.png": "b", "new/2.png": "no class"}),
        ("1.png,a", {"old/1.png": "a", "new/1.png": "a", "new/2.png": "no class"}),
    ],
)
def test_folders_tell_files_of_one_name_apart(
    classed: Path, tmp_path: Path, rows: str, found: dict[str, str]
) -> None:
    (tmp_path / "classes.csv").write_text(f"file,class\n{rows}\n")
    assert run(classed, "-o", tmp_path / "out.csv", "--classes", tmp_path / "classes.csv") == 0
    assert classes_of(tmp_path / "out.csv") == found


def test_a_class_that_is_not_clear_is_refused(
    classed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "classes.csv").write_text("file,class\n1.png,a\nnew/1.png,b\n")
    assert run(classed, "-o", tmp_path / "out.csv", "--classes", tmp_path / "classes.csv") == FAILED
    assert "new/1.png: may be a and b; give the folders in the table of classes" in capsys.readouterr().err


def test_nothing_is_overwritten(classed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "classes.csv"
    table.write_text("file,class\n1.png,a\n")
    assert run(classed, "-o", table, "--classes", table) == FAILED
    assert "classes.csv: is there; name a new file" in capsys.readouterr().err
    assert table.read_text() == "file,class\n1.png,a\n"
