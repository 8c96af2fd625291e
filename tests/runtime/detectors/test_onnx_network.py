"""ONNX files of detectors: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from intaglio.detectors.onnx_network import Network
from intaglio.errors import ConfigError

from .graphs import write_graph

DOUBLED = [helper.make_node("Add", ["x", "x"], ["y"])]


def test_it_runs_a_file_and_tells_its_shapes(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "a.onnx", DOUBLED, given=(1, "n", 2), result=(1, "n", 2))
    network = Network(path, expected="a doubling")
    assert network.input_shape == (1, None, 2)
    assert network.output_shapes == ((1, None, 2),)
    (doubled,) = network(np.array([[[1, 2]]]))
    assert doubled.tolist() == [[[2, 4]]]


def test_a_missing_file_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.onnx: no such file; put the ONNX file of MiDaS there"):
        Network(tmp_path / "none.onnx", expected="MiDaS")


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ConfigError, match=r"a\.onnx: does not load: .*; it must be the ONNX file of MiDaS"):
        Network(path, expected="MiDaS")


def test_a_network_that_fails_says_so(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "a.onnx", DOUBLED, given=(1, 2), result=(1, 2))
    with pytest.raises(ConfigError, match=r"a\.onnx: fails: .*; it must be the ONNX file of MiDaS"):
        Network(path, expected="MiDaS")(np.zeros((3, 3)))


def test_outputs_are_compared_with_what_the_file_says(tmp_path: Path) -> None:
    """ONNX Runtime gives what the network makes, and warns in its log."""
    path = write_graph(tmp_path / "a.onnx", DOUBLED, given=("n", 2), result=(1, 2))
    network = Network(path, expected="MiDaS")
    assert network.checked(np.ones((1, 2)))[0].tolist() == [[2, 2]]
    assert network(np.ones((3, 2)))[0].shape == (3, 2)
    with pytest.raises(ConfigError, match=r"its output is \[3, 2\], and the file says \[1, 2\]; it must be"):
        network.checked(np.ones((3, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    """A threshold would let nothing through, as if nobody were in the picture."""
    path = write_graph(tmp_path / "a.onnx", DOUBLED, given=(1, 2), result=(1, 2))
    with pytest.raises(ConfigError, match=r"a\.onnx: its output holds numbers that are not finite"):
        Network(path, expected="MiDaS")(np.array([[value, 1]]))


@pytest.mark.parametrize("kind", ["text", "sequence"])
def test_outputs_that_are_no_numbers_are_left_to_the_detector(tmp_path: Path, kind: str) -> None:
    """It says which outputs it expects."""
    if kind == "text":
        nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)]
        result = helper.make_tensor_value_info("y", TensorProto.STRING, (1, 2))
    else:
        nodes = [
            helper.make_node("Concat", ["x", "x"], ["long"], axis=0),
            helper.make_node("SequenceConstruct", ["x", "long"], ["y"]),
        ]
        result = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, (None, 2))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2))
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [given], [result]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "a.onnx")
    (output,) = Network(tmp_path / "a.onnx", expected="MiDaS")(np.array([[1, 2]]))
    assert len(output) == (1 if kind == "text" else 2)


def test_a_network_of_whole_numbers_gets_no_fractions(tmp_path: Path) -> None:
    """They would all be cut to 0."""
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    path = write_graph(tmp_path / "a.onnx", nodes, given=(2,), result=(2,), dtype=TensorProto.INT64)
    network = Network(path, expected="MiDaS")
    assert network(np.array([1, 2], np.uint8))[0].tolist() == [1, 2]
    with pytest.raises(ConfigError, match="its input is of int64; allowed: float32 or float16; it must be"):
        network(np.array([0.2, 0.9], np.float32))


def test_it_opens_where_the_system_does_not_say_which_cores_are_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS and Windows, on which the filter `detector` of a batch runs."""
    monkeypatch.delattr("os.sched_getaffinity")
    path = write_graph(tmp_path / "a.onnx", DOUBLED, given=(1, 2), result=(1, 2))
    assert Network(path, expected="a doubling")(np.ones((1, 2)))[0].tolist() == [[2, 2]]


def test_an_input_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    path = write_graph(tmp_path / "a.onnx", nodes, given=(1,), result=(1,), dtype=TensorProto.BOOL)
    with pytest.raises(ConfigError, match=r"inputs x tensor\(bool\); it must be"):
        Network(path, expected="MiDaS")
