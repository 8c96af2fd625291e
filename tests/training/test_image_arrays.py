"""Arrays: faults are named, and the whole content tells data sets apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio_train import DataConfig, DataError
from intaglio_train.image_arrays import ImageArrays, arrays_from_folder, arrays_from_npz

SIZE = (64, 64)


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
    data = DataConfig(arrays=tmp_path / "data.npz", control="pose")
    with pytest.raises(DataError, match=problem):
        arrays_from_npz(data, SIZE, control="controls" in problem)


def test_files_that_are_no_arrays_are_named(tmp_path: Path, arrays: Path) -> None:
    (tmp_path / "data.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"data\.npz: is not an \.npz"):
        arrays_from_npz(DataConfig(arrays=tmp_path / "data.npz"), SIZE, control=False)
    with pytest.raises(DataError, match=r"controls_depth\.npy: is not a readable \.npy"):
        arrays_from_folder(DataConfig(folder=arrays, control="depth"), SIZE, control=True)
    with pytest.raises(DataError, match=r"images\.npy: images is uint8 \[6, 64, 64, 3\]"):
        arrays_from_folder(DataConfig(folder=arrays), (128, 128), control=False)


@pytest.mark.parametrize("captions", [np.array([b"a", b"b"]), np.array([1, 2])])
def test_captions_that_are_no_text_are_named(tmp_path: Path, captions: Any) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((2, 64, 64, 3), np.uint8), captions=captions)
    with pytest.raises(DataError, match=r"data\.npz: image 0: its caption is .*; a caption is text"):
        arrays_from_npz(DataConfig(arrays=tmp_path / "data.npz"), SIZE, control=False)


def opened(folder: Path, limit: int | None = None) -> ImageArrays:
    return arrays_from_folder(DataConfig(folder=folder, limit=limit), SIZE, control=True)


def test_every_image_and_control_counts_up_to_the_limit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.integers(0, 256, (200, 64, 64, 3), np.uint8) for name in ("images", "controls")}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "captions.json").write_text(str(["a"] * 200).replace("'", '"'))
    whole, part = opened(tmp_path).digest, opened(tmp_path, 100).digest
    assert whole == opened(tmp_path).digest != part
    for name, array in arrays.items():
        array[137, 5, 5, 1] ^= 1
        np.save(tmp_path / f"{name}.npy", array)
        assert opened(tmp_path).digest != whole
        assert opened(tmp_path, 100).digest == part
        whole = opened(tmp_path).digest
