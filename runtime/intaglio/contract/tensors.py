"""The one table of every network's tensors; ONNX names, profiles and buffers derive from it.

Axes (`B` and the like are names in `TensorSpec.axes`; `axis_sizes` gives their numbers):
    B    images made together
    N    rows of the UNet: 2B with guidance, in the order [negative; positive], B without
    C    text chunks encoded together
    T    context tokens: 77 x chunks of the prompt
    i o  sides of a matrix that LoRAs change, as its engine has it;  r  ranks of all its LoRAs together
    H W  pixels;  h = H/8, w = W/8 latents;  h/2, w/2, h/4 .. halved, rounding up (strided 3x3 convolution, padding 1)
Fixed sizes (channels, widths) come from `Architecture`, so SDXL and the miniature share this table.

What no step changes is computed once an image, by the networks `unet_context` and `controlnet_context.<id>`:
the keys and values that cross-attentions make of the prompt, the embedding of the control image. Feature maps
that go from one engine to another have their channels last, as convolutions want them on a card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

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
    """A named tensor: fixed sizes are integers, the others names of the legend above."""

    name: str
    axes: tuple[Axis, ...]
    dtype: DType = "float32"

    def shape(self, sizes: AxisSizes) -> tuple[int, ...]:
        """Concrete shape; KeyError when `sizes` lacks one of the axes."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    def numpy_dtype(self, precision: Precision) -> str:
        """Name of the numpy dtype at `precision`."""
        return compute_dtype(precision) if self.dtype == "compute" else self.dtype

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
        raise KeyError(
            f"{self.name} has no tensor {name!r}; it has {', '.join(spec.name for spec in self.tensors)}"
        )

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Every named axis in order of appearance."""
        return tuple(
            dict.fromkeys(axis for spec in self.tensors for axis in spec.axes if isinstance(axis, str))
        )


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
        ranges = [
            AxisRange(axis, axis, axis) if isinstance(axis, int) else self.axes[axis] for axis in spec.axes
        ]
        return (
            tuple(axis.minimum for axis in ranges),
            tuple(axis.optimum for axis in ranges),
            tuple(axis.maximum for axis in ranges),
        )

    def admits(self, sizes: AxisSizes) -> bool:
        """Whether every axis of the profile has a size in range."""
        return all(
            name in sizes and axis.minimum <= sizes[name] <= axis.maximum for name, axis in self.axes.items()
        )
