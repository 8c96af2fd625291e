"""The figures that are required and aimed at, beside what was reached.

    python -m benchmarks.speed.report benchmarks/results/h200.json
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
from benchmarks.speed.settings import MATCHED, ONE_SLICE, SLICES, UNARY
from intaglio.contract.sdxl import context_name, controlnet_name

__all__ = [
    "DIGITS",
    "FIGURES",
    "MATCHED_FIGURES",
    "STREAM_FIGURES",
    "engine_seconds",
    "figures_of",
    "judge",
    "outside_the_engines",
]

DIGITS: Final = 2
"""Decimal places of a figure."""
_IMAGES_OF_A_SIZE: Final = 10
_FREE_MIB: Final = 15.55 * 1024
"""The most that a ballast may leave free: what a 16 GB card has."""


def _seconds(results: Results, part: str, name: str = "end_to_end") -> float:
    return float(results["parts"][part]["seconds"][name]["median"])


def _faster_than(results: Results, other: str) -> float:
    return _seconds(results, other) / _seconds(results, "served")


def _stage(results: Results, part: str, name: str) -> float:
    return float(results["parts"][part]["stages"][name]["median"])


def engine_seconds(results: Results, *, in_turn: bool = True) -> float:
    """What the engines alone take for the case's image: all steps, and what runs once.

    A step is what its engines take in turn, as in an image, where that was measured. Otherwise, or with
    `in_turn` False, it is the sum of each engine by itself, which on an H200 was 1 % less.
    """
    case, engines = results["case"], results["parts"]["engines"]
    steps = ["unet"]
    if case["control"] is not None:
        steps.append(controlnet_name(case["control"]))
    each = sum(_stage(results, "engines", name) for name in steps)
    if in_turn and "step" in engines:
        each = float(engines["step"]["median"])
    once = 0.0
    for name in engines["stages"]:
        if name not in steps and not name.endswith("without guidance"):
            once += _stage(results, "engines", name)
    return once + float(case["steps"]) * each


def outside_the_engines(results: Results, *, in_turn: bool = True) -> float:
    """Per cent of an image over gRPC that its engines leave."""
    return 100 * (1 - engine_seconds(results, in_turn=in_turn) / _seconds(results, "served"))


def _cfg_step(results: Results) -> float:
    """Seconds of intaglio's UNet and of a step's share of what is computed once an image.

    The UNet's graph holds guidance and solver.
    """
    context = results["parts"]["engines"]["stages"].get(context_name("unet"), {"median": 0.0})
    return _stage(results, "engines", "unet") + float(context["median"]) / float(results["case"]["steps"])


def _against_torch_step(results: Results) -> float:
    """Ratio of two loops that do the same work, one pass after another, to the faster of PyTorch's.

    The compiled UNet as timed within an image would be no match: it does less work, with pauses.
    """
    parts = results["parts"]
    return max(_cfg_step(results) / float(parts[name]["cfg_step"]["median"]) for name in _torch_peers(parts))


def _setting(results: Results, name: str) -> float:
    return _seconds(results, "matched", name)


def _every_second(results: Results) -> float:
    return _setting(results, "ControlNet every 2nd step") / _setting(results, "the case")


def _every_third(results: Results) -> float:
    return _setting(results, "ControlNet every 3rd step") / _setting(results, "the case")


def _matched(results: Results) -> float:
    return _setting(results, MATCHED)


def _slices(results: Results) -> float:
    return _seconds(results, "stream", SLICES) / _seconds(results, "stream", ONE_SLICE)


def _streaming(results: Results) -> float:
    return _seconds(results, "stream", SLICES) / _seconds(results, "stream", UNARY)


def _first_event(results: Results) -> float:
    return float(results["parts"]["stream"]["events"]["first event"]["median"])


def _beside_ballast(part: Results) -> bool:
    return bool(part["card_free_before_mib"]) and float(part["card_free_before_mib"]) <= _FREE_MIB


def _memory(results: Results) -> float:
    """GiB that the server of the first size, or that of all sizes, took at most.

    Counts only if they ran beside a ballast that left 15.5 GiB.
    """
    parts = results["parts"]
    servers = [parts["served"]]
    if "served_sizes" in parts:
        servers.append(parts["served_sizes"])
    if not all(map(_beside_ballast, servers)):
        raise KeyError("not beside a ballast")
    return max(float(one["card_peak_mib"]) for one in servers) / 1024


def _sizes(results: Results) -> float:
    """How many sizes were built beside the ballast and gave their images there."""
    parts = results["parts"]
    beside = all(_beside_ballast(parts[name]) for name in ("build_sizes", "served_sizes"))
    if not parts["build_sizes"]["complete"] or not beside:
        raise KeyError("not built, or not beside a ballast")
    return float(sum(one["n"] >= _IMAGES_OF_A_SIZE for one in parts["served_sizes"]["sizes"].values()))


def _build(results: Results) -> float:
    """Minutes from weights to the first image served."""
    build = results["parts"]["build"]
    if not build["complete"] or build["resumed"]:
        raise KeyError("cut short, or taken up again: not the time of a build")
    return (float(build["seconds"]) + _seconds(results, "served", "first start to first image")) / 60


def _restart(results: Results) -> float:
    return _seconds(results, "served", "restart to first image")


def _agreement(results: Results) -> float:
    return float(min(results["psnr"]["served"]))


def _soak_different(results: Results) -> float:
    return float(len(results["parts"]["soak"]["different_from_first"]))


def _soak_images(results: Results) -> float:
    return float(results["parts"]["soak"]["images"])


def _soak_card(results: Results) -> float | None:
    slope: float | None = results["parts"]["soak"]["card_slope_mib_per_100"]
    return slope


def _soak_host(results: Results) -> float:
    return float(results["parts"]["soak"]["host_slope_mib_per_100"])


def _faster_than_eager(results: Results) -> float:
    return _faster_than(results, "eager")


def _faster_than_torch(results: Results) -> float:
    """Against the faster of PyTorch's peers that the run measured; early runs had `compiled` only."""
    return min(_faster_than(results, name) for name in _torch_peers(results["parts"]))


