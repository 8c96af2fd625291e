"""Folders of images: what makes a data set another one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio_train import CheckpointError, DataError, LoraConfig, train_lora
from intaglio_train.buckets import ExactPlacing
from intaglio_train.folder_samples import Reading, find_samples
from intaglio_train.image_folders import ImageFolder, check_samples

Keys = Callable[..., dict[str, Any]]
SIZE = (64, 64)


def checked(folder: Path, *, control: bool = True) -> ImageFolder:
    samples = find_samples(folder, Reading(control=control)).samples
    return check_samples(samples, ExactPlacing(SIZE), threads=2, watch=lambda items, _, __: items)


def replace_with_equal_size(path: Path) -> None:
    """Another picture in a file of the same length, as an uncompressed format or an editor may leave it."""
    before = path.stat().st_size
    pixels = np.asarray(Image.open(path))
    for change in range(1, 256):
        Image.fromarray(pixels ^ np.uint8(change)).save(path)
        if path.stat().st_size <= before:
            break
    path.write_bytes(path.read_bytes() + bytes(before - path.stat().st_size))


@pytest.mark.parametrize("name", ["03.png", "control/03.png"])
def test_a_replaced_picture_of_equal_size_is_another_data_set(pairs: Path, name: str) -> None:
    first = checked(pairs)
    size = (pairs / name).stat().st_size
    replace_with_equal_size(pairs / name)
    assert (pairs / name).stat().st_size == size
    assert checked(pairs).digest != first.digest


def test_controls_count_only_where_they_are_used(pairs: Path) -> None:
    assert checked(pairs).digest != checked(pairs, control=False).digest


def test_the_same_content_elsewhere_is_the_same_data_set(pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs, tmp_path / "moved")
    assert checked(tmp_path / "moved").digest == checked(pairs).digest


def test_a_run_does_not_resume_on_a_replaced_picture(keys: Keys, pairs: Path) -> None:
    config = LoraConfig.model_validate(keys(data={"folder": str(pairs)}, steps=1))
    train_lora(config)
    replace_with_equal_size(pairs / "03.png")
    with pytest.raises(CheckpointError, match="was made with another data set"):
        train_lora(config)


def test_samples_know_where_their_captions_stand(pairs: Path) -> None:
    assert checked(pairs).where(2) == str(pairs / "02.txt")


def test_several_faults_are_counted(pairs: Path) -> None:
    for name in ("01.png", "03.png", "05.png"):
        (pairs / name).write_bytes((pairs / name).read_bytes()[:200])
    with pytest.raises(DataError, match=r"01\.png: unreadable image \(damaged or truncated.*and 2 more"):
        checked(pairs)
