"""A user's judge, and an extractor of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.tune.judges import Extractor, judge_called

from .test_distances import grey


def test_a_judge_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge.py").write_text("def bright(name, picture):\n    return {name: picture.mean()}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    assert judge_called("my_judge:bright")("a", grey(7)) == {"a": 7.0}


@pytest.mark.parametrize("name", ["json", "json:", ":loads", "no_such_module:f", "json:no_such"])
def test_a_judge_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed: MODULE:FUNCTION"):
        judge_called(name)


def extractor(path: Path, *shape: int | str) -> Path:
    """The mean of every channel as features."""
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    node = helper.make_node("GlobalAveragePool", ["picture"], ["features"])
    graph = helper.make_graph([node], "mean", [picture], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_the_distance_is_of_the_angle_between_features(tmp_path: Path) -> None:
    found = Extractor(extractor(tmp_path / "mean.onnx", 1, 3, "height", "width"))
    red, blue = (np.full((16, 16, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    one, other = (found.features(picture) for picture in (red, blue))
    assert np.linalg.norm(one) == pytest.approx(1.0)
    assert found.distance(red, red) == pytest.approx(0.0, abs=1e-9)
    assert found.distance(red, blue) == pytest.approx(1 - one @ other)
    expected = (np.array([1.0, 0.0, 0.0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert one == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)


def test_a_network_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: one picture"):
        Extractor(extractor(tmp_path / "other.onnx", 1, 3, 16))
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot be opened as ONNX"):
        Extractor(tmp_path / "no.onnx")
