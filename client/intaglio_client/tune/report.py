"""The results of a run: as a table, as a page in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import Row, front

__all__ = ["Results", "cells_of", "data_of", "header_of", "notes_of", "page_of"]

_DIGITS: Final = 3
"""Of judged shares."""
_FEW_SCENES: Final = 6
_TITLES: Final = (
    "setting", "seconds", "ratio", "PSNR dB", "dB to 30 Euler", "error", "error to 30 Euler", "SSIM",
)  # fmt: skip
_HOW_TO_READ: Final = (
    "Seconds are medians of requests at the client; ratios are to 30 Euler steps of the same scene. PSNR, "
    "SSIM and the error (root mean square, in levels of 255) are to the scene's converged picture. "
    "`to 30 Euler` is the difference to 30 Euler steps, scene by scene, and so are the brackets of judged "
    "figures. The error decides which settings become presets. ± is one standard error. `*` is the front: no "
    "other setting is both faster and nearer."
)


@dataclass(frozen=True)
class Results:
    """Everything that a report says."""

    deployment: str
    build: str
    """Runtime, target and precision."""
    scenes: int
    seed: int
    rows: Sequence[Row]
    presets: Mapping[str, Row]
    converged: Row
    """The row of 60 steps of the reference's solver."""
    reference_steps: int
    left_out: Sequence[str]

    @property
    def is_converged(self) -> bool:
        """Whether the reference is nearer to its own 60 steps than any faster setting is to it."""
        others = [row.psnr.value for row in self.rows if row is not self.converged and not row.setting.apart]
        return self.converged.psnr.value > max(others)


def header_of(results: Results) -> list[str]:
    """The titles of the columns."""
    titles = list(_TITLES)
    if any(row.perceptual for row in results.rows):
        titles.append("perceptual")
    return [*titles, *_judged_names(results), "preset"]


def cells_of(results: Results) -> list[list[str]]:
    """One list of texts a row: first the candidates, cheapest first, then what is listed apart.

    A `*` stands before a setting of the front.
    """
    ahead = {id(row) for row in front(results.rows)}
    ordered = sorted(results.rows, key=lambda row: (bool(row.setting.apart), row.ratio.value))
    return [_cells(row, results, starred=id(row) in ahead) for row in ordered]


def _cells(row: Row, results: Results, *, starred: bool) -> list[str]:
    presets = [name for name, one in results.presets.items() if one is row]
    mark = "* " if starred else ""
    name = f"{mark}{row.setting.name}"
    if row.setting.apart:
        name = f"{name} (apart: {row.setting.apart})"
    cells = [
        name,
        f"{row.seconds.value:.2f}",
        row.ratio.shown(2),
        row.psnr.shown(1),
        _signed(row.psnr_gain, 1),
        row.error.shown(2),
        _signed(row.error_change, 2),
        row.ssim.shown(3),
    ]
    if any(one.perceptual for one in results.rows):
        cells.append("" if row.perceptual is None else row.perceptual.shown(_DIGITS))
    for judged in _judged_names(results):
        cells.append(_judged_cell(row, judged))
    return [*cells, ", ".join(presets)]


def _judged_cell(row: Row, name: str) -> str:
    if name not in row.judged:
        return ""
    return f"{row.judged[name].value:.{_DIGITS}f} ({_signed(row.judged_gain[name], _DIGITS)})"


def _signed(figure: Figure, digits: int) -> str:
    return f"{figure.value:+.{digits}f} ± {figure.error:.{digits}f}"


def _judged_names(results: Results) -> list[str]:
    return list(dict.fromkeys(name for row in results.rows for name in row.judged))


def notes_of(results: Results) -> list[str]:
    """What a reader must know beside the table."""
    steps = int(results.converged.setting.inputs["steps"])
    distance = results.converged.psnr.shown(1)
    solver = results.converged.setting.inputs["scheduler"]
    notes = [
        f"reference: {results.reference_steps} steps of {solver}; its {steps} steps are {distance} dB away"
    ]
    if not results.is_converged:
        notes.append(
            "the reference has not converged: a faster setting is nearer to it than its own "
            f"{steps} steps, so distances above {results.converged.psnr.value:.0f} dB say nothing"
        )
    if results.scenes < _FEW_SCENES:
        notes.append(f"{results.scenes} scenes are too few for presets; take at least {_FEW_SCENES}")
    return [*notes, *results.left_out]


def page_of(results: Results, *, note: str = "") -> str:
    """The report in Markdown."""
    header = header_of(results)
    lines = [
        f"# Settings of {results.deployment}",
        "",
        f"{results.build}; {results.scenes} scenes, seeds from {results.seed} on.",
        "",
        _HOW_TO_READ,
        "",
        *(f"* {line}" for line in notes_of(results)),
        *([f"* {note}"] if note else []),
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(_markdown_line(cells) for cells in cells_of(results)),
    ]
    return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("* ", r"\* ") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def data_of(results: Results) -> dict[str, Any]:
    """The results for programs."""
    ahead = {id(row) for row in front(results.rows)}
    return {
        "scenes": results.scenes,
        "seed": results.seed,
        "converged": {"is_converged": results.is_converged, "psnr": asdict(results.converged.psnr)},
        "presets": {name: dict(row.setting.inputs) for name, row in results.presets.items()},
        "rows": [{**_row_data(row), "front": id(row) in ahead} for row in results.rows],
        "left_out": list(results.left_out),
    }


def _row_data(row: Row) -> dict[str, Any]:
    names = ("seconds", "ratio", "psnr", "psnr_gain", "error", "error_change", "ssim", "perceptual")
    figures = {name: getattr(row, name) for name in names}
    return {
        "setting": row.setting.name,
        "inputs": dict(row.setting.inputs),
        "apart": row.setting.apart,
        **{name: asdict(figure) for name, figure in figures.items() if figure is not None},
        "judged": {name: asdict(figure) for name, figure in row.judged.items()},
        "judged_gain": {name: asdict(figure) for name, figure in row.judged_gain.items()},
    }