def _torch_peers(parts: Results) -> list[str]:
    measured = [name for name in ("compiled", "strongest") if name in parts]
    if not measured:
        raise KeyError("compiled")
    return measured


FIGURES: Final = (
    Figure("over gRPC against diffusers eager", _faster_than_eager, 1.45, 2.0, "x", more_is_better=True),
    Figure("against the fastest PyTorch", _faster_than_torch, 1.0, 1.4, "x", more_is_better=True),
    Figure("time outside the engines", outside_the_engines, 4.0, 1.0, "%"),
    Figure("UNet CFG step against the fastest PyTorch's", _against_torch_step, 1.0, 0.8, "x"),
    Figure("card memory of the server, peak", _memory, 13.0, 10.0, "GiB"),
    Figure("build, from weights to the first image served", _build, 6.0, 3.0, "min"),
    Figure("sizes built and served in 15.5 GiB, ten images each", _sizes, 4.0, 4.0, "", more_is_better=True),
    Figure("restart to first image", _restart, 30.0, 12.0, "s"),
    Figure("agreement with eager, worst image", _agreement, 30.0, 40.0, "dB", more_is_better=True),
    Figure("soak: images unlike their first rendering", _soak_different, 0.0, 0.0, ""),
    Figure("soak: images", _soak_images, 300.0, 300.0, "", more_is_better=True),
    Figure("soak: growth of card memory", _soak_card, 4.0, 1.0, "MiB / 100"),
    Figure("soak: growth of host memory", _soak_host, 8.0, 2.0, "MiB / 100"),
)
"""What a run is held to; `missed` and `not measured` fail."""
MATCHED_FIGURES: Final = (
    Figure("ControlNet every 2nd step against every step", _every_second, 0.86, 0.84, "x"),
    Figure("ControlNet every 3rd step against every step", _every_third, 0.81, 0.79, "x"),
    Figure("15 steps of DPM++ 2M Karras, ControlNet every 2nd", _matched, 0.7, 0.65, "s"),
)
"""What a run is held to that has the part `matched`, which early runs do not have."""
STREAM_FIGURES: Final = (
    Figure("slices of 5 steps against one slice", _slices, 1.02, 1.01, "x"),
    Figure("streaming in slices of 5 steps against sdxl", _streaming, 1.03, 1.01, "x"),
    Figure("streaming: first event", _first_event, 0.15, 0.05, "s"),
)
"""What a run is held to that has the part `stream`, which early runs do not have."""


def figures_of(results: Results) -> tuple[Figure, ...]:
    """The figures that a run is held to."""
    later = {"matched": MATCHED_FIGURES, "stream": STREAM_FIGURES}
    found = FIGURES
    for part, figures_of_part in later.items():
        if part in results["parts"]:
            found += figures_of_part
    return found


def judge(results: Results) -> bool:
    """Whether every required figure was measured and reached, on a card."""
    return figures.judge(results, figures_of(results))


def main(
    results: Annotated[Path, typer.Argument(help="A file that `python -m benchmarks.speed.run` wrote.")],
) -> None:
    """Print the table; ends with 1 where a required figure is missed or was not measured."""
    found = read_json(results)
    console = Console(highlight=False, width=figures.WIDTH)
    show_figures(console, found, figure_rows(found, figures_of(found), digits=DIGITS))
    raise typer.Exit(0 if judge(found) else 1)


if __name__ == "__main__":
    typer.run(main)
