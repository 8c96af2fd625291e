"""Figures that a benchmark is held to: what is required, aimed at and reached, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

__all__ = [
    "NOT_MEASURED",
    "WIDTH",
    "Figure",
    "Results",
    "Verdict",
    "commit_of",
    "figure_rows",
    "judge",
    "known",
    "machine_lines",
    "show_figures",
    "table_lines",
]

Results = Mapping[str, Any]
Verdict = Literal["reached", "required", "missed", "not measured"]
NOT_MEASURED: Final = "not measured"
WIDTH: Final = 120
"""Columns of a printed table."""
_STYLES: Final = {"reached": "green", "required": "yellow", "missed": "red", "not measured": "red"}
_PASSES: Final = ("reached", "required")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    read: Callable[[Results], float | None]
    """The figure in a results file; KeyError, TypeError or None where it was not measured."""
    required: float
    aim: float
    unit: str
    more_is_better: bool = False

    def value(self, results: Results) -> float | None:
        """What was reached; None where it was not measured."""
        return known(lambda: self.read(results))

    def verdict(self, results: Results) -> Verdict:
        """How it stands."""
        value = self.value(results)
        if value is None:
            return "not measured"
        sign = 1 if self.more_is_better else -1
        if sign * value >= sign * self.aim:
            return "reached"
        return "required" if sign * value >= sign * self.required else "missed"

    def cells(self, results: Results, *, digits: int, absent: str) -> tuple[str, str, str, str, Verdict]:
        """Name, bound, aim, what was reached to `digits` (or `absent`), and the verdict."""
        value = self.value(results)
        sign = ">=" if self.more_is_better else "<="
        return (
            self.name,
            f"{sign} {self.required:g} {self.unit}".strip(),
            f"{self.aim:g} {self.unit}".strip(),
            absent if value is None else f"{value:.{digits}f} {self.unit}".strip(),
            self.verdict(results),
        )


def known(read: Callable[[], float | None]) -> float | None:
    """What `read` finds; None where something that it reads was not measured."""
    try:
        return read()
    except (KeyError, TypeError, ZeroDivisionError, statistics.StatisticsError):
        return None


def judge(results: Results, figures: Iterable[Figure]) -> bool:
    """Whether every required figure was measured and reached, on a card."""
    return not results["stand_in"] and all(figure.verdict(results) in _PASSES for figure in figures)


def figure_rows(
    results: Results, figures: Iterable[Figure], *, digits: int, absent: str = NOT_MEASURED
) -> list[tuple[str, ...]]:
    """The cells of every figure."""
    return [figure.cells(results, digits=digits, absent=absent) for figure in figures]


def show_figures(console: Console, results: Results, rows: Iterable[Sequence[str]]) -> None:
    """Print the table of figures; above it, where that is so, that there was no card."""
    if results["stand_in"]:
        console.print(results["stand_in"], style="red")
    table = Table("figure", "required", "aim", "reached", "", box=None, padding=(0, 2))
    for row in rows:
        table.add_row(*row, style=_STYLES[row[-1]])
    console.print(table)


def table_lines(header: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with an empty line before it; `header` is its first line."""
    rule = "|---" * (header.count("|") - 1) + "|"
    return ["", header, rule, *(f"| {' | '.join(row)} |" for row in rows)]


def machine_lines(results: Results) -> list[str]:
    """The lines of a page that say what the figures were measured on."""
    machine = results["machine"]
    driver = machine["card"]["driver"] if machine["card"] else "none"
    cores = f"{machine['processor']}, {machine['cores']} cores"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [f"Driver {driver}, {cores}, {commit_of(machine)}.", versions, ""]


def commit_of(machine: Results) -> str:
    """The commit that was measured, and whether the tree had changes."""
    changed = ", with changes" if machine["changed"] else ""
    return f"commit {machine['commit'][:12]}{changed}"
