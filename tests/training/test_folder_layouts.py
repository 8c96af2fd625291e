"""Folders made for kohya's tools and for Hugging Face's `datasets` are read as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from intaglio_train import DataConfig, DataError
from intaglio_train.folder_layouts import samples_of_folder
from intaglio_train.folder_samples import Found


def save(path: Path, caption: str | None = None, *, suffix: str = ".txt") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (8, 8)).save(path)
    if caption is not None:
        path.with_suffix(suffix).write_text(caption)


def found(folder: Path, *, control: bool = False, **data: Any) -> Found:
    return samples_of_folder(DataConfig(folder=folder, **data), control=control)


def captions(found: Found) -> dict[str, tuple[str, ...]]:
    return {sample.image.name: sample.captions for sample in found.samples}


def test_kohyas_folders_have_repeats_and_a_caption_for_images_without(tmp_path: Path) -> None:
    save(tmp_path / "10_mara woman" / "a.png", "mara, smiling", suffix=".caption")
    save(tmp_path / "10_mara woman" / "b.png")
    save(tmp_path / "3_meadow_wide" / "c.png")
    save(tmp_path / "2_" / "d.png", "a dog")
    save(tmp_path / "2023" / "g.png", "a year")
    save(tmp_path / "0_unused" / "e.png")
    save(tmp_path / "log" / "f.png")
    (tmp_path / "10_mara woman" / "a_sdxl.npz").write_text("kohya's cache")
    read = found(tmp_path)
    assert captions(read) == {
        "a.png": ("mara, smiling",),
        "b.png": ("mara woman",),
        "c.png": ("meadow_wide",),
        "d.png": ("a dog",),
    }
    assert {sample.image.name: sample.repeats for sample in read.samples} == {
        "a.png": 10,
        "b.png": 10,
        "c.png": 3,
        "d.png": 2,
    }
    assert read.passed_over == [
        "0_unused/ (1 images)",
        "2023/ (1 images)",
        "log/ (1 images)",
        "10_mara woman/a_sdxl.npz",
    ]
    assert [note.removeprefix(f"{tmp_path}/") for note in read.notes] == [
        "10_mara woman: 2 images, 10 repeats; without a caption file, so captioned 'mara woman': 1",
        "2_: 1 images, 2 repeats",
        "3_meadow_wide: 1 images, 3 repeats; without a caption file, so captioned 'meadow_wide': 1",
    ]


def test_a_caption_extension_is_the_one_that_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png", "tags")
    (tmp_path / "a.caption").write_text("a sentence")
    with pytest.raises(
        DataError, match=r"a\.png: has captions in a\.txt and a\.caption; keep one, or set data"
    ):
        found(tmp_path)
    assert captions(found(tmp_path, caption_extension=".caption")) == {"a.png": ("a sentence",)}
    assert found(tmp_path, caption_extension=".caption").passed_over == ["a.txt"]


def write_imagefolder(folder: Path, *, prefix: str = "", form: str = "jsonl", text: str = "text") -> None:
    """As the documentation of `datasets` says (Create an image dataset, ImageFolder)."""
    rows = []
    for name in ("0001.png", "0002.png"):
        save(folder / prefix / name)
        rows.append({"file_name": f"{prefix}{name}", text: f"what {name} shows"})
    if form == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [f"file_name,{text}", *(",".join(row.values()) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


EXPECTED = {"0001.png": ("what 0001.png shows",), "0002.png": ("what 0002.png shows",)}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("inside", [".", "train", "data/train", "data"])
def test_an_imagefolder_is_read_where_datasets_finds_it(tmp_path: Path, form: str, inside: str) -> None:
    write_imagefolder(tmp_path / inside, form=form, text="caption" if form == "csv" else "text")
    (tmp_path / "README.md").write_text("a dataset card")
    read = found(tmp_path)
    assert captions(read) == EXPECTED
    assert read.passed_over == ["README.md"]


def test_other_splits_are_passed_over_by_name(tmp_path: Path) -> None:
    write_imagefolder(tmp_path / "train")
    write_imagefolder(tmp_path / "validation")
    assert captions(found(tmp_path)) == EXPECTED
    assert found(tmp_path).passed_over == ["validation/ (2 images)"]


def test_a_table_above_the_splits_trains_on_train(tmp_path: Path) -> None:
    write_imagefolder(tmp_path, prefix="train/")
    save(tmp_path / "test" / "9.png")
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file_name": "test/9.png", "text": "never trained"}))
    assert captions(found(tmp_path)) == EXPECTED
    assert found(tmp_path).passed_over == ["1 rows of other splits than train/"]


def test_a_controlnets_columns_are_those_of_diffusers(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "maps" / "a.png")
    row = {"image": "images/a.png", "conditioning_image": "maps/a.png", "text": "a"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    (sample,) = found(tmp_path, control=True).samples
    assert sample.control == tmp_path / "maps" / "a.png"


def test_columns_may_be_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    row = {"file_name": "a.png", "text": "short", "caption": "long", "tags": "x"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(
        DataError, match=r"has columns caption and text, both for the caption; .*caption_column"
    ):
        found(tmp_path)
    read = found(tmp_path, caption_column="tags")
    assert captions(read) == {"a.png": ("x",)}
    assert read.passed_over == ["column caption of metadata.jsonl", "column text of metadata.jsonl"]
    with pytest.raises(
        DataError, match=r"has no column prompt \(data\.caption_column\); it has caption, file_"
    ):
        found(tmp_path, caption_column="prompt")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "images beside kohya's folders": (
        lambda d: (save(d / "a.png", "a"), save(d / "5_mara" / "b.png")),
        r"holds images, and kohya's folder 5_mara too",
    ),
    "classes are no captions": (
        lambda d: save(d / "train" / "dog" / "a.png"),
        r"train: holds no images.*it holds dog/ \(1 images\) \(kohya's tools read folders named N_NAME\)",
    ),
    "arrow": (
        lambda d: (d / "data-00000-of-00001.arrow").write_text("x"),
        r"data-00000-of-00001\.arrow: Arrow and Parquet files are not read; .*metadata\.jsonl",
    ),
    "a folder whose name is a number": (
        lambda d: save(d / "001" / "a.png", "a"),
        r"holds no images.*it holds 001/ \(1 images\) \(kohya's tools read folders named N_NAME\)",
    ),
    "a kohya folder without a name": (lambda d: save(d / "5_" / "a.png"), r"a\.txt: missing caption"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_read_is_refused(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        found(tmp_path)
