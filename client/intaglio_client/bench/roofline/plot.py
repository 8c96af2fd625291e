"""The roofline as a PNG: every network is a dot below the ceilings of the device."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["drawn_roofline"]

_INCHES: Final = (11.0, 6.2)
_DOTS_PER_INCH: Final = 110
_GRID: Final = "#e4e4e4"
_BANDWIDTH: Final = "#c05a2e"
_CEILINGS: Final = {"product": "#3b6ea5", "convolution": "#5a8f3d", "attention": "#8a5aa8"}
_NAMES: Final = {"product": "products", "convolution": "convolutions", "attention": "attention"}
_BOUNDS: Final = {**_CEILINGS, "memory": _BANDWIDTH}
_ROW: Final = 0.042
"""Height of a label over that of the plot."""
_GIGA: Final = 1e9
_TERA: Final = 1e12
Data = Mapping[str, Any]


def drawn_roofline(data: Data) -> bytes:
    """A PNG of `roofline.json`."""
    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    _frame(axes, data)
    _roof(axes, data["ceilings"])
    _dots(axes, data["networks"])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _unit(highest: float) -> tuple[float, str]:
    return (_TERA, "TFLOP/s") if highest >= _TERA else (_GIGA, "GFLOP/s")


def _frame(axes: Axes, data: Data) -> None:
    build, picture, ceilings = data["build"], data["picture"], data["ceilings"]
    card = data["machine"]["card"]
    where = card["name"] if card and build["runtime"] != "onnxruntime" else data["machine"]["processor"]
    axes.set_title(
        f"{build['config']} {picture['width']}x{picture['height']}, {build['runtime']} {build['precision']}, "
        f"{where}",
        loc="left",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte (FLOP/byte), counted in the graph")
    axes.set_ylabel("operations a second (FLOP/s)")
    axes.grid(True, which="major", color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    x = [one["operations_a_byte"] for one in data["networks"]]
    y = [one["operations_a_second"] for one in data["networks"]]
    top = max(ceilings["operations_a_second"].values())
    ridge = top / ceilings["bytes_a_second"]
    axes.set_xlim(min(*x, ridge) / 3, max(*x, ridge) * 3)
    axes.set_ylim(min(y) / 3, max(*y, top) * 2.5)


def _roof(axes: Axes, ceilings: Data) -> None:
    """The slope of the bandwidth up to the highest ceiling, and a line for each kind of work."""
    bandwidth = ceilings["bytes_a_second"]
    speeds = ceilings["operations_a_second"]
    left, right = axes.get_xlim()
    top = max(speeds.values())
    unit, name = _unit(top)
    slope = [left, top / bandwidth]
    axes.plot(
        slope, [bandwidth * x for x in slope], color=_BANDWIDTH, label=f"copies, {bandwidth / _GIGA:.4g} GB/s"
    )
    for kind, speed in sorted(speeds.items()):
        ends = [speed / bandwidth, right]
        axes.plot(
            ends, [speed, speed], color=_CEILINGS[kind], label=f"{_NAMES[kind]}, {speed / unit:.4g} {name}"
        )
    axes.legend(
        loc="lower right",
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        title="measured ceilings; a dot has the colour of its own",
    )


def _dots(axes: Axes, networks: Sequence[Data]) -> None:
    """A dot a network in the colour of what bounds it. The names stand in a column, each with a line to its
    dot: dots lie too near to each other for names beside them.
    """
    low, high = (math.log(value) for value in axes.get_ylim())
    below = -math.inf
    for one in sorted(networks, key=lambda one: float(one["operations_a_second"])):
        x, y = one["operations_a_byte"], one["operations_a_second"]
        colour = _BOUNDS[one["bound"]]
        axes.plot([x], [y], "o", color=colour, markersize=7)
        below = max((math.log(y) - low) / (high - low), below + _ROW)
        axes.annotate(
            f"{one['network']}: {1e3 * one['seconds']:.3g} ms, {100 * one['share']:.0f} %",
            (x, y),
            xytext=(1.01, below),
            textcoords=axes.transAxes,
            fontsize="small",
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6},
            annotation_clip=False,
        )
