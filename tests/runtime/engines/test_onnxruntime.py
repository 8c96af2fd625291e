"""ONNX Runtime behind the engine interface, on hand-made graphs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from intaglio.contract.tensors import NetworkSpec, TensorSpec
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.host_call import HostCall
from intaglio.engines.interface import DeviceArray
from intaglio.engines.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeBound, OnnxRuntimeEngine
from intaglio.errors import EngineMismatch

from .toy import NETWORK, write_toy


@pytest.fixture
def backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(threads=1, rebuild="intaglio build configs/toy.yaml")


def test_bound_buffers_are_read_and_written_in_place(backend: OnnxRuntimeBackend, tmp_path: Path) -> None:
    engine = backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32")
    arrays = allocate_tensors(backend, engine, {"B": 2})
    bound = engine.bind({"B": 2}, arrays)
    backend.upload(arrays["scale"], np.array([2.0], np.float32))
    for value in (1.0, 3.0):
        backend.upload(arrays["x"], np.full((2, 3), value, np.float32))
        bound.run()
        np.testing.assert_array_equal(backend.download(arrays["y"]), np.full((2, 3), 2 * value + 10))
    backend.copy(arrays["x"], arrays["y"])
    bound.run()
    np.testing.assert_array_equal(backend.download(arrays["y"]), np.full((2, 3), 42.0))


def test_rows_are_views(backend: OnnxRuntimeBackend) -> None:
    table, row = backend.allocate((3, 2), "float32"), backend.allocate((2,), "float32")
    backend.upload(table, np.arange(6, dtype=np.float32).reshape(3, 2))
    backend.copy(row, table[1])
    np.testing.assert_array_equal(backend.download(row), [2, 3])


def test_the_beginning_of_an_array_has_any_shape(backend: OnnxRuntimeBackend) -> None:
    table = backend.allocate((3, 2), "float32")
    backend.upload(table.reshaped((1, 4)), np.arange(4, dtype=np.float32)[None])
    np.testing.assert_array_equal(backend.download(table), [[0, 1], [2, 3], [0, 0]])
    with pytest.raises(IndexError):
        table.reshaped((7,))


def test_refit_replaces_weights_and_keeps_earlier_ones_on_an_error(
    backend: OnnxRuntimeBackend, tmp_path: Path
) -> None:
    own = np.full(3, 10.0, np.float32)
    engine = backend.load(
        NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32", replaceable={"weight": own}
    )
    arrays = allocate_tensors(backend, engine, {"B": 1})
    bound = engine.bind({"B": 1}, arrays)
    bound.run()
    np.testing.assert_array_equal(backend.download(arrays["y"])[0], [10, 10, 10])
    engine.refit({"weight": np.array([1, 2, 3], np.float32)})
    bound.run()
    np.testing.assert_array_equal(backend.download(arrays["y"])[0], [1, 2, 3])
    for bad, reason in (
        ({"wait": np.ones(3, np.float32)}, r"toy\.wait: .* no such replaceable weight"),
        ({"weight": np.ones(7, np.float32)}, r"float32\[7\], engine has float32\[3\]"),
        ({"weight": np.ones(3, np.float16)}, "engine has float32"),
    ):
        with pytest.raises(EngineMismatch, match=reason):
            engine.refit({"weight": np.zeros(3, np.float32), **bad})
    bound.run()
    np.testing.assert_array_equal(backend.download(arrays["y"])[0], [1, 2, 3])
    np.testing.assert_array_equal(own, [10, 10, 10])


def test_kernels_are_replaced_in_place_too(backend: OnnxRuntimeBackend, tmp_path: Path) -> None:
    """ONNX Runtime rearranges kernels into blocks of channels where they are not replaceable."""
    network = NetworkSpec("toy", (TensorSpec("x", (1, 16, 4, 4)),), (TensorSpec("y", (1, 16, 4, 4)),))
    own = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1])]
    ports = [value("x", TensorProto.FLOAT, [1, 16, 4, 4])], [value("y", TensorProto.FLOAT, [1, 16, 4, 4])]
    graph = helper.make_graph(nodes, "toy", *ports, [numpy_helper.from_array(own, "kernel")])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        tmp_path / "toy.onnx",
    )
    call = HostCall(
        backend, backend.load(network, tmp_path / "toy.onnx", precision="fp32", replaceable={"kernel": own})
    )
    x = np.ones((1, 16, 4, 4), np.float32)
    before = call({}, x=x)["y"]
    call._engine.refit({"kernel": 2 * own})
    np.testing.assert_allclose(call({}, x=x)["y"], 2 * before, rtol=1e-5)
    call._engine.refit({"kernel": own})
    np.testing.assert_array_equal(call({}, x=x)["y"], before)


def test_replaceable_weights_are_checked_at_load(backend: OnnxRuntimeBackend, tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    with pytest.raises(EngineMismatch, match=r"toy.weight: weight is float32\[2\], engine has float32\[3\]"):
        backend.load(NETWORK, path, precision="fp32", replaceable={"weight": np.ones(2, np.float32)})
    with pytest.raises(EngineMismatch, match="no such replaceable weight"):
        backend.load(NETWORK, path, precision="fp32", replaceable={"bias": np.ones(3, np.float32)})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: write_toy(path, extra=True), "unused"),
        (lambda path: write_toy(path, dim=4), r"toy.x: engine has shape \['B', 4\], table \['B', 3\]"),
        (lambda path: path.write_bytes(b"not onnx"), "toy.onnx does not load"),
        (lambda path: path.write_bytes(write_toy(path).read_bytes()[:-30]), "toy.onnx does not load"),
    ],
    ids=["extra input", "other width", "no ONNX", "cut off"],
)
def test_foreign_engine_is_refused(
    backend: OnnxRuntimeBackend, tmp_path: Path, make: Any, reason: str
) -> None:
    make(tmp_path / "toy.onnx")
    with pytest.raises(EngineMismatch, match=rf"{reason}.*rebuild with: intaglio build configs/toy.yaml"):
        backend.load(NETWORK, tmp_path / "toy.onnx", precision="fp32")


def test_precision_is_checked(backend: OnnxRuntimeBackend, tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match=r"toy.x: engine has float32, table float16"):
        backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp16")


@pytest.fixture
def wide() -> Iterator[OnnxRuntimeBackend]:
    backend = OnnxRuntimeBackend(threads=2)
    yield backend
    backend.close()


def toy_pass(
    backend: OnnxRuntimeBackend,
    path: Path,
    *,
    kind: type[OnnxRuntimeBound] = OnnxRuntimeBound,
    x: float = 1.0,
) -> tuple[OnnxRuntimeBound, Mapping[str, DeviceArray]]:
    """A pass of the toy in the file over buffers of its own, which will give 2 x + 10."""
    engine = backend.load(NETWORK, path, precision="fp32")
    arrays = allocate_tensors(backend, engine, {"B": 1})
    backend.upload(arrays["scale"], np.array([2.0], np.float32))
    backend.upload(arrays["x"], np.full((1, 3), x, np.float32))
    return kind(engine, arrays), arrays


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_passes_together_give_what_each_gives_alone(
    wide: OnnxRuntimeBackend, tmp_path: Path, count: int
) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    passes = [toy_pass(wide, path, x=float(number)) for number in range(count)]
    assert wide.together is not None
    wide.together.run([bound for bound, _ in passes])
    for number, (_, arrays) in enumerate(passes):
        np.testing.assert_array_equal(wide.download(arrays["y"]), np.full((1, 3), 2 * number + 10))
    total = wide.allocate((1, 3), "float32")
    wide.together.add(total, passes[0][1]["y"], passes[-1][1]["y"])
    np.testing.assert_array_equal(wide.download(total), np.full((1, 3), 20 + 2 * (count - 1)))


def test_two_passes_run_at_the_same_time(wide: OnnxRuntimeBackend, tmp_path: Path) -> None:
    both_run = threading.Barrier(2, timeout=30)

    class Meeting(OnnxRuntimeBound):
        def run_half(self) -> None:
            both_run.wait()
            super().run_half()

    path = write_toy(tmp_path / "toy.onnx")
    assert wide.together is not None
    wide.together.run([toy_pass(wide, path, kind=Meeting)[0] for _ in range(2)])


@pytest.mark.parametrize("failing", [0, 1])
def test_a_pass_that_fails_is_no_end_of_the_other(
    wide: OnnxRuntimeBackend, tmp_path: Path, failing: int
) -> None:
    class Failing(OnnxRuntimeBound):
        def run_half(self) -> None:
            raise RuntimeError("it fails")

    path = write_toy(tmp_path / "toy.onnx")
    kinds = [OnnxRuntimeBound, OnnxRuntimeBound]
    kinds[failing] = Failing
    passes = [toy_pass(wide, path, kind=kind) for kind in kinds]
    assert wide.together is not None
    with pytest.raises(RuntimeError, match="it fails"):
        wide.together.run([bound for bound, _ in passes])
    np.testing.assert_array_equal(wide.download(passes[1 - failing][1]["y"]), np.full((1, 3), 12.0))


@pytest.mark.parametrize("why", ["large", "changed", "removed", "replaceable"])
def test_what_cannot_be_opened_twice_runs_alone(
    wide: OnnxRuntimeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    path = write_toy(tmp_path / "toy.onnx")
    weights = {"weight": np.full(3, 10.0, np.float32)} if why == "replaceable" else None
    engine = wide.load(NETWORK, path, precision="fp32", replaceable=weights)
    passes = []
    for _ in range(2):
        arrays = allocate_tensors(wide, engine, {"B": 1})
        passes.append((engine.bind({"B": 1}, arrays), arrays))
    match why:
        case "large":
            monkeypatch.setattr("intaglio.engines.onnxruntime.OPENED_TWICE", 10)
        case "changed":
            path.write_bytes(path.read_bytes() + b"\n")
        case "removed":
            path.unlink()
    assert isinstance(engine, OnnxRuntimeEngine)
    assert engine.half is None
    assert wide.together is not None
    assert not wide.together.takes([engine, engine])
    wide.together.run([bound for bound, _ in passes])
    for _, arrays in passes:
        np.testing.assert_array_equal(wide.download(arrays["y"]), np.full((1, 3), 10.0))


def test_one_thread_runs_nothing_together(backend: OnnxRuntimeBackend) -> None:
    assert backend.together is None
