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
from typing import Any, Final, Literal

__all__ = [
    "PRECISION_DTYPES",
    "Axis",
    "AxisRange",
    "AxisSizes",
    "DType",
    "NetworkSpec",
    "Precision",
    "Profile",
    "TensorSpec",
]


Axis = int | str
AxisSizes = Mapping[str, int]
DType = Literal["float32", "int64", "uint8", "compute"]
"""`compute` is the network's precision: float32 or float16."""
Precision = Literal["fp32", "fp16"]
PRECISION_DTYPES: Final[Mapping[Precision, str]] = {"fp32": "float32", "fp16": "float16"}
"""Name of the numpy dtype that a network of each precision computes in; KeyError for a precision without one.
"""


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
        if self.dtype != "compute":
            return self.dtype
        return PRECISION_DTYPES[precision]

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

    def describe(self) -> dict[str, Any]:
        """Names, axes and dtypes of every tensor in order, as JSON: what a build's keys know of the network."""

        def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
            return [{"name": spec.name, "axes": list(spec.axes), "dtype": spec.dtype} for spec in specs]

        return {"name": self.name, "inputs": described(self.inputs), "outputs": described(self.outputs)}

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
