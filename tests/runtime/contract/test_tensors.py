"""Tensors, networks and profiles as values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from intaglio.contract.tensors import (
    AxisRange,
    NetworkSpec,
    Profile,
    TensorSpec,
    compute_dtype,
    join_profiles,
)

IMAGE = TensorSpec("image", ("B", "h/2", 3), "compute")
SCALE = TensorSpec("scale", (1,))
NETWORK = NetworkSpec("net", inputs=(IMAGE, SCALE), outputs=(TensorSpec("out", ("B", "T")),))


def test_an_unknown_precision_is_no_float32() -> None:
    assert (compute_dtype("fp16"), IMAGE.numpy_dtype("fp32")) == ("float16", "float32")
    unknown: Any = "fp8"
    with pytest.raises(ValueError, match="'fp8' is unknown; it must be one of fp32, fp16"):
        IMAGE.numpy_dtype(unknown)
    assert SCALE.numpy_dtype(unknown) == "float32", "a fixed type does not depend on the precision"


def test_shapes_and_axes() -> None:
    assert IMAGE.shape({"B": 2, "h/2": 5}) == (2, 5, 3)
    assert IMAGE.dynamic_axes == {0: "B", 1: "h_2"}
    assert NETWORK.axis_names == ("B", "h/2", "T")
    with pytest.raises(KeyError, match="net has no tensor 'mask'; it has image, scale, out"):
        NETWORK.tensor("mask")


@pytest.mark.parametrize(
    "other",
    [
        TensorSpec("picture", IMAGE.axes, IMAGE.dtype),
        TensorSpec("image", ("N", "h/2", 3), IMAGE.dtype),
        TensorSpec("image", ("B", "h/2", 4), IMAGE.dtype),
        TensorSpec("image", IMAGE.axes, "uint8"),
    ],
)
def test_a_description_follows_every_tensor(other: TensorSpec) -> None:
    described = NETWORK.describe()
    assert json.loads(json.dumps(described)) == described
    changed = NetworkSpec("net", inputs=(other, SCALE), outputs=NETWORK.outputs)
    assert changed.describe() != described


def test_a_description_follows_the_order_but_not_the_networks_name() -> None:
    turned = NetworkSpec("net", inputs=(SCALE, IMAGE), outputs=NETWORK.outputs)
    renamed = NetworkSpec("other", inputs=NETWORK.inputs, outputs=NETWORK.outputs)
    assert turned.describe() != NETWORK.describe()
    assert renamed.describe() == NETWORK.describe()


def test_profiles() -> None:
    profile = Profile("p", {"B": AxisRange(1, 2, 4), "h/2": AxisRange(8, 8, 8)})
    assert profile.shapes(IMAGE) == ((1, 8, 3), (2, 8, 3), (4, 8, 3))
    assert profile.admits({"B": 4, "h/2": 8, "T": 1})
    assert not profile.admits({"B": 5, "h/2": 8})
    assert not profile.admits({"B": 4})


def test_profiles_that_differ_in_joined_axes_become_one() -> None:
    def static(name: str, **sizes: int) -> Profile:
        return Profile(name, {axis: AxisRange(size, size, size) for axis, size in sizes.items()})

    found = join_profiles(
        [static("a", B=1, N=2, T=77), static("b", B=1, N=1, T=154), static("c", B=2, N=4, T=77)], {"N", "T"}
    )
    assert found == (
        Profile("a-to-b", {"B": AxisRange(1, 1, 1), "N": AxisRange(1, 2, 2), "T": AxisRange(77, 77, 154)}),
        static("c", B=2, N=4, T=77),
    )
