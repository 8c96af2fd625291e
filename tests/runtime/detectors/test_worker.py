"""What the process of detectors answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.detectors.canny import CannyDetector
from intaglio.detectors.messages import Setting
from intaglio.detectors.worker import _Answers


def test_an_unforeseen_failure_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(detector: CannyDetector, photo: Image.Image, *, name: str) -> Any:
        raise ZeroDivisionError("nobody thought of it")

    own = CannyDetector.__call__
    monkeypatch.setattr(CannyDetector, "__call__", fail)
    answers = _Answers(Setting(detectors={}, cache=tmp_path, most_pixels=1000, idle_seconds=1))
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    head, _ = answers("canny", buffer.getvalue(), name="a.png")
    assert head["failed"].startswith("detector canny: a.png: ZeroDivisionError: nobody thought of it; the")
    assert not head["configuration"]
    assert "Traceback" in caplog.text
    monkeypatch.setattr(CannyDetector, "__call__", own)
    assert answers("canny", buffer.getvalue(), name="a.png")[0]["shape"] == (8, 8, 3)
