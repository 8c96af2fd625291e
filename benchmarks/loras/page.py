"""The results of the LoRA benchmark as a Markdown page: the table, what a swap is made of, what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.loras.report import DIGITS, FIGURES, unfinished
from benchmarks.measuring.figures import Results, figure_rows, machine_lines, table_lines

__all__ = ["markdown_of"]

_SWAPS: Final = ("to_two", "one_to_other", "to_none", "on_the_host")


def markdown_of(results: Results) -> str:
    """The page of a results file."""
    case, parts = results["case"], results["parts"]
    card = results["machine"]["card"] or {"name": "no card"}
    lines = [f"# {card['name']}: LoRAs of rank {case['rank']} swapped, {case['config']}", ""]
    if results["stand_in"]:
        lines += [f"**{results['stand_in']}**", ""]
    lines += machine_lines(results)
    lines += [f"* {note}" for note in results.get("notes", ())]
    lines += [f"* Not finished: `{name}`: {why}" for name, why in unfinished(results).items()]
    rows = figure_rows(results, FIGURES, digits=DIGITS, absent="")
    lines += table_lines("| figure | required | aim | reached | |", rows)
    lines += _swap_lines(parts.get("swap", {}))
    lines += _refit_lines(parts.get("refit", {}))
    lines += _low_rank_lines(parts.get("low_rank", {}))
    lines += ["", "Not tried:", ""]
    lines += [f"* {what}: {why}" for what, why in results["not_tried"].items()]
    return "\n".join(lines) + "\n"


def _swap_lines(swap: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in _SWAPS:
        if found := swap.get(name):
            whole = f"{found['seconds']['median']:.3f}"
            rows.append((name.replace("_", " "), whole, f"{found['writing']['median']:.3f}"))
    return table_lines("| swap, median s | whole | of it the engines' refit |", rows)


def _refit_lines(refit: Mapping[str, Any]) -> list[str]:
    rows = []
    for count, found in refit.get("counts", {}).items():
        cells = [_seconds(found[memory]) for memory in ("pageable", "pinned", "device")]
        rows.append((f"{count} weights", f"{found['bytes'] / 2**20:.0f}", *cells))
    calls = []
    for name, seconds in refit.get("taken_apart", {}).items():
        # Older results hold a refit of ten weights that the engine refused, because it had joined some of
        # them with others. Its seconds are not those of a refit.
        if not name.endswith("ten of all"):
            calls.append((name, ", ".join(f"{call} {taken:.4f}" for call, taken in seconds.items())))
    return [
        *table_lines("| bare refit of, s from | MiB | pageable | pinned | device |", rows),
        *table_lines("| calls of a refit of all, from the card, s | |", calls),
    ]


def _seconds(found: Mapping[str, Any]) -> str:
    return "refused" if "refused" in found else f"{found['median']:.3f}"


def _low_rank_lines(low_rank: Mapping[str, Any]) -> list[str]:
    ranks = low_rank.get("ranks", {})
    rows = [
        (rank, f"{1000 * one['pass']['median']:.2f}")
        for rank, one in sorted(ranks.items(), key=lambda item: int(item[0]))
    ]
    return table_lines("| rank beside every matrix | UNet alone, ms |", rows)
