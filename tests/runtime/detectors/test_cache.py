"""Kept detections."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from intaglio.detectors.cache import DetectionCache, detection_key
from intaglio.detectors.detection import Detection

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (12, 20, 3), np.uint8)
PEOPLE = RNG.uniform(0, 20, (2, 18, 3))
WHOLE = RNG.uniform(0, 20, (2, 128, 3))
KEY = detection_key(b"photo", "1")


@pytest.mark.parametrize(
    "people", [PEOPLE, WHOLE, None, PEOPLE[:0]], ids=["two", "hands", "not looked for", "none"]
)
def test_a_detection_comes_back_as_it_was(tmp_path: Path, people: np.ndarray | None) -> None:
    cache = DetectionCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, Detection(PIXELS, people))
    found = DetectionCache(tmp_path).get(KEY)
    assert found is not None
    np.testing.assert_array_equal(found.map, PIXELS)
    if people is None:
        assert found.people is None
    else:
        np.testing.assert_array_equal(found.people, people)


def test_the_key_follows_the_photograph_and_the_version() -> None:
    assert len({detection_key(photo, version) for photo in (b"a", b"b") for version in ("1", "2")}) == 4


@pytest.mark.parametrize("ending", [".json", ".png"])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_damaged_files_count_as_none(tmp_path: Path, ending: str, damage: bytes | None) -> None:
    cache = DetectionCache(tmp_path)
    cache.put(KEY, Detection(PIXELS, PEOPLE))
    file = tmp_path / f"{KEY}{ending}"
    file.unlink() if damage is None else file.write_bytes(damage)
    assert cache.get(KEY) is None


def test_a_damaged_chunk_of_a_picture_counts_as_none(tmp_path: Path) -> None:
    cache = DetectionCache(tmp_path)
    cache.put(KEY, Detection(PIXELS, PEOPLE))
    file = tmp_path / f"{KEY}.png"
    whole = file.read_bytes()
    length = int.from_bytes(whole[33:37], "big")
    file.write_bytes(whole[:33] + (length // 2).to_bytes(4, "big") + whole[37:])
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DetectionCache(tmp_path).put(KEY, Detection(PIXELS, PEOPLE))

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert DetectionCache(tmp_path).get(KEY) is not None


def test_what_was_used_longest_ago_is_removed(tmp_path: Path) -> None:
    cache = DetectionCache(tmp_path, kept=2)
    for age, key in enumerate("abc"):
        cache.put(key, Detection(PIXELS, PEOPLE))
        os.utime(tmp_path / f"{key}.json", ns=(age + 1, age + 1))
        if key == "b":
            assert cache.get("a") is not None  # used again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "c.json", "c.png"]
