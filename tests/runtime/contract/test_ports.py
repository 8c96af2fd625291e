"""Tensors and scalars are read as the ports say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from intaglio.contract.models import SDXL
from intaglio.contract.ports import Port, read_tensors, scalar, shortest_float32, string_tensor
from intaglio.errors import InvalidRequest

STEPS = Port(name="steps", datatype="TYPE_INT32", minimum=1, maximum=150)
MAPS = Port(name="maps", datatype="TYPE_UINT8", dims=(-1, 2), optional=True, doc="maps")
PORTS = (STEPS, MAPS)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "steps: missing"),
        ({"stairs": np.zeros(1)}, "stairs: unknown input; allowed: steps, maps"),
        ({"steps": np.zeros(1, np.int64)}, "steps: type int64; allowed: INT32"),
        ({"steps": np.zeros(2, np.int32)}, r"steps: shape \[2\]; allowed: \[1\]"),
        ({"steps": np.zeros((1, 1), np.int32)}, r"steps: shape \[1, 1\]"),
    ],
)
def test_tensors_that_do_not_fit(tensors: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_tensors(tensors, PORTS)


def test_sizes_of_minus_one_are_any() -> None:
    steps = np.ones(1, np.int32)
    found = read_tensors({"maps": np.zeros((7, 2), np.uint8), "steps": steps}, PORTS)
    assert list(found) == ["steps", "maps"]


def test_a_scalar_is_in_its_range() -> None:
    assert scalar({"steps": np.array([150], np.int32)}, STEPS) == 150
    assert scalar({}, STEPS, 30) == 30
    with pytest.raises(InvalidRequest, match="steps: 151 is out of range; allowed: 1 to 150"):
        scalar({"steps": np.array([151], np.int32)}, STEPS)


def test_the_largest_seed_is_admitted_exactly() -> None:
    seed = Port(name="seed", datatype="TYPE_INT64", minimum=0, maximum=2**63 - 1)
    assert seed.admits(2**63 - 1)
    assert not seed.admits(2**63)
    assert not SDXL.input("guidance_scale").admits(10**400), "too large for a float"
    assert seed.allowed == "0 to 9223372036854775807"


def test_a_float32_is_shown_with_the_fewest_digits() -> None:
    assert shortest_float32(float(np.float32(7.1))) == 7.1


def test_strings_are_bytes() -> None:
    assert string_tensor("grün", b"x").tolist() == ["grün".encode(), b"x"]


def test_a_deployment_has_its_own_range() -> None:
    port = replace(STEPS, deployment_range="at most limits.steps", doc="solver steps")
    assert port.allowed == "at most limits.steps"
    assert scalar({"steps": np.array([1000], np.int32)}, port) == 1000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"default": 20}, "solver steps; default: 20; allowed: 1 to 150"),
        (
            {"absent": "30 here", "deployment_range": "as built"},
            "solver steps; default: 30 here; allowed: as built",
        ),
        ({"datatype": "TYPE_BOOL", "default": 1, "minimum": None}, "solver steps; default: true"),
    ],
)
def test_a_description_has_the_default_and_the_range(changes: dict[str, Any], says: str) -> None:
    assert replace(STEPS, doc="solver steps", **changes).description == says
