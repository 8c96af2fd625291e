"""The figures that are required and aimed at, beside what was reached.

    python benchmarks/report.py benchmarks/results/h200.json
Ends with 1 where a required figure is missed or was not measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.table import Table

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]  # also when run as a file

from benchmarks.measuring.results import read_json  # noqa: E402
from intaglio.contract.sdxl import context_name, controlnet_name  # noqa: E402

__all__ = ["FIGURES", "Figure", "chart_of", "judge", "markdown_of"]

Results = Mapping[str, Any]
Verdict = Literal["reached", "required", "missed", "not measured"]
NOT_MEASURED: Final = "not measured"
_IMAGES_OF_A_SIZE: Final = 10
_FREE_MIB: Final = 15.55 * 1024
"""Most that a ballast may leave: what a 16 GB card has."""


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
        return _known(lambda: self.read(results))

    def verdict(self, results: Results) -> Verdict:
        """How it stands."""
        value = self.value(results)
        if value is None:
            return "not measured"
        sign = 1 if self.more_is_better else -1
        if sign * value >= sign * self.aim:
            return "reached"
        return "required" if sign * value >= sign * self.required else "missed"


def _known(read: Callable[[], float | None]) -> float | None:
    """What `read` finds; None where something that it reads was not measured."""
    try:
        return read()
    except (KeyError, TypeError, ZeroDivisionError, statistics.StatisticsError):
        return None


def _seconds(results: Results, part: str, name: str = "end_to_end") -> float:
    return float(results["parts"][part]["seconds"][name]["median"])


def _faster_than(results: Results, other: str) -> float:
    return _seconds(results, other) / _seconds(results, "served")


def _stage(results: Results, part: str, name: str) -> float:
    return float(results["parts"][part]["stages"][name]["median"])


def engine_seconds(results: Results, *, in_turn: bool = True) -> float:
    """What the engines alone take for the case's image: steps, and what runs once.

    A step is what its engines take in turn, as in an image, where that was measured; else, or with `in_turn`
    False, the sum of each by itself, which on an H200 was 1 % less.
    """
    case, engines = results["case"], results["parts"]["engines"]
    steps = ["unet", *([] if case["control"] is None else [controlnet_name(case["control"])])]
    once = [name for name in engines["stages"] if name not in steps and not name.endswith("without guidance")]
    each = sum(_stage(results, "engines", name) for name in steps)
    if in_turn and "step" in engines:
        each = float(engines["step"]["median"])
    return sum(_stage(results, "engines", name) for name in once) + float(case["steps"]) * each


def _cfg_step(results: Results) -> float:
    """Seconds of intaglio's UNet, in whose graph guidance and solver are, with the step's share of what is
    computed once an image.
    """
    context = results["parts"]["engines"]["stages"].get(context_name("unet"), {"median": 0.0})
    return _stage(results, "engines", "unet") + float(context["median"]) / float(results["case"]["steps"])


def _against_compiled_step(results: Results) -> float:
    """Of two loops of the same work, passes one after another: the UNet by itself within an image would be
    less work, with pauses.
    """
    return _cfg_step(results) / float(results["parts"]["compiled"]["cfg_step"]["median"])


def _outside(results: Results, *, in_turn: bool = True) -> float:
    return 100 * (1 - engine_seconds(results, in_turn=in_turn) / _seconds(results, "served"))


def _beside_ballast(part: Results) -> bool:
    return bool(part["card_free_before_mib"]) and float(part["card_free_before_mib"]) <= _FREE_MIB


def _memory(results: Results) -> float:
    """GiB, of the first size's server or that of all sizes; only if they also ran beside a ballast that left
    15.5 GiB.
    """
    parts = results["parts"]
    servers = [parts["served"], *([parts["served_sizes"]] if "served_sizes" in parts else [])]
    if not all(map(_beside_ballast, servers)):
        raise KeyError("not beside a ballast")
    return max(float(one["card_peak_mib"]) for one in servers) / 1024


def _sizes(results: Results) -> float:
    """How many were built beside the ballast and gave their images there."""
    parts = results["parts"]
    if not parts["build_sizes"]["complete"] or not all(
        _beside_ballast(parts[name]) for name in ("build_sizes", "served_sizes")
    ):
        raise KeyError("not built, or not beside a ballast")
    return float(sum(one["n"] >= _IMAGES_OF_A_SIZE for one in parts["served_sizes"]["sizes"].values()))


def _build(results: Results) -> float:
    build = results["parts"]["build"]
    if not build["complete"] or build["resumed"]:
        raise KeyError("cut short, or taken up again: not the time of a build")
    return (
        float(results["parts"]["build"]["seconds"])
        + _seconds(results, "served", "first start to first image")
    ) / 60


def _agreement(results: Results) -> float:
    return float(min(results["psnr"]["served"]))


FIGURES: Final = (
    Figure("over gRPC against diffusers eager", lambda r: _faster_than(r, "eager"), 1.45, 2.0, "x", more_is_better=True),
    Figure("against diffusers + torch.compile", lambda r: _faster_than(r, "compiled"), 1.0, 1.4, "x", more_is_better=True),
    Figure("time outside the engines", _outside, 4.0, 1.0, "%"),
    Figure("UNet CFG step against torch.compile's", _against_compiled_step, 1.0, 0.8, "x"),
    Figure("card memory of the server, peak", _memory, 13.0, 10.0, "GiB"),
    Figure("build, from weights to the first image served", _build, 6.0, 3.0, "min"),
    Figure("sizes built and served in 15.5 GiB, ten images each", _sizes, 4.0, 4.0, "", more_is_better=True),
    Figure("restart to first image", lambda r: _seconds(r, "served", "restart to first image"), 30.0, 12.0, "s"),
    Figure("agreement with eager, worst image", _agreement, 30.0, 40.0, "dB", more_is_better=True),
    Figure("soak: images unlike their first rendering", lambda r: float(len(r["parts"]["soak"]["different_from_first"])), 0.0, 0.0, ""),
    Figure("soak: images", lambda r: float(r["parts"]["soak"]["images"]), 300.0, 300.0, "", more_is_better=True),
    Figure("soak: growth of card memory", lambda r: r["parts"]["soak"]["card_slope_mib_per_100"], 4.0, 1.0, "MiB / 100"),
    Figure("soak: growth of host memory", lambda r: r["parts"]["soak"]["host_slope_mib_per_100"], 8.0, 2.0, "MiB / 100"),
)  # fmt: skip
"""Issue 4's table; `missed` and `not measured` fail."""
_WIDTH: Final = 120
_STYLES: Final = {"reached": "green", "required": "yellow", "missed": "red", "not measured": "red"}


