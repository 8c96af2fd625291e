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

from intaglio_train import DataConfig, DataError
from intaglio_train.command import app
from intaglio_train.data import open_dataset

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
    np.testing.assert_array_equal(other.geometry, [[64, 64, 0, 0]] * 6)


def test_arrays_in_a_folder_hold_the_same_samples(arrays: Path) -> None:
    plain = open_dataset(DataConfig(folder=arrays / "pairs"), SIZE, control=True)
    other = open_dataset(DataConfig(folder=arrays, control="pose"), SIZE, control=True)
    assert other.captions == plain.captions
    np.testing.assert_array_equal(other.controls([3, 1]), plain.controls([3, 1]))


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
    data = open_dataset(DataConfig(folder=pairs), SIZE, resize=True, control=True)
    np.testing.assert_array_equal(data.geometry[0], [64, 128, 0, 32])
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
        lambda d: (d / "metadata.csv").write_text("image,text\n00.png,hello\n"),
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
    config.write_text(yaml.safe_dump(keys(data={"folder": str(pairs)})))
    result = CliRunner().invoke(app, [fault.kind, str(config)])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert fault.file in result.stderr
    assert fault.problem in result.stderr
    assert not (tmp_path / "out").exists()


def test_several_faults_are_counted(pairs: Path) -> None:
    for name in ("01.png", "03.png", "05.png"):
        truncate(pairs / name)
    with pytest.raises(DataError, match=r"01\.png.*and 2 more"):
        open_dataset(DataConfig(folder=pairs), SIZE)


@pytest.mark.parametrize(
    ("arrays_given", "problem"),
    [
        ({"images": np.zeros((2, 64, 64, 3), np.uint8)}, "no array captions"),
        (
            {"images": np.zeros((2, 64, 64, 3), np.float32), "captions": np.array(["a", "b"])},
            "images is float32",
        ),
        (
            {"images": np.zeros((2, 64, 32, 3), np.uint8), "captions": np.array(["a", "b"])},
            r"\[2, 64, 32, 3\]",
        ),
        (
            {"images": np.zeros((3, 64, 64, 3), np.uint8), "captions": np.array(["a", "b"])},
            r"\[3, 64, 64, 3\]",
        ),
        (
            {"images": np.zeros((2, 64, 64, 3), np.uint8), "captions": np.array(["a", ""])},
            "image 1: empty caption",
        ),
        (
            {"images": np.zeros((2, 64, 64, 3), np.uint8), "captions": np.array(["a", "b"])},
            "no array controls_pose",
        ),
    ],
)
def test_faulty_arrays_are_named(tmp_path: Path, arrays_given: dict[str, Any], problem: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays_given)
    with pytest.raises(DataError, match=problem):
        open_dataset(
            DataConfig(arrays=tmp_path / "data.npz", control="pose"), SIZE, control="controls" in problem
        )


def test_files_that_are_no_arrays_are_named(tmp_path: Path, arrays: Path) -> None:
    (tmp_path / "data.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"data\.npz: is not an \.npz"):
        open_dataset(DataConfig(arrays=tmp_path / "data.npz"), SIZE)
    with pytest.raises(DataError, match=r"controls_depth\.npy: is not a readable \.npy"):
        open_dataset(DataConfig(folder=arrays, control="depth"), SIZE, control=True)
    with pytest.raises(DataError, match=r"images\.npy: images is uint8 \[6, 64, 64, 3\]"):
        open_dataset(DataConfig(folder=arrays), (128, 128))
