"""Data sets: every form gives the same samples; every fault is named before training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from intaglio_train import DataConfig
from intaglio_train.buckets import CropPlacing
from intaglio_train.command import app
from intaglio_train.data import open_dataset
from intaglio_train.progress import SilentReporter

Keys = Callable[..., dict[str, Any]]
SIZE = (64, 64)


def as_csv(folder: Path) -> DataConfig:
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "control"])
        writer.writerows(
            [path.name, path.with_suffix(".txt").read_text().strip(), f"control/{path.name}"]
            for path in sorted(folder.glob("*.png"))
        )
    return DataConfig(folder=folder)


def as_jsonl(folder: Path) -> DataConfig:
    rows = [
        {
            "image": path.name,
            "caption": path.with_suffix(".txt").read_text().splitlines(),
            "control": f"control/{path.name}",
        }
        for path in sorted(folder.glob("*.png"))
    ]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return DataConfig(folder=folder)


def as_named_controls(folder: Path) -> DataConfig:
    (folder / "control").rename(folder / "control_pose")
    return DataConfig(folder=folder, control="pose")


def as_npz(folder: Path) -> DataConfig:
    paths = sorted(folder.glob("*.png"))
    captions = [[*path.with_suffix(".txt").read_text().splitlines(), ""][:2] for path in paths]
    images, controls = (
        np.stack([np.asarray(Image.open(at / path.name)) for path in paths])
        for at in (folder, folder / "control")
    )
    np.savez(folder / "data.npz", images=images, controls=controls, captions=np.array(captions))
    return DataConfig(arrays=folder / "data.npz")


@pytest.mark.parametrize("form", [as_csv, as_jsonl, as_named_controls, as_npz])
def test_every_form_holds_the_same_samples(pairs: Path, form: Callable[[Path], DataConfig]) -> None:
    plain = open_dataset(DataConfig(folder=pairs), SIZE, control=True)
    expected = (plain.images(range(6)), plain.controls(range(6)))
    other = open_dataset(form(pairs), SIZE, control=True)
    assert other.captions == plain.captions
    assert other.captions[1] == ("a thing 1", "thing number 1")
    np.testing.assert_array_equal(other.images(range(6)), expected[0])
    np.testing.assert_array_equal(other.controls(range(6)), expected[1])
    np.testing.assert_array_equal(other.geometry, [[64, 64, 0, 0, 64, 64]] * 6)


def test_arrays_in_a_folder_hold_the_same_samples(arrays: Path) -> None:
    plain = open_dataset(DataConfig(folder=arrays / "pairs"), SIZE, control=True)
    other = open_dataset(DataConfig(folder=arrays, control="pose"), SIZE, control=True)
    assert other.captions == plain.captions
    np.testing.assert_array_equal(other.controls([3, 1]), plain.controls([3, 1]))


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_what_is_passed_over_is_said(pairs: Path, arrays: Path) -> None:
    for name in "abcdefg":
        (pairs / f"{name}.json").write_text("{}")
    notes = Notes()
    open_dataset(DataConfig(folder=pairs), SIZE, reporter=notes)
    open_dataset(DataConfig(folder=arrays), SIZE, reporter=notes)
    named = "a.json, b.json, c.json, d.json, e.json and 2 more"
    assert notes.texts == [f"{pairs}: passed over: {named}", f"{arrays}: passed over: pairs/ (12 images)"]


def test_python_callers_find_it_in_the_log(pairs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pairs / "notes.md").write_text("x")
    open_dataset(DataConfig(folder=pairs), SIZE)
    assert caplog.messages == [f"{pairs}: passed over: notes.md"]


def test_the_digest_follows_captions_and_the_limit(pairs: Path) -> None:
    first = open_dataset(DataConfig(folder=pairs), SIZE).digest
    assert open_dataset(DataConfig(folder=pairs), SIZE).digest == first
    assert open_dataset(DataConfig(folder=pairs, limit=5), SIZE).digest != first
    assert len(open_dataset(DataConfig(folder=pairs, limit=5), SIZE)) == 5
    (pairs / "00.txt").write_text("something else")
    assert open_dataset(DataConfig(folder=pairs), SIZE).digest != first


def test_resizing_covers_cuts_the_centre_and_says_where(pairs: Path) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = 255
    for path in (pairs / "00.png", pairs / "control" / "00.png"):
        Image.fromarray(picture).save(path)
    data = open_dataset(DataConfig(folder=pairs), SIZE, placing=CropPlacing(SIZE), control=True)
    np.testing.assert_array_equal(data.geometry[0], [64, 128, 0, 32, 64, 64])
    assert (data.images([0]) == 255).all()
    assert (data.controls([0]) == 255).all()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resize_image(path: Path) -> None:
    Image.open(path).resize((56, 64)).save(path)


class Fault(NamedTuple):
    """How a folder is spoilt, and what the message must say."""

    kind: str
    spoil: Callable[[Path], Any]
    file: str
    problem: str


FAULTS = [
    Fault("lora", lambda d: truncate(d / "03.png"), "03.png", "unreadable image"),
    Fault("lora", lambda d: (d / "03.png").write_text("no image"), "03.png", "unreadable image"),
    Fault("lora", lambda d: (d / "02.txt").write_text(" \n\n"), "02.txt", "empty caption"),
    Fault("lora", lambda d: (d / "02.txt").write_bytes(b"\xff\xfe\xff"), "02.txt", "UTF-8"),
    Fault("lora", lambda d: (d / "02.txt").unlink(), "02.txt", "missing caption"),
    Fault("lora", lambda d: resize_image(d / "04.png"), "04.png", "is 56x64; resolution asks for 64x64"),
    Fault("lora", lambda d: d.rename(d.with_name("moved")), "pairs", "no such folder"),
    Fault("lora", lambda d: [path.unlink() for path in d.glob("*.png")], "pairs", "holds no images"),
    Fault(
        "lora",
        lambda d: (d / "metadata.csv").write_text("image,words\n00.png,hello\n"),
        "metadata.csv",
        "row 1 has no caption",
    ),
    Fault(
        "lora",
        lambda d: (d / "metadata.csv").write_text("image,caption\nabsent.png,hello\n"),
        "absent.png",
        "no such image",
    ),
    Fault("lora", lambda d: (d / "metadata.jsonl").write_text("{"), "metadata.jsonl", "cannot be read"),
    Fault(
        "lora",
        lambda d: (d / "metadata.jsonl").write_text("[1]"),
        "metadata.jsonl",
        "row 1 is not a JSON object",
    ),
    Fault(
        "controlnet",
        lambda d: resize_image(d / "control" / "04.png"),
        "control/04.png",
        "control is 56x64; its image 04.png is 64x64",
    ),
    Fault("controlnet", lambda d: truncate(d / "control" / "04.png"), "control/04.png", "unreadable image"),
    Fault(
        "controlnet", lambda d: (d / "control" / "05.png").unlink(), "control/05.png", "missing control image"
    ),
    Fault(
        "controlnet",
        lambda d: (d / "control").rename(d / "elsewhere"),
        "control",
        "missing folder of control images",
    ),
    Fault(
        "controlnet",
        lambda d: (d / "metadata.csv").write_text("image,caption\n00.png,hello\n"),
        "metadata.csv",
        "row 1 has no control",
    ),
]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=[f"{fault.kind}-{fault.file}-{fault.problem}" for fault in FAULTS]
)
def test_bad_data_ends_with_one_line_and_leaves_nothing(
    keys: Keys, pairs: Path, tmp_path: Path, fault: Fault
) -> None:
    fault.spoil(pairs)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys(data={"folder": str(pairs)}, fit="exact")))
    result = CliRunner().invoke(app, [fault.kind, str(config)])
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert fault.file in result.stderr
    assert fault.problem in result.stderr
    assert not (tmp_path / "out").exists()
