"""Names of images on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import InvalidRequest
from intaglio_client import Image
from intaglio_client.generate.files import OutputFiles

IMAGES = (Image(b"0", {}), Image(b"1", {}))


def test_several_images_get_numbers_and_each_is_checked(tmp_path: Path) -> None:
    out = tmp_path / "fox.webp"
    (tmp_path / "fox-1.webp").write_bytes(b"mine")
    files = OutputFiles(out)
    files.check(1)
    with pytest.raises(
        InvalidRequest, match=r"^out: .*fox-1\.webp exists; allowed: another name, or --force"
    ):
        files.check(2)
    OutputFiles(out, overwrite=True).check(2)


def test_a_name_that_is_taken_meanwhile_gets_a_number(tmp_path: Path) -> None:
    out = tmp_path / "fox.png"
    files = OutputFiles(out)
    files.check(1)
    out.write_bytes(b"of another program")
    notes: list[str] = []
    saved = files.save(IMAGES[:1], note=notes.append)
    assert saved == {tmp_path / "fox-2.png": IMAGES[0]}
    assert out.read_bytes() == b"of another program"
    assert notes == [f"{out} appeared meanwhile, so the image is in {tmp_path / 'fox-2.png'}"]


def test_overwriting_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "fox.png"
    out.write_bytes(b"mine")
    files = OutputFiles(out, overwrite=True)
    files.check(1)
    assert files.save(IMAGES[:1], note=pytest.fail) == {out: IMAGES[0]}
    assert out.read_bytes() == b"0"


def test_without_a_name_the_next_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = OutputFiles(None)
    for _ in range(3):
        files.check(1)
        files.save(IMAGES[:1], note=pytest.fail)
    files.save(IMAGES, note=pytest.fail)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.png", "out-2.png", "out-3.png", "out-0.png", "out-1.png"}
