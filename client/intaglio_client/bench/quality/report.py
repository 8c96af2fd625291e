"""The rows of `intaglio bench quality` as a table, as a page in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from intaglio_client.bench.quality.reference import FEW
from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import Row

__all__ = ["SCHEMA", "Quality", "cells_of", "data_of", "front_of", "header_of", "notes_of", "page_of"]

SCHEMA: Final = 1
_HOW_TO_READ: Final = (
    "Seconds are medians of requests at the client; ratios are to no option on the same scene. In brackets "
    "the difference to no option, scene by scene; ± is one standard error. PSNR, SSIM and the perceptual "
    "distance are to the scene's picture with no option: how much an option changes it, which need not be "
    "for the worse. `*`: no other row is both faster and better in some figure."
)
_REFERENCE: Final = (
    "FID and KID: {drawn} pictures of each row beside {pictures} of {folder}, by {features} features each."
)
_FEW_PICTURES: Final = (
    f"Fewer than {FEW} pictures: FID is too large then, by an amount that depends on their number, so it is "
    "compared only between rows of this table, and with no published one. KID is unbiased: around 0 for "
    "equal distributions, also below."
)


@dataclass(frozen=True)
class Quality:
    """Everything that a report says."""

    deployment: str
    build: str
    """Runtime, target and precision."""
    scenes: int
    seed: int
    rows: Sequence[Row]
    """No option first."""
    machine: Mapping[str, Any]
    left_out: Sequence[str] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    """What was found beside a folder of reference pictures; empty without one."""

    @property
    def figures(self) -> list[str]:
        """Names of the judge's figures."""
        return list(dict.fromkeys(name for row in self.rows for name in row.judged))


def front_of(rows: Sequence[Row], figure: str) -> list[Row]:
    """The rows to which no other is both as fast and as good in `figure`, fastest first."""
    known = [row for row in rows if figure in row.judged]
    ranked = sorted(known, key=lambda row: (row.ratio.value, -row.judged[figure].value))
    found: list[Row] = []
    for row in ranked:
        if not found or row.judged[figure].value > found[-1].judged[figure].value:
            found.append(row)
    return found


def header_of(quality: Quality) -> list[str]:
    """The titles of the columns."""
    titles = ["setting", "seconds", "ratio", *quality.figures]
    if quality.reference:
        titles += ["FID", "KID"]
    titles += ["PSNR dB", "SSIM"]
    if any(row.perceptual for row in quality.rows):
        titles.append("perceptual")
    return titles


def cells_of(quality: Quality) -> list[list[str]]:
    """One list of texts a row, the fastest first."""
    ahead = {id(row) for name in quality.figures for row in front_of(quality.rows, name)}
    first = quality.rows[0]
    return [
        _cells(row, quality, starred=id(row) in ahead, compared=row is not first)
        for row in sorted(quality.rows, key=lambda row: row.ratio.value)
    ]


def _cells(row: Row, quality: Quality, *, starred: bool, compared: bool) -> list[str]:
    name = f"{'* ' if starred else ''}{row.setting.name}"
    if row.setting.apart.startswith("build "):
        name = f"{name} ({row.setting.apart.removeprefix('build ')})"
    cells = [name, f"{row.seconds.value:.2f}", row.ratio.shown(2)]
    for figure in quality.figures:
        cells.append(_judged(row, figure, compared=compared))
    if quality.reference:
        found = quality.reference["rows"][row.setting.name]
        cells += [f"{found['fid']:.4g}", f"{found['kid']:+.4g}"]
    if not compared:
        return [*cells, "", "", *([""] if any(one.perceptual for one in quality.rows) else [])]
    cells += [row.psnr.shown(1), row.ssim.shown(3)]
    if any(one.perceptual for one in quality.rows):
        cells.append("" if row.perceptual is None else row.perceptual.shown(3))
    return cells


def _judged(row: Row, figure: str, *, compared: bool) -> str:
    if figure not in row.judged:
        return ""
    if not compared:
        return row.judged[figure].shown(3)
    gain = row.judged_gain[figure]
    return f"{row.judged[figure].value:.3f} ({gain.value:+.3f} ± {gain.error:.3f})"


def notes_of(quality: Quality) -> list[str]:
    """What a reader must know beside the table."""
    notes = []
    counts = {
        name: quality.rows[0].judged[name].n for name in quality.figures if name in quality.rows[0].judged
    }
    if len(set(counts.values())) > 1:
        notes.append("scenes: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    if not quality.figures:
        notes.append("no judge: whether a changed picture is worse, only a judge can tell (--judge)")
    if quality.reference:
        notes.append(_REFERENCE.format(**quality.reference))
        if min(quality.reference["pictures"], quality.reference["drawn"]) < FEW:
            notes.append(_FEW_PICTURES)
    return [*notes, *quality.left_out]


def page_of(quality: Quality, plots: Sequence[str]) -> str:
    """The report in Markdown, which shows the files `plots`."""
    machine = quality.machine
    card = machine["card"]
    where = f"{card['name']}, driver {card['driver']}" if card else "no card"
    commit = f"commit {machine['commit'][:12]}" if machine["commit"] else "no checkout"
    header = header_of(quality)
    lines = [
        f"# Quality beside speed: {quality.deployment}",
        "",
        f"{quality.build}; {quality.scenes} scenes, seeds from {quality.seed} on. {where}; "
        f"{machine['processor']}, {machine['cores']} cores; {commit}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + ".",
        "",
        _HOW_TO_READ,
        "",
        *(f"* {line}" for line in notes_of(quality)),
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(
            f"| {' | '.join(cell.replace('* ', chr(92) + '* ') for cell in cells)} |"
            for cells in cells_of(quality)
        ),
        "",
        *(f"![{plot}]({plot})\n" for plot in plots),
    ]
    return "\n".join(lines) + "\n"


def data_of(quality: Quality) -> dict[str, Any]:
    """The results for programs."""
    fronts = {name: {id(row) for row in front_of(quality.rows, name)} for name in quality.figures}
    found = {
        "schema": SCHEMA,
        "deployment": quality.deployment,
        "build": quality.build,
        "scenes": quality.scenes,
        "seed": quality.seed,
        "machine": dict(quality.machine),
        "rows": [
            {**_row_data(row), "front": [name for name, ids in fronts.items() if id(row) in ids]}
            for row in quality.rows
        ],
        "left_out": list(quality.left_out),
    }
    return found | ({"reference": dict(quality.reference)} if quality.reference else {})


def _row_data(row: Row) -> dict[str, Any]:
    figures: dict[str, Figure | None] = {
        name: getattr(row, name) for name in ("seconds", "ratio", "psnr", "ssim", "perceptual")
    }
    return {
        "setting": row.setting.name,
        "inputs": dict(row.setting.inputs),
        "apart": row.setting.apart,
        **{name: asdict(figure) for name, figure in figures.items() if figure is not None},
        "judged": {name: asdict(figure) for name, figure in row.judged.items()},
        "judged_gain": {name: asdict(figure) for name, figure in row.judged_gain.items()},
    }
