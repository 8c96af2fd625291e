"""Tiny ONNX networks in the place of feature extractors and of CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[4]
SIDE = 4
WIDTH = 6


def write_network(path: Path, shape: list[int], kind: int, weight: np.ndarray, *, before: str) -> None:
    """The input, `before` applied, times `weight`."""
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT)
        if before == "Cast"
        else helper.make_node("Flatten", ["x"], ["floats"]),
        helper.make_node("MatMul", ["floats", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))


def write_extractors(folder: Path, *, text_width: int = WIDTH) -> Path:
    """Networks and the YAML file that names them."""
    drawn = np.random.default_rng(0)
    pictures = drawn.standard_normal((3 * SIDE * SIDE, WIDTH))
    write_network(folder / "image.onnx", [1, 3, SIDE, SIDE], TensorProto.FLOAT, pictures, before="Flatten")
    words = drawn.standard_normal((77, text_width))
    write_network(folder / "text.onnx", [1, 77], TensorProto.INT64, words, before="Cast")
    image = {"file": "image.onnx", "mean": [0.0, 0.0, 0.0], "deviation": [1.0, 1.0, 1.0]}
    tokenizer = str(ROOT / "miniature/model/tokenizer")
    values = {
        "perceptual": image,
        "features": image,
        "clip": {"image": image, "text": "text.onnx", "tokenizer": tokenizer},
    }
    path = folder / "extractors.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
