"""Every file of a folder is a sample's, or refused, or passed over by name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from intaglio_train import DataError
from intaglio_train.folder_samples import find_samples, names_beside_arrays

LINE = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co"]), min_size=1
)
CAPTIONS = st.lists(LINE.map(str.strip).filter(lambda line: line.strip("\ufffd ")), min_size=1, max_size=3)


def save(path: Path) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with captions."""
    for name in ("00", "01"):
        save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"thing {name}")
    return tmp_path


def find(folder: Path, control: bool = False) -> Any:
    return find_samples(folder, control=control, control_name=None)


@given(captions=CAPTIONS)
def test_any_caption_file_round_trips(tmp_path_factory: pytest.TempPathFactory, captions: list[str]) -> None:
    folder = tmp_path_factory.mktemp("captions")
    save(folder / "00.png")
    (folder / "00.txt").write_bytes("\n".join(captions).encode())
    assert find(folder).samples[0].captions == tuple(captions)


@given(captions=st.lists(CAPTIONS, min_size=1, max_size=3), form=st.sampled_from(["csv", "jsonl"]))
def test_any_table_round_trips(
    tmp_path_factory: pytest.TempPathFactory, captions: list[list[str]], form: str
) -> None:
    folder = tmp_path_factory.mktemp("table")
    for index in range(len(captions)):
        save(folder / f"{index}.png")
    buffer = io.StringIO(newline="")
    if form == "csv":
        rows = [[f"{index}.png", "\n".join(lines)] for index, lines in enumerate(captions)]
        csv.writer(buffer).writerows([["image", "caption"], *rows])
    else:
        for index, lines in enumerate(captions):
            buffer.write(json.dumps({"image": f"{index}.png", "caption": lines}, ensure_ascii=False) + "\n")
    (folder / f"metadata.{form}").write_bytes(buffer.getvalue().encode())
    assert [sample.captions for sample in find(folder).samples] == [tuple(lines) for lines in captions]


def test_a_byte_order_mark_is_no_caption(folder: Path) -> None:
    (folder / "00.txt").write_bytes(b"\xef\xbb\xbfa thing")
    assert find(folder).samples[0].captions == ("a thing",)
    (folder / "00.txt").write_bytes(b"\xef\xbb\xbf\n")
    with pytest.raises(DataError, match=r"00\.txt: empty caption"):
        find(folder)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "caption without image": (lambda d: (d / "02.txt").write_text("a"), r"02\.txt: caption without an image"),
    "image without caption": (lambda d: save(d / "02.png"), r"02\.txt: missing caption; 02\.png needs"),
    "foreign picture": (lambda d: save(d / "02.tiff"), r"02\.tiff: pictures of this format are not read"),
    "two tables": (
        lambda d: [(d / f"metadata.{kind}").write_text("") for kind in ("csv", "jsonl")],
        r"holds metadata\.csv and metadata\.jsonl; keep one",
    ),
    "image in no row": (
        lambda d: (d / "metadata.csv").write_text("image,caption\n00.png,a\n"),
        r"01\.png: no row of metadata\.csv names this image",
    ),
    "row without image": (
        lambda d: (d / "metadata.csv").write_text("image,caption\n00.png,a\n01.png,b\n09.png,c\n"),
        r"09\.png: no such image; .*metadata\.csv: row 3 names it",
    ),
    "a swallowed row": (
        lambda d: (d / "metadata.csv").write_text('image,caption\n00.png,"a\n01.png,b"\n'),
        r"01\.png: no row of metadata\.csv names this image",
    ),
    "image in no row, in a subfolder": (
        lambda d: [
            save(d / "more/02.png"),
            save(d / "more/03.png"),
            (d / "metadata.csv").write_text("image,caption\n00.png,a\n01.png,b\nmore/02.png,c\n"),
        ],
        r"more/03\.png: no row of metadata\.csv names this image",
    ),
    "a path that is none": (
        lambda d: (d / "metadata.jsonl").write_text('{"image": 5, "caption": "a"}'),
        r"row 1: image is 5; it must be a path",
    ),
    "a caption that is none": (
        lambda d: (d / "metadata.jsonl").write_text('{"image": "00.png", "caption": {"a": 1}}'),
        r"row 1: its caption is \{'a': 1\}",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_likely_mistakes_are_refused(folder: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message):
        find(folder)


def test_other_files_are_named(folder: Path) -> None:
    (folder / "notes.md").write_text("x")
    (folder / ".DS_Store").write_text("x")
    save(folder / "more" / "07.png")
    save(folder / "control" / "00.png")
    save(folder / "control_pose" / "00.png")
    assert find(folder).passed_over == ["more/ (1 images)", "notes.md"]


def test_control_images_without_an_image_are_named(folder: Path) -> None:
    for name in ("00", "01", "09"):
        save(folder / "control" / f"{name}.png")
    assert find(folder, control=True).passed_over == ["control/09.png"]


def test_columns_and_captions_that_a_table_does_not_use_are_named(folder: Path) -> None:
    save(folder / "maps" / "00.png")
    (folder / "metadata.csv").write_text("image,caption,control,tags\n00.png,a,maps/00.png,x\n01.png,b,,y\n")
    assert find(folder).passed_over == ["00.txt", "01.txt", "column tags of metadata.csv"]


def test_what_lies_beside_control_images_is_named(folder: Path) -> None:
    for name in ("maps/00.png", "maps/09.png", "maps/older/00.png", "unused/00.png"):
        save(folder / name)
    (folder / "metadata.csv").write_text(
        "image,caption,control\n00.png,a,maps/00.png\n01.png,b,maps/00.png\n"
    )
    named = ["00.txt", "01.txt", "unused/ (1 images)", "maps/09.png", "maps/older/ (1 images)"]
    assert find(folder, control=True).passed_over == named


def test_a_control_image_may_be_null_where_none_is_asked_for(folder: Path) -> None:
    rows = [{"image": f"0{index}.png", "caption": "a", "control": None} for index in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(find(folder).samples) == 2
    with pytest.raises(DataError, match="row 1 has no control"):
        find(folder, control=True)


def test_a_row_may_write_its_path_in_any_way(folder: Path) -> None:
    save(folder / "maps" / "00.png")
    rows = f"maps/../00.png,a,./maps/00.png\n{(folder / '01.png').absolute()},b,maps/00.png\n"
    (folder / "metadata.csv").write_text(f"image,caption,control\n{rows}")
    assert find(folder, control=True).passed_over == ["00.txt", "01.txt"]


def test_subfolders_are_named_where_there_is_no_image(tmp_path: Path) -> None:
    save(tmp_path / "10_mara" / "00.png")
    with pytest.raises(DataError, match=r"holds no images.*; it holds 10_mara/ \(1 images\)"):
        find(tmp_path)


def test_what_stands_beside_arrays_is_named(tmp_path: Path) -> None:
    for name in ("images.npy", "captions.json", "controls_pose.npy", "metadata.csv"):
        (tmp_path / name).write_text("x")
    save(tmp_path / "00.png")
    assert names_beside_arrays(tmp_path) == ["00.png", "metadata.csv"]