def judge(results: Results) -> bool:
    """Whether every required figure was measured and reached, on a card."""
    return not results["stand_in"] and all(
        figure.verdict(results) in ("reached", "required") for figure in FIGURES
    )


def _shown(value: float | None, unit: str) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f} {unit}".strip()


def _rows(results: Results) -> list[tuple[str, str, str, str, Verdict]]:
    return [
        (
            figure.name,
            f"{'>=' if figure.more_is_better else '<='} {figure.required:g} {figure.unit}".strip(),
            f"{figure.aim:g} {figure.unit}".strip(),
            _shown(figure.value(results), figure.unit),
            figure.verdict(results),
        )
        for figure in FIGURES
    ]


def markdown_of(results: Results) -> str:
    """The results as a page: where, what, how fast, how alike."""
    machine, case = results["machine"], results["case"]
    card = machine["card"] or {"name": "no card", "driver": "none"}
    lines = [f"# {card['name']}, {case['width']}x{case['height']}, {case['steps']} Euler steps", ""]
    if results["stand_in"]:
        lines += [f"**{results['stand_in']}**", ""]
    if results.get("note"):
        lines += [results["note"], ""]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    changed = ", with changes" if machine["changed"] else ""
    lines += [
        f"Driver {card['driver']}, {machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}{changed}.",
        versions,
        "",
    ]
    lines += ["| figure | required | aim | reached | |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(results)]
    alone = _known(lambda: _outside(results, in_turn=False))
    if alone is not None and "step" in results["parts"]["engines"]:
        lines += [
            "",
            f"Time outside the engines is what a step's engines in turn leave; each of them by itself leaves {alone:.2f} %.",
        ]
    lines += [
        "",
        "| contender | whole image, s | quartiles | PSNR to eager, dB (worst) | card, MiB |",
        "|---|---|---|---|---|",
    ]
    for name in ("eager", "compiled", "engines", "served"):
        part = results["parts"].get(name)
        if part and "end_to_end" in part.get("seconds", {}):
            taken = part["seconds"]["end_to_end"]
            alike = results["psnr"].get(name)
            lines.append(
                f"| {name} | {taken['median']:.3f} | {taken['low']:.3f} to {taken['high']:.3f} (n={taken['n']}) | "
                f"{'' if not alike else f'{min(alike):.1f}'} | {part.get('card_peak_mib') or ''} |"
            )
    lines += ["", "| stage, one pass, ms | eager | compiled | intaglio |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in _stage_rows(results).items()]
    sizes = results["parts"].get("served_sizes", {}).get("sizes", {})
    if sizes:
        build = results["parts"].get("build_sizes", {})
        if build.get("complete"):
            taken_up = (
                ", parts of which an earlier build had done: not the time of a build from nothing"
                if build["resumed"]
                else ""
            )
            lines += ["", f"All sizes in one build: {build['seconds']:.0f} s{taken_up}."]
        lines += [""]
        lines += ["| size | over gRPC, s | quartiles |", "|---|---|---|"]
        lines += [
            f"| {name} | {one['median']:.3f} | {one['low']:.3f} to {one['high']:.3f} (n={one['n']}) |"
            for name, one in sizes.items()
        ]
    options = results["parts"].get("engines", {}).get("options", {})
    if options:
        lines += ["", "| option (changes the image) | whole image, s |", "|---|---|"]
        lines += [f"| {name} | {taken['median']:.3f} |" for name, taken in options.items()]
    variants = results["parts"].get("variants", {}).get("variants", {})
    if variants:
        lines += ["", "| graph of the UNet, one profile | ms | relative error |", "|---|---|---|"]
        lines += [
            f"| {name} | {1000 * one['pass']['median']:.2f} | {one['error']:.2g} |"
            for name, one in variants.items()
        ]
    return "\n".join(lines) + "\n"


def _stage_rows(results: Results) -> dict[str, list[str]]:
    """Milliseconds by network: diffusers, compiled, ours; what nobody measured is left out."""
    control = controlnet_name(str(results["case"]["control"]))
    ours = {
        "text_encoder": "text_encoder",
        "text_encoder_2": "text_encoder_2",
        "unet, once an image": context_name("unet"),
        "unet": "unet",
        "controlnet, once an image": context_name(control),
        "controlnet": control,
        "vae_decoder": "vae_decoder",
    }
    parts = [results["parts"].get(name, {}) for name in ("eager", "compiled", "engines")]
    served = results["parts"].get("served", {}).get("seconds", {}).get("denoise")
    found = {
        name: [
            part.get("stages", {}).get(engine if own else name)
            for part, own in zip(parts, (False, False, True), strict=True)
        ]
        for name, engine in ours.items()
    }
    found["CFG step alone, one after another"] = [part.get("cfg_step") for part in parts[:2]] + [
        parts[2].get("stages", {}).get("unet")
    ]
    found["engines of a step in turn"] = [None, None, parts[2].get("step")]
    whole = None if served is None else {"median": float(served["median"]) / float(results["case"]["steps"])}
    found["whole step in an image"] = [part.get("stages", {}).get("step") for part in parts[:2]] + [whole]
    return {
        name: ["" if one is None else f"{1000 * one['median']:.2f}" for one in cells]
        for name, cells in found.items()
        if any(cells)
    }


def chart_of(results: Results) -> str:
    """A bar chart of whole images as SVG."""
    bars = []
    for name, label in (
        ("eager", "diffusers"),
        ("compiled", "diffusers + torch.compile"),
        ("engines", "intaglio, engines"),
        ("served", "intaglio over gRPC"),
    ):
        part = results["parts"].get(name)
        if part and "end_to_end" in part.get("seconds", {}):
            bars.append((label, float(part["seconds"]["end_to_end"]["median"])))
    longest = max((seconds for _, seconds in bars), default=1.0)
    height = 40 * len(bars) + 30
    note = (
        "for debugging: no card"
        if results["stand_in"]
        else (results["machine"]["card"] or {}).get("name", "")
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="14">',
        f'<text x="0" y="16">seconds an image, shorter is better ({note})</text>',
    ]
    for index, (label, seconds) in enumerate(bars):
        top, width = 30 + 40 * index, 400 * seconds / longest
        colour = "#3b6ea5" if label.startswith("intaglio") else "#b0b0b0"
        lines += [
            f'<text x="190" y="{top + 20}" text-anchor="end">{label}</text>',
            f'<rect x="200" y="{top + 4}" width="{width:.1f}" height="24" fill="{colour}"/>',
            f'<text x="{208 + width:.1f}" y="{top + 21}">{seconds:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main(
    results: Annotated[Path, typer.Argument(help="A file that benchmarks/side_by_side.py wrote.")],
) -> None:
    """Print the table; 1 where a required figure is missed or missing."""
    found, console = read_json(results), Console(highlight=False, width=_WIDTH)
    if found["stand_in"]:
        console.print(found["stand_in"], style="red")
    table = Table("figure", "required", "aim", "reached", "", box=None, padding=(0, 2))
    for *cells, verdict in _rows(found):
        table.add_row(*cells, verdict, style=_STYLES[verdict])
    console.print(table)
    raise typer.Exit(0 if judge(found) else 1)


if __name__ == "__main__":
    typer.run(main)
