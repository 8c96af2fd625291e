"""Networks that a file names: what they are given, what they say, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import yaml

from intaglio.errors import ConfigError
from intaglio_client.bench.quality.extractors import ClipScore, open_extractors, read_extractors

from .networks import SIDE, write_extractors

PICTURE = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_clip_score_is_a_hundred_cosines(tmp_path: Path) -> None:
    networks = read_extractors(write_extractors(tmp_path)).clip
    assert networks is not None
    found = ClipScore(networks).score(PICTURE, "a photo of a cat")
    ids = [49406, 320, 1125, 539, 320, 2368, *[49407] * 71]
    vectors = []
    for file, given in (
        ("image.onnx", PICTURE.transpose(2, 0, 1)[None].astype(np.float32) / 255),
        ("text.onnx", np.array([ids], np.int64)),
    ):
        session = onnxruntime.InferenceSession(str(tmp_path / file))
        vectors.append(session.run(None, {"x": given})[0].ravel().astype(np.float64))
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert found == pytest.approx(max(0.0, 100 * cosine), abs=1e-3)


def test_mean_and_deviation_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_extractors(tmp_path)
    plain = open_extractors(read_extractors(path)).features
    values = yaml.safe_load(path.read_text())
    values["features"] |= {"mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5]}
    path.write_text(yaml.safe_dump(values))
    normalised = open_extractors(read_extractors(path)).features
    assert plain is not None
    assert normalised is not None
    grey = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert np.allclose(plain.output(grey), 0)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert np.allclose(normalised.output(white), plain.output(white), atol=1e-4)
    assert np.allclose(normalised.output(grey), -plain.output(white), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"perceptual": None, "features": None, "clip": None}, "names no network; allowed: perceptual"),
        (
            {"features": {"file": "image.onnx", "size": [8, 8]}},
            r"takes pictures of \[4, 4\], not of \[8, 8\]",
        ),
        ({"features": {"file": "text.onnx"}}, r"allowed: one picture \[1, 3, height, width\]"),
        ({"features": {"file": "nothing.onnx"}}, "cannot be opened as ONNX"),
        ({"features": {"file": "image.onnx", "deviation": [0, 1, 1]}}, "deviation"),
        ({"inception": {"file": "image.onnx"}}, "inception"),
    ],
)
def test_a_file_that_names_no_such_network_is_refused(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    path = write_extractors(tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=problem):
        open_extractors(read_extractors(path))


def test_vectors_of_two_models_are_refused(tmp_path: Path) -> None:
    networks = read_extractors(write_extractors(tmp_path, text_width=5)).clip
    assert networks is not None
    with pytest.raises(ConfigError, match="6 values and the prompt's 5; both must come from one model"):
        ClipScore(networks).score(PICTURE, "a cat")
