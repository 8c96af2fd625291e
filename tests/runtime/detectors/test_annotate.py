"""Encoded photographs through the cache."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.detectors import opening
from intaglio.detectors.annotate import Annotator
from intaglio.detectors.cache import DetectionCache
from intaglio.detectors.opening import ChosenDetector, choose_detector
from intaglio.errors import InvalidRequest


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_detector_is_opened_once_and_not_for_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    own = ChosenDetector.open
    monkeypatch.setattr(ChosenDetector, "open", lambda chosen: opened.append(1) or own(chosen))
    chosen = choose_detector("canny", {})

    def annotator() -> Annotator:
        return Annotator(chosen, DetectionCache(tmp_path), most_pixels=10_000)

    annotate = annotator()
    first = annotate(encoded(1), name="a")
    assert not annotate(encoded(2), name="b").cached
    assert len(opened) == 1
    again = annotator()(encoded(1), name="a")
    assert (first.cached, again.cached, len(opened)) == (False, True, 1)
    np.testing.assert_array_equal(again.detection.map, first.detection.map)


def test_another_version_is_detected_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DetectionCache(tmp_path)
    Annotator(choose_detector("canny", {}), cache, most_pixels=10_000)(encoded(1), name="a")
    monkeypatch.setattr(opening, "_CODE", 99)
    newer = Annotator(choose_detector("canny", {}), cache, most_pixels=10_000)
    assert not newer(encoded(1), name="a").cached


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    annotate = Annotator(choose_detector("canny", {}), None, most_pixels=100)
    with pytest.raises(InvalidRequest, match=r"^notes\.txt: "):
        annotate(b"not a picture", name="notes.txt")
    with pytest.raises(InvalidRequest, match=r"^large\.png: "):
        annotate(encoded(1), name="large.png")
