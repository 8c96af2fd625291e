"""What the LoRA benchmark's figures must be, and what they are: `python -m benchmarks.loras.report
benchmarks/results/h200_lora.json`.

Ends with 1 where a required figure is missed or was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measuring.results import read_json
from benchmarks.speed.report import Figure

__all__ = ["FIGURES", "judge", "markdown_of", "show"]

Results = Mapping[str, Any]
FIGURES: Final = (
    Figure("a set of two LoRAs put on", lambda r: r["parts"]["swap"]["to_two"]["seconds"]["median"], 2.0, 0.5, "s"),
    Figure("step against fused", lambda r: r["parts"]["swap"]["step"]["median"] / r["parts"]["fused"]["step"]["median"], 1.1, 1.0, "x"),
    Figure("failed requests under load", lambda r: float(r["parts"]["served"]["load"]["failed"]), 0, 0, ""),
    Figure("swaps under load", lambda r: float(r["parts"]["served"]["load"]["swaps"]), 50, 50, "", more_is_better=True),
    Figure("images of another set", lambda r: float(r["parts"]["served"]["load"]["unlike_their_first"]), 0, 0, ""),
    Figure("retrained file to first image, swapped", lambda r: r["parts"]["served"]["retrain"]["file_to_first_image_seconds"], 15, 5, "s"),
    Figure("retrained file to first image, rebuilt", lambda r: r["parts"]["rebuild"]["file_to_first_image_seconds"] / 60, 4, 2, "min"),
    Figure("none after random swaps unlike the base", lambda r: 1 - float(r["parts"]["swap"]["images"]["none_equals_base"]), 0, 0, ""),
)  # fmt: skip
"""Issue 5's table."""
_STYLES: Final = {"reached": "green", "required": "yellow", "missed": "red", "not measured": "red"}
_WIDTH: Final = 120


def judge(results: Results) -> bool:
    """Whether every required figure was measured and reached, on a card."""
    return not results["stand_in"] and all(
        figure.verdict(results) in ("reached", "required") for figure in FIGURES
    )


def _rows() -> Iterator[tuple[Figure, str, str]]:
    for figure in FIGURES:
        sign = ">=" if figure.more_is_better else "<="
        yield (
            figure,
            f"{sign} {figure.required:g} {figure.unit}".strip(),
            f"{figure.aim:g} {figure.unit}".strip(),
        )


def _reached(figure: Figure, results: Results) -> str:
    value = figure.value(results)
    return "" if value is None else f"{value:.3f} {figure.unit}".strip()


def unfinished(results: Results) -> dict[str, str]:
    """Parts that did not end well, and why; their figures up to there are kept."""
    return {name: part["failed"] for name, part in results["parts"].items() if "failed" in part}


def show(console: Console, results: Results) -> bool:
    """Print the table; whether every required figure was reached, on a card."""
    table = Table("figure", "required", "aim", "reached", "", box=None, padding=(0, 2))
    for figure, required, aim in _rows():
        verdict = figure.verdict(results)
        table.add_row(figure.name, required, aim, _reached(figure, results), verdict, style=_STYLES[verdict])
    if results["stand_in"]:
        console.print(results["stand_in"], style="red")
    console.print(table)
    for name, why in unfinished(results).items():
        console.print(f"not finished: {name}: {why}", style="yellow", markup=False)
    for note in results.get("notes", ()):
        console.print(f"note: {note}", markup=False)
    return judge(results)


def markdown_of(results: Results) -> str:
    """The results as a page: where, the table, what a swap is made of, what was tried instead."""
    machine, case, parts = results["machine"], results["case"], results["parts"]
    card = machine["card"] or {"name": "no card", "driver": "none"}
    lines = [f"# {card['name']}: LoRAs of rank {case['rank']} swapped, {case['config']}", ""]
    if results["stand_in"]:
        lines += [f"**{results['stand_in']}**", ""]
    changed = ", with changes" if machine["changed"] else ""
    lines += [
        f"Driver {card['driver']}, {machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}{changed}.",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "",
    ]
    lines += [f"* {note}" for note in results.get("notes", ())]
    lines += [f"* Not finished: `{name}`: {why}" for name, why in unfinished(results).items()]
    lines += ["", "| figure | required | aim | reached | |", "|---|---|---|---|---|"]
    lines += [
        f"| {figure.name} | {required} | {aim} | {_reached(figure, results)} | {figure.verdict(results)} |"
        for figure, required, aim in _rows()
    ]
    lines += ["", "| swap, median s | whole | of it the engines' refit |", "|---|---|---|"]
    for name in ("to_two", "one_to_other", "to_none", "on_the_host"):
        if found := parts.get("swap", {}).get(name):
            lines.append(
                f"| {name.replace('_', ' ')} | {found['seconds']['median']:.3f} | {found['writing']['median']:.3f} |"
            )
    lines += _refit_lines(parts.get("refit", {})) + _low_rank_lines(parts.get("low_rank", {}))
    lines += ["", "Not tried:", ""] + [f"* {what}: {why}" for what, why in results["not_tried"].items()]
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[str, Any]) -> str:
    return "refused" if "refused" in found else f"{found['median']:.3f}"


def _refit_lines(refit: Mapping[str, Any]) -> list[str]:
    lines = ["", "| bare refit of, s from | MiB | pageable | pinned | device |", "|---|---|---|---|---|"]
    for count, found in refit.get("counts", {}).items():
        cells = " | ".join(_cell(found[place]) for place in ("pageable", "pinned", "device"))
        lines.append(f"| {count} weights | {found['bytes'] / 2**20:.0f} | {cells} |")
    lines += ["", "| calls of a refit of all, from the card, s | |", "|---|---|"]
    for name, calls in refit.get("taken_apart", {}).items():
        # Ten weights are not enough for an engine that has joined some with others: that one was refused, not
        # fast.
        if not name.endswith("ten of all"):
            lines.append(
                f"| {name} | {', '.join(f'{call} {seconds:.4f}' for call, seconds in calls.items())} |"
            )
    return lines


def _low_rank_lines(low_rank: Mapping[str, Any]) -> list[str]:
    lines = ["", "| rank beside every matrix | UNet alone, ms |", "|---|---|"]
    return lines + [
        f"| {rank} | {1000 * one['pass']['median']:.2f} |" for rank, one in low_rank.get("ranks", {}).items()
    ]


def main(results: Annotated[Path, typer.Argument(help="A file that benchmarks/lora_swap.py wrote.")]) -> None:
    """Print the table; 1 where a required figure is missed or missing."""
    raise typer.Exit(0 if show(Console(highlight=False, width=_WIDTH), read_json(results)) else 1)


if __name__ == "__main__":
    typer.run(main)
