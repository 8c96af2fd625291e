"""What several cards are worth: ratios to one card, the figures required, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from benchmarks.measuring.figures import Figure, Results, figure_rows, machine_lines, table_lines

__all__ = ["FIGURES", "markdown_of", "scaling_of"]

_NAMED: Final = 1.05
"""A stage that takes so many times as long as with one instance is named."""


def _throughput(count: int) -> Figure:
    return Figure(
        f"throughput on {count} to that on 1",
        lambda results: float(results["scaling"][str(count)]["throughput_ratio"]),
        required={2: 1.9, 4: 3.7}[count],
        aim=float(count),
        unit="x",
        more_is_better=True,
    )


def _tail(count: int) -> Figure:
    return Figure(
        f"p95 at 80 % of capacity on {count} to that on 1",
        lambda results: float(results["scaling"][str(count)]["p95_ratio"]),
        required=1.0,
        aim=0.8,
        unit="x",
    )


FIGURES: Final = (_throughput(2), _throughput(4), _tail(2), _tail(4))


def scaling_of(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each count beside one instance: throughput, latency, and the stages that take longer than with one."""
    counts = {str(part["count"]): part for part in parts.values() if "offline" in part}
    one = counts.get("1")
    if one is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for count, part in sorted(counts.items(), key=lambda item: int(item[0])):
        ratio = part["offline"]["images_per_second"] / one["offline"]["images_per_second"]
        values: dict[str, Any] = {
            "images_per_second": part["offline"]["images_per_second"],
            "throughput_ratio": ratio,
            "efficiency": ratio / int(count),
            "slower_stages": _slower(part, one),
        }
        if "open" in part and "open" in one:
            ours, alone = part["open"]["seconds"], one["open"]["seconds"]
            values |= {f"{name}_ratio": ours[name] / alone[name] for name in ("p50", "p95")}
        found[count] = values
    return found


def _slower(part: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that a stage takes more than with one instance, where that is more than noise."""
    alone = one["offline"]["stage_seconds"]
    found = {}
    for name, seconds in part["offline"]["stage_seconds"].items():
        if name in alone and seconds > _NAMED * alone[name]:
            found[name] = round(seconds - alone[name], 4)
    return found


def markdown_of(results: Results) -> str:
    """The page of a results file."""
    case, machine = results["case"], results["machine"]
    card = machine["card"] or {"name": "no card"}
    lines = [f"# {machine['cards']} x {card['name']}: one queue for several cards, {case['config']}", ""]
    if results["stand_in"]:
        lines += [f"**{results['stand_in']}**", ""]
    lines += machine_lines(results)
    size = (
        f"{case['width']}x{case['height']}, {case['steps']} Euler steps, guidance {case['guidance_scale']:g}"
    )
    lines += [f"{size}, control {case['control']}. Each count is a server of its own.", ""]
    lines += [
        f"* Not finished: `{name}`: {part['failed']}"
        for name, part in results["parts"].items()
        if "failed" in part
    ]
    if results["note"]:
        lines += [f"* {results['note']}"]
    lines += table_lines(
        "| figure | required | aim | reached | |", figure_rows(results, FIGURES, digits=2, absent="")
    )
    rows = [
        _row(count, values, results["parts"][f"served_{count}"])
        for count, values in results["scaling"].items()
    ]
    lines += table_lines(
        "| cards | pictures/s | to one | p50, s | p95, s | p95 to one | requests | slower than alone, s |",
        rows,
    )
    return "\n".join(lines) + "\n"


def _row(count: str, values: Mapping[str, Any], part: Mapping[str, Any]) -> tuple[str, ...]:
    slower = ", ".join(f"{name} +{seconds:g}" for name, seconds in values["slower_stages"].items())
    if "open" not in part:
        tail = ("", "", "", "")
    else:
        seconds = part["open"]["seconds"]
        ratio = values.get("p95_ratio")
        shown = "" if ratio is None else f"{ratio:.2f}"
        tail = (f"{seconds['p50']:.2f}", f"{seconds['p95']:.2f}", shown, str(part["open"]["requests"]))
    return (count, f"{values['images_per_second']:.3f}", f"{values['throughput_ratio']:.2f}", *tail, slower)
