"""Engines and buffers that differ from the tensor table are refused, with the difference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import DeviceArray, check_bindings, check_tensors
from intaglio.engines.onnxruntime import HostArray
from intaglio.errors import EngineMismatch

from .toy import NETWORK

FOUND: dict[str, tuple[str, tuple[Any, ...]]] = {
    "x": ("float32", (-1, 3)),
    "scale": ("float32", (1,)),
    "y": ("float32", ("B", 3)),
}


def test_dynamic_sizes_are_accepted() -> None:
    check_tensors(NETWORK, FOUND, precision="fp32", rebuild="")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"y": None}, "toy: engine lacks y"),
        ({"z": ("float32", (1,))}, "toy: engine has tensors the table does not know: z"),
        ({"x": ("float16", (-1, 3))}, "toy.x: engine has float16, table float32"),
        ({"x": ("float32", (-1, 4))}, r"toy.x: engine has shape \[-1, 4\], table \['B', 3\]"),
        ({"x": ("float32", (3,))}, r"toy.x: engine has shape \[3\], table \['B', 3\]"),
    ],
)
def test_an_engine_that_differs_from_the_table_is_refused(change: dict[str, Any], reason: str) -> None:
    found = {name: value for name, value in (FOUND | change).items() if value is not None}
    with pytest.raises(EngineMismatch, match=rf"{reason}; rebuild with: intaglio build configs/x.yaml"):
        check_tensors(NETWORK, found, precision="fp32", rebuild="intaglio build configs/x.yaml")


def buffers(count: int, dtype: str = "float32") -> dict[str, DeviceArray]:
    shapes = {spec.name: spec.shape({"B": count}) for spec in NETWORK.tensors}
    return {name: HostArray(np.zeros(shape, dtype)) for name, shape in shapes.items()}


def test_buffers_that_differ_from_the_table_are_refused() -> None:
    engine: Any = SimpleNamespace(network=NETWORK, precision="fp32")
    check_bindings(engine, {"B": 2}, buffers(2))
    with pytest.raises(ValueError, match=r"toy.x: buffer is float32\[2, 3\], table says float32\[3, 3\]"):
        check_bindings(engine, {"B": 3}, buffers(2))
    with pytest.raises(ValueError, match=r"toy.x: buffer is float16\[2, 3\], table says float32\[2, 3\]"):
        check_bindings(engine, {"B": 2}, buffers(2, "float16"))
    lacking = buffers(2)
    del lacking["y"]
    with pytest.raises(ValueError, match="toy: buffers differ from the table: y"):
        check_bindings(engine, {"B": 2}, lacking)
