"""Operations and bytes of graphs, counted by hand, and beside those that PyTorch counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from intaglio.contract.sdxl import axis_sizes, context_name, network_spec
from intaglio.errors import BuildError
from intaglio_export.build import BuildResult
from intaglio_export.card.graphs import KINDS, card_graphs
from intaglio_export.card.work import image_work
from intaglio_export.roofline.work import PassWork, count_graph, graph_work

from ...checkpoint import Checkpoint

WIDTH, HEIGHT = 72, 96


def graph_of(
    *nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), axes: tuple[object, ...]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_product_and_a_convolution_counted_by_hand() -> None:
    weight = numpy_helper.from_array(np.zeros((8, 4), np.float32), "w")
    product = graph_of(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=(weight,), axes=("n", 8))
    found = count_graph(product, {"x": (3, 8)})
    assert found.operations == {"product": 2 * 3 * 8 * 4, "convolution": 0, "attention": 0}
    assert found.bytes == 4 * (3 * 8 + 8 * 4 + 3 * 4)
    kernel = numpy_helper.from_array(np.zeros((6, 2, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=2)
    grouped = graph_of(node, weights=(kernel,), axes=(1, 4, "h", "w"))
    assert count_graph(grouped, {"x": (1, 4, 5, 7)}).operations["convolution"] == 2 * (6 * 5 * 7) * 2 * 9


@pytest.mark.parametrize("graph", card_graphs(16), ids=lambda graph: graph.name)
def test_the_graphs_that_ceilings_are_measured_with(graph: object) -> None:
    """Their operations stand in a formula; attention's scores are not among the bytes."""
    found = count_graph(graph.model(), {"x": graph.shape})  # type: ignore[attr-defined]
    assert found.operations == dict.fromkeys(KINDS, 0.0) | {graph.kind: graph.operations}  # type: ignore[attr-defined]
    if graph.kind == "attention":  # type: ignore[attr-defined]
        sequence = 2 * float(np.prod(graph.shape))  # type: ignore[attr-defined]
        assert found.bytes == 3 * 4 * sequence + 2 * sequence, (
            "queries, keys, values and the result; both ends"
        )


def test_shapes_that_are_arithmetic_on_shapes_are_followed() -> None:
    """Half the columns: ONNX's own inference leaves that size open."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2),
        helper.make_node("Div", ["shape", "two"], ["half"]),
        helper.make_node("Slice", ["x", "zero", "half", "one"], ["part"]),
        helper.make_node("MatMul", ["part", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([value], np.int64), name)
        for value, name in ((2, "two"), (0, "zero"), (1, "one"))
    ]
    weights.append(numpy_helper.from_array(np.zeros((5, 4), np.float32), "w"))
    found = count_graph(graph_of(*nodes, weights=tuple(weights), axes=("n", "m")), {"x": (3, 10)})
    assert found.operations["product"] == 2 * 3 * 5 * 4


def test_what_cannot_be_counted_is_refused_by_name() -> None:
    node = helper.make_node("Einsum", ["x", "x"], ["y"], name="mix", equation="ij,kj->ik")
    with pytest.raises(BuildError, match="Einsum mix: an operator whose work is not counted"):
        count_graph(graph_of(node, axes=(2, 2)), {"x": (2, 2)})
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["y"], to=1),
    ]
    with pytest.raises(BuildError, match="the shape of places depends on values"):
        count_graph(graph_of(*nodes, axes=(2, 2)), {"x": (2, 2)})


def work_of(built: tuple[Path, BuildResult], network: str) -> PassWork:
    architecture = built[1].manifest.architecture
    spec = network_spec(network, architecture)
    sizes = axis_sizes(architecture, width=WIDTH, height=HEIGHT, guidance=False)
    (graph,) = (built[1].folder.parent / ".stages/onnx" / network).glob("*/model.onnx")
    return graph_work(graph, spec, sizes)


def test_networks_compute_what_pytorch_counts(
    built: tuple[Path, BuildResult], checkpoint: Checkpoint
) -> None:
    """PyTorch counts the networks as diffusers has them. Ours compute the prompt's keys and values apart, and
    the UNet's graph has the solver, which is no matrix product. With guidance ours would embed the control
    image once where diffusers does it for both rows.
    """
    folders = {
        "unet": checkpoint.base / "unet",
        "vae": checkpoint.base / "vae",
        "controlnet": checkpoint.controlnet("pose"),
        "text_encoder_2": checkpoint.base / "text_encoder_2",
    }
    configs = {name: json.loads((folder / "config.json").read_text()) for name, folder in folders.items()}
    expected = image_work(configs, width=WIDTH, height=HEIGHT, guidance=False)
    for ours, theirs in (("unet", "unet"), ("controlnet.pose", "controlnet"), ("vae_decoder", "vae_decoder")):
        found = dict(work_of(built, ours).operations)
        if ours != "vae_decoder":
            context = work_of(built, context_name(ours))
            found = {kind: count + context.operations[kind] for kind, count in found.items()}
        assert found == pytest.approx(dict(expected[theirs].operations), rel=0.02), ours
