"""What the tables of networks are made of: tensors with named axes, networks, optimization profiles.

`intaglio.contract.sdxl` holds the table itself. ONNX names, profiles and buffers derive from it.

Axes (names in `TensorSpec.axes`; `sdxl.axis_sizes` gives their sizes):
    B    images of one pass
    N    rows of the UNet: 2B with guidance, in the order [negative; positive]; B without
    C    text chunks of one pass
    T    context tokens: 77 x the chunks of a prompt
    H W  pixels
    h w  latents: H/8, W/8
    h/2  halved, rounding up (strided 3x3 convolution, padding 1); likewise w/2, h/4, ...
    i o  sides of a matrix that LoRAs change, as its engine stores it
    r    rank, summed over all LoRAs of that matrix
Fixed sizes (channels, widths) come from `Architecture`, so SDXL and the miniature share one table.

The networks `unet_context`, `controlnet_context.<id>` and `controlnet_union_context.<id>` compute once per
image what no step changes: the keys and values of cross-attention, and the embedding of the control image.
Feature maps that go from one engine to another have their channels last, which is the layout that
convolutions run fastest in on a card.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = [
    "Axis",
    "AxisRange",
    "AxisSizes",
    "DType",
    "NetworkSpec",
    "Precision",
    "Profile",
    "TensorSpec",
    "compute_dtype",
    "join_profiles",
]

Axis = int | str
AxisSizes = Mapping[str, int]
DType = Literal["float32", "int64", "uint8", "compute"]
"""`compute` is the dtype of the network's precision, see `compute_dtype`."""
Precision = Literal["fp32", "fp16"]
_DTYPE_OF_PRECISION: Final[Mapping[Precision, str]] = {"fp32": "float32", "fp16": "float16"}


def compute_dtype(precision: Precision) -> str:
    """Name of the numpy dtype that a network of `precision` computes in.

    Raises:
        ValueError: the table has no such precision.
    """
    if precision not in _DTYPE_OF_PRECISION:
        known = ", ".join(_DTYPE_OF_PRECISION)
        raise ValueError(f"precision {precision!r} is unknown; it must be one of {known}")
    return _DTYPE_OF_PRECISION[precision]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor; an axis is a fixed size, or a name of the legend above."""

    name: str
    axes: tuple[Axis, ...]
    dtype: DType = "float32"

    def shape(self, sizes: AxisSizes) -> tuple[int, ...]:
        """Concrete shape; KeyError when `sizes` lacks one of the axes."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    def numpy_dtype(self, precision: Precision) -> str:
        """Name of the numpy dtype in a network of `precision`."""
        return compute_dtype(precision) if self.dtype == "compute" else self.dtype

    def describe(self) -> dict[str, Any]:
        """The tensor as values that JSON can hold."""
        return {"name": self.name, "axes": list(self.axes), "dtype": self.dtype}

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """`torch.onnx.export(dynamic_axes={name: ...})`; `h/2` is spelt `h_2` there."""
        return {
            index: axis.replace("/", "_") for index, axis in enumerate(self.axes) if isinstance(axis, str)
        }


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Inputs and outputs of one network, in the order of its ONNX graph."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs

    def tensor(self, name: str) -> TensorSpec:
        """The tensor called `name`; KeyError when there is none."""
        for spec in self.tensors:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.tensors)
        raise KeyError(f"{self.name} has no tensor {name!r}; it has {known}")

    def describe(self) -> dict[str, Any]:
        """Names, axes and dtypes of all tensors in order, as values that JSON can hold.

        Two networks with equal descriptions exchange the same tensors. The network's own name is left out:
        `controlnet.pose` and `controlnet.canny` have one description.
        """
        return {
            "inputs": [spec.describe() for spec in self.inputs],
            "outputs": [spec.describe() for spec in self.outputs],
        }

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Every named axis in order of appearance."""
        axes = itertools.chain.from_iterable(spec.axes for spec in self.tensors)
        return tuple(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))


@dataclass(frozen=True, slots=True)
class AxisRange:
    """Sizes one axis may take in a profile; static when all three agree."""

    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One optimization profile: a range for every named axis of the network."""

    name: str
    axes: Mapping[str, AxisRange]

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(minimum, optimum, maximum) shape of `spec`, as TensorRT's `set_shape` takes them."""
        ranges = [self._range(axis) for axis in spec.axes]
        return (
            tuple(axis.minimum for axis in ranges),
            tuple(axis.optimum for axis in ranges),
            tuple(axis.maximum for axis in ranges),
        )

    def _range(self, axis: Axis) -> AxisRange:
        return AxisRange(axis, axis, axis) if isinstance(axis, int) else self.axes[axis]

    def admits(self, sizes: AxisSizes) -> bool:
        """Whether every axis of the profile has a size in range."""
        return all(
            name in sizes and axis.minimum <= sizes[name] <= axis.maximum for name, axis in self.axes.items()
        )


def join_profiles(profiles: Sequence[Profile], axes: Collection[str]) -> tuple[Profile, ...]:
    """Make one profile of all that differ in `axes` only; its optimum is that of the first of them."""
    groups: dict[tuple[tuple[str, AxisRange], ...], list[Profile]] = {}
    for profile in profiles:
        fixed = tuple((name, axis) for name, axis in profile.axes.items() if name not in axes)
        groups.setdefault(fixed, []).append(profile)
    return tuple(_joined(group) for group in groups.values())


def _joined(group: Sequence[Profile]) -> Profile:
    first = group[0]
    if len(group) == 1:
        return first
    ranges = {}
    for name, axis in first.axes.items():
        smallest = min(profile.axes[name].minimum for profile in group)
        largest = max(profile.axes[name].maximum for profile in group)
        ranges[name] = AxisRange(smallest, axis.optimum, largest)
    return Profile(f"{first.name}-to-{group[-1].name}", ranges)
