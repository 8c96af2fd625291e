"""Waits and swaps over the number of replicas, one column for each number of sets."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measuring.figures import Results

__all__ = ["chart_of"]

_STYLES: Final = {
    "sticky": ("#3b6ea5", "o", "-"),
    "round robin": ("#c05a2e", "s", "--"),
    "least waiting": ("#5a8f3d", "^", ":"),
}
_ROWS: Final = (
    ("wait_mean", False, 0.5, "mean wait, s\nfiles in memory, load 0.5"),
    ("wait_mean", False, 0.7, "mean wait, s\nfiles in memory, load 0.7"),
    ("wait_mean", True, 0.2, "mean wait, s\nfiles read, load 0.2"),
    ("swaps_a_picture", False, 0.7, "swaps a picture\nfiles in memory, load 0.7"),
)


def chart_of(results: Results) -> bytes:
    """The plot as SVG; equal results give equal bytes."""
    rows = results["policies"]
    loras = sorted({row["loras"] for row in rows})
    figure = Figure(figsize=(11.0, 11.0), layout="constrained")
    grid = figure.subplots(len(_ROWS), len(loras), sharex=True, sharey="row", squeeze=False)
    for line, (figure_name, reads, load, label) in enumerate(_ROWS):
        for column, number in enumerate(loras):
            axes = grid[line][column]
            chosen = [row for row in rows if _key(row) == (number, reads, load)]
            _draw(axes, chosen, figure_name)
            if column == 0:
                axes.set_ylabel(label)
            if line == 0:
                axes.set_title(f"{number} sets of LoRAs", loc="left")
    grid[-1][0].set_ylim(0, 1)
    for axes in grid[-1]:
        axes.set_xlabel("replicas")
    grid[0][0].legend(frameon=False, fontsize="small")
    figure.suptitle("Simulation on seconds measured on one H200", x=0.01, ha="left")
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "intaglio", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _key(row: Mapping[str, Any]) -> tuple[int, bool, float]:
    return row["loras"], row["reads"], row["load"]


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    for policy, (colour, marker, style) in _STYLES.items():
        found = sorted((row["replicas"], row[name]) for row in rows if row["policy"] == policy)
        axes.plot(*zip(*found, strict=True), color=colour, marker=marker, linestyle=style, label=policy)
    axes.set_xscale("log")
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    if name.startswith("wait"):
        axes.set_yscale("log")
        axes.set_yticks(
            [0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["0.5", "1", "2", "5", "10", "20", "50", "100", "200"]
        )
    axes.minorticks_off()
    axes.grid(True, color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
