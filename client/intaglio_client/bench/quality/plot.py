"""Seconds against each figure as a PNG: a dot a row with one standard error, and the front as a line."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from intaglio_client.bench.quality.report import Quality, front_of
from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import Row

__all__ = ["drawn_front"]

_PANEL: Final = (5.2, 4.2)
_NAMES: Final = 3.4
"""Width of the names beside the panels, in inches."""
_DOTS_PER_INCH: Final = 110
_GRID: Final = "#e4e4e4"
_FRONT: Final = "#999999"
_COLOURS: Final = {"no option": "#222222", "build": "#c05a2e", "few steps": "#8a5aa8", "option": "#3b6ea5"}
_OFFSETS: Final = ((4, 5), (4, -12), (4, 14), (4, -21))
"""Of a dot's number in points: neighbours have different ones."""
_TITLES: Final = {
    "attire": "attire as asked, share",
    "place": "place as asked, share",
    "pck": "joints as asked, share (PCK@0.1)",
    "identity": "picture in the character's colours, share",
    "clip": "CLIP score",
}
"""Of figures that are known here; others are called by their names."""


def drawn_front(quality: Quality) -> bytes:
    """A PNG with a panel for every figure of the judge; without a judge, of the PSNR to no option."""
    rows = sorted(quality.rows, key=lambda row: row.ratio.value)
    columns = min(2, max(1, len(quality.figures)))
    lines = max(1, -(-len(quality.figures) // columns))
    drawing = Drawing(
        figsize=(columns * _PANEL[0] + _NAMES, lines * _PANEL[1]), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    title = f"{quality.deployment}, {quality.build}: {quality.scenes} scenes"
    drawing.suptitle(title, x=0.01, ha="left")
    parts: Any = drawing.subfigures(1, 2, width_ratios=[columns * _PANEL[0], _NAMES])
    panels, names = parts
    axes = panels.subplots(lines, columns, squeeze=False).flatten()
    for one, name in zip(axes, quality.figures or ("",), strict=False):
        if name:
            _panel(one, rows, _gain(name), front_of(quality.rows, name))
            mean = quality.rows[0].judged[name].shown(3)
            one.set_title(f"{_TITLES.get(name, name)}: {mean} with no option", loc="left", fontsize="small")
            one.set_ylabel("difference to no option, ± one standard error")
        else:
            _panel(one, rows, lambda row: None if row is quality.rows[0] else row.psnr, ())
            one.set_ylabel("dB to no option (PSNR), ± one standard error")
    for one in axes[max(1, len(quality.figures)) :]:
        one.set_visible(False)
    for index, row in enumerate(rows):
        place = 0.9 - index * min(0.05, 0.85 / len(rows))
        text = f"{index + 1}  {row.setting.name}"
        names.text(0.02, place, text, fontsize="small", color=_COLOURS[_kind(row)])
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    return buffer.getvalue()


def _gain(name: str) -> Callable[[Row], Figure | None]:
    return lambda row: row.judged_gain.get(name)


def _panel(
    axes: Axes, rows: Sequence[Row], figure_of: Callable[[Row], Figure | None], front: Sequence[Row]
) -> None:
    axes.set_xlabel("seconds of a picture over those with no option: left is faster")
    axes.grid(True, color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    line = [(row.ratio.value, figure.value) for row in front if (figure := figure_of(row)) is not None]
    if line:
        axes.plot(*zip(*line, strict=True), color=_FRONT, linewidth=1.2, zorder=1, label="front")
        axes.legend(loc="lower right", frameon=False, fontsize="small")
    found: Mapping[int, Figure] = {
        index: figure for index, row in enumerate(rows) if (figure := figure_of(row)) is not None
    }
    for index, figure in found.items():
        row, colour = rows[index], _COLOURS[_kind(rows[index])]
        axes.errorbar(
            row.ratio.value,
            figure.value,
            yerr=figure.error,
            fmt="o",
            color=colour,
            markersize=5,
            elinewidth=0.8,
        )
        axes.annotate(
            str(index + 1),
            (row.ratio.value, figure.value),
            xytext=_OFFSETS[index % len(_OFFSETS)],
            textcoords="offset points",
            fontsize="small",
            color=colour,
        )
    axes.set_xlim(left=0)
    axes.margins(y=0.2)


def _kind(row: Row) -> str:
    if row.setting.apart.startswith("build "):
        return "build"
    if "loras" in row.setting.inputs:
        return "few steps"
    return "option" if row.setting.inputs else "no option"
