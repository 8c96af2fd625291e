"""The figures that decide: what reaches them, what misses them, what was not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.measuring.figures import Figure
from benchmarks.measuring.results import ROOT, read_json
from benchmarks.speed.report import (
    CONTROLS_FIGURES,
    MATCHED_FIGURES,
    STREAM_FIGURES,
    engine_seconds,
    figures_of,
    judge,
    main,
)
from benchmarks.speed.settings import MATCHED, ONE_SLICE, UNARY

from .runs import Change, changed_results, good_results, taken


def verdicts(results: dict[str, Any]) -> dict[str, str]:
    return {figure.name: figure.verdict(results) for figure in figures_of(results)}


def test_reached_and_required() -> None:
    found = verdicts(good_results())
    assert found["over gRPC against diffusers eager"] == "required"
    assert found["time outside the engines"] == "required"
    assert found["UNet CFG step against the fastest PyTorch's"] == "required"
    assert found["build, from weights to the first image served"] == "required"
    assert found["agreement with eager, worst image"] == "required"
    assert found["soak: images"] == "reached"
    assert judge(good_results())


def test_the_engines_share_is_their_sum() -> None:
    once = 0.001 + 0.004 + 0.025 + 0.0006 + 0.0008
    assert engine_seconds(good_results()) == pytest.approx(once + 30 * (0.030 + 0.015))
    slower = changed_results(lambda parts: parts["engines"].update(step=taken(0.046)))
    assert engine_seconds(slower) == pytest.approx(once + 30 * 0.046), "as in an image"
    assert engine_seconds(slower, in_turn=False) == engine_seconds(good_results())
    without = good_results()
    del without["parts"]["engines"]["step"]
    without["case"]["control"] = None
    for name in ("controlnet.pose", "controlnet_context.pose"):
        del without["parts"]["engines"]["stages"][name]
    assert engine_seconds(without) == pytest.approx(0.030 + 0.0006 + 30 * 0.030)


SLOW = taken(1.9)
SIZES = "sizes built and served in 15.5 GiB, ten images each"
MISSES: dict[str, tuple[str, Change]] = {
    "slower than compiled": (
        "against the fastest PyTorch",
        lambda p: p["served"]["seconds"].update(end_to_end=SLOW),
    ),
    "gaps": ("time outside the engines", lambda p: p["served"]["seconds"].update(end_to_end=taken(1.6))),
    "slow step": (
        "UNet CFG step against the fastest PyTorch's",
        lambda p: p["engines"]["stages"].update(unet=taken(0.035)),
    ),
    "too much memory": (
        "card memory of the server, peak",
        lambda p: p["served"].update(card_peak_mib=13 * 1024 + 1),
    ),
    "too much memory for all sizes": (
        "card memory of the server, peak",
        lambda p: p["served_sizes"].update(card_peak_mib=13 * 1024 + 1),
    ),
    "a size with too few images": (
        SIZES,
        lambda p: p["served_sizes"]["sizes"].update({"768x1280": taken(1.5)}),
    ),
    "long build": ("build, from weights to the first image served", lambda p: p["build"].update(seconds=340)),
    "another image": (
        "soak: images unlike their first rendering",
        lambda p: p["soak"].update(different_from_first=["x"]),
    ),
    "a leak": ("soak: growth of card memory", lambda p: p["soak"].update(card_slope_mib_per_100=20.0)),
    "a ControlNet that runs anyway": (
        "ControlNet every 2nd step against every step",
        lambda p: p["matched"]["seconds"].update({"ControlNet every 2nd step": taken(1.5)}),
    ),
    "slow at matched quality": (
        "15 steps of DPM++ 2M Karras, ControlNet every 2nd",
        lambda p: p["matched"]["seconds"].update({MATCHED: taken(0.71)}),
    ),
    "a ControlNet that costs more than its engine": (
        "a further ControlNet against its engine",
        lambda p: p["controls"]["seconds"].update({"denoise, 2 ControlNets": taken(1.96)}),
    ),
    "a slow swap": (
        "swap between two ControlNets",
        lambda p: p["controls"]["seconds"].update({"with a swap": taken(2.46)}),
    ),
    "ControlNets that take too much memory": (
        "five ControlNets: card memory of the server, peak",
        lambda p: p["controls"].update(card_peak_mib=15.6 * 1024),
    ),
    "a swap that changes a picture": (
        "five ControlNets: pictures unlike after swaps",
        lambda p: p["controls"].update(different=1),
    ),
    "slices that cost": (
        "slices of 5 steps against one slice",
        lambda p: p["stream"]["seconds"].update({ONE_SLICE: taken(1.39)}),
    ),
    "events that cost": (
        "streaming in slices of 5 steps against sdxl",
        lambda p: p["stream"]["seconds"].update({UNARY: taken(1.38)}),
    ),
    "a late event": (
        "streaming: first event",
        lambda p: p["stream"]["events"].update({"first event": taken(0.2)}),
    ),
    "a short soak": ("soak: images", lambda p: p["soak"].update(images=299)),
}


@pytest.mark.parametrize("case", MISSES)
def test_a_missed_figure_fails(case: str) -> None:
    name, change = MISSES[case]
    results = changed_results(change)
    assert verdicts(results)[name] == "missed"
    assert not judge(results)


def test_the_faster_of_the_peers_counts() -> None:
    """A run that measured both is held to the faster one, whichever it is."""
    name = "against the fastest PyTorch"
    strongest = {"seconds": {"end_to_end": taken(1.2)}, "cfg_step": taken(0.029)}
    results = changed_results(lambda p: p.update(strongest=strongest))
    assert verdicts(results)[name] == "missed"
    assert verdicts(results)["UNet CFG step against the fastest PyTorch's"] == "missed"
    strongest["seconds"] = {"end_to_end": taken(9.0)}
    assert verdicts(changed_results(lambda p: p.update(strongest=strongest)))[name] != "missed"


@pytest.mark.parametrize(
    ("part", "figures"),
    [("matched", MATCHED_FIGURES), ("controls", CONTROLS_FIGURES), ("stream", STREAM_FIGURES)],
)
def test_a_run_without_the_part_is_not_held_to_its_figures(part: str, figures: tuple[Figure, ...]) -> None:
    early = changed_results(lambda p: p.pop(part))
    assert set(verdicts(good_results())) - set(verdicts(early)) == {figure.name for figure in figures}
    assert judge(early)


NOT_MEASURED: dict[str, tuple[str, Change]] = {
    "no step of compiled": (
        "UNet CFG step against the fastest PyTorch's",
        lambda p: p["compiled"].pop("cfg_step"),
    ),
    "ControlNets without ballast": (
        "five ControlNets: card memory of the server, peak",
        lambda p: p["controls"].update(card_free_before_mib=140_000),
    ),
    "ControlNets cut short": (
        "a further ControlNet against its engine",
        lambda p: p["controls"].update(seconds={"0 ControlNets": taken(1.0)}),
    ),
    "no compiled": ("against the fastest PyTorch", lambda p: p.pop("compiled")),
    "without ballast": (
        "card memory of the server, peak",
        lambda p: p["served"].update(card_free_before_mib=140_000),
    ),
    "all sizes without ballast": (SIZES, lambda p: p["served_sizes"].update(card_free_before_mib=140_000)),
    "build of all sizes cut short": (SIZES, lambda p: p["build_sizes"].update(complete=False)),
    "no card": ("card memory of the server, peak", lambda p: p["served"].update(card_free_before_mib=None)),
    "build resumed": (
        "build, from weights to the first image served",
        lambda p: p["build"].update(resumed=True),
    ),
    "build cut short": (
        "build, from weights to the first image served",
        lambda p: p["build"].update(complete=False),
    ),
}


@pytest.mark.parametrize("case", NOT_MEASURED)
def test_what_was_not_measured_fails(case: str) -> None:
    name, change = NOT_MEASURED[case]
    results = changed_results(change)
    assert verdicts(results)[name] == "not measured"
    assert not judge(results)


def test_nothing_without_a_card_is_a_result() -> None:
    assert not judge(good_results() | {"stand_in": "for debugging"})


@pytest.mark.parametrize(("change", "code"), [(lambda parts: None, 0), (lambda parts: parts.pop("soak"), 1)])
def test_the_command_ends_as_judged(tmp_path: Path, change: Change, code: int) -> None:
    path = tmp_path / "results.json"
    results = changed_results(change)
    path.write_text(json.dumps(results))
    app = typer.Typer()
    app.command()(main)
    shown = CliRunner().invoke(app, [str(path)])
    assert shown.exit_code == code
    assert all(figure.name in shown.output for figure in figures_of(results))


def test_a_committed_run_of_every_part_reaches_what_is_required() -> None:
    assert judge(read_json(ROOT / "benchmarks/results/h200_third.json"))
