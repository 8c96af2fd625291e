"""The table that decides: what reaches it, what misses it, what was not measured."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.measuring.results import read_json
from benchmarks.speed.report import FIGURES, chart_of, engine_seconds, judge, main, markdown_of

RESULTS = Path(__file__).parents[3] / "benchmarks/results/h200.json"


def taken(seconds: float) -> dict[str, float]:
    return {"median": seconds, "low": seconds, "high": seconds, "n": 5}


def good() -> dict[str, Any]:
    """Everything just as required or better."""
    stages = {
        "text_encoder": taken(0.001),
        "text_encoder_2": taken(0.004),
        "unet": taken(0.030),
        "vae_decoder": taken(0.025),
    }
    return {
        "schema": 1,
        "stand_in": None,
        "machine": {
            "card": {"name": "Test Card", "driver": "1.2"}, "processor": "x", "cores": 4, "commit": "0123456789abcdef", "changed": False,
            "versions": {"torch": "2"},
        },
        "case": {"width": 1024, "height": 1024, "steps": 30, "control": "pose"},
        "parts": {
            "build": {"complete": True, "resumed": False, "seconds": 200.0},
            "eager": {"seconds": {"end_to_end": taken(2.4)}, "stages": {**stages, "unet": taken(0.047), "controlnet": taken(0.023)}},
            "compiled": {
                "seconds": {"end_to_end": taken(1.7)},
                "stages": {**stages, "unet": taken(0.033), "controlnet": taken(0.017), "step": taken(0.051)},
                "cfg_step": taken(0.034),
            },
            "engines": {
                "seconds": {"end_to_end": taken(1.4)}, "stages": {
                    **stages, "controlnet.pose": taken(0.015), "unet_context": taken(0.0006), "controlnet_context.pose": taken(0.0008),
                    "unet without guidance": taken(0.018),
                },
                "step": taken(0.045),
                "options": {"guidance off after half": taken(1.1)},
            },
            "served": {
                "seconds": {
                    "end_to_end": taken(1.42), "denoise": taken(1.41),
                    "first start to first image": taken(30.0), "restart to first image": taken(14.0),
                },
                "card_peak_mib": 12 * 1024,
                "card_free_before_mib": int(15.5 * 1024),
            },
            "build_sizes": {"complete": True, "resumed": True, "seconds": 500.0, "card_free_before_mib": int(15.5 * 1024)},
            "served_sizes": {
                "card_peak_mib": 12 * 1024 + 512, "card_free_before_mib": int(15.5 * 1024),
                "sizes": {name: taken(1.5) | {"n": 10} for name in ("1024x1024", "768x1280", "1280x768", "1280x720")},
            },
            "variants": {"variants": {"sdpa": {"pass": taken(0.034), "error": 0.0}, "query": {"pass": taken(0.033), "error": 0.002}}},
            "soak": {
                "images": 300, "different_from_first": [], "card_slope_mib_per_100": 0.0, "host_slope_mib_per_100": 0.1,
            },
        },
        "psnr": {"served": [41.0, 36.0], "engines": [41.0, 36.0]},
    }  # fmt: skip


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    results = copy.deepcopy(good())
    change(results["parts"])
    return results


def verdicts(results: dict[str, Any]) -> dict[str, str]:
    return {figure.name: figure.verdict(results) for figure in FIGURES}


def test_reached_and_required() -> None:
    found = verdicts(good())
    assert found["over gRPC against diffusers eager"] == "required"
    assert found["time outside the engines"] == "required"
    assert found["UNet CFG step against torch.compile's"] == "required"
    assert found["build, from weights to the first image served"] == "required"
    assert found["agreement with eager, worst image"] == "required"
    assert found["soak: images"] == "reached"
    assert judge(good())


def test_the_engines_share_is_their_sum() -> None:
    assert engine_seconds(good()) == pytest.approx(
        0.001 + 0.004 + 0.025 + 0.0006 + 0.0008 + 30 * (0.030 + 0.015)
    )
    slower = changed(lambda parts: parts["engines"].update(step=taken(0.046)))
    assert engine_seconds(slower) == pytest.approx(engine_seconds(good()) + 30 * 0.001), "as in an image"
    assert engine_seconds(slower, in_turn=False) == engine_seconds(good())
    without = good()
    del without["parts"]["engines"]["step"]
    without["case"]["control"] = None
    del (
        without["parts"]["engines"]["stages"]["controlnet.pose"],
        without["parts"]["engines"]["stages"]["controlnet_context.pose"],
    )
    assert engine_seconds(without) == pytest.approx(0.030 + 0.0006 + 30 * 0.030)


SLOW = taken(1.9)
NOT_MEASURED_WORDS = "not measured"
SIZES = "sizes built and served in 15.5 GiB, ten images each"
MISSES: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "slower than compiled": (
        "against diffusers + torch.compile",
        lambda p: p["served"]["seconds"].update(end_to_end=SLOW),
    ),
    "gaps": ("time outside the engines", lambda p: p["served"]["seconds"].update(end_to_end=taken(1.6))),
    "slow step": (
        "UNet CFG step against torch.compile's",
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
    "a short soak": ("soak: images", lambda p: p["soak"].update(images=299)),
}


@pytest.mark.parametrize("case", MISSES)
def test_a_missed_figure_fails(case: str) -> None:
    name, change = MISSES[case]
    results = changed(change)
    assert verdicts(results)[name] == "missed"
    assert not judge(results)


NOT_MEASURED: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "no step of compiled": ("UNet CFG step against torch.compile's", lambda p: p["compiled"].pop("cfg_step")),
    "no compiled": ("against diffusers + torch.compile", lambda p: p.pop("compiled")),
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
    results = changed(change)
    assert verdicts(results)[name] == "not measured"
    assert not judge(results)


@pytest.mark.parametrize("change", [
    lambda p: p.update(served={"failed": "exit 1"}),
    lambda p: p["engines"]["stages"].pop("unet"),
    lambda p: p.update(engines={"failed": "exit 1"}),
    lambda p: p.pop("build_sizes"),
    lambda p: p.update(build_sizes={"failed": "exit 1"}),
    lambda p: p.update(served_sizes={"failed": "exit 1"}),
])  # fmt: skip
def test_a_part_that_failed_still_gives_a_page(change: Callable[[dict[str, Any]], object]) -> None:
    """It is written after every part: an error there would end the run."""
    results = changed(change)
    assert NOT_MEASURED_WORDS in markdown_of(results)
    assert chart_of(results)
    assert not judge(results)


def test_nothing_without_a_card_is_a_result() -> None:
    assert not judge(good() | {"stand_in": "for debugging"})


@pytest.mark.parametrize(("change", "code"), [(lambda parts: None, 0), (lambda parts: parts.pop("soak"), 1)])
def test_the_command_ends_as_judged(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], code: int
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(changed(change)))
    app = typer.Typer()
    app.command()(main)
    shown = CliRunner().invoke(app, [str(path)])
    assert shown.exit_code == code
    assert all(figure.name in shown.output for figure in FIGURES)


def test_the_page_and_the_chart() -> None:
    page = markdown_of(good())
    for words in (
        "Test Card",
        "Driver 1.2",
        "0123456789ab",
        "| over gRPC against diffusers eager | >= 1.45 x | 2 x | 1.69 x |",
        "1.420",
    ):
        assert words in page
    assert "| unet | 47.00 | 33.00 | 30.00 |" in page
    assert "| CFG step alone, one after another |  | 34.00 | 30.00 |" in page
    assert "| engines of a step in turn |  |  | 45.00 |" in page
    assert "| whole step in an image |  | 51.00 | 47.00 |" in page
    assert "| controlnet | 23.00 | 17.00 | 15.00 |" in page
    assert "| 1280x720 | 1.500 | 1.500 to 1.500 (n=10) |" in page
    assert "| guidance off after half | 1.100 |" in page
    assert "| query | 33.00 | 0.002 |" in page
    chart = chart_of(good())
    assert chart.count("<rect") == 4
    assert 'width="400.0"' in chart, "the longest bar"
    partial = good()
    partial["parts"] = {"eager": partial["parts"]["eager"]}
    assert chart_of(partial).count("<rect") == 1
    assert "not measured" in markdown_of(partial)


def test_the_committed_run_reaches_what_is_required() -> None:
    results = read_json(RESULTS)
    assert judge(results)
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == markdown_of(results)
    assert RESULTS.with_suffix(".svg").read_text(encoding="utf-8") == chart_of(results)
