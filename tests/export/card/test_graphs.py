"""The small graphs: valid, of the stated work, and built for cards that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest

from intaglio.errors import BuildError
from intaglio_export.card.graphs import FP8, CardGraph, card_graphs, fp8_graph, one_product
from intaglio_export.engines.job import CompileJob
from intaglio_export.engines.platform import Platform

GRAPHS = {graph.name: graph for graph in (*card_graphs(16), fp8_graph(16), one_product(16))}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_valid_and_its_tensors_are_those_it_states(name: str) -> None:
    graph = GRAPHS[name]
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = [
        tuple(axis.dim_value for axis in tensor.type.tensor_type.shape.dim)
        for tensor in (inferred.input[0], inferred.output[0])
    ]
    assert shapes == [graph.shape, graph.output]
    assert graph.operations == pytest.approx(operations_of(graph))


def operations_of(graph: CardGraph) -> float:
    """Twice the multiplications of its products and convolutions, from inferred shapes."""
    inferred = onnx.shape_inference.infer_shapes(graph.model(), strict_mode=True).graph
    shapes = {
        tensor.name: [axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
        for tensor in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    found = 0.0
    for node in inferred.node:
        if node.op_type in ("MatMul", "Conv"):
            weight = shapes[node.input[1]]
            terms = weight[-2] if node.op_type == "MatMul" else int(np.prod(weight[1:]))
            found += 2.0 * float(np.prod(shapes[node.output[0]])) * terms
    return found


def test_values_stay_in_the_range_of_float16() -> None:
    graph = GRAPHS["products"]
    given = np.random.default_rng(0).standard_normal(graph.shape).astype(np.float16)
    session = onnxruntime.InferenceSession(graph.model().SerializeToString())
    (result,) = session.run(None, {"x": given})
    assert 0.1 < np.abs(result.astype(np.float32)).std() < 10


@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120"])
def test_cards_that_are_not_here_get_engines(target: str, tmp_path: Path) -> None:
    """fp8 begins with sm89; the library says so of others."""
    library = pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt")
    from intaglio_export.engines.tensorrt import TensorRTBuilder  # noqa: PLC0415

    builder = TensorRTBuilder(
        Platform("tensorrt-rtx", target, library.__version__, on_gpu=False), "tensorrt-rtx"
    )
    for graph in (*card_graphs(), fp8_graph()):
        onnx.save(graph.model(), str(tmp_path / "graph.onnx"))
        job = CompileJob(tmp_path / "graph.onnx", graph.network, (), "fp16", tmp_path / "timings")
        if graph.name == FP8 and target == "sm86":
            with pytest.raises(BuildError, match="cannot build"):
                builder.build(job, tmp_path / "engine.plan")
        else:
            assert builder.build(job, tmp_path / "engine.plan")["plan_bytes"] > 100_000
