"""The table of inputs has the types of the contract, and an example of each that a deployment takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type, read_tensors, scalar, string_tensor
from reference.inputs import request_inputs

ROWS = {
    cells[0].strip(" `"): [cell.strip() for cell in cells]
    for cells in (line.strip("|").split(" | ") for line in request_inputs().splitlines()[2:])
}


@pytest.mark.parametrize(
    ("name", "datatype", "shape"),
    [
        ("prompt", "BYTES", "[1]"),
        ("images", "BYTES", "[n]"),
        ("seed", "INT64", "[1]"),
        ("steps", "INT32", "[1]"),
        ("guidance_begin", "FP32", "[1]"),
        ("guidance_end", "FP32", "[1]"),
        ("trigger_words", "BOOL", "[1]"),
    ],
)
def test_types_are_those_of_a_request(name: str, datatype: str, shape: str) -> None:
    assert ROWS[name][1:3] == [datatype, shape]


def test_the_contract_takes_every_example() -> None:
    assert list(ROWS) == [port.name for port in SDXL.inputs]
    tensors: dict[str, Any] = {}
    for port in SDXL.inputs:
        value: Any = port.example
        is_text = isinstance(value, str)
        values = value if isinstance(value, tuple) else (value,)
        tensors[port.name] = string_tensor(value) if is_text else np.array(values, numpy_type(port.datatype))
    for name, tensor in read_tensors(tensors, SDXL.inputs).items():
        port = SDXL.input(name)
        value = scalar({name: tensor}, port)
        assert not port.choices or value.decode() in port.choices
        assert isinstance(value, bytes) or port.admits(value)
