"""Tables: every cell and row is read back, or the row is named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio_train import DataError
from intaglio_train.tables import rows_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROWS = st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=5)
COLUMNS = ("image", "caption", "control")


def write(tmp_path: Path, text: str, name: str = "metadata.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


STYLES = st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)])
"""Line ends and quoting. Python's writer leaves a lone CR unquoted where LF ends lines and quotes are few."""


@given(ROWS, STYLES, st.booleans())
def test_any_csv_round_trips(
    folder: Path, rows: list[tuple[str, str, str]], style: tuple[str, int], mark: bool
) -> None:
    end, quoting = style
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=end, quoting=quoting)
    writer.writerows([COLUMNS, *rows])
    found = rows_of(write(folder, ("\ufeff" if mark else "") + buffer.getvalue()))
    assert [tuple(row.cells.values()) for row in found] == rows
    assert [row.number for row in found] == list(range(1, len(rows) + 1))


@given(ROWS, st.booleans())
def test_any_jsonl_round_trips(folder: Path, rows: list[tuple[str, str, str]], ascii_only: bool) -> None:
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in objects]
    found = rows_of(write(folder, "\n".join(lines), "metadata.jsonl"))
    assert [row.cells for row in found] == objects


def test_separators_of_unicode_do_not_part_records(tmp_path: Path) -> None:
    for separator in "\u2028\u2029\x85\x0b\x0c\x1c":
        jsonl = f'{{"image": "00.png", "caption": "a{separator}b"}}\n{{"image": "01.png", "caption": "c"}}\n'
        if separator in "\u2028\u2029\x85":  # JSON allows no control characters in a string
            assert len(rows_of(write(tmp_path, jsonl, "metadata.jsonl"))) == 2
        found = rows_of(write(tmp_path, f"image,caption\n00.png,a{separator}b\n01.png,c\n"))
        assert [row.cells["caption"] for row in found] == [f"a{separator}b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,caption\n00.png,a woman, red dress, beach\n01.png,b\n",
            "row 1 has 4 cells; the header has 2",
        ),
        ("image,caption\n00.png,a\n01.png\n", "row 2 has 1 cells; the header has 2"),
        (
            'image,caption\n00.png,"a woman\n01.png,"a man"\n',
            "row 1 cannot be read: .*close every double quote",
        ),
        (
            'image,caption\n00.png,a\n01.png,"a man\n02.png,b\n',
            "row 2 cannot be read: .*close every double quote",
        ),
        ('image,caption\n00.png,"a" woman\n', "row 1 cannot be read"),
        ("image,caption,caption\n00.png,a,b\n", "column caption is there 2 times"),
    ],
    ids=[
        "unquoted comma",
        "short row",
        "quote closed later",
        "quote never closed",
        "text after a quote",
        "twice",
    ],
)
def test_a_csv_that_would_lose_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"metadata\.csv: {message}"):
        rows_of(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a"}\n{"image": ', "row 2 cannot be read"),
        ('\n{"caption": "a", "caption": "b"}', "row 2 cannot be read: a name is given twice"),
        ("[1]", "row 1 is not a JSON object"),
        ("[" * 100_000, "row 1 cannot be read"),
    ],
    ids=["cut", "twice", "list", "deep"],
)
def test_a_jsonl_that_would_lose_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"metadata\.jsonl: {message}"):
        rows_of(write(tmp_path, text, "metadata.jsonl"))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes("image,caption\n00.png,über\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        rows_of(path)


def test_blank_lines_are_left_out(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path, "image,caption\n\n00.png,a\n\n\n01.png,b\n\n"))
    assert [(row.number, row.cells["image"]) for row in rows] == [(1, "00.png"), (2, "01.png")]
    assert rows_of(write(tmp_path, "\n")) == []
