"""Seconds against each figure as a PNG: a dot a row with one standard error, and the front as a line."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from intaglio_client.bench.quality.report import Quality, front_of
from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import Row

__all__ = ["drawn_front"]

_PANEL: Final = (6.4, 4.6)
_DOTS_PER_INCH: Final = 110
_GRID: Final = "#e4e4e4"
_FRONT: Final = "#999999"
_COLOURS: Final = {"no option": "#222222", "build": "#c05a2e", "few steps": "#8a5aa8", "option": "#3b6ea5"}
_TITLES: Final = {
    "attire": "attire as asked, share",
    "place": "place as asked, share",
    "pck": "joints as asked, share (PCK@0.1)",
    "identity": "picture in the character's colours, share",
}
"""Of the miniature's figures; others are called by their names."""


def drawn_front(quality: Quality) -> bytes:
    """A PNG with a panel for every figure of the judge; without a judge, of the PSNR to no option."""
    panels = {_TITLES.get(name, name): _judged(name) for name in quality.figures}
    fronts = {_TITLES.get(name, name): front_of(quality.rows, name) for name in quality.figures}
    if not panels:
        panels["dB to no option (PSNR)"] = lambda row: None if row is quality.rows[0] else row.psnr
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    drawing = Drawing(
        figsize=(columns * _PANEL[0], rows * _PANEL[1]), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    drawing.suptitle(
        f"{quality.deployment}, {quality.build}: {quality.scenes} scenes; bars are one standard error",
        x=0.01,
        ha="left",
    )
    axes = drawing.subplots(rows, columns, squeeze=False).flatten()
    for one, (title, figure_of) in zip(axes, panels.items(), strict=False):
        _panel(one, title, quality.rows, figure_of, fronts.get(title, ()))
    for one in axes[len(panels) :]:
        one.set_visible(False)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    return buffer.getvalue()


def _judged(name: str) -> Callable[[Row], Figure | None]:
    return lambda row: row.judged.get(name)


def _panel(
    axes: Axes,
    title: str,
    rows: Sequence[Row],
    figure_of: Callable[[Row], Figure | None],
    front: Sequence[Row],
) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel("seconds of a picture over those with no option: left is faster")
    axes.grid(True, color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    found: Mapping[int, Figure] = {
        index: figure for index, row in enumerate(rows) if (figure := figure_of(row)) is not None
    }
    line = [(row.ratio.value, figure.value) for row in front if (figure := figure_of(row)) is not None]
    if line:
        axes.plot(*zip(*line, strict=True), color=_FRONT, linewidth=1, zorder=1)
    for index, figure in found.items():
        row = rows[index]
        axes.errorbar(
            row.ratio.value,
            figure.value,
            yerr=figure.error,
            fmt="o",
            color=_COLOURS[_kind(row)],
            markersize=5,
            elinewidth=0.8,
        )
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    _names(axes, rows, found)


def _kind(row: Row) -> str:
    if row.setting.apart.startswith("build "):
        return "build"
    if "loras" in row.setting.inputs:
        return "few steps"
    return "option" if row.setting.inputs else "no option"


def _names(axes: Axes, rows: Sequence[Row], found: Mapping[int, Figure]) -> None:
    """The names in a column at the right, each with a thin line to its dot."""
    low, high = axes.get_ylim()
    step = 0.056
    below = -1.0
    ordered = sorted(found, key=lambda index: (found[index].value, rows[index].ratio.value))
    room = 1.0 - step * (len(ordered) - 1)
    for place, index in enumerate(ordered):
        wanted = (found[index].value - low) / (high - low)
        below = min(max(wanted, below + step), room + step * place)
        axes.annotate(
            rows[index].setting.name,
            (rows[index].ratio.value, found[index].value),
            xytext=(1.01, below),
            textcoords="axes fraction",
            fontsize="x-small",
            color=_COLOURS[_kind(rows[index])],
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#cccccc", "linewidth": 0.4},
            annotation_clip=False,
        )
