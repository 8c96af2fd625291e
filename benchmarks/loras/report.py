"""What the LoRA benchmark is held to, beside what was reached.

    python -m benchmarks.loras.report benchmarks/results/h200_lora.json
Ends with 1 where a required figure is missed or was not measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from benchmarks.measuring import figures
from benchmarks.measuring.figures import Figure, Results, figure_rows, show_figures
from benchmarks.measuring.results import read_json

__all__ = ["DIGITS", "FIGURES", "judge", "show", "unfinished"]

DIGITS: Final = 3
"""Decimal places of a figure."""


def _swap_seconds(results: Results) -> float:
    return float(results["parts"]["swap"]["to_two"]["seconds"]["median"])


def _step_against_fused(results: Results) -> float:
    parts = results["parts"]
    return float(parts["swap"]["step"]["median"]) / float(parts["fused"]["step"]["median"])


def _load_failed(results: Results) -> float:
    return float(results["parts"]["served"]["load"]["failed"])


def _load_swaps(results: Results) -> float:
    return float(results["parts"]["served"]["load"]["swaps"])


def _load_unlike(results: Results) -> float:
    return float(results["parts"]["served"]["load"]["unlike_their_first"])


def _retrained_seconds(results: Results) -> float:
    return float(results["parts"]["served"]["retrain"]["file_to_first_image_seconds"])


def _rebuilt_minutes(results: Results) -> float:
    return float(results["parts"]["rebuild"]["file_to_first_image_seconds"]) / 60


def _unlike_base(results: Results) -> float:
    return 1 - float(results["parts"]["swap"]["images"]["none_equals_base"])


FIGURES: Final = (
    Figure("a set of two LoRAs put on", _swap_seconds, 2.0, 0.5, "s"),
    Figure("step against fused", _step_against_fused, 1.1, 1.0, "x"),
    Figure("failed requests under load", _load_failed, 0, 0, ""),
    Figure("swaps under load", _load_swaps, 50, 50, "", more_is_better=True),
    Figure("images of another set", _load_unlike, 0, 0, ""),
    Figure("retrained file to first image, swapped", _retrained_seconds, 15, 5, "s"),
    Figure("retrained file to first image, rebuilt", _rebuilt_minutes, 4, 2, "min"),
    Figure("none after random swaps unlike the base", _unlike_base, 0, 0, ""),
)
"""What a run is held to; `missed` and `not measured` fail. Committed pages hold these names."""


def judge(results: Results) -> bool:
    """Whether every required figure was measured and reached, on a card."""
    return figures.judge(results, FIGURES)


def unfinished(results: Results) -> dict[str, str]:
    """Parts that did not end well, and why. Their figures up to there are kept."""
    return {name: part["failed"] for name, part in results["parts"].items() if "failed" in part}


def show(console: Console, results: Results) -> bool:
    """Print the table; whether every required figure was reached, on a card."""
    show_figures(console, results, figure_rows(results, FIGURES, digits=DIGITS))
    for name, why in unfinished(results).items():
        console.print(f"not finished: {name}: {why}", style="yellow", markup=False)
    for note in results.get("notes", ()):
        console.print(f"note: {note}", markup=False)
    return judge(results)


def main(
    results: Annotated[Path, typer.Argument(help="A file that `python -m benchmarks.loras.run` wrote.")],
) -> None:
    """Print the table; ends with 1 where a required figure is missed or was not measured."""
    console = Console(highlight=False, width=figures.WIDTH)
    raise typer.Exit(0 if show(console, read_json(results)) else 1)


if __name__ == "__main__":
    typer.run(main)
