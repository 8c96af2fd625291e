"""Values as people write them become tensors that a request takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import Port
from intaglio.errors import InvalidRequest

SHARES = Port(name="shares", datatype="TYPE_FP32", dims=(-1,), minimum=0, maximum=1)


def test_a_list_of_numbers_is_one_tensor() -> None:
    tensor = tensor_from_value(SHARES, [0, 0.5, 1])
    assert tensor.dtype == np.float32
    assert tensor.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("value", [0.5, "0.5", [], [2], [None], {"a": 1}])
def test_other_values_are_no_list_of_numbers(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^shares(\[0\])?: "):
        tensor_from_value(SHARES, value)
