"""insightface's FaceAnalysis on files of a folder, and that nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.identity import Identity
from intaglio.errors import ConfigError
from intaglio.faces.opening import open_reader

from .scrfd_graphs import BOX, SIDE, write_embedder, write_scrfd


def insight(folder: Path) -> Identity:
    return Identity(
        characters=folder / "characters",
        kind="insightface",
        models=folder / "models",
        detector_size=SIDE,
        threshold=0.4,
    )


def test_a_folder_without_files_is_named_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*given: Any, **named: Any) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("socket.socket.connect", fetched)
    with pytest.raises(ConfigError, match=r"identity\.models: .*models: has no ONNX file"):
        open_reader(insight(tmp_path))


def test_faces_are_those_of_its_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("insightface", reason="needs insightface: pip install --no-deps insightface")
    setting = insight(tmp_path)
    (tmp_path / "models").mkdir()
    write_scrfd(tmp_path / "models/detector.onnx")
    with pytest.raises(ConfigError, match=r"models: has no network of recognition"):
        open_reader(setting)
    write_embedder(tmp_path / "models/recognition.onnx")
    picture = Image.new("RGB", (SIDE, SIDE), (255, 127, 0))
    (face,) = open_reader(setting)(picture)
    np.testing.assert_allclose(face.box, BOX, rtol=1e-5)
    # (255 - 127.5) / 127.5, (127 - 127.5) / 127.5, (0 - 127.5) / 127.5, as insightface reads ArcFace's input
    np.testing.assert_allclose(face.embedding * np.sqrt(2), [1, 0, -1], atol=0.01)
    assert capsys.readouterr().out == "", "stdout is a command's"
