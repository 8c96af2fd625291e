"""The headers of weights equal what the onnx package reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from intaglio.engines.onnx_file import initializers


def test_weights_are_those_that_onnx_reads(tmp_path: Path) -> None:
    weights = {
        "matrix": np.zeros((3, 4), np.float32),
        "half": np.zeros((2, 1, 5), np.float16),
        "scalar": np.array(7, np.int64),
        "long.name/with:marks": np.zeros(300, np.uint8),
    }
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    tensors.append(helper.make_tensor("bf16", TensorProto.BFLOAT16, [2], [0.0, 0.0]))
    path = tmp_path / "weights.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "weights", [], [], tensors)), path)
    expected = {name: (values.dtype.name, values.shape) for name, values in weights.items()}
    assert initializers(path) == {**expected, "bf16": ("onnx type 16", (2,))}


def test_what_is_no_protobuf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"\x0f\x01")
    with pytest.raises(ValueError, match="not a protobuf message: wire type 7"):
        initializers(tmp_path / "weights.onnx")
