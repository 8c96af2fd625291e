"""`intaglio annotate`: the files that it leaves, what it keeps, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from intaglio.errors import ConfigError, InvalidRequest, Unavailable
from intaglio.objects.command import app

from .graphs import FOUND, NAMES, SIDE, end_to_end, write_yolo

SIZES = {"a.png": (SIDE, SIDE), "b.jpg": (2 * SIDE, 2 * SIDE), "c.webp": (SIDE, SIDE // 2)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size, "grey").save(folder / name)
    write_yolo(tmp_path / "network.onnx", end_to_end())
    return folder


def run(photos: Path, *options: str) -> Any:
    """The command; its own errors are raised."""
    network = str(photos.parent / "network.onnx")
    arguments = [str(photos), "-o", str(photos.parent / "out"), "--network", network, *options]
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def read_yolo(folder: Path) -> dict[str, tuple[tuple[int, int], list[tuple[int, list[float]]]]]:
    """A data set as its trainers read it, with nothing of ours: size, then class and box in pixels."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data["names"] == dict(enumerate(NAMES))
    found = {}
    for image in sorted((folder / data["train"]).iterdir()):
        label = Path(str(image.parent).replace("images", "labels"), f"{image.stem}.txt")
        width, height = Image.open(image).size
        objects = []
        for line in label.read_text().splitlines():
            number, *shares = line.split()
            x, y, w, h = (float(share) for share in shares)
            assert all(0 <= float(share) <= 1 for share in shares)
            box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            objects.append((int(number), box))
        found[image.name] = (width, height), objects
    return found


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and the time of its last change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_labels_read_as_yolo_are_what_the_network_found(photos: Path) -> None:
    done = run(photos, "--json")
    assert done.exit_code == 0, done.output
    read = read_yolo(photos.parent / "out")
    assert {name: size for name, (size, _) in read.items()} == SIZES
    for name, factor in (("a.png", 1), ("b.jpg", 2)):
        _, objects = read[name]
        expected = sorted(FOUND, key=lambda one: -one[1])
        assert [class_id for class_id, _ in objects] == [one[0] for one in expected]
        for (_, box), one in zip(objects, expected, strict=True):
            assert box == pytest.approx([factor * value for value in one[2:]], abs=0.01)
    said = json.loads(done.stdout)
    assert said["classes"] == list(NAMES)
    records = [json.loads(line) for line in (photos.parent / "out/objects.jsonl").read_text().splitlines()]
    for picture, record in zip(said["pictures"], records, strict=True):
        assert picture["objects"] == record["objects"]
        found = [(one["id"], one["box"]) for one in record["objects"]]
        again = read[record["picture"]][1]
        assert [class_id for class_id, _ in again] == [class_id for class_id, _ in found]
        np.testing.assert_allclose([box for _, box in again], [box for _, box in found], atol=1e-3)
    boxed = np.asarray(Image.open(photos.parent / "out/annotated/a.jpg").convert("RGB")).astype(int)
    assert boxed.shape == (SIDE, SIDE, 3)
    assert np.abs(boxed - 128).max() > 60, "something is drawn on the grey picture"


def test_what_was_done_is_kept_and_what_changed_is_done_again(photos: Path) -> None:
    run(photos)
    out = photos.parent / "out"
    first = tree(out)
    Image.new("RGB", (SIDE, SIDE), "red").save(photos / "a.png")
    (out / "labels/b.txt").unlink()
    (photos / "c.webp").unlink()
    assert "labelled before" not in run(photos).stdout
    second = tree(out)
    assert second["images/a.png"][0] == (photos / "a.png").read_bytes()
    assert second["labels/b.txt"][0] == first["labels/b.txt"][0]
    assert not [name for name in second if "/c." in name]
    assert run(photos).stdout.count("labelled before") == 2
    kept = {name: state for name, state in tree(out).items() if "/" in name}
    assert kept == {name: state for name, state in second.items() if "/" in name}, "not even written again"


def test_a_run_after_a_stop_gives_the_same_files(photos: Path) -> None:
    """Stopped after the label and before the record; files of a half write are not there (`whole_files`)."""
    run(photos)
    out = photos.parent / "out"
    whole = {name: content for name, (content, _) in tree(out).items()}
    (out / "records/b.json").unlink()
    (out / "objects.jsonl").unlink()
    (out / "annotated/c.jpg").unlink()
    run(photos)
    assert {name: content for name, (content, _) in tree(out).items()} == whole


def test_rules_keep_pictures_out(photos: Path, tmp_path: Path) -> None:
    """The wide picture shows only the lower part of what the network finds."""
    file = tmp_path / "rules.yaml"
    file.write_text("require: [{class: person, at_least: 2, confidence: 0.3}]\n")
    done = run(photos, "--rules", str(file), "--json")
    assert done.exit_code == 0
    reasons = {Path(one["picture"]).name: one["reason"] for one in json.loads(done.stdout)["pictures"]}
    assert reasons == {"a.png": "", "b.jpg": "", "c.webp": "1 person, required: at least 2 (confidence 0.3)"}
    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a.png", "b.jpg"]
    assert sorted(path.name for path in (out / "annotated").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    file.write_text("forbid: [{class: person}]\n")
    run(photos, "--rules", str(file))
    assert not list((out / "images").iterdir()) + list((out / "labels").iterdir())
    file.write_text("require: [{class: truck}]\n")
    with pytest.raises(ConfigError, match="class 'truck': the network does not know it"):
        run(photos, "--rules", str(file))


def test_a_broken_picture_is_named_and_does_not_stop_the_others(photos: Path) -> None:
    run(photos)
    (photos / "b.jpg").write_bytes(b"no picture")
    done = run(photos)
    assert done.exit_code == 1
    assert "b.jpg: " in done.stderr
    assert "3 pictures: 2 labelled" in done.stdout
    assert "1 refused" in done.stdout
    assert sorted(read_yolo(photos.parent / "out")) == ["a.png", "c.webp"], "its earlier label is gone"


def test_links_and_pictures_that_have_to_be_turned(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIDE, SIDE // 2), "grey").save(photos / "d.jpg", exif=exif)
    run(photos)
    images = photos.parent / "out/images"
    assert not (images / "a.png").is_symlink()
    run(photos, "--link")
    assert (images / "a.png").is_symlink()
    assert (images / "a.png").read_bytes() == (photos / "a.png").read_bytes()
    assert Image.open(images / "d.png").size == (SIDE // 2, SIDE)
    assert not (images / "d.png").is_symlink()


@pytest.mark.parametrize("place", [".", "images", "annotated"])
def test_pictures_that_lie_where_labels_are_written_are_refused_and_stay(
    photos: Path, tmp_path: Path, place: str
) -> None:
    """The usual place of a YOLO data set, `-o data` for `data/images`, is where copies go."""
    out = tmp_path / "data"
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    if place != ".":
        photos.rename(out / place)
        (out / ".lock").touch()  # also where an earlier run wrote there
        photos.symlink_to(out / place)
    else:
        photos.rename(out)
        photos.symlink_to(out)
    before = tree(out)
    for given in (photos, out / place):
        arguments = [str(given), "-o", str(out), "--network", str(tmp_path / "network.onnx")]
        with pytest.raises(InvalidRequest, match=r"is where .* lies"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert tree(out) == before


def test_links_to_pictures_that_lie_there_are_refused(photos: Path, tmp_path: Path) -> None:
    run(photos)
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(tmp_path / "out/images/a.png")
    with pytest.raises(InvalidRequest, match=r"is where .*a\.png lies"):
        run(photos)
    assert (photos / "a.png").exists()


def test_labels_that_somebody_else_wrote_are_not_replaced(photos: Path, tmp_path: Path) -> None:
    label = tmp_path / "out/labels/a.txt"
    label.parent.mkdir(parents=True)
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ConfigError, match="labels: intaglio annotate did not write it; name a new folder"):
        run(photos)
    assert label.read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_a_picture_that_is_gone_takes_only_its_own_labels_along(photos: Path, tmp_path: Path) -> None:
    """Also where a file of it is missing, or a stop came before its record, and its name has another dot."""
    for name in ("a.v1.png", "c.v1.png"):
        Image.new("RGB", (SIDE, SIDE), "grey").save(photos / name)
    run(photos)
    whole = set(tree(tmp_path / "out"))
    (tmp_path / "out/annotated/a.v1.jpg").unlink()
    for name in ("a.v1.png", "c.v1.png"):
        (photos / name).unlink()
    assert run(photos).stdout.count("labelled before") == 3
    assert set(tree(tmp_path / "out")) == {name for name in whole if ".v1." not in name}


def test_what_a_stop_left_of_a_picture_goes_with_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> str:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("intaglio.objects.labelled_folder.label_text", stopped)
        with pytest.raises(RuntimeError):
            run(photos)
    assert (tmp_path / "out/images/a.png").exists()
    (photos / "a.png").unlink()
    run(photos)
    assert sorted(read_yolo(tmp_path / "out")) == ["b.jpg", "c.webp"]
    assert not [name for name in tree(tmp_path / "out") if "/a." in name]


@pytest.mark.parametrize("name", [b"\xff.png", b"a\nb.png"])
def test_a_name_that_no_output_can_hold_is_refused_before_any_work(photos: Path, name: bytes) -> None:
    shutil.copy(photos / "a.png", os.fsdecode(os.fsencode(photos) + b"/" + name))
    with pytest.raises(InvalidRequest, match=r"the name '.*png' cannot be shown; allowed: names in UTF-8"):
        run(photos)
    assert not (photos.parent / "out").exists()


def test_no_more_of_a_file_is_read_than_a_picture_may_fill(photos: Path) -> None:
    with (photos / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    done = run(photos)
    assert done.exit_code == 1
    assert "huge.png: more than 134217728 bytes; allowed: at most 134217728" in done.stderr


def test_wrong_folders_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder; name a folder of pictures"):
        run(tmp_path / "nowhere")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="out: another intaglio annotate works in it; wait for its end"):
            run(photos)
    (photos / "a.jpg").write_bytes((photos / "b.jpg").read_bytes())
    with pytest.raises(InvalidRequest, match=r"a\.jpg and a\.png would both get a\.txt"):
        run(photos)
    (photos / "a.jpg").unlink()
    with pytest.raises(ConfigError, match="confidence"):
        run(photos, "--confidence", "3")
